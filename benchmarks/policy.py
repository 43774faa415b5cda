"""What a look at a certificate costs: `inspect` as a whole, and a judgement, fresh and kept.

Usage: python benchmarks/policy.py [RUNS]

`inspect` of a file with three certificates is timed from the start of the process to its end,
beside a Python that imports cryptography's X.509 and ends, alternately in one run. A judgement is
timed inside this process: evaluated with every rule, and asked for again with nothing changed, as
in most cycles. Printed are medians and their ratio.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

# The tests' examples are what is measured.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from boards import HANDSHAKE, org, result
from making import world

from agent.judge import Judge
from agent.policy.tables import shipped_tables

_JUDGEMENTS = 200


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _print(title: str, one: list[float], other_title: str, other: list[float]) -> None:
    first, second = median(one), median(other)
    print(f"{title:34} {1000 * first:9.3f} ms")
    print(f"{other_title:34} {1000 * second:9.3f} ms")
    print(f"{'ratio':34} {first / second:9.2f}")


def _starts(runs: int) -> None:
    clients = world().clients
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.pem"
        file.write_bytes(clients.leaf().pem + clients.intermediate.pem + clients.root.pem)
        inspect = [sys.executable, "-m", "agent", "inspect", str(file)]
        bare = [sys.executable, "-c", "import cryptography.x509"]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs):
            for argv, taken in zip((inspect, bare), times, strict=True):
                taken.append(
                    _seconds(partial(subprocess.run, argv, capture_output=True, check=False))
                )
    _print("inspect of three certificates", times[0], "import cryptography.x509", times[1])


def _judgements() -> None:
    known, now = world(), datetime.now(UTC)
    door = replace(HANDSHAKE, server_chain=known.server_chain)
    shown = replace(result(), handshake=door, client_chain=known.client_chain)
    fresh: list[float] = []
    kept: list[float] = []
    for _ in range(_JUDGEMENTS):
        judge = Judge(org("emea"), shipped_tables(), known.anchors)
        ask = partial(judge.judge, shown, None, now)
        fresh.append(_seconds(ask))
        kept.append(_seconds(ask))
    _print("judgement with every rule", fresh, "judgement with nothing changed", kept)


if __name__ == "__main__":
    _starts(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
    _judgements()
