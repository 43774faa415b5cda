"""How long each stage took, and how long it may take, under one deadline for the whole cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time a stage, also when it fails; a stage that runs twice has both times."""
        began = self._clock()
        try:
            yield
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + self._clock() - began

    def seconds(self, limit: float) -> float:
        """Return how long a stage of that limit may take now."""
        return max(0.0, min(limit, self._deadline - self._clock()))
