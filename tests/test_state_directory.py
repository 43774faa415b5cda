"""The daemon and its state directory in trouble: handshakes go on, and no breaker closes unseen."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from fleet import Fleet
from hurried_agent import hurried
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from test_daemon import until

from agent.daemon import Daemon
from agent.once import reset_breaker
from agent.store import FILE_NAME, KNOWN_NAME

LOST = "the state was lost: nobody logs in until the hold is over, or `breaker reset`"


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.add("emea", logins_per_hour=3600)
    yield fleet
    await fleet.stop()


@pytest.fixture
def state(fleet):
    return fleet.folder / "state"


class Agent:
    """A running daemon with one org, whose login is due every other second."""

    def __init__(self, fleet, daemon, client):
        self.record = fleet.simulators["emea"].record
        self.daemon = daemon
        self._client = client

    async def cycles(self, number=2):
        """Wait for this many whole cycles from now on."""
        before = self.state().cycles
        await until(lambda: self.state().cycles > before + number)

    def state(self):
        return self.daemon.board.get("emea")

    async def value(self, name, **labels):
        answer = await self._client.get("/metrics")
        found = [
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found[0] if found else None

    async def handshake(self):
        return await self.value("sfmtls_probe_success", probe="handshake")

    async def breaker_open(self):
        return await self.value("sfmtls_login_breaker_open")


@asynccontextmanager
async def running(fleet):
    daemon = Daemon(hurried(fleet.file), lambda: hurried(fleet.file), os.environ)
    host, port = await daemon.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            yield Agent(fleet, daemon, client)
    finally:
        await daemon.stop()


def allow(fleet):
    """Do what `breaker reset` does."""
    reset_breaker(hurried(fleet.file), hurried(fleet.file).orgs["emea"])


async def logged_in(fleet):
    """Let an agent log in once and end."""
    record = fleet.simulators["emea"].record
    before = record.logins
    async with running(fleet):
        await until(lambda: record.logins > before)


# --- what was lost while nobody looked


def nothing(_state):
    """Is done in the twin."""


def with_garbage(state):
    (state / FILE_NAME).write_bytes(b"this is no database" * 500)


def cut(state):
    content = (state / FILE_NAME).read_bytes()
    (state / FILE_NAME).write_bytes(content[: len(content) // 2])


def emptied(state):
    (state / FILE_NAME).write_bytes(b"")


def deleted(state):
    (state / FILE_NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (with_garbage, "damaged"),
        (cut, "damaged"),
        (emptied, "empty"),
        (deleted, "gone"),
    ],
)
async def test_after_a_loss_nobody_logs_in_until_an_operator_says_so(fleet, state, damage, why):
    await logged_in(fleet)
    damage(state)
    with capture_logs() as logs:
        async with running(fleet) as agent:
            before = agent.record.logins
            await agent.cycles(2)
            during, handshake = agent.record.logins, await agent.handshake()
            breaker = await agent.breaker_open()
            allow(fleet)
            await until(lambda: agent.record.logins > before)

    told = [entry for entry in logs if entry["event"] == LOST]
    assert len(told) == 1
    assert told[0]["log_level"] == "error"
    assert why in told[0]["why"]
    assert during == before
    assert handshake == breaker == 1
    set_aside = [path for path in state.glob(f"{FILE_NAME}.corrupt-*") if path.suffix != ".lock"]
    assert bool(set_aside) is (damage in {with_garbage, cut, emptied})
    if set_aside:
        assert told[0]["set_aside"] in {path.name for path in set_aside}


async def test_a_restart_without_a_loss_logs_in_at_once(fleet, state):
    await logged_in(fleet)
    with capture_logs() as logs:
        async with running(fleet) as agent:
            before = agent.record.logins
            await until(lambda: agent.record.logins > before)
            await agent.cycles(0)
            assert await agent.breaker_open() == 0

    assert [entry for entry in logs if entry["event"] == LOST] == []
    assert list(state.glob("*corrupt*")) == []


@pytest.mark.parametrize("older", [True, False])
async def test_a_copy_put_back_is_a_loss_if_a_login_came_after_it(fleet, state, older):
    await logged_in(fleet)
    if older:
        shutil.copy(state / FILE_NAME, fleet.folder / "copy")
    await logged_in(fleet)
    if not older:
        shutil.copy(state / FILE_NAME, fleet.folder / "copy")
    (fleet.folder / "copy").replace(state / FILE_NAME)

    await assert_lost(fleet, "older copy" if older else None)


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_wal_file_that_is_deleted_after_a_kill_is_a_loss(fleet, state, deleted):
    async with running(fleet) as agent:
        await until(lambda: agent.record.logins > 0)
        await agent.cycles(1)
        # What a kill would leave. What is known first: it may be behind and must not be ahead.
        names = (KNOWN_NAME, f"{FILE_NAME}-wal", FILE_NAME)
        left = {name: (state / name).read_bytes() for name in names}
    shutil.rmtree(state)
    state.mkdir(mode=0o700)
    for name, content in left.items():
        if not (deleted and name.endswith("-wal")):
            (state / name).write_bytes(content)

    await assert_lost(fleet, "older copy" if deleted else None)


async def assert_lost(fleet, why):
    """Start the agent and see that nobody logs in, or that somebody does when `why` is None."""
    with capture_logs() as logs:
        async with running(fleet) as agent:
            before = agent.record.logins
            if why is None:
                await until(lambda: agent.record.logins > before)
            await agent.cycles(2)
            after, handshake = agent.record.logins, await agent.handshake()
            breaker = await agent.breaker_open()

    told = [entry["why"] for entry in logs if entry["event"] == LOST]
    assert handshake == 1
    if why is None:
        assert (told, breaker) == ([], 0)
    else:
        assert (len(told), breaker, after) == (1, 1, before)
        assert why in told[0]


async def test_the_first_start_of_all_is_no_loss(fleet, state):
    with capture_logs() as logs:
        await logged_in(fleet)

    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    assert (state / KNOWN_NAME).exists()


async def test_a_loss_is_not_forgotten_by_a_restart(fleet, state):
    await logged_in(fleet)
    with_garbage(state)
    async with running(fleet) as agent:
        await agent.cycles(1)
    async with running(fleet) as agent:
        before = agent.record.logins
        await agent.cycles(2)
        assert agent.record.logins == before
        assert await agent.breaker_open() == 1


# --- while it runs


async def test_a_directory_that_goes_away_and_comes_back_is_no_loss(fleet, state):
    async with running(fleet) as agent:
        await until(lambda: agent.record.logins > 0)
        state.rename(fleet.folder / "away")
        state.touch()  # so that no other can be made in its place
        await agent.cycles(1)
        during = agent.record.logins
        await agent.cycles(2)
        handshake, held = await agent.handshake(), agent.record.logins == during
        state.unlink()
        (fleet.folder / "away").rename(state)
        await until(lambda: agent.record.logins > during)
        await agent.cycles(1)
        breaker = await agent.breaker_open()

    assert (handshake, held, breaker) == (1, True, 0)


async def test_a_directory_that_was_made_anew_and_then_put_back_closes_no_breaker(fleet, state):
    async with running(fleet) as agent:
        await until(lambda: agent.record.logins > 0)
        state.rename(fleet.folder / "away")
        await until(lambda: agent.state().breaker_open)
        during, handshake = agent.record.logins, await agent.handshake()
        shutil.rmtree(state)
        (fleet.folder / "away").rename(state)
        await agent.cycles(7)
        # Logins may have been lost in between: nobody knows.
        held, breaker = agent.record.logins == during, await agent.breaker_open()
        allow(fleet)
        await until(lambda: agent.record.logins > during)

    assert (handshake, held, breaker) == (1, True, 1)


async def test_a_directory_that_comes_late_needs_no_restart(fleet, state):
    state.touch()  # a file stands in its place
    with capture_logs() as logs:
        async with running(fleet) as agent:
            await agent.cycles(2)
            without, handshake = agent.record.logins, await agent.handshake()
            state.unlink()
            await until(lambda: agent.record.logins > 0)

    assert (without, handshake) == (0, 1)
    events = [entry["event"] for entry in logs]
    assert events.count("no login will be made: the state directory cannot be used") == 1
    assert events.count("the state directory can be used again") == 1


async def test_another_program_s_lock_stops_logins_for_as_long_as_it_lasts(fleet, state):
    async with running(fleet) as agent:
        await until(lambda: agent.record.logins > 0)
        other = sqlite3.connect(state / FILE_NAME, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await agent.cycles(1)
        during = agent.record.logins
        await agent.cycles(2)
        handshake, held = await agent.handshake(), agent.record.logins == during
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: agent.record.logins > during)

    assert handshake == 1
    assert held


@pytest.fixture
def volume(state):
    """Mount a small file system of its own, or say why that is not possible here."""
    state.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(volume):
    with (volume / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_stops_logins_alone_and_for_as_long_as_it_is_full(fleet, volume):
    async with running(fleet) as agent:
        await until(lambda: agent.record.logins > 0)
        await asyncio.to_thread(fill, volume)
        await agent.cycles(2)
        during = agent.record.logins
        await agent.cycles(2)
        handshake, held = await agent.handshake(), agent.record.logins == during
        (volume / "ballast").unlink()
        await until(lambda: agent.record.logins > during)

    assert handshake == 1
    assert held


async def test_a_read_only_disk_stops_logins_alone_and_for_as_long_as_it_is(fleet, volume):
    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(volume)], check=True)

    remount("ro")
    async with running(fleet) as agent:
        await agent.cycles(2)
        handshake, logins = await agent.handshake(), agent.record.logins
        remount("rw")
        await until(lambda: agent.record.logins > 0)

    assert handshake == 1
    assert logins == 0
