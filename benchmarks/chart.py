"""Draws measurements on logarithmic axes as an SVG that is legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH: Final = 280
_HEIGHT: Final = 260
# Around the axes of a panel, for its name, the numbers and the last point's label.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 34, 40

_HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" role="img" \
aria-label="{label}">
<style>
.page {{ fill: #ffffff }} .text {{ fill: #24292f }} .grid {{ stroke: #d0d7de }}
.linear {{ stroke: #6e7781; stroke-dasharray: 3 3 }}
.line {{ stroke: #0550ae; fill: none }} .point {{ fill: #0550ae }}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #0d1117 }} .text {{ fill: #e6edf3 }} .grid {{ stroke: #30363d }}
.linear {{ stroke: #8b949e }} .line {{ stroke: #79c0ff }} .point {{ fill: #79c0ff }}
}}
</style>
<rect class="page" width="{width}" height="{height}"/>
"""


@dataclass(frozen=True)
class Panel:
    """One figure over the number of orgs; all values are positive, the last one is the most."""

    name: str
    points: Sequence[tuple[float, float]]


def draw(panels: Sequence[Panel]) -> str:
    """Return the panels side by side; the dashed line is what is linear, through the last point."""
    label = "; ".join(f"{p.name}: {_number(p.points[-1][1])} at the most orgs" for p in panels)
    parts = [_HEAD.format(width=_WIDTH * len(panels), height=_HEIGHT, label=label)]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({_WIDTH * place})">\n')
        parts += (f"{line}\n" for line in _panel(panel))
        parts.append("</g>\n")
    return "".join([*parts, "</svg>\n"])


@dataclass(frozen=True)
class _Axis:
    """Whole decades on a length of the picture, from `start` to `end`."""

    first: int
    last: int
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return self.start + share * (self.end - self.start)

    def decades(self) -> Iterator[tuple[float, float]]:
        for exponent in range(self.first, self.last + 1):
            yield 10.0**exponent, self.at(10.0**exponent)


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    first = math.floor(math.log10(min(values)))
    return _Axis(first, max(first + 1, math.ceil(math.log10(max(values)))), start, end)


def _panel(panel: Panel) -> Iterator[str]:
    x = _axis([point[0] for point in panel.points], _LEFT, _WIDTH - _RIGHT)
    y = _axis([point[1] for point in panel.points], _HEIGHT - _BOTTOM, _TOP)
    yield f'<text class="text" x="{_LEFT}" y="18" font-weight="bold">{panel.name}</text>'
    for value, at in x.decades():
        yield f'<path class="grid" d="M{at:.1f} {y.start}V{y.end}"/>'
        yield _text(at, y.start + 15, "middle", _number(value))
    for value, at in y.decades():
        yield f'<path class="grid" d="M{x.start} {at:.1f}H{x.end}"/>'
        yield _text(x.start - 6, at + 4, "end", _number(value))
    yield _text((x.start + x.end) / 2, _HEIGHT - 8, "middle", "orgs")
    most, top = panel.points[-1]
    # It begins where it comes into the picture: at the left, or at the lower edge.
    begin = max(10.0**x.first, most * 10.0**y.first / top)
    yield (
        f'<path class="linear" d="M{x.at(begin):.1f} {y.at(top * begin / most):.1f}'
        f'L{x.at(most):.1f} {y.at(top):.1f}"/>'
    )
    places = [(x.at(orgs), y.at(value), value) for orgs, value in panel.points]
    line = "L".join(f"{across:.1f} {down:.1f}" for across, down, _ in places)
    yield f'<path class="line" d="M{line}"/>'
    for number, (across, down, value) in enumerate(places):
        yield f'<circle class="point" cx="{across:.1f}" cy="{down:.1f}" r="3"/>'
        # The first one's would run into the numbers of the axis.
        yield _text(across, down - 8, "middle" if number else "start", _number(value))


def _text(across: float, down: float, anchor: str, text: str) -> str:
    where = f'x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}"'
    return f'<text class="text" {where}>{text}</text>'


def _number(value: float) -> str:
    """Return it with three digits that count."""
    return f"{float(f'{value:.3g}'):,g}"
