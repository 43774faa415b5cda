"""What is wanted of the agent's speed, and how what was measured compares: the rows of one table.

The bounds stand here and nowhere else. Nothing timed is a test: a row that is not kept is to be
explained, not to fail a build.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import fleet
from commands import BARE, CHECK, HELP
from cycle_cost import AGENT, AGENT_LOGIN, AGENT_TLS, BLACKBOX, S_TIME_TLS
from results import ratio

Kept = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One figure; `kept` is None where nothing is wanted of it."""

    name: str
    figure: str
    beside: str = ""
    ratio: str = ""
    wanted: str = ""
    kept: bool | None = None

    @property
    def verdict(self) -> str:
        """One word: ok, or not, or nothing."""
        return {True: "ok", False: "NOT", None: ""}[self.kept]


def rows(kept: Mapping[str, Kept | None]) -> Iterator[Row]:
    """Yield the rows of all benchmarks from their results by name; None where there are none."""
    for name, read in _READERS.items():
        figures = kept.get(name)
        if figures is None:
            yield Row(name, "not measured")
        else:
            yield from read(figures)


def seconds(value: float) -> str:
    """Return a duration with the unit that suits it; infinite is the histogram's last bucket."""
    if math.isinf(value):
        return "over 60 s"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def within(bound: float) -> str:
    """Return the bound of a bucket, as what is known of a quantile."""
    return seconds(bound) if math.isinf(bound) else f"<= {seconds(bound)}"


def megabytes(value: float) -> str:
    """Return a size."""
    return f"{value / 1e6:.3g} MB"


def _count(value: float) -> str:
    return f"{value:.0f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _factor(value: float) -> str:
    return f"{value:.3g} x"


def _at_most(name: str, value: float, bound: float, form: Callable[[float], str]) -> Row:
    return Row(name, form(value), wanted=f"<= {form(bound)}", kept=value <= bound)


def _beside(
    name: str, taken: Mapping[str, list[float]], ours: str, theirs: str, bound: float
) -> Row:
    found = ratio(taken[ours], taken[theirs])
    return Row(
        name,
        seconds(median(taken[ours])),
        beside=f"{theirs}, {seconds(median(taken[theirs]))}",
        ratio=f"{found:.2f}",
        wanted=f"<= {bound:.2f} x",
        kept=found <= bound,
    )


def _cycle_cost(kept: Kept) -> Iterator[Row]:
    taken, paced = kept["cpu_seconds"], kept["paced_cpu_seconds"]
    at = f", {kept['rate']:g} a second"
    door, login = "CPU of a cycle", "CPU of a cycle with login and session"
    yield _beside(door, taken, AGENT, BLACKBOX, 0.70)
    yield _beside(door + at, paced, AGENT, BLACKBOX, 0.70)
    yield _beside("CPU of its TLS", taken, AGENT_TLS, S_TIME_TLS, 1.15)
    yield _beside(login, taken, AGENT_LOGIN, BLACKBOX, 1.00)
    yield _beside(login + at, paced, AGENT_LOGIN, BLACKBOX, 1.00)


def _fleet(kept: Kept) -> Iterator[Row]:
    # Of the most orgs most is wanted.
    kept = kept["runs"][-1]
    size = f"{kept['orgs']} orgs, {kept['hanging']} hang: "
    yield _at_most(size + "CPU of one core", kept["cpu_share"], 0.60, _share)
    # A bucket's bound is all that is known of it.
    yield _at_most(size + "99 % begin late by", kept["lag_p99"], 0.1, seconds)
    yield _at_most(size + "resident memory", kept["resident_most"], 900e6, megabytes)
    yield _at_most(size + "missed cycles", kept["missed"], 0, _count)
    done = kept["cycles"] / kept["cycles_due"]
    least = fleet.LEAST_DONE
    yield Row(
        size + "cycles begun of those due",
        _share(done),
        "",
        "",
        f">= {_share(least)}",
        done >= least,
    )
    yield _at_most(size + "failures of the others", kept["failures"], 0, _count)


def _scaling(kept: Kept) -> Iterator[Row]:
    before, after = kept["runs"][-2:]
    small, large = f"{before['orgs']} orgs: ", f"{after['orgs']} orgs: "
    yield _at_most(small + "resident memory", before["resident_most"], 150e6, megabytes)
    yield _at_most(small + "longest scrape", before["scrape_most"], 0.1, seconds)
    yield _at_most(large + "longest scrape", after["scrape_most"], 1, seconds)
    yield _at_most(large + "all begin late by, scrapes too", after["lag_most"], 0.05, seconds)
    grows = f"{before['orgs']} to {after['orgs']} orgs: "
    for name, key in (
        ("CPU", "cpu_share"),
        ("resident memory", "resident_most"),
        ("scrape", "scrape_median"),
    ):
        yield _at_most(grows + name, after[key] / before[key], 11, _factor)


def _start(kept: Kept) -> Iterator[Row]:
    size = f"{kept['orgs']} orgs: "
    yield _at_most(
        size + "start until all were seen", kept["all_seen"], 1.2 * kept["interval"], seconds
    )
    # The phases are hashes: in any second about so many, give or take their root.
    even = kept["orgs"] / kept["interval"]
    most = even + 6 * math.sqrt(even)
    yield _at_most(size + "first cycles in one second", kept["ended_in_a_second"], most, _count)
    yield _at_most(size + "reload of one", kept["reload"]["seconds"], 1, seconds)


def _commands(kept: Kept) -> Iterator[Row]:
    wall = kept["wall_seconds"]
    for name, command, bound in (
        (HELP, HELP, 0.25),
        (f"check of {kept['orgs']} orgs", CHECK, 20),
    ):
        found = _at_most(name, median(wall[command]), bound, seconds)
        yield Row(
            name,
            found.figure,
            beside=f"{BARE}, {seconds(median(wall[BARE]))}",
            ratio=f"{ratio(wall[command], wall[BARE]):.1f}",
            wanted=found.wanted,
            kept=found.kept,
        )


def _exposition(kept: Kept) -> Iterator[Row]:
    for made in kept["boards"]:
        for changed, ours in made["exposition"].items():
            theirs = made["generate_latest"][changed]
            yield Row(
                f"{made['orgs']} orgs: CPU of the text, {changed}",
                seconds(median(ours)),
                beside=f"generate_latest, {seconds(median(theirs))}",
                ratio=f"{ratio(ours, theirs):.3f}",
            )


# By the name of the results, in the order of the table.
_READERS: Final[Mapping[str, Callable[[Kept], Iterator[Row]]]] = {
    "cycle_cost": _cycle_cost,
    "exposition": _exposition,
    "commands": _commands,
    "start": _start,
    "scaling": _scaling,
    "fleet": _fleet,
}
NAMES: Final = tuple(_READERS)
