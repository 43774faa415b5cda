"""How long the event loop stands still while /metrics of many orgs is scraped.

Usage: python benchmarks/scrape_pause.py [ORGS]

A ticker wakes every 2 ms and notes how late it was, while a client scrapes a board on which every
org changes between two scrapes, which is the most that there can be to render. Printed are the
largest and the median lateness, without a scrape and during scrapes; and the most CPU time that
this process used within one tick, which other programs on a busy machine cannot inflate.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from prometheus_client import CollectorRegistry

# The tests' examples are the boards to measure with.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from boards import board, org, result

from agent.metrics import Exposition, Instruments
from agent.web import WebServer, create_app

_TICK = 0.002
_SCRAPES = 5


async def _tick(late: list[tuple[float, float]]) -> None:
    while True:
        before, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(_TICK)
        late.append((time.perf_counter() - before - _TICK, time.process_time() - cpu))


def _report(title: str, ticks: list[tuple[float, float]]) -> None:
    late = [1000 * lateness for lateness, _ in ticks]
    own = max(1000 * cpu for _, cpu in ticks)
    print(
        f"{title:28} late max {max(late):6.1f} ms, median {median(late):5.2f} ms; "
        f"own CPU in one tick max {own:.1f} ms"
    )


async def _measure(orgs: int) -> None:
    made = board(*(org(f"org{number}") for number in range(orgs)))
    exposition = Exposition(made, Instruments(CollectorRegistry()))
    app = create_app(
        exposition,
        readiness=made.every_org_seen,
        now=lambda: datetime.now(UTC),
    )
    server = WebServer(app)
    host, port = await server.start("127.0.0.1", 0)
    idle: list[tuple[float, float]] = []
    busy: list[tuple[float, float]] = []
    size = 0
    headers = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"}
    ticker = asyncio.create_task(_tick(idle))
    await asyncio.sleep(1)
    ticker.cancel()
    for round_ in range(_SCRAPES):
        at = datetime.now(UTC) + timedelta(seconds=round_)
        for number in range(orgs):
            made.record(replace(result(f"org{number}"), started_at=at))
        # A client in another process, so that only the server's work is measured.
        scraper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"import httpx; r = httpx.get('http://{host}:{port}/metrics', headers={headers!r}, "
            "trust_env=False, timeout=60); print(r.status_code, len(r.content))",
            stdout=asyncio.subprocess.PIPE,
        )
        ticker = asyncio.create_task(_tick(busy))
        output, _ = await scraper.communicate()
        ticker.cancel()
        size = int(output.split()[1])
    await server.stop()
    print(f"{orgs} orgs, {size / 1e6:.1f} MB of text")
    _report("no scrape:", idle)
    _report("scrapes, every org changed:", busy)
    began = time.perf_counter()
    exposition.render(datetime.now(UTC), openmetrics=True)
    print(f"{'render, nothing changed:':28} {(time.perf_counter() - began) * 1000:.0f} ms")


if __name__ == "__main__":
    asyncio.run(_measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
