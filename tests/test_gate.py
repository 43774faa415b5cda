"""The gate before every login: what it admits, what it writes down, and what it tells of it."""

import asyncio
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from agent.credentials import Secret
from agent.gate import Gatekeeper, Hold
from agent.login import PasswordLogin
from agent.maintenance import EVERY_ORG, Recurring, Window
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    FromVariable,
    Org,
    PasswordCredentials,
    Timeouts,
)
from agent.reason import Reason
from agent.result import Failure, LoggedIn, Refused, SkipCause, Skipped
from agent.store import FILE_NAME, Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

ADA = "ada@example.com"
WELL = LoggedIn("005xx000001Sv6eAAC", "00Dxx0000001gPLEAY")
WRONG = Refused(Failure(Reason.INVALID_LOGIN))
LOST = Refused(Failure(Reason.HTTP_TIMEOUT))

EMEA = Org(
    "emea",
    Endpoint("emea.my.salesforce.com"),
    ClientIdentity(FromFile("unused"), FromFile("unused")),
    login=PasswordCredentials(ADA, FromVariable("PASSWORD"), FromVariable("TOKEN")),
)


class World:
    """A state directory, an environment, a clock, and the gatekeepers that share them."""

    def __init__(self, directory):
        self.directory = directory
        self.environ = {"PASSWORD": "pass", "TOKEN": "word"}
        self.now = NOON
        self._keepers = []

    def keeper(self, open_store=None, **differently):
        keeper = Gatekeeper(
            open_store or self.open, Hold(), self.environ, lambda: self.now, **differently
        )
        self._keepers.append(keeper)
        return keeper

    def open(self, writes=0):
        """Open the store as the daemon does."""
        return Store.open_or_begin_anew(self.directory / FILE_NAME, self.now, Hold().first, writes)

    def gate(self, org=EMEA):
        """Return a gate of a process of its own."""
        return self.keeper().gate(org)

    def close(self):
        for keeper in self._keepers:
            keeper.close()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "state")
    yield world
    world.close()


async def login(gate, outcome):
    """Log in and return what the gate said; the outcome follows only when it was admitted."""
    admitted = await gate.admit()
    if isinstance(admitted, PasswordLogin):
        await gate.done(outcome)
    return admitted


def cause(said):
    assert isinstance(said, Skipped), said
    return said.cause


# --- what is admitted


async def test_an_admitted_login_carries_the_secrets_as_they_are_now(world):
    gate = world.gate()
    world.environ["PASSWORD"] = "changed"

    assert await gate.admit() == PasswordLogin(
        username=ADA,
        password=Secret("changed"),
        security_token=Secret("word"),
        path="/services/Soap/u/64.0",
        host="emea.my.salesforce.com",
        organization_id=None,
    )


def test_an_org_without_a_login_has_no_gate(world):
    assert world.gate(replace(EMEA, login=None)) is None


async def test_a_secret_that_cannot_be_read_is_a_failure_and_no_attempt(world):
    gate = world.gate()
    del world.environ["TOKEN"]

    failure = await gate.admit()
    await gate.refresh()

    assert isinstance(failure, Failure)
    assert failure.reason is Reason.CREDENTIALS_UNREADABLE
    assert "TOKEN" in failure.detail
    assert gate.limits() == (False, 30)


async def test_a_refused_secret_is_not_sent_again_until_it_changes(world):
    gate = world.gate()
    assert isinstance(await login(gate, WRONG), PasswordLogin)
    assert await gate.admit() == Skipped(
        SkipCause.BREAKER_OPEN, "after invalid_login until 2026-11-24T13:00:00Z"
    )

    world.environ["TOKEN"] = "corrected"

    assert isinstance(await login(gate, WELL), PasswordLogin)
    assert isinstance(await login(gate, WELL), PasswordLogin)


async def test_a_password_that_was_never_judged_aloud_is_sent_twice_and_then_rests(world):
    gate = world.gate()
    said = []
    for _ in range(8):
        said.append(await login(gate, LOST))
        world.now += MINUTE

    assert [type(answer) for answer in said[:2]] == [PasswordLogin] * 2
    assert {cause(answer) for answer in said[2:]} == {SkipCause.BREAKER_OPEN}
    assert said[2].detail == "after undetermined until 2026-11-24T13:01:00Z"
    assert gate.limits()[0] is True


async def test_after_an_outage_the_right_password_works_by_itself_when_the_hold_is_over(world):
    gate = world.gate()
    for _ in range(3):
        await login(gate, LOST)
    assert gate.limits()[0] is True

    world.now += HOUR

    assert isinstance(await login(gate, WELL), PasswordLogin)
    assert isinstance(await login(gate, LOST), PasswordLogin), "the strikes are taken back"
    assert isinstance(await login(gate, WELL), PasswordLogin)


async def test_pages_about_maintenance_do_not_stop_the_logins(world):
    gate = world.gate()
    for _ in range(4):
        assert isinstance(await login(gate, Refused(Failure(Reason.MAINTENANCE))), PasswordLogin)
    assert gate.limits()[0] is False


async def test_one_wrong_password_is_sent_once_however_hosts_and_versions_differ(world):
    keeper = world.keeper()
    sent = 0
    for number in range(31, 65):
        host = Endpoint(f"org-{number % 3}.my.salesforce.com")
        org = replace(EMEA, name=f"org-{number}", endpoint=host, api_version=f"{number}.0")
        sent += isinstance(await login(keeper.gate(org), WRONG), PasswordLogin)

    assert sent == 1


@pytest.mark.parametrize("reason", [Reason.API_VERSION, Reason.LOGIN_DISABLED, Reason.API_DISABLED])
@pytest.mark.parametrize(
    "corrected",
    [
        replace(EMEA, api_version="63.0"),
        replace(EMEA, endpoint=Endpoint("emea--full.sandbox.my.salesforce.com")),
    ],
)
async def test_a_corrected_host_or_version_is_tried_at_once_after_a_refusal_that_was_about_it(
    world, reason, corrected
):
    keeper = world.keeper()
    refused = Refused(Failure(reason))
    await login(keeper.gate(EMEA), refused)
    assert cause(await keeper.gate(EMEA).admit()) is SkipCause.BREAKER_OPEN

    assert isinstance(await login(keeper.gate(corrected), refused), PasswordLogin)

    assert cause(await keeper.gate(corrected).admit()) is SkipCause.BREAKER_OPEN


# --- one login of a user at a time


async def test_a_login_under_way_keeps_every_org_of_the_user_waiting_for_its_own_cycle(world):
    slow = replace(EMEA, timeouts=Timeouts(cycle=45))
    quick = replace(EMEA, name="quick", timeouts=Timeouts(cycle=1))
    await world.gate(slow).admit()
    other = world.gate(quick)

    world.now += timedelta(seconds=44)
    assert await other.admit() == Skipped(SkipCause.IN_FLIGHT, "until 2026-11-24T12:00:45Z")
    world.now += timedelta(seconds=1)
    assert isinstance(await other.admit(), PasswordLogin)


@pytest.mark.parametrize("outcome", [WELL, LOST])
async def test_a_login_that_is_over_keeps_nobody_waiting_even_if_its_answer_was_lost(
    world, outcome
):
    await login(world.gate(), outcome)

    assert isinstance(await world.gate(replace(EMEA, name="other")).admit(), PasswordLogin)


async def test_an_attempt_that_was_not_sent_costs_nothing(world):
    gate = world.gate()
    for _ in range(3):
        await gate.admit()
        await gate.not_sent()

    assert gate.limits() == (False, 30)


# --- what is told


async def test_what_was_never_looked_at_is_unknown(world):
    assert world.gate().limits() == (None, None)


async def test_after_a_restart_the_limits_are_known_without_a_login(world):
    await login(world.gate(), WRONG)
    gate = world.gate()

    await gate.refresh()

    assert gate.limits() == (True, 29)


async def test_logins_of_other_orgs_and_resets_show_after_a_refresh(world):
    gate, other = world.gate(), world.gate(replace(EMEA, name="other"))
    await login(gate, WELL)
    await login(other, WRONG)
    await gate.refresh()
    assert gate.limits() == (False, 29), "what others write shows within a second"

    world.now += timedelta(seconds=1)
    await gate.refresh()
    assert gate.limits() == (True, 28)

    operator = Store.open(world.directory / FILE_NAME)
    operator.reset(ADA, world.now)
    operator.close()
    await gate.refresh()
    assert gate.limits() == (False, 28)


async def test_what_one_org_is_refused_shows_at_once_for_another_of_the_same_user(world):
    keeper = world.keeper()
    gate, other = keeper.gate(EMEA), keeper.gate(replace(EMEA, name="other"))
    await login(gate, WELL)
    await login(other, WRONG)

    await gate.refresh()

    assert gate.limits() == (True, 28)


async def test_while_nothing_is_refused_or_written_elsewhere_the_secret_is_not_read(world):
    gate = world.gate()
    await login(gate, WELL)
    await gate.refresh()
    world.environ.clear()
    asked = []
    gate._keeper.ask_of = lambda *_: asked.append("the store")

    await gate.refresh()

    assert not asked
    assert gate.limits() == (False, 29)


async def test_a_changed_secret_shows_after_a_refresh(world):
    gate = world.gate()
    await login(gate, WRONG)

    world.environ["PASSWORD"] = "corrected"
    await gate.refresh()

    assert gate.limits() == (False, 29)


async def test_while_the_secret_cannot_be_read_the_one_last_refused_is_told(world):
    await login(world.gate(), WRONG)
    gate = world.gate()
    del world.environ["PASSWORD"]

    await gate.refresh()

    assert gate.limits() == (True, 29)


# --- a state directory in trouble


async def test_without_a_store_there_is_no_login_and_nothing_is_known(world):
    gate = Gatekeeper(None, Hold(), world.environ, lambda: NOON).gate(EMEA)

    assert cause(await gate.admit()) is SkipCause.STATE_UNAVAILABLE
    await gate.refresh()
    assert gate.limits() == (None, None)


async def test_after_its_end_the_gatekeeper_admits_nothing(world):
    keeper = world.keeper()
    gate = keeper.gate(EMEA)
    await gate.admit()
    keeper.close()

    with capture_logs() as logs:
        await gate.done(WELL)

    assert len(logs) == 1
    assert cause(await gate.admit()) is SkipCause.STATE_UNAVAILABLE


async def test_a_state_file_that_cannot_be_written_for_a_while_stops_logins_for_that_while(world):
    opened = []

    def open_store(writes):
        opened.append(world.open(writes))
        return opened[-1]

    gate = world.keeper(open_store).gate(EMEA)
    assert isinstance(await gate.admit(), PasswordLogin)
    opened[0]._connection.execute("PRAGMA query_only = 1")

    with capture_logs() as logs:
        await gate.done(WELL)
        at_once = await gate.admit()
        world.now += MINUTE
        later = await gate.admit()

    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "no login will be made: the state directory cannot be used"
    ]
    assert logs[-1]["event"] == "the state directory can be used again"
    assert cause(at_once) is SkipCause.STATE_UNAVAILABLE
    assert FILE_NAME in at_once.detail
    assert isinstance(later, PasswordLogin)
    assert len(opened) == 2


async def test_a_state_directory_that_is_gone_closes_no_breaker_until_the_hold_is_over(world):
    gate = world.gate()
    await login(gate, WELL)
    shutil.rmtree(world.directory)

    with capture_logs() as logs:
        failed = await gate.admit()
        world.now += MINUTE
        rests = await gate.admit()
    await gate.refresh()
    limits = gate.limits()
    world.now += Hold().first + MINUTE
    tried = await gate.admit()

    assert cause(failed) is SkipCause.STATE_UNAVAILABLE
    assert cause(rests) is SkipCause.BREAKER_OPEN
    assert [log["why"] for log in logs if log["event"].startswith("the state was lost")] == [
        "it is gone"
    ]
    assert limits == (True, 30)
    assert isinstance(tried, PasswordLogin)


async def test_a_store_that_hangs_keeps_no_cycle_waiting_and_admits_nothing(world):
    hangs = threading.Event()

    def open_store(writes):
        hangs.wait(10)
        return world.open(writes)

    keeper = world.keeper(open_store, patience=0.05)
    gate = keeper.gate(EMEA)

    first, second = await gate.admit(), await gate.admit()
    hangs.set()
    await asyncio.wrap_future(keeper._overdue)
    world.now += HOUR
    after = await gate.admit()

    assert cause(first) is cause(second) is SkipCause.STATE_UNAVAILABLE
    assert "does not answer" in first.detail
    assert isinstance(after, PasswordLogin)
    # What was admitted too late was taken back.
    await gate.refresh()
    assert gate.limits() == (False, 29)


# --- maintenance

WEEKLY = Recurring("0 2 * * SUN", 4 * 3600.0, "Europe/Berlin", "weekly")


async def test_in_a_window_nobody_logs_in_and_no_secret_is_read(world):
    gate = world.gate(replace(EMEA, maintenance=(Window(NOON + HOUR, NOON, "an upgrade"),)))
    del world.environ["PASSWORD"]
    inside = await gate.admit()
    world.now = NOON + HOUR
    world.environ["PASSWORD"] = "pass"
    after = await gate.admit()

    assert inside == Skipped(SkipCause.MAINTENANCE, "until 2026-11-24T13:00:00Z: an upgrade")
    assert isinstance(after, PasswordLogin)


async def test_a_window_that_comes_again_stops_logins_of_its_hours_alone(world):
    gate = world.gate(replace(EMEA, maintenance=(WEEKLY,)))
    said = {}
    for world.now in (
        datetime(2026, 11, 29, 0, 59, 59, tzinfo=UTC),
        datetime(2026, 11, 29, 1, tzinfo=UTC),
        datetime(2026, 11, 29, 4, 59, 59, tzinfo=UTC),
        datetime(2026, 11, 29, 5, tzinfo=UTC),
    ):
        said[f"{world.now:%H:%M:%S}"] = isinstance(await login(gate, WELL), PasswordLogin)

    assert said == {"00:59:59": True, "01:00:00": False, "04:59:59": False, "05:00:00": True}


@pytest.mark.parametrize(
    ("started", "stopped"),
    [("emea", True), (EVERY_ORG, True), ("apac", False)],
)
async def test_what_another_process_starts_counts_a_second_later(world, started, stopped):
    gate = world.gate()
    first = await login(gate, WELL)
    store = world.open()
    store.start_maintenance([started], NOON, NOON + HOUR, "")
    world.now += timedelta(seconds=1)
    second = await login(gate, WELL)
    store.stop_maintenance(None, world.now)
    world.now += timedelta(seconds=1)
    third = await login(gate, WELL)
    store.close()

    assert isinstance(first, PasswordLogin)
    assert isinstance(second, Skipped if stopped else PasswordLogin)
    assert not stopped or second == Skipped(SkipCause.MAINTENANCE, "until 2026-11-24T13:00:00Z")
    assert isinstance(third, PasswordLogin)


async def test_what_was_started_is_known_before_the_first_login_after_a_restart(world):
    store = world.open()
    store.start_maintenance([EVERY_ORG], NOON, NOON + HOUR, "")
    store.close()
    gates = [world.gate(replace(EMEA, name=name)) for name in ("emea", "apac")]

    said = await asyncio.gather(*(gate.admit() for gate in gates))

    assert {cause(one) for one in said} == {SkipCause.MAINTENANCE}


async def test_without_the_store_what_was_started_before_goes_on_and_what_is_configured_too(world):
    store = world.open()
    store.start_maintenance(["emea"], NOON, NOON + HOUR, "")
    store.close()
    keeper = world.keeper()
    before = await keeper.maintenance(EMEA)
    shutil.rmtree(world.directory)
    world.directory.write_text("a file where the directory should be")
    world.now += MINUTE
    without = await keeper.maintenance(EMEA)
    world.now = NOON + HOUR
    later = await keeper.maintenance(EMEA)

    assert before == without == Window(NOON + HOUR, NOON)
    assert later is None
    never = world.keeper()
    planned = Window(NOON + 2 * HOUR)
    assert await never.maintenance(replace(EMEA, maintenance=(planned,))) == planned
    assert await never.maintenance(EMEA) is None


async def test_a_store_that_hangs_keeps_nobody_waiting_for_windows_twice(world):
    ends = threading.Event()

    def open_store(writes):
        ends.wait(10)
        return world.open(writes)

    keeper = world.keeper(open_store, patience=0.05)
    async with asyncio.timeout(1):
        windows = [await keeper.maintenance(EMEA) for _ in range(20)]
    ends.set()

    assert windows == [None] * 20
