"""When runs begin, what happens when the clock is set, and how it ends; clocks driven by hand."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED, JobSubmissionEvent
from hypothesis import given
from hypothesis import strategies as st

from agent.schedule import Drained, Missed, Schedule, _Phase, next_start

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class Clock:
    def __init__(self, moment):
        self.moment = moment

    def __call__(self):
        return self.moment


class Kit:
    """A schedule whose clocks a test drives, and what it told."""

    def __init__(self, wall, *, slots=10):
        self.wall = wall
        self.monotonic = Clock(0.0)
        self.late = []
        self.missed = []
        self.schedule = Schedule(
            wall, slots, self.late.append, self.missed.append, monotonic=self.monotonic
        )

    def elapse(self, seconds, *, jump=0.0):
        """Let both clocks go on, and set the wall clock ahead by the jump."""
        self.wall.moment += seconds + jump
        self.monotonic.moment += seconds


@asynccontextmanager
async def started(kit):
    kit.schedule.start()
    yield
    await kit.schedule.drain(0)


async def idle(_late):
    pass


class LongAgo:
    """An interval behind: whatever is added is due as soon as the schedule starts."""

    def __init__(self, interval):
        self.behind = interval

    def __call__(self):
        return time.time() - self.behind


class Worker:
    """A job that begins, and ends when it is let go."""

    def __init__(self):
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = False

    async def __call__(self, _late):
        self.began.set()
        await self.release.wait()
        self.ended = True


# --- the clock is set


@pytest.mark.parametrize("jump", [-HOUR, -5.0, HOUR, 86400.0 * 365 * 30])
async def test_after_a_jump_of_the_clock_every_run_is_planned_anew(jump):
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    kit.schedule.beat(30.0, lambda: None)
    async with started(kit):
        kit.elapse(5.0, jump=jump)
        kit.schedule.look_at_clocks()
        planned = kit.schedule.next_run("emea")
        beat = kit.schedule.next_run("the beat")

    assert planned == pytest.approx(next_start("emea", 60.0, kit.wall()), abs=1e-5)
    assert kit.wall() <= beat <= kit.wall() + 30.0


async def test_a_clock_that_is_slewed_changes_no_plan():
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    async with started(kit):
        before = kit.schedule.next_run("emea")
        for _ in range(1000):
            kit.elapse(5.0, jump=0.5)
            kit.schedule.look_at_clocks()
        after = kit.schedule.next_run("emea")

    assert after == before


async def test_what_was_planned_before_the_clock_jumped_ahead_is_neither_late_nor_missed():
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    async with started(kit):
        kit.elapse(5.0, jump=HOUR)
        kit.schedule._submitted(submitted("emea", NOON))
        await kit.schedule._run("emea", idle)

    assert (kit.late, kit.missed) == ([0.0], [])


def test_a_year_of_missed_runs_is_passed_over_in_one_step():
    trigger = _Phase("emea", 1.0)
    begin = datetime.fromtimestamp(next_start("emea", 1.0, NOON), UTC)
    now = begin + timedelta(days=365)

    following = trigger.get_next_fire_time(begin, now)

    assert timedelta(0) <= following - now <= timedelta(seconds=1)


@given(
    interval=st.floats(1.0, 86400.0),
    now=st.floats(0, 4e9),
    ahead=st.floats(-1000.0, 0.0),
)
def test_the_next_run_is_after_now_at_the_phase_and_no_run_comes_twice(interval, now, ahead):
    trigger = _Phase("emea", interval)
    moment = datetime.fromtimestamp(now, UTC)
    previous = datetime.fromtimestamp(next_start("emea", interval, max(0, now + ahead)), UTC)

    following = trigger.get_next_fire_time(previous, moment).timestamp()

    assert following > now - 1e-5
    assert following - previous.timestamp() > interval * 0.4
    off = (following - next_start("emea", interval, 0.0)) % interval
    assert min(off, interval - off) < 1e-3


# --- how late, and how many were missed


def submitted(name, *moments, code=EVENT_JOB_SUBMITTED):
    return JobSubmissionEvent(
        code, name, "default", [datetime.fromtimestamp(moment, UTC) for moment in moments]
    )


@pytest.mark.parametrize("late", [0.0, 0.2, 31.0, 59.0])
async def test_a_run_knows_its_own_time_however_late_it_begins(late):
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    told = []

    async def job(seconds):
        told.append(seconds)

    kit.elapse(late)
    kit.schedule._submitted(submitted("emea", NOON))
    await kit.schedule._run("emea", job)
    await kit.schedule.drain(0)

    assert kit.late == told == [pytest.approx(late)]
    assert kit.missed == []


async def test_waiting_for_a_slot_is_lateness_too():
    wall = LongAgo(5.0)
    kit = Kit(wall, slots=1)
    first, second = Worker(), Worker()
    kit.schedule.add("first", 5.0, first)
    async with started(kit):
        await first.began.wait()
        kit.schedule.add("second", 5.0, second)
        while not kit.schedule._waiting:  # noqa: ASYNC110 - nobody tells when it is submitted
            await asyncio.sleep(0)
        wall.behind -= 12.5
        first.release.set()
        await second.began.wait()
        second.release.set()

    assert kit.late[1] == pytest.approx(10.0, abs=2.6), "two and a half intervals, less its phase"


async def test_runs_that_became_one_are_counted_as_missed():
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    kit.elapse(200.0)
    kit.schedule._submitted(submitted("emea", NOON))
    await kit.schedule.drain(0)

    assert kit.missed == [Missed("emea", runs=3, overlap=False, repeated=False)]


async def test_a_series_of_overlaps_is_news_once_until_two_runs_were_in_time():
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)

    def overlap():
        kit.schedule._overlapped(submitted("emea", NOON, code=EVENT_JOB_MAX_INSTANCES))

    def in_time():
        kit.schedule._submitted(submitted("emea", NOON))

    for happens in (overlap, overlap, in_time, overlap, in_time, in_time, overlap):
        happens()
    await kit.schedule.drain(0)

    assert [missed.repeated for missed in kit.missed] == [False, True, True, False]
    assert all(missed.overlap and missed.runs == 1 for missed in kit.missed)


async def test_an_overlap_is_told_to_us_and_not_logged_by_the_library(caplog):
    kit = Kit(LongAgo(5.0))
    worker = Worker()
    kit.schedule.add("emea", 5.0, worker)
    with caplog.at_level(logging.WARNING):
        async with started(kit):
            await worker.began.wait()
            kit.schedule._scheduler.modify_job("emea", next_run_time=datetime.now(UTC))
            kit.schedule._scheduler._process_jobs()
            worker.release.set()

    assert [missed.overlap for missed in kit.missed] == [True]
    assert caplog.records == []


# --- draining


async def test_draining_lets_what_runs_end_and_starts_nothing_that_waits(caplog):
    kit = Kit(LongAgo(5.0), slots=1)
    workers = [Worker() for _ in range(3)]
    for number, worker in enumerate(workers):
        kit.schedule.add(f"org-{number}", 5.0, worker)
    kit.schedule.start()
    while len(kit.schedule._waiting) < 2:  # noqa: ASYNC110 - nobody tells when it is submitted
        await asyncio.sleep(0)
    (running,) = [worker for worker in workers if worker.began.is_set()]
    draining = asyncio.create_task(kit.schedule.drain(10))
    await asyncio.sleep(0)
    running.release.set()
    drained = await draining

    assert drained == Drained(cancelled=0, never_began=2)
    assert [worker.began.is_set() for worker in workers].count(True) == 1
    assert running.ended
    assert caplog.records == []


async def test_draining_cancels_what_takes_too_long_and_says_how_many(caplog):
    kit = Kit(LongAgo(5.0))
    workers = [Worker() for _ in range(2)]
    for number, worker in enumerate(workers):
        kit.schedule.add(f"org-{number}", 5.0, worker)
    kit.schedule.start()
    for worker in workers:
        await worker.began.wait()
    drained = await kit.schedule.drain(0)

    assert drained == Drained(cancelled=2, never_began=0)
    assert kit.schedule.in_flight == 0
    assert caplog.records == [], "no traceback of the library"


async def test_a_schedule_that_never_started_is_drained_at_once():
    assert await Kit(Clock(NOON)).schedule.drain(0) == Drained(0, 0)


async def test_what_is_removed_has_no_next_run():
    kit = Kit(Clock(NOON))
    kit.schedule.add("emea", 60.0, idle)
    kit.schedule.remove("emea")
    with pytest.raises(KeyError):
        kit.schedule.next_run("emea")
    await kit.schedule.drain(0)
