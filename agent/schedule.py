"""When to probe: every org at its interval, at a phase of its own, never twice at once.

The only module that imports APScheduler (3.x; 4 is not released for production). What it must be
told: a late run is still wanted (`misfire_grace_time=None`; the default drops a run that is 1 s
late), several missed runs are one (`coalesce`), no overlap (`max_instances=1`), and no jitter: its
jitter accumulates, so that "every 10 s ± 5" runs every 12.5 s. The phase of an org is a hash of its
name, so that neither a start nor a restart makes all orgs begin at once.

Three things are done here because it cannot do them. Its own interval trigger walks through every
missed run, which takes seconds after a day's sleep. It plans by the wall clock and waits by the
monotonic one, so after a step back it would sleep until the old time comes round again. And its
shutdown cancels what is under way and logs that as an error.

It also knows what a line of crontab(5) means, of which it differs in three points: it counts the
days of the week from Monday, wants a day of the month and of the week at once, and takes more than
there is in such a line.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from apscheduler.events import (
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_SUBMITTED,
    JobSubmissionEvent,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

Job = Callable[[float], Awaitable[None]]

# How often the clocks are compared, and from which difference on it is a jump. NTP corrects less
# than half a second by slewing (ntpd(8)), which needs nothing done.
_LOOK_SECONDS: Final = 5.0
_JUMP_SECONDS: Final = 1.0

# How long something may take to end that was told to.
_CANCEL_SECONDS: Final = 5.0

# No org's name has a blank.
_BEAT: Final = "the beat"


def phase(name: str, interval: float) -> float:
    """Return the seconds after a multiple of `interval` at which this name's runs begin."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * interval


def next_start(name: str, interval: float, now: float) -> float:
    """Return the first moment from `now` on (Unix seconds) at which a run of `name` begins."""
    offset = phase(name, interval)
    return now + (offset - now) % interval


def crontab_start(crontab: str, timezone: str, earliest: datetime) -> datetime | None:
    """Return the first moment from `earliest` on that the five fields name, or None without one.

    A time that the clocks leave out in spring is the moment at which they are put forward; one that
    they show twice in autumn counts twice. ValueError says what is wrong, without quoting.
    """
    found = (_first(trigger, earliest) for trigger in _triggers(crontab, timezone))
    return min((start for start in found if start is not None), default=None)


@dataclass(frozen=True, slots=True)
class Missed:
    """Runs of `name` that did not take place, because the one before still ran or we were late.

    `repeated` tells that this goes on: there were not yet two runs in a row in time again.
    """

    name: str
    runs: int
    overlap: bool
    repeated: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: runs that were cancelled, and runs that waited and never began."""

    cancelled: int
    never_began: int


class Schedule:
    """Runs one coroutine function for each name, with at most `max_in_flight` at a time.

    `clock` gives Unix seconds and may jump, `monotonic` may not. `on_start` is told how late each
    run began (seconds); `on_missed` is told of runs that did not take place.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_in_flight: int,
        on_start: Callable[[float], None],
        on_missed: Callable[[Missed], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(max_in_flight)
        self._on_start = on_start
        self._on_missed = on_missed
        self._intervals: dict[str, float] = {}
        # When a run should have begun, from its submission until it begins.
        self._planned: dict[str, float] = {}
        # How many runs in time it still takes until a series of missed ones is over.
        self._behind: dict[str, int] = {}
        self._waiting: set[asyncio.Task[object]] = set()
        self._running: set[asyncio.Task[object]] = set()
        self._draining = False
        self._cancelled = 0
        self._never_began = 0
        self._clocks = _Clocks(clock, monotonic)
        self._look: asyncio.TimerHandle | None = None
        # Its warnings are only the overlaps that `on_missed` is told of.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._submitted, EVENT_JOB_SUBMITTED)
        self._scheduler.add_listener(self._overlapped, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin to run what was added; needs a running event loop."""
        if not self._scheduler.running:
            self._scheduler.start(paused=True)
        self._replan()
        self._look_again()

    def add(self, name: str, interval: float, job: Job) -> None:
        """Run `job` every `interval` seconds from its phase on, replacing an older job.

        It is told how late it begins (seconds). It must not raise: whoever gives it knows what to
        do with a bug.
        """
        self._add(name, interval, self._run, (name, job))

    def beat(self, interval: float, beat: Callable[[], object]) -> None:
        """Call `beat` every `interval` seconds, as a sign that the schedule still works."""

        # A coroutine function: APScheduler would run a plain one in a thread.
        async def run() -> None:
            beat()

        self._add(_BEAT, interval, run, ())

    def remove(self, name: str) -> None:
        """Run this name no more; a run under way ends by itself."""
        self._scheduler.remove_job(name)
        del self._intervals[name]
        self._planned.pop(name, None)
        self._behind.pop(name, None)

    def next_run(self, name: str) -> float:
        """Return when the next run of a name is planned (Unix seconds); KeyError if it has none."""
        job = self._scheduler.get_job(name)
        if job is None:
            raise KeyError(name)
        moment: datetime = job.next_run_time
        return moment.timestamp()

    @property
    def in_flight(self) -> int:
        """The number of runs under way."""
        return len(self._running)

    def look_at_clocks(self) -> None:
        """Plan everything anew if the wall clock was set, or stood still with the machine."""
        if self._clocks.jumped() and not self._draining:
            self._replan()

    async def drain(self, seconds: float) -> Drained:
        """Start nothing more, wait for what is under way, and cancel what takes longer."""
        self._draining = True
        if self._look is not None:
            self._look.cancel()
        if not self._scheduler.running:
            return Drained(0, 0)
        self._scheduler.pause()
        # What was submitted in this very moment begins, and sees that it must not.
        await asyncio.sleep(0)
        await _cancel(self._waiting)
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        await _cancel(self._running)
        self._scheduler.shutdown(wait=False)
        # It shuts down in the next round of the event loop.
        await asyncio.sleep(0)
        return Drained(self._cancelled, self._never_began)

    def _replan(self) -> None:
        """Plan the next run of each name from the clock as it is now."""
        now = self._clock()
        # While it pauses, it does not wake up for each change.
        self._scheduler.pause()
        for name, interval in self._intervals.items():
            begins = datetime.fromtimestamp(next_start(name, interval, now), UTC)
            self._scheduler.modify_job(name, next_run_time=begins)
        self._scheduler.resume()

    def _add(
        self,
        name: str,
        interval: float,
        function: Callable[..., Awaitable[None]],
        arguments: tuple[object, ...],
    ) -> None:
        if not self._scheduler.running:
            # Until `start` it plans without running anything.
            self._scheduler.start(paused=True)
        self._scheduler.add_job(
            function,
            _Phase(name, interval),
            args=arguments,
            id=name,
            replace_existing=True,
            next_run_time=datetime.fromtimestamp(next_start(name, interval, self._clock()), UTC),
        )
        self._intervals[name] = interval

    async def _run(self, name: str, job: Job) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a run is a task")
        planned = self._planned.pop(name, None)
        self._waiting.add(task)
        try:
            async with self._slots:
                if not self._draining:
                    self._waiting.discard(task)
                    self._running.add(task)
                    late = 0.0 if planned is None else max(0.0, self._clock() - planned)
                    self._on_start(late)
                    await job(late)
        except asyncio.CancelledError:
            # APScheduler would log our own cancelling as a bug; the task ends here anyway.
            if not self._draining:
                raise
            self._cancelled += task in self._running
        finally:
            self._never_began += task in self._waiting
            self._waiting.discard(task)
            self._running.discard(task)

    def _submitted(self, event: JobSubmissionEvent) -> None:
        name = event.job_id
        self._planned[name] = self._begun(event)
        missed = self._coalesced(name, self._planned[name])
        if missed:
            self._tell(name, missed, overlap=False)
        elif name in self._behind:
            self._behind[name] -= 1
            if not self._behind[name]:
                del self._behind[name]

    def _overlapped(self, event: JobSubmissionEvent) -> None:
        name = event.job_id
        self._tell(name, 1 + self._coalesced(name, self._begun(event)), overlap=True)

    def _begun(self, event: JobSubmissionEvent) -> float:
        """Return when the run should have begun, by the clock as it is now."""
        self.look_at_clocks()
        moment: datetime = event.scheduled_run_times[-1]
        # What was planned before the clock jumped ahead is not late; it was never its time.
        return max(moment.timestamp(), self._clocks.valid_from)

    def _coalesced(self, name: str, planned: float) -> int:
        interval = self._intervals.get(name)
        return 0 if interval is None else max(0, int((self._clock() - planned) // interval))

    def _tell(self, name: str, runs: int, *, overlap: bool) -> None:
        if name == _BEAT:
            return
        repeated = name in self._behind
        self._behind[name] = 2
        self._on_missed(Missed(name, runs, overlap, repeated))

    def _look_again(self) -> None:
        self.look_at_clocks()
        self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_again)


class _Phase(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fires at the name's phase; from however long ago, in one step to the first after now."""

    __slots__ = ("_interval", "_name")

    def __init__(self, name: str, interval: float) -> None:
        self._name = name
        self._interval = interval

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the first phase after both moments."""
        earliest = now.timestamp()
        if previous_fire_time is not None:
            # Not just after: what was rounded to a microsecond may lie before its own phase.
            earliest = max(earliest, previous_fire_time.timestamp() + self._interval / 2)
        return datetime.fromtimestamp(next_start(self._name, self._interval, earliest), UTC)


async def _cancel(tasks: set[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)


class _Clocks:
    """Notices when wall and monotonic clock do not go on together."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._difference = wall() - monotonic()
        self.valid_from = float("-inf")

    def jumped(self) -> bool:
        """Tell whether there was a jump since the last call; `valid_from` is then its end."""
        now = self._wall()
        difference = now - self._monotonic()
        jump, self._difference = difference - self._difference, difference
        if abs(jump) <= _JUMP_SECONDS:
            return False
        self.valid_from = now
        return True


# --- a line of crontab(5)

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_SECOND: Final = timedelta(seconds=1)
# Ours and the scheduler's name of each field, and what stands there beside numbers.
_FIELDS: Final = (
    ("minute", "minute", r"\d\d?"),
    ("hour", "hour", r"\d\d?"),
    ("day of the month", "day", r"\d\d?"),
    ("month", "month", rf"\d\d?|{_MONTHS}"),
    ("day of the week", "day_of_week", rf"\d\d?|{'|'.join(_DAYS)}"),
)


@lru_cache(maxsize=256)
def _triggers(crontab: str, timezone: str) -> tuple[BaseTrigger, ...]:
    """Return what fires at the moments that the five fields name, whichever of them is first."""
    texts = crontab.lower().split()
    if len(texts) != len(_FIELDS):
        raise ValueError(
            "must be the five fields of crontab(5): minute, hour, day of the month, month, day of "
            "the week"
        )
    fields = {
        name: _field(text, *field)
        for text, field in zip(texts, _FIELDS, strict=True)
        for name in [field[1]]
    }
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    if "*" in texts[2] or "*" in texts[4]:
        return (CronTrigger(**fields, timezone=zone),)
    # crontab(5): where both days are restricted, either is enough.
    return tuple(
        CronTrigger(**{**fields, other: "*"}, timezone=zone) for other in ("day", "day_of_week")
    )


def _first(trigger: BaseTrigger, earliest: datetime) -> datetime | None:
    # From a little before: at the moment itself the clocks may be past what they leave out.
    after = earliest - _SECOND
    while (start := trigger.get_next_fire_time(None, after)) is not None:
        moment = _moment(start)
        if moment >= earliest:
            return moment
        after = moment + _SECOND
    return None


def _moment(start: datetime) -> datetime:
    """Return when the clocks show this time, or when they are put forward over it."""
    late = start.astimezone(UTC)
    skipped = late.astimezone(start.tzinfo).replace(tzinfo=None) - start.replace(tzinfo=None)
    before = start.utcoffset()
    early = late - skipped
    # As the offset has it from which they are put forward, it is late by what is past of the gap.
    while late - early > _SECOND and skipped:
        middle = early + (late - early) // 2
        if middle.astimezone(start.tzinfo).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)


def _field(text: str, said: str, name: str, values: str) -> str:
    """Return a field as the scheduler wants it; ValueError when it is none of crontab(5)'s."""
    item = rf"(?:\*|(?:{values})-(?:{values}))(?:/\d\d?)?|(?:{values})"
    try:
        if not re.fullmatch(rf"(?:{item})(?:,(?:{item}))*", text, re.ASCII):
            raise ValueError(text)  # noqa: TRY301 - as what the scheduler refuses
        field = _weekdays(text) if name == "day_of_week" else text
        CronTrigger(**{name: field}, timezone=UTC)
    except ValueError:
        raise ValueError(f"crontab(5) knows no such {said}") from None
    return field


def _weekdays(text: str) -> str:
    """Return the days of the week by their names: 0 and 7 are Sunday."""
    numbers = re.sub("|".join(_DAYS), lambda day: str(_DAYS.index(day[0])), text)
    found: set[int] = set()
    for item in numbers.split(","):
        days, _, step = item.partition("/")
        first, hyphen, last = ("0-6" if days == "*" else days).partition("-")
        # A range may end with Sunday.
        end = (int(last) or 7) if hyphen else int(first)
        found |= set(range(int(first), end + 1, int(step or 1)))
    if not found or max(found) > len(_DAYS):
        raise ValueError(text)
    return ",".join(_DAYS[day % 7] for day in sorted(found))
