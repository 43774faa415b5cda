"""Probes an org when somebody asks, never beside another cycle of it, and never often.

What a login may do is decided where it always is: budget, breaker and one login at a time for a
user hold for whoever asks. Here it is only seen to that clicks cannot pile up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from agent.result import Probe, ProbeResult

DOOR: Final = frozenset({Probe.HANDSHAKE})
DOOR_AND_LOGIN: Final = frozenset({Probe.HANDSHAKE, Probe.LOGIN, Probe.SESSION})

# The next one of the same org; as many of all orgs at once.
_BETWEEN_SECONDS: Final = 5.0
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A cycle of this org is under way; it will tell as much."""


@dataclass(frozen=True, slots=True)
class TooMany:
    """It was asked for too soon or too much; `seconds` until it may be asked for again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such org any more, or the agent is stopping."""


Answer = ProbeResult | UnderWay | TooMany | Gone


class Turns:
    """Lets the cycles of an org take turns, whoever wants them."""

    def __init__(self) -> None:
        self._taken: dict[str, asyncio.Lock] = {}

    def taken(self, name: str) -> bool:
        """Tell whether a cycle of this org is under way."""
        return name in self._taken

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn of an org and have it."""
        while (other := self._taken.get(name)) is not None:
            async with other:
                pass
        mine = self._taken[name] = asyncio.Lock()
        try:
            async with mine:
                yield
        finally:
            del self._taken[name]


class OnDemand:
    """Runs what is asked for. Belongs to one event loop.

    `run` takes the turn of the org and runs one cycle with these probes; None when the org is gone.
    """

    def __init__(
        self,
        run: Callable[[str, frozenset[Probe]], Coroutine[Any, Any, ProbeResult | None]],
        turns: Turns,
        clock: Callable[[], float],
    ) -> None:
        self._run = run
        self._turns = turns
        self._clock = clock
        self._running: dict[str, asyncio.Task[ProbeResult | None]] = {}
        self._ended: dict[str, float] = {}
        self._closed = False

    async def ask(self, name: str, probes: frozenset[Probe]) -> Answer:
        """Probe an org now, unless something is against it; it goes on when nobody waits."""
        if self._closed:
            return Gone()
        if name in self._running or self._turns.taken(name):
            return UnderWay()
        if (wait := self._wait(name)) > 0:
            return TooMany(wait)
        task = asyncio.create_task(self._run(name, probes), name="on demand")
        self._running[name] = task
        task.add_done_callback(lambda _: self._over(name))
        await asyncio.wait([task])
        if task.cancelled():
            return Gone()
        return task.result() or Gone()

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, wait for what is under way, and cancel what takes longer."""
        self._closed = True
        tasks = tuple(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _wait(self, name: str) -> float:
        now = self._clock()
        # What is long over need not be remembered.
        self._ended = {n: at for n, at in self._ended.items() if now - at < _BETWEEN_SECONDS}
        if len(self._running) >= _AT_ONCE:
            return 1.0
        ended = self._ended.get(name)
        return 0.0 if ended is None else _BETWEEN_SECONDS - (now - ended)

    def _over(self, name: str) -> None:
        del self._running[name]
        self._ended[name] = self._clock()
