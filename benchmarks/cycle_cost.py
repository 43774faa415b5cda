"""What a cycle costs in CPU, beside blackbox_exporter and OpenSSL in C, pairwise in one run.

Usage: python benchmarks/cycle_cost.py [--rounds 5] [--probes 300] [--tls TLSv1.3]

All knock at the same nginx (target.py) with a fresh connection each time. The clients take turns,
round by round; printed are the medians of the CPU time of the client's process (user and system)
for one probe, and the ratio to the others in the same round. The agent's is a whole cycle as the
daemon runs it: keys looked at, connection, verdict, calls, policy, board.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import target
from results import save
from target import HOST, PATH, USER, Target

from agent import config, logs
from agent.ondemand import DOOR, DOOR_AND_LOGIN
from agent.result import Probe, Success
from agent.runner import OrgRunner
from agent.services import close_services, open_services
from agent.simulator.server import PASSWORD

_AT_ONCE: Final = 10
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_BLACKBOX: Final = """\
modules:
  door:
    prober: http
    timeout: 10s
    http:
      method: POST
      headers: {{Content-Type: "text/xml; charset=UTF-8", SOAPAction: getServerTimestamp}}
      body: '{body}'
      valid_status_codes: [500]
      fail_if_body_not_matches_regexp: [INVALID_SESSION_ID]
      tls_config:
        ca_file: {root}
        cert_file: {certificate}
        key_file: {key}
        server_name: {host}
"""


@dataclass(frozen=True)
class Client:
    """One that knocks: `run` does it so many times and returns the CPU seconds it took."""

    name: str
    run: Callable[[int], Awaitable[float]]


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--tls", choices=("TLSv1.2", "TLSv1.3"), default="TLSv1.3")
    options = parser.parse_args()
    logs.configure("info")
    with (
        target.serving(options.tls) as door,
        tempfile.TemporaryDirectory() as folder,
        _blackbox(door, Path(folder)) as exporter,
    ):
        agent = _Agent(door, Path(folder))
        clients = (
            Client("agent: handshake and door", agent.knock),
            Client("agent: and login, session", agent.log_in),
            Client("blackbox_exporter", exporter),
            Client("openssl s_time", partial(_s_time, door)),
        )
        for client in clients:
            await client.run(options.probes // 10)
        taken: dict[str, list[float]] = {client.name: [] for client in clients}
        for _ in range(options.rounds):
            for client in clients:
                taken[client.name].append(await client.run(options.probes) / options.probes)
        await agent.close()
    _print(taken)
    save("cycle_cost", {"tls": options.tls, "cpu_seconds": taken})


class _Agent:
    """Runs cycles of some orgs in this process, which does nothing else."""

    def __init__(self, door: Target, folder: Path) -> None:
        (folder / "password").write_text(PASSWORD.reveal())
        text = (
            f'[agent]\nstate_directory = "{folder}/state"\n'
            f'[defaults]\nhost = "{HOST}"\nconnect_to = "127.0.0.1:{door.port}"\n'
            f'certificate = "{door.certificate}"\nprivate_key = "{door.key}"\n'
            f'trust = {{ system = false, file = "{door.root}" }}\nrefusal = false\n'
            f'password = {{ file = "{folder}/password" }}\nlogins_per_hour = 3600\n'
        )
        for number in range(_AT_ONCE):
            text += f'[orgs.org-{number}]\nusername = "{number}-{USER}"\n'
        file = folder / "config.toml"
        file.write_text(text)
        settings = config.load(file)
        self._services = open_services(settings.agent, os.environ)
        self._runners = [OrgRunner(org, self._services) for org in settings.orgs.values()]
        for runner in self._runners:
            self._services.board.add(runner.org)

    async def knock(self, probes: int) -> float:
        return await self._run(probes, DOOR)

    async def log_in(self, probes: int) -> float:
        return await self._run(probes, DOOR_AND_LOGIN)

    async def _run(self, probes: int, wanted: frozenset[Probe]) -> float:
        async def several(runner: OrgRunner) -> None:
            for _ in range(probes // _AT_ONCE):
                result = await runner.run(0.0, wanted)
                missing = [p for p in wanted if not isinstance(result.outcomes.get(p), Success)]
                if missing:
                    raise SystemExit(f"{missing} did not succeed: {result.outcomes}")

        before = time.process_time()
        await asyncio.gather(*map(several, self._runners))
        return time.process_time() - before

    async def close(self) -> None:
        await close_services(self._services)


@contextmanager
def _blackbox(door: Target, folder: Path) -> Iterator[Callable[[int], Awaitable[float]]]:
    """Run the exporter; give what lets it probe."""
    file = folder / "blackbox.yml"
    file.write_text(
        _BLACKBOX.format(
            body=target.call_body().decode(),
            root=door.root,
            certificate=door.certificate,
            key=door.key,
            host=HOST,
        )
    )
    port = target.free_port()
    command = [
        target.program("prometheus-blackbox-exporter"),
        f"--config.file={file}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            target.wait_for(port, process)
            yield lambda probes: _ask(process.pid, port, door, probes)
        finally:
            process.terminate()


async def _ask(pid: int, port: int, door: Target, probes: int) -> float:
    asked = {"target": f"https://127.0.0.1:{door.port}{PATH}", "module": "door"}

    async def several(client: httpx.AsyncClient) -> None:
        for _ in range(probes // _AT_ONCE):
            answer = await client.get("/probe", params=asked)
            if "probe_success 1" not in answer.text:
                raise SystemExit(f"blackbox_exporter did not get in: {answer.text}")

    before = _cpu_seconds(pid)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        await asyncio.gather(*(several(client) for _ in range(_AT_ONCE)))
    return _cpu_seconds(pid) - before


async def _s_time(door: Target, probes: int) -> float:
    """Let OpenSSL connect for two seconds; return what so many probes would have taken."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{door.port}", "-new", "-time", "2"]
    files = ["-cert", door.certificate, "-key", door.key, "-CAfile", door.root, "-www", PATH]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = await asyncio.to_thread(
        subprocess.run, [*command, *files], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"(\d+) connections in", done.stdout)
    if found is None or not int(found[1]):
        raise SystemExit(f"openssl s_time did not get in: {done.stdout}{done.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / int(found[1]) * probes


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _print(taken: Mapping[str, Sequence[float]]) -> None:
    floor, other = taken["openssl s_time"], taken["blackbox_exporter"]
    print(
        f"{'CPU of one probe':28} {'ms':>6} {'least':>6} {'most':>6} {'x C':>6} {'x blackbox':>11}"
    )
    for name, seconds in taken.items():
        times = [1000 * figure(seconds) for figure in (median, min, max)]
        ratios = f"{_ratio(seconds, floor):6.2f} {_ratio(seconds, other):11.2f}"
        print(f"{name:28} {' '.join(f'{taken:6.2f}' for taken in times)} {ratios}")


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(one / two for one, two in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    asyncio.run(main())
