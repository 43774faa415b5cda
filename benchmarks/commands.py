"""How long the commands take, from the start of the process to its end.

Usage: python benchmarks/commands.py [--rounds 5] [--orgs 10000]

They take turns with a Python that does nothing, round by round; printed are the medians of wall and
CPU time (user and system), and of the ratio to that Python's wall time in the same round. `check`
reads so many orgs, and 100, as `probe` does; each has a certificate and a key of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import target
from orgs import configure
from results import ratio, save

BARE: Final = "python -c pass"
HELP: Final = "--help"
CHECK: Final = "check, all orgs"
_FEW: Final = 100
_AGENT: Final = (sys.executable, "-m", "agent")


@dataclass(frozen=True)
class Command:
    """What is run, and the exit codes with which it has done what it should."""

    name: str
    argv: Sequence[str]
    codes: Collection[int] = (0,)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--orgs", type=int, default=10000)
    options = parser.parse_args()
    with (
        target.serving() as door,
        tempfile.TemporaryDirectory() as many,
        tempfile.TemporaryDirectory() as few,
    ):
        large = configure(Path(many), door, options.orgs).file
        small = configure(Path(few), door, _FEW).file
        commands = (
            Command(BARE, (sys.executable, "-c", "pass")),
            Command(HELP, (*_AGENT, "--help")),
            Command("--version", (*_AGENT, "--version")),
            # A private root is worth a note to some; that is no failure of the command.
            Command("inspect CHAIN", (*_AGENT, "inspect", str(door.certificate)), (0, 1)),
            Command(f"probe ORG, of {_FEW}", (*_AGENT, "probe", "--config", str(small), "org-0")),
            Command(f"check, {_FEW} orgs", (*_AGENT, "check", "--config", str(small))),
            Command(CHECK, (*_AGENT, "check", "--config", str(large))),
        )
        wall: dict[str, list[float]] = {command.name: [] for command in commands}
        cpu: dict[str, list[float]] = {command.name: [] for command in commands}
        for _ in range(options.rounds):
            for command in commands:
                took, used = _run(command)
                wall[command.name].append(took)
                cpu[command.name].append(used)
    _print(wall, cpu)
    save("commands", {"orgs": options.orgs, "wall_seconds": wall, "cpu_seconds": cpu})


def _run(command: Command) -> tuple[float, float]:
    """Return the seconds that it took, and those of CPU that it used."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command.argv, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in command.codes:
        said = (done.stdout + done.stderr)[-2000:]
        raise SystemExit(f"{command.name} ended with {done.returncode}: {said}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _print(wall: Mapping[str, Sequence[float]], cpu: Mapping[str, Sequence[float]]) -> None:
    print(f"{'seconds':18} {'wall':>8} {'CPU':>8} {'x bare':>8}")
    for name, seconds in wall.items():
        times = f"{median(seconds):8.3f} {median(cpu[name]):8.3f}"
        print(f"{name:18} {times} {ratio(seconds, wall[BARE]):8.1f}")


if __name__ == "__main__":
    main()
