"""How what the agent takes grows with the number of orgs, from ten to ten thousand.

Usage: python benchmarks/scaling.py [--orgs 10 100 1000 10000] [--seconds 120] [--plot FILE]

Runs fleet.py's measurement at each size, with an interval of 60 s. Logins are due every 5 minutes
by default, so that there are none in the two minutes behind the warm-up. Printed is by what factor
CPU, memory and a scrape grow between the last two sizes; the plot has all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import fleet
from chart import Panel, draw
from fleet import Figures
from results import save

_PLOT: Final = Path(__file__).parent.parent / "docs" / "images" / "scaling.svg"
_AXES: Final[Mapping[str, Callable[[Figures], float]]] = {
    "CPU, % of one core": lambda figures: 100 * figures.cpu_share,
    "resident memory, MB": lambda figures: figures.resident_most / 1e6,
    "one scrape, ms": lambda figures: 1000 * figures.scrape_median,
}


def main() -> None:
    """Measure, print, draw and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--interval", type=int, default=60, help="seconds")
    parser.add_argument("--seconds", type=int, default=120, help="measured after each warm-up")
    parser.add_argument("--plot", type=Path, default=_PLOT, metavar="FILE")
    options = parser.parse_args()
    if len(options.orgs) < 2:  # noqa: PLR2004 - one size does not grow
        parser.error("give at least two sizes")
    runs = []
    for orgs in options.orgs:
        runs.append(fleet.run(orgs, interval=options.interval, seconds=options.seconds))
        fleet.report(runs[-1])
        print()
    _print_growth(*runs[-2:])
    options.plot.write_text(
        draw([Panel(name, [(run.orgs, of(run)) for run in runs]) for name, of in _AXES.items()])
    )
    save("scaling", {"runs": [asdict(run) for run in runs]})


def _print_growth(before: Figures, after: Figures) -> None:
    print(f"{before.orgs} to {after.orgs} orgs")
    for name, of in _AXES.items():
        print(f"  {name:20} {of(before):8.1f} to {of(after):8.1f}, x {of(after) / of(before):.1f}")


if __name__ == "__main__":
    main()
