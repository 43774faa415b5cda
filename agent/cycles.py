"""What each org's last cycles showed, so that a person sees how it came to this.

A Ring is the cycles of one org that are kept: the last that went well, and those with trouble for
longer. Nothing is in it that a report does not show. A cycle that is like the one before shares
what it showed with it, so that ten thousand orgs stay affordable: a healthy org takes about 3 KB,
one whose every cycle fails otherwise about 20. Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from agent.diagnosis import Cause
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    Outcome,
    Probe,
    ProbeResult,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
    went_wrong,
)

MOST_WELL: Final = 24
MOST_TROUBLED: Final = 30
# A server chooses what it says; what is longer is in the log.
_LONGEST: Final = 300
_FORMAT: Final = 1

_STAGES: Final = tuple(Stage)
# Number, Unix time, and the seconds of each stage; NaN where it did not begin.
_ROW: Final = struct.Struct(f"<Id{len(_STAGES)}f")

# One of each is enough.
_SUCCESS: Final = Success()
_SKIPPED: Final = {cause: Skipped(cause) for cause in SkipCause}
_REASONS: Final = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a cycle showed, times apart. `causes` are the names of the best, by probe."""

    client_auth: ClientAuth
    alert: str | None
    outcomes: tuple[tuple[Probe, Outcome], ...]
    causes: tuple[tuple[Probe, str], ...] = ()

    @property
    def troubled(self) -> bool:
        """Something failed or proved nothing, or a login was stopped by an earlier failure."""
        return any(
            went_wrong(outcome) or isinstance(outcome, Undetermined) for _, outcome in self.outcomes
        )


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle as it is remembered; `number` counts the org's cycles from 1."""

    row: bytes
    seen: Seen

    @property
    def number(self) -> int:
        """Which cycle of its org it was."""
        number: int = _ROW.unpack(self.row)[0]
        return number

    @property
    def at(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(_ROW.unpack(self.row)[1], UTC)

    @property
    def stages(self) -> Mapping[Stage, float]:
        """The seconds of every stage that began, in order."""
        took = zip(_STAGES, _ROW.unpack(self.row)[2:], strict=True)
        return {stage: seconds for stage, seconds in took if not math.isnan(seconds)}


@dataclass(frozen=True, slots=True)
class Ring:
    """The cycles of one org that are kept, each kind oldest first."""

    well: tuple[Cycle, ...] = ()
    troubled: tuple[Cycle, ...] = ()
    count: int = 0

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """All that are kept, oldest first."""
        return tuple(sorted((*self.well, *self.troubled), key=lambda cycle: cycle.number))

    @property
    def latest(self) -> Cycle | None:
        """The last cycle."""
        ends = [*self.well[-1:], *self.troubled[-1:]]
        return max(ends, key=lambda cycle: cycle.number, default=None)

    def after(self, result: ProbeResult, causes: Mapping[Probe, Cause] | None = None) -> Ring:
        """Return the ring after one more cycle."""
        seen, latest = _seen(result, causes or {}), self.latest
        if latest is not None and latest.seen == seen:
            seen = latest.seen
        number = self.count + 1
        took = (result.stages.get(stage, math.nan) for stage in _STAGES)
        cycle = Cycle(_ROW.pack(number, result.started_at.timestamp(), *took), seen)
        if seen.troubled:
            return Ring(self.well, _bounded((*self.troubled, cycle)), number)
        return Ring((*self.well, cycle)[-MOST_WELL:], self.troubled, number)


def pack(ring: Ring) -> bytes:
    """Return the ring as it is kept on a disk."""
    distinct = list(dict.fromkeys(cycle.seen for cycle in ring.cycles))
    places = {seen: place for place, seen in enumerate(distinct)}
    kept = {
        "format": _FORMAT,
        "count": ring.count,
        "seen": [_to_json(seen) for seen in distinct],
        "cycles": [
            [
                cycle.number,
                cycle.at.timestamp(),
                places[cycle.seen],
                {stage.value: round(seconds, 6) for stage, seconds in cycle.stages.items()},
            ]
            for cycle in ring.cycles
        ],
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def unpack(data: bytes) -> Ring:
    """Return the ring that was kept; ValueError when it cannot be read any more."""
    try:
        kept = json.loads(data)
        if kept["format"] != _FORMAT:
            raise ValueError("another format")
        distinct = [_from_json(seen) for seen in kept["seen"]]
        cycles = [
            Cycle(_row(number, at, took), distinct[place])
            for number, at, place, took in kept["cycles"]
        ]
        count = max(int(kept["count"]), *(cycle.number for cycle in cycles), 0)
    except (KeyError, IndexError, TypeError, struct.error, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    well = (cycle for cycle in cycles if not cycle.seen.troubled)
    troubled = (cycle for cycle in cycles if cycle.seen.troubled)
    return Ring(tuple(well)[-MOST_WELL:], tuple(troubled)[-MOST_TROUBLED:], count)


def _bounded(troubled: tuple[Cycle, ...]) -> tuple[Cycle, ...]:
    """Drop one cycle when there are too many: of a long outage, beginning and end are telling."""
    if len(troubled) <= MOST_TROUBLED:
        return troubled
    last = len(troubled) - 1
    repeated = next(
        (
            place
            for place in range(1, last)
            if troubled[place - 1].seen is troubled[place].seen is troubled[place + 1].seen
        ),
        0,
    )
    return troubled[:repeated] + troubled[repeated + 1 :]


def _seen(result: ProbeResult, causes: Mapping[Probe, Cause]) -> Seen:
    handshake = result.handshake
    failing = isinstance(result.outcomes.get(Probe.HANDSHAKE), Failure)
    return Seen(
        client_auth=result.client_auth,
        alert=handshake.alert if handshake and failing else None,
        outcomes=tuple((probe, _short(outcome)) for probe, outcome in result.outcomes.items()),
        causes=tuple((probe, cause.name) for probe, cause in causes.items()),
    )


def _short(outcome: Outcome) -> Outcome:
    match outcome:
        case Success():
            return _SUCCESS
        case Failure(reason, detail):
            return Failure(reason, _cut(detail))
        case Undetermined(reason, detail):
            return Undetermined(reason, _cut(detail))
        case Skipped(cause):
            return _SKIPPED[cause]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _row(number: int, at: float, took: Mapping[str, float]) -> bytes:
    return _ROW.pack(number, at, *(took.get(stage.value, math.nan) for stage in _STAGES))


def _to_json(seen: Seen) -> dict[str, Any]:
    return {
        "client_auth": seen.client_auth.value,
        "alert": seen.alert,
        "outcomes": {probe.value: _outcome(outcome) for probe, outcome in seen.outcomes},
        "causes": {probe.value: name for probe, name in seen.causes},
    }


def _outcome(outcome: Outcome) -> Sequence[str]:
    match outcome:
        case Success():
            return ["success"]
        case Failure(reason, detail):
            return ["failure", reason.value, detail]
        case Undetermined(reason, detail):
            return ["undetermined", reason.value, detail]
        case Skipped(cause):
            return ["skipped", cause.value]


def _from_json(seen: Mapping[str, Any]) -> Seen:
    alert = seen["alert"]
    return Seen(
        client_auth=ClientAuth(seen["client_auth"]),
        alert=None if alert is None else str(alert),
        outcomes=tuple((Probe(p), _read(*o)) for p, o in seen["outcomes"].items()),
        causes=tuple((Probe(p), str(name)) for p, name in seen["causes"].items()),
    )


def _read(kind: str, label: str = "", detail: str = "") -> Outcome:
    match kind:
        case "success":
            return _SUCCESS
        case "failure":
            return Failure(_REASONS[label], detail)
        case "undetermined":
            return Undetermined(_REASONS[label], detail)
        case "skipped":
            return _SKIPPED[SkipCause(label)]
        case _:
            raise ValueError(f"no such outcome: {kind}")
