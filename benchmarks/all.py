"""Runs every benchmark of speed one after another and prints one table of what was found.

Usage: python benchmarks/all.py [--quick]

It takes more than an hour, and the machine should have nothing else to do. --quick tries it all at
small sizes in two minutes; its figures are kept in results/quick and say nothing. The exit code is
0 whatever the figures are, and 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from results import FOLDER, load
from target import PACKAGES, SEARCH_PATH
from wanted import NAMES, Row, rows

_QUICK: Final = FOLDER / "quick"
_ARGUMENTS: Final[Mapping[str, Sequence[str]]] = {
    "fleet": (
        *("--orgs", "100", "1000", "10000", "--hanging", "5"),
        *("--seconds", "120", "120", "600"),
    )
}
_QUICK_ARGUMENTS: Final[Mapping[str, Sequence[str]]] = {
    "cycle_cost": ("--rounds", "1", "--probes", "100"),
    "exposition": ("--orgs", "10", "50", "--rounds", "1"),
    "commands": ("--orgs", "50", "--rounds", "1"),
    "start": ("--orgs", "50", "--interval", "5"),
    "scaling": (
        *("--orgs", "10", "50", "--interval", "5", "--seconds", "10"),
        *("--plot", str(_QUICK / "scaling.svg")),
    ),
    "fleet": ("--orgs", "20", "50", "--interval", "5", "--seconds", "10", "--hanging", "5"),
}


def main() -> int:
    """Measure and print; return 0 when everything could be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    missing = [name for name in PACKAGES if not shutil.which(name, path=SEARCH_PATH)]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        print(f"{', '.join(missing)} not found: apt-get install {packages}", file=sys.stderr)
        return 1
    folder, arguments = (_QUICK, _QUICK_ARGUMENTS) if options.quick else (FOLDER, _ARGUMENTS)
    folder.mkdir(parents=True, exist_ok=True)
    failed = set()
    for name in NAMES:
        print(f"--- {name}", flush=True)
        script = str(Path(__file__).with_name(f"{name}.py"))
        environment = {**os.environ, "SFMTLS_RESULTS": str(folder)}
        command = [sys.executable, script, *arguments.get(name, ())]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.add(name)
    print()
    # What an earlier run has left there is not what was found now.
    _print(rows({name: None if name in failed else load(name, folder) for name in NAMES}))
    return 1 if failed else 0


def _print(found: Iterable[Row]) -> None:
    head = ("", "figure", "beside", "ratio", "wanted", "")
    lines = [head] + [
        (row.name, row.figure, row.beside, row.ratio, row.wanted, row.verdict) for row in found
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
