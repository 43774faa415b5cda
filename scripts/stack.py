#!/usr/bin/env python3
"""The whole way from a door to a person, on loopback, to play with: `make stack`.

Runs the demo's simulated orgs and the agent that watches them, Prometheus and Alertmanager from
Debian's packages with this project's rules and routing, and a webhook that prints what people would
be told. Rules and routing are the shipped ones, but for patience: what takes minutes there takes
seconds here. Ctrl-C ends everything.
"""

# ruff: noqa: T201 - it is made to be looked at

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import fill, indent
from typing import Final

# What starts the programs for the tests does so here.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from monitoring import (
    EXAMPLE_AGENT,
    ROUTING,
    RULES,
    SCRAPING,
    Program,
    ProgramError,
    Told,
    Webhook,
    alertmanager,
    hurried_routing,
    hurried_rules,
    hurried_scraping,
    prometheus,
)

# Beside their usual ports, where the packages' own services may be running.
PROMETHEUS: Final = "127.0.0.1:19090"
ALERTMANAGER: Final = "127.0.0.1:19093"

_NEEDED: Final = ("prometheus", "prometheus-alertmanager")
_METRICS: Final = re.compile(r"http://(\S+)/metrics")


class Printer:
    """Prints an alert when it begins and when it ends, however often it is told."""

    def __init__(self) -> None:
        self._firing: set[frozenset[tuple[str, str]]] = set()

    def take(self, told: Told) -> None:
        """Print what is news."""
        which = frozenset(told.labels.items())
        if told.firing is (which in self._firing):
            return
        if told.firing:
            self._firing.add(which)
        else:
            self._firing.remove(which)
        what = told.labels["severity"] if told.firing else "resolved"
        print(f"\n{what:8}  {told.alert} → {told.receiver}")
        print(f"          {told.annotations['summary']}")
        if told.firing:
            print(indent(fill(told.annotations["description"], 88), " " * 10))
            print(f"          {told.annotations['runbook_url']}")
        sys.stdout.flush()


async def run(where: argparse.Namespace, folder: Path) -> None:
    """Play until SIGINT or SIGTERM; ProgramError when something does not start."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    (folder / "rules").mkdir()
    for file in RULES.glob("*.yml"):
        (folder / "rules" / file.name).write_text(hurried_rules(file.read_text()))
    async with AsyncExitStack() as stack:
        webhook = stack.enter_context(Webhook(Printer().take))
        demo = await Program.start(
            sys.executable, "-m", "agent", "demo", "--listen", where.agent,
            log=folder / "demo.log", listening=_METRICS,
        )  # fmt: skip
        stack.push_async_callback(demo.stop)
        routing = hurried_routing(ROUTING.read_text(), webhook.url)
        router = await alertmanager(folder, routing, listen=where.alertmanager)
        stack.push_async_callback(router.stop)
        scraping = hurried_scraping(SCRAPING.read_text(), demo.address, router.address)
        database = await prometheus(folder, scraping, listen=where.prometheus)
        stack.push_async_callback(database.stop)
        _explain(demo, router, database)
        await stop.wait()


def _explain(demo: Program, router: Program, database: Program) -> None:
    told, _, _ = demo.log.read_text().partition("Ctrl-C")
    # The demo explains itself, between the lines of its log.
    print("\n".join(line for line in told.split("\n") if not line.startswith("{")))
    print("Around it, with what takes minutes in production taking seconds:")
    print(f"  Prometheus    {database.url}  (Debian's has no pages; ask its API or promtool)")
    print(f"  Alertmanager  {router.url}")
    print()
    print(
        "What fires, what is kept back because another alert explains it, and what it looks like:"
    )
    print(f"  promtool query instant {database.url} ALERTS")
    print(f"  amtool --alertmanager.url={router.url} alert query --inhibited")
    print(f"  kill {demo.pid}   # nobody watches any more")
    print()
    print("Ctrl-C ends it all. In some ten seconds, this is what people are told:", flush=True)


def main() -> None:
    """Read the arguments and play; exits 1 when something is missing or does not start."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agent", default=EXAMPLE_AGENT, metavar="HOST:PORT")
    parser.add_argument("--prometheus", default=PROMETHEUS, metavar="HOST:PORT")
    parser.add_argument("--alertmanager", default=ALERTMANAGER, metavar="HOST:PORT")
    where = parser.parse_args()
    if missing := [program for program in _NEEDED if shutil.which(program) is None]:
        sys.exit(
            f"{' and '.join(missing)} not found. On Debian:\n"
            f"    apt-get install --no-install-recommends {' '.join(_NEEDED)}\n"
            "The services that this starts are not needed: systemctl disable --now "
            f"{' '.join(_NEEDED)}"
        )
    with tempfile.TemporaryDirectory(prefix="sfmtls-stack-") as folder:
        try:
            asyncio.run(run(where, Path(folder)))
        except ProgramError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
