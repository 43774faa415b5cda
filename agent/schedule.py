"""When to probe: every org at its interval, at a phase of its own, never twice at once.

The only module that imports APScheduler (3.x; 4 is not released for production). What it must be
told: a late run is still wanted (`misfire_grace_time=None`; the default drops a run that is 1 s
late), several missed runs are one (`coalesce`), no overlap (`max_instances=1`), and no jitter: its
jitter accumulates, so that "every 10 s ± 5" runs every 12.5 s. The phase of an org is a hash of its
name, so that neither a start nor a restart makes all orgs begin at once. Its shutdown cancels what
is under way, so draining is done here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger


def phase(name: str, interval: float) -> float:
    """Return the seconds after a multiple of `interval` at which this name's runs begin."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * interval


def next_start(name: str, interval: float, now: float) -> float:
    """Return the first moment from `now` on (Unix seconds) at which a run of `name` begins."""
    offset = phase(name, interval)
    return now + (offset - now) % interval


class Schedule:
    """Runs one coroutine function for each name, with at most `max_in_flight` at a time.

    `clock` gives Unix seconds. `on_start` is told how late each run began (seconds); `on_overlap`
    is told the name of a run that was skipped because the previous one was still under way.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_in_flight: int,
        on_start: Callable[[float], None],
        on_overlap: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(max_in_flight)
        self._on_start = on_start
        self._on_overlap = on_overlap
        self._running: set[asyncio.Task[object]] = set()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._overlapped, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin to run what was added; needs a running event loop."""
        self._scheduler.start()

    def add(self, name: str, interval: float, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` every `interval` seconds from its phase on, replacing an older job.

        The job must not raise: whoever gives it knows what to do with a bug.
        """
        begins = next_start(name, interval, self._clock())
        self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=interval, timezone=UTC),
            args=(name, interval, job),
            id=name,
            replace_existing=True,
            next_run_time=datetime.fromtimestamp(begins, UTC),
        )

    def beat(self, interval: float, beat: Callable[[], object]) -> None:
        """Call `beat` every `interval` seconds, as a sign that the schedule still works."""

        # A coroutine function: APScheduler would run a plain one in a thread.
        async def run() -> None:
            beat()

        self._scheduler.add_job(run, IntervalTrigger(seconds=interval, timezone=UTC))

    def remove(self, name: str) -> None:
        """Run this name no more; a run under way ends by itself."""
        self._scheduler.remove_job(name)

    @property
    def in_flight(self) -> int:
        """The number of runs under way."""
        return len(self._running)

    async def drain(self, seconds: float) -> int:
        """Start nothing more, wait for what is under way, and cancel what takes longer.

        Returns how many runs had to be cancelled.
        """
        self._scheduler.pause()
        late: set[asyncio.Task[object]] = set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        self._scheduler.shutdown(wait=False)
        return len(late)

    async def _run(self, name: str, interval: float, job: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a run is a task")
        due = next_start(name, interval, self._clock() - interval / 2)
        async with self._slots:
            self._running.add(task)
            self._on_start(max(0.0, self._clock() - due))
            try:
                await job()
            finally:
                self._running.discard(task)

    def _overlapped(self, event: JobSubmissionEvent) -> None:
        self._on_overlap(event.job_id)
