"""Keeps the last cycles of every org, in memory and over restarts; `cycles` says what is in them.

What a store had is read when it is first asked for. Writing happens in the store's own thread, at
most once a minute and once more at the end, and only what is news: that another good cycle went by
is not, so that ten thousand healthy orgs write next to nothing. A write that is lost costs a few
squares on a page. Without a store everything is known until the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Final

import structlog

from agent import cycles
from agent.cycles import Cycle, Ring
from agent.diagnosis import Cause
from agent.result import Failure, Probe, ProbeResult
from agent.state import Snapshot
from agent.store import Store, StoreError

_BETWEEN_WRITES: Final = 60.0
# So that the store is free for logins again after some ten milliseconds.
_AT_ONCE: Final = 200

_log: Final = structlog.get_logger(__name__)

Ask = Callable[[Callable[[Store], None]], Awaitable[None]]


class Journal:
    """Remembers cycles. One event loop writes; any thread may read.

    `kept` is what a store had at the beginning; without `ask` nothing is written. `between` is the
    least time between two writes, in seconds.
    """

    def __init__(
        self,
        kept: Mapping[str, bytes] | None = None,
        ask: Ask | None = None,
        between: float = _BETWEEN_WRITES,
    ) -> None:
        self._kept = dict(kept or {})
        self._ask = ask
        self._between = between
        self._rings: dict[str, Ring] = {}
        self._last: dict[str, ProbeResult] = {}
        # What is on the disk is as it was then.
        self._written: dict[str, Ring] = {}
        self._news: set[str] = set()
        self._writing: asyncio.Task[None] | None = None
        self._failing = False

    def take(self, result: ProbeResult, snapshot: Snapshot | None) -> None:
        """Take in one more cycle, after the board did; nothing happens when the org is gone."""
        if snapshot is None:
            return
        name, causes = result.org, _causes(result, snapshot)
        before = self._ring(name)
        self._kept.pop(name, None)
        after = before.after(result, causes)
        self._rings[name], self._last[name] = after, result
        latest, previous = after.latest, before.latest
        if latest and (previous is None or previous.seen is not latest.seen):
            self._news.add(name)
            self._write_soon()

    def forget(self, name: str) -> None:
        """Know nothing more of an org."""
        for known in (self._kept, self._rings, self._last, self._written):
            known.pop(name, None)
        self._news.discard(name)

    def cycles(self, name: str) -> tuple[Cycle, ...]:
        """Return the cycles of an org that are kept, oldest first; from any thread."""
        return self._ring(name).cycles

    def last(self, name: str) -> ProbeResult | None:
        """Return the last cycle since the start as it was; from any thread."""
        return self._last.get(name)

    async def aclose(self) -> None:
        """Write down all that is not on the disk."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        if self._ask is not None:
            await self._write(
                self._ask, [n for n, r in self._rings.items() if self._written.get(n) is not r]
            )

    def _ring(self, name: str) -> Ring:
        known = self._rings.get(name)
        if known is not None:
            return known
        kept = self._kept.get(name)
        if kept is None:
            return Ring()
        try:
            return cycles.unpack(kept)
        except ValueError as error:
            _log.warning("the cycles before cannot be read", org=name, error=str(error))
            self._kept.pop(name, None)
            return Ring()

    def _write_soon(self) -> None:
        if self._ask is not None and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_later(self._ask), name="journal")

    async def _write_later(self, ask: Ask) -> None:
        while self._news:
            await asyncio.sleep(self._between)
            batch, self._news = self._news, set()
            await self._write(ask, batch)

    async def _write(self, ask: Ask, names: Iterable[str]) -> None:
        rest = iter(list(names))
        while some := tuple(islice(rest, _AT_ONCE)):
            batch = {name: self._rings[name] for name in some if name in self._rings}
            try:
                await ask(partial(_keep, batch))
            except StoreError as error:
                if not self._failing:
                    _log.warning("the last cycles cannot be kept", error=str(error))
                self._failing = True
                return
            self._failing = False
            self._written |= batch


def _causes(result: ProbeResult, snapshot: Snapshot) -> Mapping[Probe, Cause]:
    """Return the best of the likely causes of what failed in this cycle."""
    return {
        probe: status.cause
        for probe, status in snapshot.probes.items()
        if status.cause is not None and isinstance(result.outcomes.get(probe), Failure)
    }


def _keep(rings: Mapping[str, Ring], store: Store) -> None:
    store.keep_cycles({name: cycles.pack(ring) for name, ring in rings.items()})
