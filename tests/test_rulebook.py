"""The catalogue of rules: as text, as JSON, and as the page that must not drift."""

import json
import os
import re
from pathlib import Path

import pytest

from agent import offline, rulebook
from agent.policy import CATALOGUE

PAGE = Path(__file__).parent.parent / "docs" / "rules.md"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"


def test_the_page_of_rules_says_what_the_rules_say():
    if UPDATE:
        PAGE.write_text(rulebook.markdown(), encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == rulebook.markdown()


def test_every_rule_has_its_section_on_the_page_and_a_link_to_it():
    page = rulebook.markdown()

    assert sorted(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == sorted(CATALOGUE)
    assert sorted(re.findall(r"\]\(#(\w+)\)", page)) == sorted(CATALOGUE)


def test_a_section_holds_meaning_severity_remedy_and_reference():
    page = rulebook.markdown()
    section = page.partition("### `expired`")[2].partition("\n### ")[0]

    assert "**critical** · client and server" in section
    assert "A certificate of a chain is past its notAfter." in section
    assert "- Remedy: Renew the certificate" in section
    assert "- On the server's side: Tell the server's owner" in section
    assert "- Reference: RFC 5280 §6.1.3 (a)(2)" in section


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("expired", "client and server"),
        ("shared_public_root", "client with server"),
        ("eku_no_client_auth", "client"),
        ("key_missing", "client"),
        ("server_eku", "server"),
        ("endpoint_port", "org"),
    ],
)
def test_a_rule_says_whose_certificates_it_is_about(name, whose):
    assert rulebook.about(CATALOGUE[name]) == whose


def test_all_rules_are_printed_with_their_remedies(capsys):
    assert offline.rules(None, as_json=False) == 0

    out = capsys.readouterr().out
    for rule in CATALOGUE.values():
        assert re.search(rf"^{rule.name}  {rule.severity}  ", out, re.MULTILINE), rule.name
        assert rule.remedy.split()[0] in out
    assert out.count("→ ") >= len(CATALOGUE)


def test_one_rule_is_printed_alone(capsys):
    assert offline.rules("eku_dual", as_json=False) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "eku_dual  critical  client"
    assert lines[1].strip().startswith("The client's certificate is for clients and servers both.")
    assert lines[2].strip().startswith("→ Get a client certificate with clientAuth alone")


def test_an_unknown_rule_is_a_failure_and_says_how_to_find_the_others(capsys):
    assert offline.rules("eku_daul", as_json=False) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "there is no rule 'eku_daul'; `sfmtls-agent rules` lists them\n"


def test_the_json_has_one_row_for_each_rule(capsys):
    assert offline.rules(None, as_json=True) == 0

    rows = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in rows] == sorted(CATALOGUE)
    assert set(rows[0]) == {
        "rule",
        "severity",
        "about",
        "meaning",
        "remedy",
        "server_remedy",
        "reference",
        "needs",
        "silent_when",
    }
    assert all(row["meaning"] and row["remedy"] and "\n" not in row["meaning"] for row in rows)
