"""How long each stage took, and how long it may take, under one deadline for the whole cycle."""

from __future__ import annotations

from collections.abc import Callable

from agent.result import Stage


class Stopwatch:
    """Times the stages of one cycle; `clock` is monotonic and counts seconds.

    `deadline` is a moment of that clock: whatever a cycle does beside its main connection has the
    same one (see `aside`), or three probes would take three times as long as one.
    """

    def __init__(self, clock: Callable[[], float], deadline: float) -> None:
        self._clock = clock
        self._deadline = deadline
        self.stages: dict[Stage, float] = {}

    def aside(self) -> Stopwatch:
        """Return a stopwatch under the same deadline whose stages are its own."""
        return Stopwatch(self._clock, self._deadline)

    def stage(self, stage: Stage) -> _Timed:
        """Time what is in the block, also when it fails; a stage that runs twice has both times."""
        return _Timed(stage, self.stages, self._clock)

    def seconds(self, limit: float) -> float:
        """Return how long a stage of that limit may take now."""
        return max(0.0, min(limit, self._deadline - self._clock()))


class _Timed:
    """Not `contextlib.contextmanager`, which costs three times as much, six times a cycle."""

    __slots__ = ("_began", "_clock", "_stage", "_stages")

    def __init__(
        self, stage: Stage, stages: dict[Stage, float], clock: Callable[[], float]
    ) -> None:
        self._stage = stage
        self._stages = stages
        self._clock = clock

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        took = self._clock() - self._began
        self._stages[self._stage] = self._stages.get(self._stage, 0.0) + took
