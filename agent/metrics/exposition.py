"""Snapshots → the text of /metrics, fast enough for thousands of orgs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.utils import floatToGoString

from agent.metrics.family import empty
from agent.metrics.fleet import Instruments, board_families
from agent.metrics.org import ORG_FAMILIES, org_families
from agent.state import Board, Snapshot


class _Families:
    """Gives prometheus_client's renderers the families that they ask a registry for."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


_END: Final = b"# EOF\n"
_SOME_MOMENT: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _text(families: Iterable[Metric], openmetrics: bool) -> bytes:  # noqa: FBT001 - names a format
    if openmetrics:
        whole: bytes = openmetrics_format.generate_latest(_Families(families))  # type: ignore[no-untyped-call] # prometheus_client says no type here
        return whole.removesuffix(_END)
    return generate_latest(_Families(families))


def _number(value: float) -> bytes:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call] # as above
    return text.encode()


@dataclass(frozen=True, slots=True)
class _Rendered:
    """The lines of one org: for each family the text, or for an aging one its lines' beginnings."""

    version: int
    lines: tuple[bytes, ...]
    beginnings: Mapping[int, tuple[bytes, ...]]


class Exposition:
    """The whole /metrics text; an org's lines are made once for each version of its snapshot.

    prometheus_client's renderer takes about 9 µs a line, which is seconds for thousands of orgs.
    So it renders each org only when something changed; a scrape joins what is there, family by
    family as the formats demand, and formats only the gauges that age. The text is exactly what
    prometheus_client gives for all families at once.
    """

    def __init__(self, board: Board, instruments: Instruments) -> None:
        self.instruments = instruments
        self._board = board
        self._rendered: dict[bool, dict[str, _Rendered]] = {False: {}, True: {}}
        self._headers = {
            openmetrics: tuple(_text([empty(family, ())], openmetrics) for family in ORG_FAMILIES)
            for openmetrics in (False, True)
        }

    def render(self, now: datetime, *, openmetrics: bool) -> bytes:
        """Return the text as of `now`, in OpenMetrics 1.0 or in Prometheus' own format 0.0.4.

        It may be called from any thread, from several at once too.
        """
        snapshots = self._board.snapshots()
        rendered = self._up_to_date(snapshots, openmetrics)
        agent = (*self.instruments.families(), *board_families(self._board))
        parts = [_text(agent, openmetrics)]
        for index, family in enumerate(ORG_FAMILIES):
            if family.aging:
                lines = b"".join(
                    beginning + _number(value) + b"\n"
                    for snapshot, org in zip(snapshots, rendered, strict=True)
                    for beginning, (_, value) in zip(
                        org.beginnings[index], family.samples(snapshot, now), strict=True
                    )
                )
            else:
                lines = b"".join([org.lines[index] for org in rendered])
            if lines:
                parts += (self._headers[openmetrics][index], lines)
        if openmetrics:
            parts.append(_END)
        return b"".join(parts)

    def _up_to_date(
        self,
        snapshots: Sequence[Snapshot],
        openmetrics: bool,  # noqa: FBT001 - names a format
    ) -> list[_Rendered]:
        before = self._rendered[openmetrics]
        after: dict[str, _Rendered] = {}
        for snapshot in snapshots:
            known = before.get(snapshot.org.name)
            if known is None or known.version != snapshot.version:
                known = self._render_org(snapshot, openmetrics)
            after[snapshot.org.name] = known
        # Never changed once it is here, so that renders in several threads do not disturb each
        # other. Removed orgs leave it, also when nobody asks for the other format any more.
        self._rendered[openmetrics] = after
        other = self._rendered[not openmetrics]
        if other.keys() - after.keys():
            self._rendered[not openmetrics] = {
                name: org for name, org in other.items() if name in after
            }
        return list(after.values())

    def _render_org(self, snapshot: Snapshot, openmetrics: bool) -> _Rendered:  # noqa: FBT001 - names a format
        lines: list[bytes] = []
        beginnings: dict[int, tuple[bytes, ...]] = {}
        # The moment does not matter: of what ages only the labels are kept.
        for index, metric in enumerate(org_families(snapshot, _SOME_MOMENT)):
            header = self._headers[openmetrics][index]
            text = _text([metric], openmetrics).removeprefix(header) if metric.samples else b""
            if ORG_FAMILIES[index].aging:
                beginnings[index] = tuple(
                    line.rpartition(b" ")[0] + b" " for line in text.split(b"\n")[:-1]
                )
                text = b""
            lines.append(text)
        return _Rendered(snapshot.version, tuple(lines), beginnings)
