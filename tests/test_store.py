"""The state file: what was committed is there after any end of the process."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import world

from agent.breaker import (
    MEMORY,
    Allowed,
    Attempt,
    Denied,
    Limits,
    LoginState,
    after_begin,
    after_finish,
    after_reset,
    budget_remaining,
    decide,
    in_flight,
)
from agent.maintenance import EVERY_ORG, Window
from agent.reason import Reason
from agent.result import SkipCause
from agent.store import (
    FILE_NAME,
    KNOWN_NAME,
    MIGRATIONS,
    UNUSED_DAYS,
    Permit,
    Store,
    StoreError,
)
from agent.succession import Earlier, Past, Succession

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LIMITS = Limits(logins_per_hour=30)
ADA = "ada@example.com"
HERE = "acme.my.salesforce.com 64.0"
THERE = "acme.my.salesforce.com 63.0"
REFUSED = Reason.INVALID_LOGIN


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / FILE_NAME)
    yield store
    store.close()


def reopened(store, tmp_path):
    store.close()
    return Store.open(tmp_path / FILE_NAME)


def ask(store, user, digest, now, limits=LIMITS, *, place=HERE, lease=MINUTE):
    return store.admit(user, digest, place, now, limits=limits, lease=lease)


def admitted(store, digest="a", now=NOON, user=ADA, **others):
    permit = ask(store, user, digest, now, **others)
    assert isinstance(permit, Permit)
    return permit


# --- admit, finish, abandon


def test_a_login_is_admitted_and_recorded_before_it_is_sent(store):
    permit = admitted(store)

    state = store.login_state(ADA)
    assert state.attempts == (NOON,)
    assert state.unfinished == (permit.attempt,)
    assert permit.attempt.half_open is False
    assert store.users() == (ADA,)


def test_a_second_login_of_the_user_is_denied_while_the_first_is_under_way(store):
    admitted(store, user="Ada@Example.com")

    assert ask(store, ADA, "b", NOON) == Denied(SkipCause.IN_FLIGHT, NOON + MINUTE)
    assert isinstance(ask(store, "bob@example.com", "b", NOON), Permit)


@pytest.mark.parametrize("end", [None, Reason.HTTP_TIMEOUT])
def test_a_second_login_of_the_user_is_admitted_after_the_first_has_ended(store, end):
    store.finish(admitted(store), NOON, end)

    assert not admitted(store).attempt.half_open
    assert len(store.login_state(ADA).attempts) == 2


def test_y116_a_refusal_is_remembered_across_a_restart(store, tmp_path):
    store.finish(admitted(store), NOON, REFUSED)

    again = reopened(store, tmp_path)

    assert ask(again, ADA, "a", NOON + MINUTE) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    state = again.login_state("ADA@example.com")
    assert (state.opened_at, state.opened_by, state.hold) == (NOON, REFUSED, HOUR)
    again.close()


def test_the_doubled_hold_is_remembered_across_a_restart(store, tmp_path):
    store.finish(admitted(store), NOON, REFUSED)
    again = reopened(store, tmp_path)
    permit = admitted(again, now=NOON + HOUR)
    assert permit.attempt.half_open
    again.finish(permit, NOON + HOUR, REFUSED)

    last = reopened(again, tmp_path)

    assert last.login_state(ADA).hold == 2 * HOUR
    last.close()


def test_a_success_closes_the_breaker(store):
    store.finish(admitted(store), NOON, REFUSED)
    store.finish(admitted(store, "b"), NOON, None)
    assert not admitted(store, "b", NOON + MINUTE).attempt.half_open


def test_a_reset_lets_one_try_through(store, tmp_path):
    store.finish(admitted(store), NOON, REFUSED)

    store.reset("ADA@example.com", NOON)
    again = reopened(store, tmp_path)

    assert admitted(again).attempt.half_open
    again.close()


def test_a_reset_of_an_unknown_user_is_no_error(store):
    store.reset("nobody@example.com", NOON)

    assert store.users() == ()
    assert store.login_state("nobody@example.com") == LoginState("nobody@example.com")


def test_two_lost_answers_open_the_breaker_and_neither_keeps_the_user_in_flight(store, tmp_path):
    for _ in range(2):
        store.finish(admitted(store), NOON, Reason.HTTP_TIMEOUT)

    again = reopened(store, tmp_path)

    assert ask(again, ADA, "a", NOON) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert again.login_state(ADA).opened_by is Reason.UNDETERMINED
    again.close()


def test_two_lost_answers_with_a_success_between_them_do_not(store):
    for end in (Reason.HTTP_TIMEOUT, None, Reason.HTTP_TIMEOUT):
        store.finish(admitted(store), NOON, end)

    assert not admitted(store).attempt.half_open


def test_a_place_that_was_refused_is_remembered_with_the_refusal(store, tmp_path):
    store.finish(admitted(store), NOON, Reason.API_VERSION)

    again = reopened(store, tmp_path)

    assert ask(again, ADA, "a", NOON) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert admitted(again, place=THERE).attempt.half_open
    again.close()


def test_a_login_is_under_way_for_its_own_lease_whatever_the_next_one_s_is(store):
    admitted(store, lease=45 * MINUTE)

    assert ask(store, ADA, "a", NOON + MINUTE, lease=timedelta(seconds=1)) == Denied(
        SkipCause.IN_FLIGHT, NOON + 45 * MINUTE
    )
    assert isinstance(ask(store, ADA, "a", NOON + 45 * MINUTE), Permit)


def test_an_attempt_that_was_never_sent_leaves_no_trace(store):
    store.finish(admitted(store), NOON, REFUSED)
    before = store.login_state(ADA)
    permit = admitted(store, now=NOON + HOUR)
    assert store.login_state(ADA) != before

    store.abandon(permit)

    assert store.login_state(ADA) == before
    assert admitted(store, now=NOON + HOUR).attempt.half_open


def test_an_abandoned_number_is_not_used_again(store):
    first = admitted(store)
    store.abandon(first)

    assert admitted(store).attempt.id > first.attempt.id


def test_the_budget_holds_across_a_restart(store, tmp_path):
    limits = Limits(logins_per_hour=2)
    for _ in range(2):
        permit = ask(store, ADA, "a", NOON, limits)
        assert isinstance(permit, Permit)
        store.finish(permit, NOON, None)

    again = reopened(store, tmp_path)

    assert ask(again, ADA, "a", NOON, limits) == Denied(SkipCause.BUDGET, NOON + HOUR)
    again.close()


def test_old_attempts_are_deleted_and_unfinished_ones_kept(store):
    kept = admitted(store, "b")
    store.finish(admitted(store, "a", NOON + MINUTE), NOON + MINUTE, None)

    admitted(store, "a", NOON + MINUTE + MEMORY)

    state = store.login_state(ADA)
    assert state.attempts == (NOON, NOON + MINUTE + MEMORY)
    assert kept.attempt in state.unfinished


def test_an_attempt_can_end_after_its_record_was_deleted(store):
    permit = admitted(store)
    store.abandon(permit)

    store.finish(permit, NOON, REFUSED)

    assert isinstance(ask(store, ADA, "a", NOON), Denied)


def test_a_reason_that_this_version_does_not_know_is_undetermined(store, tmp_path):
    store.finish(admitted(store), NOON, REFUSED)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("UPDATE login_refusal SET reason = 'from_the_future'")
    other.close()

    assert store.login_state(ADA).opened_by is Reason.UNDETERMINED


STEPS = st.tuples(
    st.integers(-10, 200),
    st.sampled_from("ab"),
    st.sampled_from([HERE, THERE]),
    st.sampled_from(
        [
            "killed",
            "abandon",
            "reset",
            None,
            REFUSED,
            Reason.API_VERSION,
            Reason.HTTP_TIMEOUT,
            Reason.MAINTENANCE,
        ]
    ),
    st.booleans(),
)


@given(st.lists(STEPS, max_size=12))
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_store_remembers_exactly_what_the_decisions_say(tmp_path_factory, steps):
    """The same story is told to the store, with restarts, and to plain values."""
    directory = tmp_path_factory.mktemp("state")
    store, state, now = Store.open(directory / FILE_NAME), LoginState(ADA), NOON
    limits = Limits(logins_per_hour=5)
    for minutes, digest, place, end, restart in steps:
        now += minutes * MINUTE
        if restart:
            store = reopened(store, directory)
        if end == "reset":
            store.reset(ADA, now)
            state = after_reset(state, now)
            continue
        expected = in_flight(state, now) or decide(state, digest, place, now, limits)
        got = ask(store, ADA, digest, now, limits, place=place)
        if isinstance(expected, Denied):
            assert got == expected
            continue
        assert isinstance(got, Permit)
        assert isinstance(expected, Allowed)
        attempt = Attempt(
            id=got.attempt.id,
            at=now,
            digest=digest,
            place=place,
            half_open=expected.half_open,
            hold=expected.hold,
            expires_at=now + MINUTE,
        )
        assert (got.user, got.attempt) == (ADA, attempt)
        assert_alike(got.state, store.login_state(ADA), now, limits)
        if end == "abandon":
            store.abandon(got)
            continue
        state = after_begin(state, attempt)
        if end != "killed":
            assert_alike(store.finish(got, now, end), store.login_state(ADA), now, limits)
            state = after_finish(state, attempt, now, end)
        assert_alike(store.login_state(ADA), state, now, limits)
    store.close()


def assert_alike(found, state, now, limits):
    assert found.unfinished == state.unfinished
    assert set(found.refusals) == set(state.refusals)
    assert found.proven == state.proven
    assert budget_remaining(found, now, limits) == budget_remaining(state, now, limits)


# --- processes

ADMIT_AND_DIE = """
import os, signal, sys
from datetime import datetime, timedelta
from pathlib import Path
from agent.breaker import Limits
from agent.store import Permit, Store
store = Store.open(Path(sys.argv[1]))
now = datetime.fromisoformat(sys.argv[2])
permit = store.admit(
    "ada@example.com", "a", "x", now, limits=Limits(30), lease=timedelta(minutes=1)
)
assert isinstance(permit, Permit), permit
os.kill(os.getpid(), signal.SIGKILL)
"""


def admit_and_die(directory, now):
    done = subprocess.run(
        [sys.executable, "-c", ADMIT_AND_DIE, str(directory / FILE_NAME), now.isoformat()],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_an_attempt_survives_kill_9_and_counts(tmp_path):
    admit_and_die(tmp_path, NOON)

    store = Store.open(tmp_path / FILE_NAME)
    state = store.login_state(ADA)
    assert state.attempts == (NOON,)
    assert budget_remaining(state, NOON, LIMITS) == 29
    assert ask(store, ADA, "a", NOON) == Denied(SkipCause.IN_FLIGHT, NOON + MINUTE)
    assert isinstance(ask(store, ADA, "a", NOON + MINUTE), Permit)
    store.close()


def test_two_attempts_that_ended_by_kill_9_open_the_breaker(tmp_path):
    admit_and_die(tmp_path, NOON)
    admit_and_die(tmp_path, NOON + MINUTE)

    store = Store.open(tmp_path / FILE_NAME)
    assert ask(store, ADA, "a", NOON + 2 * MINUTE) == Denied(
        SkipCause.BREAKER_OPEN, NOON + MINUTE + HOUR
    )
    assert store.login_state(ADA).opened_by is Reason.UNDETERMINED
    store.close()


RACE = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from agent.breaker import Limits
from agent.store import Permit, Store
print("ready", flush=True)
now = datetime.fromisoformat(sys.argv[2])
sys.stdin.readline()
store = Store.open(Path(sys.argv[1]))
for number in range(20):
    got = store.admit(
        f"user{number}@example.com", "a", "x", now, limits=Limits(30), lease=timedelta(minutes=1)
    )
    print(number if isinstance(got, Permit) else got.cause.value, flush=True)
"""


def test_of_two_processes_that_race_exactly_one_is_admitted_for_each_user(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / FILE_NAME), NOON.isoformat()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()

    told = [racer.communicate(timeout=30)[0].split() for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0]
    words = [word for lines in told for word in lines]
    assert sorted(words) == sorted([*map(str, range(20)), *["in_flight"] * 20])


def test_threads_of_one_process_share_a_store(store):
    results = []

    def admit():
        results.append(ask(store, ADA, "a", NOON))

    threads = [threading.Thread(target=admit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [isinstance(result, Permit) for result in results].count(True) == 1
    assert len(results) == 8


# --- the file


def test_the_files_are_readable_by_their_owner_only(store, tmp_path):
    admitted(store)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert modes == dict.fromkeys(
        [FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", f"{FILE_NAME}.lock", KNOWN_NAME], 0o600
    )


def test_a_file_that_others_could_read_is_made_private(store, tmp_path):
    store.close()
    (tmp_path / FILE_NAME).chmod(0o644)

    Store.open(tmp_path / FILE_NAME).close()

    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_a_missing_state_directory_is_made_private(tmp_path):
    Store.open(tmp_path / "var" / "agent" / FILE_NAME).close()

    assert stat.S_IMODE((tmp_path / "var" / "agent").stat().st_mode) == 0o700


def test_every_commit_reaches_the_disk(store):
    connection = store._connection

    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\x00" * 99])
def test_a_damaged_file_is_a_store_error(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)

    with pytest.raises(StoreError, match=FILE_NAME):
        Store.open(tmp_path / FILE_NAME)


def test_an_empty_file_is_a_new_store(tmp_path):
    (tmp_path / FILE_NAME).touch()

    Store.open(tmp_path / FILE_NAME).close()


def test_a_page_that_was_overwritten_is_a_store_error(store, tmp_path):
    for number in range(200):
        admitted(store, user=f"user{number}@example.com")
    store.close()
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    file.write_bytes(content)

    with pytest.raises(StoreError, match=FILE_NAME):
        Store.open(tmp_path / FILE_NAME)


def test_a_file_of_a_newer_agent_is_a_store_error_and_left_alone(store, tmp_path):
    store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()

    with pytest.raises(StoreError, match="newer agent"):
        Store.open(tmp_path / FILE_NAME)


def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=FILE_NAME):
        Store.open(tmp_path / "file" / FILE_NAME)


def test_a_directory_in_the_file_s_place_is_a_store_error_and_left_alone(tmp_path):
    (tmp_path / FILE_NAME).mkdir(mode=0o755)

    with pytest.raises(StoreError, match=FILE_NAME):
        Store.open(tmp_path / FILE_NAME)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o755


def test_a_full_disk_is_a_store_error_and_forgets_nothing(store):
    store.finish(admitted(store), NOON, REFUSED)
    # SQLite then says what it says of a full disk.
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreError, match="disk is full"):
        admitted(store, user=f"{'x' * 50_000}@example.com")

    assert ask(store, ADA, "a", NOON) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)


def test_a_deleted_file_is_a_store_error_although_sqlite_would_go_on_with_it(store, tmp_path):
    for path in tmp_path.iterdir():
        path.unlink()

    with pytest.raises(StoreError, match=FILE_NAME):
        admitted(store)


def test_another_file_in_its_place_is_a_store_error_until_the_store_is_opened_again(
    store, tmp_path
):
    for path in tmp_path.iterdir():
        path.rename(tmp_path.parent / f"{tmp_path.name}-{path.name}")
    other = Store.open(tmp_path / FILE_NAME)

    with pytest.raises(StoreError, match="replaced"):
        admitted(store)
    assert isinstance(ask(other, ADA, "a", NOON), Permit)
    other.close()


def test_a_transaction_that_fails_changes_nothing_and_the_store_stays_usable(store, tmp_path):
    permit = admitted(store)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("ALTER TABLE login_refusal RENAME TO gone")
    with pytest.raises(StoreError, match="login_refusal"):
        store.finish(permit, NOON, REFUSED)
    with other:
        other.execute("ALTER TABLE gone RENAME TO login_refusal")
    other.close()

    assert store.login_state(ADA).unfinished == (permit.attempt,)
    store.finish(permit, NOON, REFUSED)
    assert store.login_state(ADA).opened_by is REFUSED


def test_a_bug_inside_a_transaction_is_not_hidden_and_changes_nothing(store):
    with pytest.raises(AttributeError):
        store.finish(admitted(store), NOON, "no reason at all")

    assert store.login_state(ADA).refusals == ()


def test_a_closed_store_is_a_store_error(store):
    store.close()

    with pytest.raises(StoreError, match="closed"):
        store.users()


# --- what orgs presented

VERSION_1 = """
CREATE TABLE secret_key (key BLOB NOT NULL);
CREATE TABLE login_user (user TEXT PRIMARY KEY, proven INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE login_attempt (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    at INTEGER NOT NULL,
    digest TEXT NOT NULL,
    place TEXT NOT NULL,
    half_open INTEGER NOT NULL,
    hold INTEGER NOT NULL,
    expires_at INTEGER,
    settled INTEGER NOT NULL
);
CREATE INDEX login_attempt_by_user ON login_attempt (user, at);
CREATE TABLE login_refusal (
    user TEXT NOT NULL,
    digest TEXT NOT NULL,
    place TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    hold INTEGER NOT NULL,
    released INTEGER NOT NULL,
    PRIMARY KEY (user, digest, place)
) WITHOUT ROWID;
INSERT INTO secret_key VALUES (x'6b6579');
INSERT INTO login_user VALUES ('ada@example.com', 0);
INSERT INTO login_attempt (user, at, digest, place, half_open, hold, settled)
    VALUES ('ada@example.com', 1795521600123456, 'a', 'acme.my.salesforce.com 64.0', 0, 0, 1);
INSERT INTO login_refusal VALUES (
    'ada@example.com', 'a', 'acme.my.salesforce.com 64.0', 1, 1795521600123456, 'invalid_login',
    3600000000, 0
);
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_is_brought_up_to_date_and_forgets_nothing(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as old:
        old.executescript(VERSION_1)
    old.close()
    store = Store.open(tmp_path / FILE_NAME)

    assert ask(store, ADA, "a", NOON) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert store.pasts() == {}
    store.keep_pasts({"emea": past()})
    again = reopened(store, tmp_path)
    assert again.pasts()["emea"].read() == past()
    assert again.login_state(ADA).attempts == (NOON,)
    again.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_file_of_every_earlier_version_is_brought_up_to_date_without_a_loss(tmp_path, version):
    old = sqlite3.connect(tmp_path / FILE_NAME)
    for step in MIGRATIONS[:version]:
        for statement in step:
            old.execute(statement)
    old.execute("INSERT INTO secret_key (key) VALUES (x'6b6579')")
    old.execute("INSERT INTO login_user VALUES ('ada@example.com', 0)")
    old.execute(f"PRAGMA user_version = {version}")
    old.commit()
    old.close()

    store = Store.open_or_begin_anew(tmp_path / FILE_NAME, NOON, HOUR)

    assert store.loss is None
    assert store.users() == (ADA,)
    assert isinstance(ask(store, ADA, "a", NOON), Permit)
    store.close()


def test_what_is_out_of_use_for_ninety_days_is_forgotten_and_nothing_before_that(store):
    store.keep_pasts({"emea": past(), "gone": past()})
    store.finish(admitted(store), NOON, REFUSED)
    store.finish(admitted(store, user="bob@example.com"), NOON, REFUSED)

    for day in range(1, UNUSED_DAYS):
        assert store.tidy(["emea"], [ADA], NOON + day * DAY)
        assert not store.tidy(["emea"], [ADA], NOON + day * DAY + HOUR), "once a day"
    before = store.users(), set(store.pasts())
    store.tidy(["emea"], [ADA], NOON + UNUSED_DAYS * DAY)

    assert before == ((ADA, "bob@example.com"), {"emea", "gone"})
    assert (store.users(), set(store.pasts())) == ((ADA,), {"emea"})


def test_a_clock_that_was_a_year_ahead_for_a_day_forgets_nothing(store):
    store.keep_pasts({"gone": past()})
    store.tidy([], [], NOON)
    store.tidy([], [], NOON + 365 * DAY)
    store.tidy([], [], NOON + DAY)

    assert set(store.pasts()) == {"gone"}


# --- maintenance that was started by command


def test_a_window_is_kept_until_it_is_stopped_and_survives_a_restart(store, tmp_path):
    store.start_maintenance(["emea", "apac"], NOON, NOON + HOUR, "an upgrade")
    store.start_maintenance([EVERY_ORG], NOON, NOON + DAY, "")
    again = reopened(store, tmp_path)
    kept = again.maintenance()
    stopped = again.stop_maintenance(["emea", "unknown"], NOON)

    assert kept == {
        EVERY_ORG: Window(NOON + DAY, NOON, ""),
        "apac": Window(NOON + HOUR, NOON, "an upgrade"),
        "emea": Window(NOON + HOUR, NOON, "an upgrade"),
    }
    assert set(stopped) == {"emea"}
    assert set(again.maintenance()) == {EVERY_ORG, "apac"}
    assert set(again.stop_maintenance(None, NOON)) == {EVERY_ORG, "apac"}
    assert again.maintenance() == {}
    again.close()


def test_a_window_that_is_started_again_takes_the_place_of_the_one_before(store):
    store.start_maintenance(["emea"], NOON, NOON + DAY, "long")
    store.start_maintenance(["emea"], NOON + HOUR, NOON + 2 * HOUR, "")

    assert store.maintenance() == {"emea": Window(NOON + 2 * HOUR, NOON + HOUR, "")}


def test_what_is_over_was_not_stopped_and_is_tidied_away(store):
    store.start_maintenance(["over"], NOON - HOUR, NOON, "")
    store.start_maintenance(["emea"], NOON - HOUR, NOON + MINUTE, "")
    store.tidy(["over", "emea"], [], NOON)
    left = set(store.maintenance())
    stopped = store.stop_maintenance(None, NOON + MINUTE)

    assert left == {"emea"}
    assert set(stopped) == set(), "it ended by itself a moment ago"


def test_the_window_of_an_org_that_is_gone_is_forgotten_and_that_of_all_orgs_is_not(store):
    year = NOON + 365 * DAY
    store.start_maintenance(["emea", "gone", EVERY_ORG], NOON, year, "")
    for day in range(UNUSED_DAYS):
        store.tidy(["emea"], [], NOON + day * DAY)

    assert set(store.maintenance()) == {"emea", EVERY_ORG}


def test_a_window_that_cannot_be_read_is_left_out_and_stops_no_login(store, tmp_path):
    store.start_maintenance(["emea", "apac"], NOON, NOON + HOUR, "")
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("UPDATE maintenance SET until = ? WHERE org = 'apac'", (2**63 - 1,))
    other.close()

    assert set(store.maintenance()) == {"emea"}
    assert isinstance(ask(store, ADA, "a", NOON), Permit)


# As the agent before made it.
VERSION_3 = VERSION_1.replace(
    "PRAGMA user_version = 1;",
    """
CREATE TABLE presented (
    org TEXT NOT NULL,
    side TEXT NOT NULL,
    age INTEGER NOT NULL,
    position INTEGER NOT NULL,
    door TEXT NOT NULL,
    changed_at INTEGER,
    until INTEGER,
    der BLOB NOT NULL,
    PRIMARY KEY (org, side, age, position)
);
CREATE TABLE store (
    writes INTEGER NOT NULL,
    tidied_at INTEGER,
    lost_at INTEGER,
    lost_hold INTEGER,
    lost_attempt INTEGER
);
INSERT INTO store (writes) VALUES (1);
CREATE TABLE unused (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    days INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
PRAGMA user_version = 3;
""",
)


def test_a_file_of_version_3_takes_windows_and_forgets_nothing(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as old:
        old.executescript(VERSION_3)
    old.close()
    store = Store.open_or_begin_anew(tmp_path / FILE_NAME, NOON, HOUR)
    before = store.maintenance()
    store.start_maintenance(["emea"], NOON, NOON + HOUR, "")

    assert (store.loss, before) == (None, {})
    assert ask(store, ADA, "a", NOON) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert set(store.maintenance()) == {"emea"}
    store.close()


def past(door="acme.my.salesforce.com:8443", **changes):
    w = world()
    server = Succession(
        w.server_chain,
        (Earlier(w.client_chain, NOON), Earlier(w.client_chain[:1], NOON - HOUR)),
        NOON,
    )
    return Past(door, **({"client": Succession(w.client_chain), "server": server} | changes))


def test_what_orgs_presented_is_read_as_it_was_kept(store, tmp_path):
    kept = {"emea": past(), "apac": past("x:1", client=None), "amer": past(server=None)}
    store.keep_pasts(kept)

    again = reopened(store, tmp_path)

    assert {org: found.read() for org, found in again.pasts().items()} == kept
    again.close()


def test_what_is_kept_of_an_org_takes_the_place_of_what_was_and_of_no_other(store):
    store.keep_pasts({"emea": past(), "apac": past()})
    store.keep_pasts({"emea": past(client=None)})

    assert store.pasts()["emea"].read() == past(client=None)
    assert store.pasts()["apac"].read() == past()


def test_the_chains_that_servers_presented_last_are_found_by_org(store):
    store.keep_pasts({"emea": past(), "apac": past(server=None), "amer": past()})
    store._connection.execute("UPDATE presented SET der = x'3000' WHERE org = 'amer'")

    assert store.server_chains() == {"emea": world().server_chain}
    with pytest.raises(ValueError, match="asn1"):
        store.pasts()["amer"].read()


def test_a_batch_that_fails_keeps_what_was_there(store):
    store.keep_pasts({"emea": past()})
    with pytest.raises(AttributeError):
        store.keep_pasts({"emea": past(client=None), "apac": None})

    assert store.pasts()["emea"].read() == past()


# --- digests


def test_a_digest_changes_with_the_secret_and_the_user_and_not_by_itself(store, tmp_path):
    digest = store.secret_digest(ADA, [b"password", b"token"])

    assert len(digest) == 8
    assert int(digest, 16) >= 0
    assert digest == store.secret_digest("ADA@example.com", [b"password", b"token"])
    others = {
        store.secret_digest(ADA, [b"passwordt", b"oken"]),
        store.secret_digest(ADA, [b"password"]),
        store.secret_digest(ADA, [b"password", b"token", b""]),
        store.secret_digest("bob@example.com", [b"password", b"token"]),
    }
    assert len(others | {digest}) == 5
    again = reopened(store, tmp_path)
    assert digest == again.secret_digest(ADA, [b"password", b"token"])
    again.close()


def test_a_digest_means_nothing_in_another_store(store, tmp_path):
    other = Store.open(tmp_path / "other" / FILE_NAME)

    assert store.secret_digest(ADA, [b"x"]) != other.secret_digest(ADA, [b"x"])
    other.close()
