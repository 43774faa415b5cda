"""A configuration that is read again: what did not change stays, and it is right as ever."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from agent.config import ConfigError, Kept, load

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
APAC = '[orgs.apac]\nhost = "apac.my.salesforce.com"\ncertificate = "apac.pem"\n'
MAIN = f"""\
include = ["more/*.toml"]
[agent]
interval = "60s"
[defaults]
labels = {{ team = "crm" }}
[orgs.emea]
host = "emea.my.salesforce.com"
certificate = "emea.pem"
username = "ada@example.com"
password = {{ env = "EMEA_PASSWORD" }}
{APAC}[orgs.trusting]
host = "trusting.my.salesforce.com"
certificate = "trusting.pem"
trust = {{ file = "root.pem" }}
"""
MORE = '[orgs.latam]\nhost = "latam.my.salesforce.com"\ncertificate = "latam.pem"\n'


class Folder:
    """A configuration in two files; reads it with what was kept, and as if for the first time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.main, self.more = path / "config.toml", path / "more" / "latam.toml"
        self.more.parent.mkdir()
        self.main.write_text(MAIN)
        self.more.write_text(MORE)
        (path / "root.pem").write_text(PEM)
        self.kept = Kept()

    def again(self):
        return self._outcome(self.kept)

    def afresh(self):
        return self._outcome(None)

    def _outcome(self, kept):
        try:
            return load(self.main, {}, kept)
        except ConfigError as error:
            return str(error)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def replaced(file, old, new):
    """Return an edit of one of the folder's files."""

    def edit(folder):
        path = getattr(folder, file)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


in_main, in_more = partial(replaced, "main"), partial(replaced, "more")


def moved(folder):
    """Put the org of the second file, as it is, into the first."""
    folder.main.write_text(MAIN + MORE)
    folder.more.write_text("# nothing any more\n")


def without_trust_file(folder):
    (folder.path / "root.pem").unlink()


ALL = {"emea", "apac", "latam"}
EDITS = {
    "nothing": (lambda _: None, ALL),
    "a comment": (in_main("[agent]", "# ours\n[agent]"), ALL),
    "an org": (in_main("apac.my", "apac2.my"), ALL - {"apac"}),
    "an org in another file": (in_more("latam.my", "latam2.my"), ALL - {"latam"}),
    "another org": (in_main("[orgs.apac]", f"{MORE.replace('latam', 'mea')}[orgs.apac]"), ALL),
    "one less": (in_main(APAC, ""), ALL - {"apac"}),
    "another name": (in_main("[orgs.apac]", "[orgs.anz]"), ALL - {"apac"}),
    # A path is relative to the file that mentions it.
    "its place": (moved, ALL - {"latam"}),
    "the defaults": (in_main("crm", "sales"), set()),
    "the interval of all": (in_main('"60s"', '"90s"'), set()),
}


@pytest.mark.parametrize(("edit", "same"), EDITS.values(), ids=EDITS)
def test_orgs_that_are_as_before_are_the_same_and_all_is_as_if_read_for_the_first_time(
    folder, edit, same
):
    first = folder.again()
    edit(folder)
    second = folder.again()

    assert second == folder.afresh()
    assert {name for name in second.orgs if second.orgs[name] is first.orgs.get(name)} == same


WRONG = {
    "a key": in_main("apac.pem", 'apac.pem"\nhots = "'),
    "a value": in_more("latam.my.salesforce.com", "https://latam"),
    "an org twice": in_more("latam", "emea"),
    "no org needs it": in_main("[defaults]", '[defaults]\nsoql = "SELECT Id FROM User"'),
    "two keys that do not fit": in_main('"60s"', '"60s"\nlogin_interval = "1s"'),
    "a file that was there": without_trust_file,
    "no TOML": in_main("[orgs.apac]", "[orgs.apac"),
    "what nests too deep": in_main("[agent]", f"[agent]\n{'a.' * 5000}a = 1"),
    "an org that nests too deep": in_main('apac.pem"', f'apac.pem"\n{"a." * 5000}a = 1'),
    "no table": in_main("[orgs.emea]", "orgs = 1\n[orgss.emea]"),
    "no table of an org": in_main("[orgs.apac]", "[orgs]\nlast = 1\n[orgs.apac]"),
}


@pytest.mark.parametrize("edit", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_as_if_read_for_the_first_time_and_what_was_kept_stays(folder, edit):
    first = folder.again()
    before = folder.main.read_text(), folder.more.read_text()
    edit(folder)
    told = folder.again()
    expected = folder.afresh()
    folder.main.write_text(before[0])
    folder.more.write_text(before[1])
    (folder.path / "root.pem").write_text(PEM)
    healed = folder.again()

    assert told == expected
    assert isinstance(told, str)
    assert {name for name in ALL if healed.orgs[name] is first.orgs[name]} == ALL
    assert healed == first
