"""How the agent starts with many orgs, and what a reload of one of them costs the others.

Usage: python benchmarks/start.py [--orgs 10000] [--interval 60]

From the start of the process: the seconds until the endpoint answers, until the first cycle is
done, and until every org has had one; how many first cycles ended in one second, which the log
tells, and how many were under way, which the gauge tells to a scrape every 15 s. Then one org's
labels change in the file: the seconds from SIGHUP to "configuration reloaded" in the log, and how
late cycles began meanwhile, beside as long a time without a reload.
"""

from __future__ import annotations

import argparse
import math
import signal
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import process
import target
from orgs import Configured, configure
from process import Daemon
from results import save
from scrapes import Lags, samples, scrape

_SAMPLE_SECONDS: Final = 15
# Both windows of the reload are at least so long, for enough cycles to be late in.
_WINDOW_SECONDS: Final = 10
_LIMIT: Final = 600


@dataclass(frozen=True)
class Start:
    """Seconds since the process was started, and what the time until `all_seen` was like."""

    answers: float
    first_cycle: float
    all_seen: float
    in_flight_most: int
    ended_in_a_second: int


@dataclass(frozen=True)
class Reload:
    """Seconds until it was in use, and the bounds that cycles began late within meanwhile."""

    seconds: float
    late_p99: float
    late_most: float
    late_p99_without: float
    late_most_without: float


def started(daemon: Daemon) -> Start:
    """Watch a daemon that was just started until every org has had a cycle."""
    answers = daemon.wait_for("/-/healthy", _LIMIT, every=0.05)
    in_flight = 0.0
    sampled = time.monotonic()
    while not daemon.answers("/-/ready"):
        if time.time() > daemon.begun + _LIMIT:
            raise SystemExit(f"not every org had a cycle within {_LIMIT} s")
        time.sleep(0.5)
        if time.monotonic() > sampled + _SAMPLE_SECONDS:
            sampled = time.monotonic()
            (gauge,) = samples(scrape(daemon.port).text, "sfmtls_probes_in_flight")
            in_flight = max(in_flight, gauge[1])
    all_seen = time.time() - daemon.begun
    ended = [
        moment - daemon.begun
        for moment, entry in daemon.entries()
        if entry.get("probe") == "handshake" and entry["before"] == "unknown"
    ]
    return Start(
        answers=answers,
        first_cycle=min(ended),
        all_seen=all_seen,
        in_flight_most=int(in_flight),
        ended_in_a_second=max(Counter(map(math.floor, ended)).values()),
    )


def reloaded(daemon: Daemon, configured: Configured) -> Reload:
    """Change the labels of one org and have the agent take it in."""
    before = Lags.read(scrape(daemon.port).text)
    time.sleep(_WINDOW_SECONDS)
    between = Lags.read(scrape(daemon.port).text)
    text = configured.file.read_text()
    changed = text.replace("[orgs.org-0]\n", '[orgs.org-0]\nlabels = { team = "other" }\n')
    new = configured.file.with_suffix(".new")
    new.write_text(changed)
    new.rename(configured.file)
    begun, logged = time.time(), daemon.log.stat().st_size
    daemon.process.send_signal(signal.SIGHUP)
    taken = _wait_for(daemon, "configuration reloaded", logged)
    time.sleep(max(0.0, begun + _WINDOW_SECONDS - time.time()))
    after = Lags.read(scrape(daemon.port).text)
    meanwhile, without = after.since(between), between.since(before)
    return Reload(
        seconds=taken - begun,
        late_p99=meanwhile.bound(0.99),
        late_most=meanwhile.bound(1),
        late_p99_without=without.bound(0.99),
        late_most_without=without.bound(1),
    )


def _wait_for(daemon: Daemon, event: str, offset: int) -> float:
    """Return when the log had this entry behind `offset`, in Unix time."""
    limit = time.time() + _LIMIT
    while time.time() < limit:
        for moment, entry in daemon.entries(offset):
            if entry["event"] == event:
                return moment
        time.sleep(0.5)
    raise SystemExit(f"no {event!r} in the log within {_LIMIT} s")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, default=10000)
    parser.add_argument("--interval", type=int, default=60, help="seconds")
    options = parser.parse_args()
    with target.serving() as door, tempfile.TemporaryDirectory() as folder:
        configured = configure(Path(folder), door, options.orgs, interval=options.interval)
        with process.running(configured) as daemon:
            start = started(daemon)
            reload = reloaded(daemon, configured)
    print(f"{options.orgs} orgs every {options.interval} s")
    print(f"endpoint answers   after {start.answers:.2f} s")
    print(f"first cycle        after {start.first_cycle:.2f} s")
    print(f"every org seen     after {start.all_seen:.1f} s")
    print(f"under way          at most {start.in_flight_most}")
    even = options.orgs / options.interval
    print(f"ended in a second  at most {start.ended_in_a_second}, {even:.0f} if all were even")
    print(f"reload of one org  {reload.seconds:.2f} s")
    print(
        f"late meanwhile     p99 <= {1000 * reload.late_p99:.0f} ms, "
        f"all <= {1000 * reload.late_most:.0f} ms; without a reload "
        f"p99 <= {1000 * reload.late_p99_without:.0f} ms, "
        f"all <= {1000 * reload.late_most_without:.0f} ms"
    )
    run = {"orgs": options.orgs, "interval": options.interval}
    save("start", {**run, **asdict(start), "reload": asdict(reload)})


if __name__ == "__main__":
    main()
