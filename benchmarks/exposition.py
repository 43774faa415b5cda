"""What the text of /metrics costs in CPU, beside prometheus_client's own generate_latest.

Usage: python benchmarks/exposition.py [--orgs 1000 10000] [--rounds 3]

Both render the same board in OpenMetrics, which Prometheus asks for, and must give the same bytes;
the client is given a collector that makes the families of all orgs, as an exporter would have.
Between two renderings every org changed, a quarter of them, or none. Printed are the medians of the
CPU time, the median of the ratio in the same round, and what gzip at level 1 adds, as the endpoint
compresses.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from results import ratio, save

# The tests' examples are the boards to measure with.
sys.path.append(str(Path(__file__).parent.parent / "tests"))

from boards import DEADLINES, NOON, board, org, result

from agent.metrics import Exposition, Instruments, org_families
from agent.metrics.fleet import board_families
from agent.state import Board

# How many orgs had a cycle since the scrape before: with intervals of 15 s or less, of 60 s, and
# with a second scraper right behind the first.
_CHANGED: Final = {"every org changed": 1.0, "a quarter changed": 0.25, "nothing changed": 0.0}


class _Whole:
    """What a registry would give for all orgs: each family once."""

    def __init__(self, instruments: Instruments, made: Board, now: datetime) -> None:
        self._instruments = instruments
        self._board = made
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from self._instruments.families()
        yield from board_families(self._board)
        merged: list[Metric] = []
        for snapshot in self._board.snapshots():
            families = list(org_families(snapshot, self._now))
            if not merged:
                merged = families
                continue
            for whole, part in zip(merged, families, strict=True):
                whole.samples += part.samples
        yield from (family for family in merged if family.samples)


def measure(orgs: int, rounds: int) -> dict[str, Any]:
    """Return CPU seconds by what changed, a list with one for each round, and the text's sizes."""
    names = [f"org-{number}" for number in range(orgs)]
    made = board(*(org(name) for name in names))
    instruments = Instruments(CollectorRegistry())
    exposition = Exposition(made, instruments)
    now = NOON
    for name in names:
        made.record(result(name), deadlines=DEADLINES)
    exposition.render(now, openmetrics=True)
    ours: dict[str, list[float]] = {changed: [] for changed in _CHANGED}
    theirs: dict[str, list[float]] = {changed: [] for changed in _CHANGED}
    compressing: list[float] = []
    plain = packed = b""
    for _ in range(rounds):
        for changed, share in _CHANGED.items():
            now += timedelta(seconds=15)
            for name in names[: int(share * orgs)]:
                made.record(replace(result(name), started_at=now), deadlines=DEADLINES)
            seconds, plain = _timed(partial(exposition.render, now, openmetrics=True))
            ours[changed].append(seconds)
            whole = _Whole(instruments, made, now)
            seconds, expected = _timed(partial(generate_latest, whole))
            theirs[changed].append(seconds)
            if plain != expected:
                raise SystemExit(f"the text is not prometheus_client's: {orgs} orgs, {changed}")
        seconds, packed = _timed(partial(gzip.compress, plain, compresslevel=1, mtime=0))
        compressing.append(seconds)
    return {
        "orgs": orgs,
        "exposition": ours,
        "generate_latest": theirs,
        "gzip": compressing,
        "plain_bytes": len(plain),
        "compressed_bytes": len(packed),
    }


def _timed(work: Callable[[], bytes]) -> tuple[float, bytes]:
    begun = time.process_time()
    text = work()
    return time.process_time() - begun, text


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    boards = [measure(orgs, options.rounds) for orgs in options.orgs]
    for figures in boards:
        size, packed = figures["plain_bytes"] / 1e6, figures["compressed_bytes"] / 1e6
        print(f"{figures['orgs']} orgs, {size:.1f} MB of text, {packed:.2f} MB compressed")
        for changed in _CHANGED:
            ours, theirs = figures["exposition"][changed], figures["generate_latest"][changed]
            print(
                f"  {changed:18} {1000 * median(ours):8.1f} ms, generate_latest "
                f"{1000 * median(theirs):8.1f} ms, ratio {ratio(ours, theirs):.3f}"
            )
        print(f"  {'gzip, level 1':18} {1000 * median(figures['gzip']):8.1f} ms")
    save("exposition", {"boards": boards})


if __name__ == "__main__":
    main()
