"""What was remembered is lost, in every way we know: no breaker closes by it, nor by a repair."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.breaker import Denied, Limits
from agent.reason import Reason
from agent.result import SkipCause
from agent.store import (
    FILE_NAME,
    KNOWN_NAME,
    UNUSED_DAYS,
    LostError,
    Permit,
    Store,
    StoreError,
    file,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LIMITS = Limits(logins_per_hour=30)
HERE = "acme.my.salesforce.com 64.0"
ADA, BOB = "ada@example.com", "bob@example.com"
RESTS = Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)


class Directory:
    """A state directory, whose store is opened as the daemon opens it."""

    def __init__(self, path):
        self.path = path
        self.file = path / FILE_NAME
        self._opened = []

    def open(self, at=NOON, known=0):
        store = Store.open_or_begin_anew(self.file, at, HOUR, known)
        self._opened.append(store)
        return store

    def used(self):
        """Let two users log in, one of them with a wrong password, and end well."""
        store = self.open(NOON - DAY)
        log_in(store, ADA, "wrong", NOON - DAY, Reason.INVALID_LOGIN)
        log_in(store, BOB, "right", NOON - DAY, None)
        store.close()
        return self

    def as_after_a_kill(self, path):
        """Return a copy of the files while they are in use."""
        # What is known first: it may be behind and must not be ahead.
        path.mkdir()
        for name in (KNOWN_NAME, f"{FILE_NAME}-wal", FILE_NAME):
            shutil.copy(self.path / name, path / name)
        return Directory(path)

    def set_aside(self):
        found = self.path.glob(f"{FILE_NAME}.corrupt-*")
        return sorted(path.name for path in found if path.name.endswith("Z"))

    def close(self):
        for store in self._opened:
            store.close()


@pytest.fixture
def directory(tmp_path):
    directory = Directory(tmp_path / "state")
    yield directory
    directory.close()


def ask(store, user, digest, now):
    return store.admit(user, digest, HERE, now, limits=LIMITS, lease=MINUTE)


def log_in(store, user, digest, now, failure):
    permit = ask(store, user, digest, now)
    assert isinstance(permit, Permit), permit
    store.finish(permit, now, failure)


def everybody_rests(store, now=NOON):
    return [ask(store, *who, now) for who in [(ADA, "a"), (BOB, "right"), ("eve@new", "e")]]


# --- ways to lose it


def with_garbage(file):
    file.write_bytes(b"this is no database" * 500)


def cut_in_two(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_to_its_header(file):
    file.write_bytes(file.read_bytes()[:100])


def emptied(file):
    file.write_bytes(b"")


def with_a_page_overwritten(file):
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    file.write_bytes(content)


def statement(text):
    def change(file):
        with sqlite3.connect(file) as other:
            other.execute(text)
        other.close()

    return change


DAMAGES = {
    "garbage": (with_garbage, "damaged"),
    "cut in two": (cut_in_two, "damaged"),
    "cut to its header": (cut_to_its_header, "damaged"),
    "empty": (emptied, "damaged: it is empty"),
    "a page overwritten": (with_a_page_overwritten, "damaged"),
    "without a table": (statement("DROP TABLE login_refusal"), "login_refusal is not as it was"),
    "without its key": (statement("DELETE FROM secret_key"), "damaged"),
    "text for a moment": (statement("UPDATE login_attempt SET at = 'soon'"), "cannot be read"),
    "a moment after all time": (
        statement("UPDATE login_refusal SET at = 9223372036854775807"),
        "cannot be read",
    ),
    "of version 0": (statement("PRAGMA user_version = 0"), "another program"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_set_aside_and_everybody_rests(directory, damage, why):
    damage(directory.used().file)
    damaged = directory.file.read_bytes()
    with pytest.raises(LostError, match=why):
        Store.open(directory.file)

    store = directory.open()

    assert why in store.loss.why
    assert directory.set_aside() == [store.loss.set_aside]
    assert (directory.path / store.loss.set_aside).read_bytes() == damaged
    assert everybody_rests(store) == [RESTS, RESTS, RESTS]
    assert store.login_state(BOB).opened_by is Reason.STATE_LOST


def test_what_is_not_damaged_is_no_loss_and_nobody_rests_but_who_did_before(directory):
    store = directory.used().open()

    assert (store.loss, directory.set_aside()) == (None, [])
    assert isinstance(ask(store, BOB, "right", NOON), Permit)
    assert store.login_state(ADA).opened_by is Reason.INVALID_LOGIN
    assert isinstance(ask(store, "eve@new", "e", NOON), Permit)


def test_a_file_that_is_gone_is_a_loss(directory):
    directory.used().file.unlink()
    store = directory.open()

    assert (store.loss.why.endswith("it is gone"), store.loss.set_aside) == (True, None)
    assert everybody_rests(store) == [RESTS, RESTS, RESTS]


def test_a_file_that_was_opened_and_never_used_is_missed_too(directory):
    directory.open().close()
    directory.file.unlink()

    assert "gone" in directory.open().loss.why


def test_what_was_never_there_is_no_loss(directory):
    store = directory.open()

    assert store.loss is None
    assert isinstance(ask(store, ADA, "a", NOON), Permit)


def test_an_older_copy_is_a_loss_that_keeps_what_is_in_it(directory, tmp_path):
    shutil.copy(directory.used().file, tmp_path / "copy")
    store = directory.open(NOON - HOUR)
    log_in(store, BOB, "changed", NOON - HOUR, Reason.INVALID_LOGIN)
    store.close()
    shutil.copy(tmp_path / "copy", directory.file)
    with pytest.raises(LostError, match="older copy"):
        Store.open(directory.file)
    store = directory.open()

    assert "older copy" in store.loss.why
    assert everybody_rests(store) == [RESTS, RESTS, RESTS]
    assert {refusal.by for refusal in store.login_state(ADA).refusals} == {
        Reason.INVALID_LOGIN,
        Reason.STATE_LOST,
    }


def test_the_newest_copy_is_no_loss(directory, tmp_path):
    shutil.copy(directory.used().file, tmp_path / "copy")
    directory.file.unlink()
    shutil.copy(tmp_path / "copy", directory.file)

    assert directory.open().loss is None


def test_an_older_copy_of_the_whole_directory_is_seen_by_who_used_the_newer_one(
    directory, tmp_path
):
    shutil.copytree(directory.used().path, tmp_path / "copy")
    store = directory.open(NOON - HOUR)
    known = store.writes
    store.close()
    shutil.rmtree(directory.path)
    shutil.copytree(tmp_path / "copy", directory.path)

    assert "older copy" in directory.open(known=known).loss.why


@pytest.mark.parametrize("wal", [False, True])
def test_after_a_kill_what_is_in_the_wal_file_is_missed_if_it_is_deleted(directory, tmp_path, wal):
    store = directory.used().open(NOON - HOUR)
    log_in(store, BOB, "changed", NOON - HOUR, Reason.INVALID_LOGIN)
    killed = directory.as_after_a_kill(tmp_path / "killed")
    if not wal:
        (killed.path / f"{FILE_NAME}-wal").unlink()
    store = killed.open()

    assert (store.loss is None) is wal
    if wal:
        assert store.login_state(BOB).opened_by is Reason.INVALID_LOGIN
        assert isinstance(ask(store, "eve@new", "e", NOON), Permit)
    else:
        assert "older copy" in store.loss.why
        assert everybody_rests(store) == [RESTS, RESTS, RESTS]
    killed.close()


@pytest.mark.parametrize("content", [b"", b"nobody knows\n", b"-5\n", b"\xff\x00"])
def test_a_number_that_cannot_be_read_is_no_first_start(directory, content):
    directory.used()
    (directory.path / KNOWN_NAME).write_bytes(content)
    first = directory.open()
    first.close()
    (directory.path / KNOWN_NAME).write_bytes(content)
    directory.file.unlink()
    second = directory.open()

    assert first.loss is None, "nothing is lost but the number"
    assert "gone" in second.loss.why


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_takes_its_place_while_it_is_opened_does_not_pass_for_it(
    directory, tmp_path, replaced
):
    shutil.copy(directory.used().file, tmp_path / "copy")

    def meanwhile(_connection):
        if replaced:
            (tmp_path / "copy").replace(directory.file)

    store = Store(directory.file, file.open_file(directory.file, meanwhile))
    if replaced:
        with pytest.raises(StoreError, match="replaced by another file"):
            ask(store, BOB, "right", NOON)
    else:
        assert isinstance(ask(store, BOB, "right", NOON), Permit)
    store.close()


# --- after a loss


def lost(directory):
    with_garbage(directory.used().file)
    return directory.open()


def test_a_loss_is_remembered_across_a_restart_and_is_told_once(directory):
    lost(directory).close()
    store = directory.open(NOON + MINUTE)

    assert store.loss is None
    assert everybody_rests(store, NOON + MINUTE) == [RESTS, RESTS, RESTS]


def test_after_the_hold_each_secret_is_tried_once_until_one_succeeds(directory):
    store = lost(directory)
    later = NOON + HOUR
    log_in(store, ADA, "wrong", later, Reason.INVALID_LOGIN)
    again = ask(store, ADA, "wrong", later + MINUTE)
    log_in(store, ADA, "right", later + 2 * MINUTE, None)
    log_in(store, ADA, "right", later + 3 * MINUTE, None)

    assert again == Denied(SkipCause.BREAKER_OPEN, later + 2 * HOUR)
    assert store.login_state(BOB).opened_by is Reason.STATE_LOST, "it is another user"


def test_a_reset_lets_one_user_through_at_once_and_no_other(directory):
    store = lost(directory)
    store.reset(ADA, NOON)

    assert isinstance(ask(store, ADA, "a", NOON), Permit)
    assert ask(store, BOB, "right", NOON) == RESTS


def test_an_attempt_from_before_the_loss_ends_without_touching_what_came_after(directory):
    before = directory.open(NOON - MINUTE)
    permit = ask(before, ADA, "a", NOON - MINUTE)
    before.close()
    with_garbage(directory.file)
    store = directory.open()
    store.finish(permit, NOON, None)

    assert ask(store, ADA, "a", NOON) == RESTS
    store.reset(ADA, NOON)
    assert ask(store, ADA, "a", NOON).attempt.id > permit.attempt.id


def test_who_is_not_seen_for_ninety_days_after_a_loss_begins_anew(directory):
    store = lost(directory)
    for day in range(UNUSED_DAYS - 1):
        store.tidy([], [], NOON + day * DAY)
    before = store.login_state("eve@new").opened_by
    store.tidy([], [], NOON + UNUSED_DAYS * DAY)

    assert (before, store.login_state("eve@new").opened_by) == (Reason.STATE_LOST, None)


def test_three_files_that_were_set_aside_are_kept(directory):
    directory.used()
    names = []
    for number in range(5):
        with_garbage(directory.file)
        store = directory.open(NOON + number * MINUTE)
        names.append(store.loss.set_aside)
        store.close()

    assert directory.set_aside() == names[-3:]


# --- what is no loss


def test_a_file_of_a_newer_agent_is_not_set_aside(directory):
    statement("PRAGMA user_version = 99")(directory.used().file)
    before = directory.file.read_bytes()
    with pytest.raises(StoreError, match="newer agent") as caught:
        directory.open()

    assert not isinstance(caught.value, LostError)
    assert (directory.set_aside(), directory.file.read_bytes()) == ([], before)


@pytest.fixture
def another_user():
    """Be somebody who is not root, and have a place of one's own."""
    path = Path(tempfile.mkdtemp(prefix="sfmtls-state-"))
    path.chmod(0o755)
    yield_to = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, yield_to, -1)
    was = os.geteuid()
    os.seteuid(yield_to)
    try:
        yield Directory(path / "state")
    finally:
        os.seteuid(was)
        shutil.rmtree(path, ignore_errors=True)


def test_a_directory_that_may_not_be_written_is_no_loss_and_heals(another_user):
    another_user.used()
    another_user.path.chmod(0o500)
    with pytest.raises(StoreError, match=FILE_NAME) as caught:
        another_user.open()
    another_user.path.chmod(0o700)
    store = another_user.open()

    assert not isinstance(caught.value, LostError)
    assert (store.loss, another_user.set_aside()) == (None, [])
    assert isinstance(ask(store, BOB, "right", NOON), Permit)
    another_user.close()


@pytest.mark.parametrize("name", [f"{FILE_NAME}.lock", KNOWN_NAME])
def test_a_lock_that_another_process_keeps_is_no_loss_and_nobody_waits_for_ever(directory, name):
    directory.used()
    holder = os.open(directory.path / name, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="another process keeps it locked") as caught:
        directory.open()
    os.close(holder)

    assert not isinstance(caught.value, LostError)
    assert directory.open().loss is None


LEAVE = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.store import Store
Store.open_or_begin_anew(Path(sys.argv[1]), datetime.now(UTC), timedelta(hours=1))
print("open", flush=True)
sys.stdin.read()
"""


def test_two_processes_open_one_file_and_neither_takes_the_other_s_writes_for_a_loss(directory):
    directory.used()
    command = [sys.executable, "-c", LEAVE, str(directory.file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        store = directory.open()
        other.kill()

    assert store.loss is None
    assert isinstance(ask(store, BOB, "right", NOON), Permit)
    store.close()
    assert directory.open().loss is None
