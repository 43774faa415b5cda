"""The last cycles of an org as a strip of squares, and each with the time of its stages as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.cycles import Cycle
from agent.result import Failure, Probe, SkipCause, Skipped, Stage, Undetermined, went_wrong
from agent.status.view import PROBES
from agent.status.wording import absolute, count, milliseconds, relative

# A bar is so many units wide; what took any time at all is one wide at least.
WIDTH: Final = 1000.0

# Why a login was not tried, where that is news.
_TELLING: Final = frozenset(
    {
        SkipCause.BREAKER_OPEN,
        SkipCause.BUDGET,
        SkipCause.IN_FLIGHT,
        SkipCause.MAINTENANCE,
        SkipCause.STATE_UNAVAILABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Bar:
    """How long a stage took: `start` and `width` are in WIDTHs of the whole."""

    stage: str
    took: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Mark:
    """One cycle. `kind` is well, failing or unclear; `skipped` is how many before it are gone."""

    number: int
    kind: str
    at: datetime
    words: str
    label: str
    skipped: int
    took: str
    bars: tuple[Bar, ...]
    causes: tuple[str, ...]


def trail(cycles: Sequence[Cycle], now: datetime) -> tuple[Mark, ...]:
    """Return the marks of these cycles, oldest first."""
    longest = max((sum(cycle.stages.values()) for cycle in cycles), default=0.0)
    marks = []
    before: int | None = None
    for cycle in cycles:
        number, at = cycle.number, cycle.at
        words = _words(cycle)
        skipped = 0 if before is None else number - before - 1
        gap = f"; before it {count(skipped, 'cycle')} not kept" if skipped else ""
        marks.append(
            Mark(
                number=number,
                kind=_kind(cycle),
                at=at,
                words=words,
                label=f"{relative(at, now)}, {absolute(at)}: {words}{gap}",
                skipped=skipped,
                took=milliseconds(sum(cycle.stages.values())),
                bars=bars(cycle.stages, longest),
                causes=tuple(name for _, name in cycle.seen.causes),
            )
        )
        before = number
    return tuple(marks)


def bars(stages: Mapping[Stage, float], whole: float | None = None) -> tuple[Bar, ...]:
    """Return one bar for each stage, one after the other; `whole` is what fills the width."""
    total = whole or sum(stages.values()) or 1.0
    found = []
    start = 0.0
    for stage, seconds in stages.items():
        width = seconds / total * WIDTH
        shown = Bar(stage.value, milliseconds(seconds), round(start, 1), round(max(width, 1.0), 1))
        found.append(shown)
        start += width
    return tuple(found)


def _kind(cycle: Cycle) -> str:
    if not cycle.seen.troubled:
        return "well"
    # A login that an earlier failure stopped is still that failure.
    return "failing" if any(went_wrong(o) for _, o in cycle.seen.outcomes) else "unclear"


def _words(cycle: Cycle) -> str:
    told = [
        f"{PROBES[probe]} {_verb(outcome)}: {outcome.reason.value}"
        + (f" ({outcome.detail})" if outcome.detail else "")
        for probe, outcome in cycle.seen.outcomes
        if isinstance(outcome, Failure | Undetermined)
    ]
    told += [
        f"{PROBES[probe]} not tried: {outcome.cause.value}"
        for probe, outcome in cycle.seen.outcomes
        if isinstance(outcome, Skipped) and probe is Probe.LOGIN and outcome.cause in _TELLING
    ]
    return "; ".join(told) or "all well"


def _verb(outcome: Failure | Undetermined) -> str:
    return "failed" if isinstance(outcome, Failure) else "unclear"
