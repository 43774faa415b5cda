"""What the agent takes for many orgs: the daemon as it is deployed, its defaults, ten minutes.

Usage: python benchmarks/fleet.py [--orgs 10000 ...] [--interval 60] [--seconds 600 ...]
                                  [--hanging 0] [--scrape-every 15]

Starts nginx (target.py) and the agent as processes, every org with a host, a user, a certificate
and an RSA key of its own. So many per cent of the orgs, --hanging, are behind a far side that takes
connections and says nothing. It is measured once every org has had a cycle and what piled up in its
start is done, or five intervals later if that never is: CPU and memory from /proc, lateness from
the agent's own histogram, and what a scrape takes, on a connection from this process, as Prometheus
makes it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import process
import silence
import target
from orgs import configure
from process import Daemon
from results import save
from scrapes import Lags, Scrape, samples, scrape

# The window ends a little before or after the moments of some orgs.
LEAST_DONE: Final = 0.98
# The start is over when nearly all cycles of so many seconds begin no later than that.
_SETTLED_SECONDS: Final = 15
_SETTLED_LATE: Final = 0.1
_SETTLED_INTERVALS: Final = 5


@dataclass(frozen=True)
class Figures:
    """What one run showed. Times are seconds, sizes bytes.

    `lag_*` are bounds of the histogram's buckets: that share of the cycles began no later.
    `failures` are those of orgs that do not hang, warm-up included, and `missed` are cycles that
    the agent says it left out. It was measured from `begun_seconds` after the start on.
    """

    orgs: int
    hanging: int
    interval: int
    measured_seconds: float
    ready_seconds: float
    begun_seconds: float
    cpu_share: float
    cpu_per_cycle: float
    resident_most: int
    resident_last: int
    resident_peak: int
    descriptors_most: int
    cycles: int
    cycles_due: int
    missed: int
    failures: int
    lag_p50: float
    lag_p99: float
    lag_most: float
    scrapes: int
    scrape_median: float
    scrape_most: float
    scrape_compressed: int
    scrape_plain: int


def run(
    orgs: int,
    *,
    interval: int = 60,
    seconds: int = 600,
    hanging: int = 0,
    scrape_every: int = 15,
) -> Figures:
    """Run the agent for so many seconds after its warm-up; `hanging` is in per cent."""
    silent = orgs * hanging // 100
    with (
        target.serving() as door,
        silence.listening() as silent_port,
        tempfile.TemporaryDirectory() as folder,
    ):
        configured = configure(
            Path(folder), door, orgs, interval=interval, silent=silent, silent_port=silent_port
        )
        with process.running(configured) as daemon:
            ready = daemon.wait_for("/-/ready", limit=300 + 10 * interval, every=0.5)
            _settle(daemon, interval)
            begun = time.time() - daemon.begun
            watched = _watch(daemon, seconds, scrape_every)
    first, last = watched.first.text, watched.scrapes[-1].text
    lags = Lags.read(last).since(Lags.read(first))
    took = [each.seconds for each in watched.scrapes]
    return Figures(
        orgs=orgs,
        hanging=silent,
        interval=interval,
        measured_seconds=watched.seconds,
        ready_seconds=ready,
        begun_seconds=begun,
        cpu_share=watched.cpu / watched.seconds,
        cpu_per_cycle=watched.cpu / max(1, lags.cycles),
        resident_most=max(watched.resident),
        resident_last=watched.resident[-1],
        resident_peak=watched.peak,
        descriptors_most=max(watched.descriptors),
        cycles=lags.cycles,
        cycles_due=round(orgs * watched.seconds / interval),
        missed=_missed(last) - _missed(first),
        failures=_failures(last),
        lag_p50=lags.bound(0.5),
        lag_p99=lags.bound(0.99),
        lag_most=lags.bound(1),
        scrapes=len(took),
        scrape_median=median(took),
        scrape_most=max(took),
        scrape_compressed=len(watched.scrapes[-1].body),
        scrape_plain=len(last),
    )


def _settle(daemon: Daemon, interval: int) -> None:
    """Wait until cycles begin when they are due, for five intervals at most."""
    last = time.monotonic() + _SETTLED_INTERVALS * interval
    before = Lags.read(scrape(daemon.port).text)
    while time.monotonic() < last:
        time.sleep(_SETTLED_SECONDS)
        now = Lags.read(scrape(daemon.port).text)
        if now.since(before).bound(0.99) <= _SETTLED_LATE:
            return
        before = now


@dataclass(frozen=True)
class _Watched:
    first: Scrape
    scrapes: list[Scrape]
    seconds: float
    cpu: float
    resident: list[int]
    peak: int
    descriptors: list[int]


def _watch(daemon: Daemon, seconds: int, scrape_every: int) -> _Watched:
    """Look at the process once a second, and scrape; begin and end with a scrape."""
    pid = daemon.pid
    resident, descriptors, scrapes = [], [], []
    first = scrape(daemon.port)
    begun, cpu = time.monotonic(), process.cpu_seconds(pid)
    for second in range(1, seconds + 1):
        time.sleep(max(0.0, begun + second - time.monotonic()))
        if second % scrape_every == 0 or second == seconds:
            scrapes.append(scrape(daemon.port))
        resident.append(process.memory(pid).resident)
        descriptors.append(process.descriptors(pid))
    return _Watched(
        first=first,
        scrapes=scrapes,
        seconds=time.monotonic() - begun,
        cpu=process.cpu_seconds(pid) - cpu,
        resident=resident,
        peak=process.memory(pid).peak,
        descriptors=descriptors,
    )


def _missed(text: bytes) -> int:
    skipped = samples(text, "sfmtls_probe_skipped_total")
    return int(sum(value for labels, value in skipped if 'cause="overlap"' in labels))


def _failures(text: bytes) -> int:
    failed = samples(text, "sfmtls_probe_failures_total")
    return int(sum(value for labels, value in failed if 'org="silent-' not in labels))


def report(figures: Figures) -> None:
    """Print the figures of one run."""
    f = figures
    hang = f", {f.hanging} of them hang" if f.hanging else ""
    print(f"{f.orgs} orgs every {f.interval} s{hang}, for {f.measured_seconds:.0f} s")
    print(f"ready after        {f.ready_seconds:.1f} s")
    print(
        f"CPU                {f.cpu_share:.1%} of a core, {1000 * f.cpu_per_cycle:.2f} ms a cycle"
    )
    print(
        f"resident           {_mb(f.resident_last)}, at most {_mb(f.resident_most)}, "
        f"peak {_mb(f.resident_peak)}"
    )
    print(f"descriptors        at most {f.descriptors_most}")
    print(f"cycles             {f.cycles} of {f.cycles_due} due, {f.missed} missed")
    print(
        f"late               p50 <= {_ms(f.lag_p50)}, p99 <= {_ms(f.lag_p99)}, "
        f"all <= {_ms(f.lag_most)}"
    )
    print(
        f"scrape             median {_ms(f.scrape_median)}, at most {_ms(f.scrape_most)}, "
        f"{f.scrape_compressed / 1e3:.0f} kB of {_mb(f.scrape_plain)}"
    )
    if f.failures or f.missed or f.cycles < LEAST_DONE * f.cycles_due:
        missing = max(f.missed, f.cycles_due - f.cycles)
        print(f"!!! {f.failures} FAILURES OF ORGS THAT ARE WELL, {missing} CYCLES MISSING !!!")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, nargs="+", default=[10000])
    parser.add_argument("--interval", type=int, default=60, help="seconds")
    parser.add_argument(
        "--seconds",
        type=int,
        nargs="+",
        default=[600],
        help="measured after the warm-up: for all sizes, or for each of them",
    )
    parser.add_argument("--hanging", type=int, default=0, metavar="PERCENT")
    parser.add_argument("--scrape-every", type=int, default=15, help="seconds")
    options = parser.parse_args()
    lengths = options.seconds * len(options.orgs) if len(options.seconds) == 1 else options.seconds
    if len(lengths) != len(options.orgs):
        parser.error("give --seconds once, or for each size")
    runs = []
    for orgs, seconds in zip(options.orgs, lengths, strict=True):
        figures = run(
            orgs,
            interval=options.interval,
            seconds=seconds,
            hanging=options.hanging,
            scrape_every=options.scrape_every,
        )
        report(figures)
        runs.append(asdict(figures))
    save("fleet", {"runs": runs})


if __name__ == "__main__":
    main()
