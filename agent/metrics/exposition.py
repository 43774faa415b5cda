"""Snapshots → the text of /metrics, fast enough for thousands of orgs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.utils import floatToGoString

from agent.metrics.family import empty
from agent.metrics.fleet import Instruments, board_families
from agent.metrics.org import ORG_FAMILIES, Countdown, OrgFamily
from agent.state import Board, Snapshot


class _Families:
    """Gives prometheus_client's renderers the families that they ask a registry for."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


_END: Final = b"# EOF\n"


def _text(families: Iterable[Metric], openmetrics: bool) -> bytes:  # noqa: FBT001 - names a format
    if openmetrics:
        whole: bytes = openmetrics_format.generate_latest(_Families(families))  # type: ignore[no-untyped-call] # prometheus_client says no type here
        return whole.removesuffix(_END)
    return generate_latest(_Families(families))


# What the families are made of, each once, and which of these each family is made of.
_PARTS: Final = tuple(dict.fromkeys(family.part for family in ORG_FAMILIES))
_PART_OF: Final = tuple(_PARTS.index(family.part) for family in ORG_FAMILIES)

# Below this the two notations are one: "Go switches to exponents sooner than Python"
# (prometheus_client.utils).
_EXPONENT: Final = 1e6


def _number(value: float) -> str:
    value = float(value)
    return repr(value) if -math.inf < value < _EXPONENT else _exponent(value)


# Most of these are moments, and a cycle has one.
@lru_cache(maxsize=1024)
def _exponent(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call] # as above


@lru_cache(maxsize=1024)
def _pattern(name: str, labels: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    """Return a line up to its value, with a place for each label, and which label stands where."""
    order = tuple(sorted(range(len(labels)), key=labels.__getitem__))
    places = ",".join(f'{labels[at]}="%s"' for at in order)
    return f"{name}{{{places}}} ", order


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _lines(family: OrgFamily, snapshot: Snapshot) -> Iterator[tuple[str, float | Countdown]]:
    """Yield each line of one org in two: what stands before the value, and the value."""
    labels, own = family.labelled(snapshot.org)
    pattern, order = _pattern(family.name, labels)
    name = snapshot.org.name
    for values, value in family.samples(snapshot):
        texts = (name, *values, *own)
        yield pattern % tuple([_escaped(texts[at]) for at in order]), value


@dataclass(frozen=True, slots=True)
class _Rendered:
    """What one org adds to each family: its lines, or of what ages their beginnings.

    `parts` are what they were made from.
    """

    version: int
    parts: tuple[object, ...]
    lines: tuple[bytes, ...]
    aging: Mapping[int, tuple[tuple[bytes, Countdown], ...]]


class Exposition:
    """The whole /metrics text; an org's lines are made once for each version of its snapshot.

    prometheus_client's renderer takes about 9 µs a line, which is seconds for thousands of orgs.
    Here a line is a pattern of its family and a number, made when something changed (`make_ready`);
    a scrape makes what is missing, joins all of it family by family, as the formats demand, and
    formats only the gauges that age. The text is exactly what prometheus_client gives for all
    families at once. The lines of an org are the same in both formats, whose difference is in the
    headers.
    """

    def __init__(self, board: Board, instruments: Instruments) -> None:
        self.instruments = instruments
        self._board = board
        self._rendered: dict[str, _Rendered] = {}
        self._headers = {
            openmetrics: tuple(_text([empty(family, ())], openmetrics) for family in ORG_FAMILIES)
            for openmetrics in (False, True)
        }

    def render(self, now: datetime, *, openmetrics: bool) -> bytes:
        """Return the text as of `now`, in OpenMetrics 1.0 or in Prometheus' own format 0.0.4.

        It may be called from any thread, from several at once too.
        """
        return b"".join(self.parts(now, openmetrics=openmetrics))

    def make_ready(self, name: str) -> None:
        """Make the lines of an org now, so that the next scrape finds them.

        After a cycle what they are made of lies in the processor's cache; and what a scrape would
        make of all orgs at once, cycles would wait for.
        """
        snapshot = self._board.get(name)
        if snapshot is not None:
            self._up_to_date(snapshot)

    def parts(self, now: datetime, *, openmetrics: bool) -> Iterator[bytes]:
        """Yield the same text family by family: of thousands of orgs it is tens of megabytes."""
        snapshots = self._board.snapshots()
        orgs = [self._up_to_date(snapshot) for snapshot in snapshots]
        for name in self._rendered.keys() - {snapshot.org.name for snapshot in snapshots}:
            self._rendered.pop(name, None)
        agent = (*self.instruments.families(), *board_families(self._board))
        yield _text(agent, openmetrics)
        aging = {index for org in orgs for index in org.aging}
        for index, header in enumerate(self._headers[openmetrics]):
            if index in aging:
                lines = b"".join([_aged(org.aging.get(index, ()), now) for org in orgs])
            else:
                lines = b"".join([org.lines[index] for org in orgs])
            if lines:
                yield header
                yield lines
        if openmetrics:
            yield _END

    def _up_to_date(self, snapshot: Snapshot) -> _Rendered:
        # What is there may be of a cycle that ended since the snapshot was taken: it is as good.
        name = snapshot.org.name
        known = self._rendered.get(name)
        if known is None or known.version < snapshot.version:
            known = self._rendered[name] = _render(snapshot, known)
        return known


def _render(snapshot: Snapshot, before: _Rendered | None) -> _Rendered:
    """Return the lines of one org, those of before where what they are made from is the same."""
    parts = tuple([part(snapshot) for part in _PARTS])
    lines: list[bytes] = []
    aging: dict[int, tuple[tuple[bytes, Countdown], ...]] = {}
    same = [before is not None and part == before.parts[at] for at, part in enumerate(parts)]
    for index, family in enumerate(ORG_FAMILIES):
        if before is not None and same[_PART_OF[index]]:
            lines.append(before.lines[index])
            if index in before.aging:
                aging[index] = before.aging[index]
            continue
        now: list[str] = []
        later: list[tuple[bytes, Countdown]] = []
        for beginning, value in _lines(family, snapshot):
            if isinstance(value, Countdown):
                later.append((beginning.encode(), value))
            else:
                now.append(f"{beginning}{_number(value)}\n")
        lines.append("".join(now).encode())
        if later:
            aging[index] = tuple(later)
    return _Rendered(snapshot.version, parts, tuple(lines), aging)


def _aged(lines: Iterable[tuple[bytes, Countdown]], now: datetime) -> bytes:
    return b"".join([b"%s%s\n" % (line, _number(end.at(now)).encode()) for line, end in lines])
