"""A hundred orgs for two minutes on `run`: punctual, without overlap, in constant memory.

Starts simulators, the agent as a process of its own with a hundred orgs on them, scrapes it every
15 s as Prometheus would, and prints what happened. Usage:

    python benchmarks/hundred_orgs.py [--orgs 100] [--seconds 120] [--interval 10]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import process
from prometheus_client.parser import text_string_to_metric_families

from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import ORGANIZATION_ID

_SCRAPE_SECONDS = 15
_SIMULATORS = 10


async def main() -> int:
    """Run it and return 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--interval", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            file = await _far_side(folder, options.orgs, options.interval, stack)
            agent = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agent", "run", "--config", str(file), stderr=subprocess.PIPE
            )
            try:
                return await _watch(agent, options.orgs, options.seconds, options.interval)
            finally:
                if agent.returncode is None:
                    agent.terminate()
                await agent.communicate()


async def _far_side(folder: Path, orgs: int, interval: int, stack: AsyncExitStack) -> Path:
    pki = Pki.create(datetime.now(UTC))
    issued = pki.client(ClientCertificate.GOOD)
    if issued is None:
        raise ValueError("a good client certificate is not none")
    (folder / "client.pem").write_bytes(issued.chain_pem() + issued.key_pem())
    (folder / "root.pem").write_bytes(pki.servers.root_pem())
    (folder / "password.txt").write_text(PASSWORD.reveal())
    text = (
        f'[agent]\ninterval = "{interval}s"\nlogin_interval = "120s"\nstate_directory = "state"\n'
        'log_format = "json"\n[web]\nlisten = "127.0.0.1:0"\n[defaults]\n'
        'trust = { system = false, file = "root.pem" }\ncertificate = "client.pem"\n'
        f'password = {{ file = "password.txt" }}\norganization_id = "{ORGANIZATION_ID}"\n'
        "logins_per_hour = 60\n"
    )
    # One user for each simulator: orgs that share one take turns to log in, as they should.
    for number in range(_SIMULATORS):
        simulator = Simulator(SCENARIOS["healthy"], pki, username=f"probe@{number}.example")
        await stack.enter_async_context(simulator)
        for org in range(number, orgs, _SIMULATORS):
            text += (
                f'[orgs.org-{org}]\nhost = "org-{org}.my.salesforce.com"\n'
                f'connect_to = "127.0.0.1:{simulator.port}"\n'
                f'username = "probe@{number}.example"\n'
            )
    file = folder / "config.toml"
    file.write_text(text)
    return file


async def _watch(agent: asyncio.subprocess.Process, orgs: int, seconds: int, interval: int) -> int:
    if agent.stderr is None:
        raise ValueError("the log is read from a pipe")
    started = (await agent.stderr.readline()).decode()
    found = re.search(r"127\.0\.0\.1:\d+", started)
    if found is None:
        raise ValueError(f"the agent did not start: {started}")
    url = f"http://{found.group()}/metrics"
    drain = asyncio.create_task(agent.stderr.read())
    memory: list[int] = []
    for _ in range(0, seconds, _SCRAPE_SECONDS):
        await asyncio.sleep(_SCRAPE_SECONDS)
        await asyncio.to_thread(_scrape, url)
        memory.append(process.memory(agent.pid).resident // 1024)
    text = await asyncio.to_thread(_scrape, url)
    ready = await asyncio.to_thread(_status, url.replace("/metrics", "/-/ready"))
    kept = _report(text, orgs, seconds, interval, memory)
    print(f"ready                     {ready}")
    print(f"promtool check metrics    {_lint(text)}")
    agent.terminate()
    await drain
    print(f"exit code                 {await agent.wait()}")
    return 0 if kept and ready == 200 else 1  # noqa: PLR2004 - OK


def _report(text: str, orgs: int, seconds: int, interval: int, memory: list[int]) -> bool:
    values: dict[str, float] = {}
    on_time = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0) + sample.value
            if (
                sample.name == "sfmtls_scheduler_lag_seconds_bucket"
                and sample.labels["le"] == "0.25"
            ):
                on_time = sample.value
    cycles = values["sfmtls_scheduler_lag_seconds_count"]
    failures = values["sfmtls_probe_failures_total"]
    overlaps = sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sfmtls_probe_skipped_total" and sample.labels["cause"] == "overlap"
    )
    first, last = memory[len(memory) // 4], memory[-1]
    print(f"orgs, interval, seconds   {orgs}, {interval}, {seconds}")
    print(f"cycles                    {cycles:.0f}, {on_time:.0f} of them within 250 ms")
    lag = values["sfmtls_scheduler_lag_seconds_sum"] / cycles
    print(f"mean lag                  {lag * 1000:.1f} ms")
    print(f"overlaps, failures        {overlaps:.0f}, {failures:.0f}")
    print(f"resident memory           {', '.join(f'{kib // 1024}' for kib in memory)} MiB")
    print(f"growth since a quarter    {last - first} KiB")
    return (
        on_time == cycles
        and not overlaps
        and not failures
        and cycles >= orgs * (seconds // interval - 1)
    )


def _scrape(url: str) -> str:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own agent on loopback
        return str(answer.read().decode())


def _status(url: str) -> int:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - as above
        return int(answer.status)


def _lint(text: str) -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        return "not installed"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return f"exit {done.returncode} {done.stderr.strip()}"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
    sys.exit(asyncio.run(main()))
