"""Writes the measured figures into docs/performance.md, between the marks that name them.

Usage: python benchmarks/page.py

The page's words are written by hand; its tables are made from results/*.json, so that the two do
not mix. A mark that nobody knows, or a table without its marks, stops it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from commands import BARE
from cycle_cost import AGENT, AGENT_LOGIN, AGENT_TLS, BLACKBOX, S_TIME, S_TIME_TLS
from instructions import PARTS
from results import load, ratio
from wanted import NAMES, megabytes, rows, seconds, within

_PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_MARKED: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->\n)", re.DOTALL)

Kept = Mapping[str, Any]


def main() -> None:
    """Rewrite the page; SystemExit when its marks are not those of the tables."""
    text = _PAGE.read_text()
    marked = [found[2] for found in _MARKED.finditer(text)]
    if sorted(marked) != sorted(_TABLES):
        raise SystemExit(f"{_PAGE} has marks for {marked}, there are tables for {list(_TABLES)}")
    made = _MARKED.sub(lambda found: found[1] + _TABLES[found[2]]() + found[3], text)
    _PAGE.write_text(made)


def _table(head: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


def _of(name: str, make: Callable[[Kept], str]) -> str:
    """Return a table from one benchmark's results, with when and where they were taken."""
    kept = load(name)
    if kept is None:
        return "Not measured yet.\n"
    on = kept["machine"]
    memory = on["memory_bytes"] / 2**30
    return (
        f"{make(kept)}\nTaken {kept['taken'][:10]}: {on['processor']}, {on['cores']} cores, "
        f"{memory:.0f} GiB, Linux {on['kernel'].partition('-')[0]}, Python {on['python']}, "
        f"{' '.join(on['openssl'].split()[:2])}.\n"
    )


def _wanted() -> str:
    found = rows({name: load(name) for name in NAMES})
    return _table(
        ("figure", "measured", "beside", "ratio", "wanted", ""),
        ((r.name, r.figure, r.beside, r.ratio, r.wanted, r.verdict) for r in found),
    )


_RUN_HEAD: Final = (
    "orgs",
    "of one core",
    "CPU of a cycle",
    "resident",
    "cycles begun",
    "99 % begin late by",
    "all",
    "scrape, median",
    "scrape, longest",
    "compressed",
    "of",
)


def _run(run: Kept) -> Sequence[str]:
    hanging = f", {run['hanging']} hang" if run["hanging"] else ""
    return (
        f"{run['orgs']:,}{hanging}",
        f"{run['cpu_share']:.1%}",
        seconds(run["cpu_per_cycle"]),
        megabytes(run["resident_most"]),
        f"{run['cycles']:,}",
        within(run["lag_p99"]),
        within(run["lag_most"]),
        seconds(run["scrape_median"]),
        seconds(run["scrape_most"]),
        megabytes(run["scrape_compressed"]),
        megabytes(run["scrape_plain"]),
    )


def _scaling(kept: Kept) -> str:
    return _table(_RUN_HEAD, map(_run, kept["runs"]))


def _fleet(kept: Kept) -> str:
    counted = _table(
        ("orgs", "measured for", "from the start", "missed", "others that failed", "descriptors"),
        (
            (
                f"{run['orgs']:,}",
                f"{run['measured_seconds']:.0f} s",
                f"{run['begun_seconds']:.0f} s",
                f"{run['missed']:,}",
                f"{run['failures']}",
                f"{run['descriptors_most']}",
            )
            for run in kept["runs"]
        ),
    )
    return f"{_table(_RUN_HEAD, map(_run, kept['runs']))}\n{counted}"


def _cycle_cost(kept: Kept) -> str:
    taken, paced = kept["cpu_seconds"], kept["paced_cpu_seconds"]

    def line(name: str, others: Sequence[str]) -> Sequence[str]:
        ratios = [
            f"{ratio(taken[name], taken[other]):.2f}" if other in others else ""
            for other in (S_TIME, S_TIME_TLS, BLACKBOX)
        ]
        at_rate = [""] * 2
        if name in paced:
            beside = ratio(paced[name], paced[BLACKBOX])
            at_rate = [seconds(median(paced[name])), f"{beside:.2f}"]
        return name, seconds(median(taken[name])), *ratios, *at_rate

    whole, alone = (S_TIME, BLACKBOX), (S_TIME_TLS,)
    return _table(
        (
            kept["tls"],
            "CPU of one probe",
            f"x {S_TIME}",
            "x its TLS alone",
            f"x {BLACKBOX}",
            f"at {kept['rate']:g} a second",
            f"x {BLACKBOX}",
        ),
        (
            line(name, others)
            for name, others in (
                (AGENT, whole),
                (AGENT_LOGIN, whole),
                (BLACKBOX, whole),
                (S_TIME, whole),
                (AGENT_TLS, alone),
                (S_TIME_TLS, alone),
            )
        ),
    )


def _instructions(kept: Kept) -> str:
    def line(name: str, count: float) -> Sequence[str]:
        return name, f"{count / 1e6:.1f} million", f"{count / kept['each'][S_TIME]:.2f}"

    each = (line(name, count) for name, count in kept["each"].items())
    parts = (line(PARTS[part], count) for part, count in kept["parts"].items())
    return _table(("a probe", "instructions", f"x {S_TIME}"), itertools.chain(each, parts))


def _exposition(kept: Kept) -> str:
    def lines() -> Iterator[Sequence[str]]:
        for made in kept["boards"]:
            for changed, ours in made["exposition"].items():
                theirs = made["generate_latest"][changed]
                yield (
                    f"{made['orgs']:,}",
                    changed,
                    seconds(median(ours)),
                    seconds(median(theirs)),
                    f"{ratio(ours, theirs):.3f}",
                    seconds(median(made["gzip"])),
                )

    head = ("orgs", "since the last", "the agent's", "generate_latest", "ratio", "gzip besides")
    return _table(head, lines())


def _start(kept: Kept) -> str:
    reload = kept["reload"]
    figures = (
        ("the endpoint answers after", seconds(kept["answers"])),
        ("the first cycle is done after", seconds(kept["first_cycle"])),
        ("every org has been seen after", seconds(kept["all_seen"])),
        ("first cycles that ended in one second, at most", f"{kept['ended_in_a_second']}"),
        ("the same if all were even", f"{kept['orgs'] / kept['interval']:.0f}"),
        ("cycles under way at a scrape, at most", f"{kept['in_flight_most']}"),
        ("one org changed: in use after", seconds(reload["seconds"])),
        ("99 % of cycles began late by meanwhile", within(reload["late_p99"])),
        ("all of them", within(reload["late_most"])),
        ("all of them in as long a time before", within(reload["late_most_without"])),
    )
    return _table((f"{kept['orgs']:,} orgs every {kept['interval']} s", ""), iter(figures))


def _commands(kept: Kept) -> str:
    wall, cpu = kept["wall_seconds"], kept["cpu_seconds"]
    return _table(
        (f"all orgs are {kept['orgs']:,}", "wall", "CPU", f"x `{BARE}`"),
        (
            (
                f"`{name}`",
                seconds(median(taken)),
                seconds(median(cpu[name])),
                f"{ratio(taken, wall[BARE]):.1f}",
            )
            for name, taken in wall.items()
        ),
    )


_TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "wanted": _wanted,
    "scaling": lambda: _of("scaling", _scaling),
    "fleet": lambda: _of("fleet", _fleet),
    "cycle_cost": lambda: _of("cycle_cost", _cycle_cost),
    "instructions": lambda: _of("instructions", _instructions),
    "exposition": lambda: _of("exposition", _exposition),
    "start": lambda: _of("start", _start),
    "commands": lambda: _of("commands", _commands),
}


if __name__ == "__main__":
    main()
