"""Every numbered situation has a test of its number, or a reason why it has none."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK_AND_SERVER = """
    Y003 Y004 Y007 Y008 Y009 Y010 Y011 Y012 Y013 Y014 Y017 Y018 Y019 Y020 Y021
    Y025 Y026 Y029 Y030 Y031 Y032 Y034 Y035 Y036 Y037
    Y040 Y041 Y042 Y043 Y045 Y046 Y047 Y050 Y053 Y054 Y056 Y058 Y059 Y060 Y061
"""
CLIENT_CERTIFICATE = """
    Y062 Y063 Y064 Y065 Y067 Y068 Y069 Y070 Y071 Y073 Y074 Y075 Y077 Y080 Y081 Y083 Y085 Y086 Y087
    Y088 Y089 Y091 Y092 Y093 Y094 Y098 Y101 Y102 Y105 Y106
"""
LOGIN = """
    Y115 Y116 Y118 Y119 Y120 Y121 Y125 Y126 Y127 Y128 Y130 Y132 Y133 Y134 Y135 Y136 Y137 Y139 Y141
"""
ENDPOINT = """
    Y163 Y164 Y166 Y168 Y169
"""
ROWS = frozenset((NETWORK_AND_SERVER + CLIENT_CERTIFICATE + LOGIN + ENDPOINT).split())

# The rows that have no test, with the reason.
EXCLUDED: dict[str, str] = {}

TEST = re.compile(r"^(?:async )?def test_(y\d{3})_\w+\(", re.MULTILINE)


def numbers_in_names():
    """Return the numbers that a test of this folder has in its name."""
    files = Path(__file__).parent.glob("test_*.py")
    return {found.upper() for file in files for found in TEST.findall(file.read_text())}


def test_the_list_has_as_many_rows_as_it_should():
    assert len(ROWS) == 40 + 30 + 19 + 5


def test_every_row_has_a_test_of_its_number_or_a_reason_for_having_none():
    missing = sorted(ROWS - numbers_in_names() - EXCLUDED.keys())

    assert missing == [], EXCLUDED


def test_what_is_excluded_is_a_row_without_a_test_and_has_a_reason():
    for row, reason in EXCLUDED.items():
        assert row in ROWS
        assert row not in numbers_in_names(), reason
        assert reason
