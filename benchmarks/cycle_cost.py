"""What a cycle costs in CPU, beside blackbox_exporter and OpenSSL in C, pairwise in one run.

Usage: python benchmarks/cycle_cost.py [--rounds 5] [--probes 300] [--rate 100] [--tls TLSv1.3]

All knock at the same nginx (target.py) with a fresh connection each time. The clients take turns,
round by round; printed are the medians of the CPU time of the client's process (user and system)
for one probe, and the ratio to the others in the same round. The agent's is a whole cycle as the
daemon runs it: keys looked at, connection, verdict, calls, policy, board; every org has a user, a
certificate and a key of its own.

TLS alone is the agent's handshake over a blocking socket, verdict included, beside a connection of
s_time that asks for nothing. Paced are so many probes a second, each at its moment whether those
before it are done or not: in operation nearly every probe wakes a process that sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import target
from orgs import configure
from process import cpu_seconds
from results import ratio, save
from target import HOST, PATH, Target

from agent import config, logs
from agent.ondemand import DOOR, DOOR_AND_LOGIN
from agent.probe.handshake import Handshake
from agent.result import Failure, Probe, Success
from agent.runner import OrgRunner
from agent.services import close_services, open_services

_AT_ONCE: Final = 10
AGENT: Final = "agent: handshake and door"
AGENT_LOGIN: Final = "agent: and login, session"
AGENT_TLS: Final = "agent: TLS alone"
BLACKBOX: Final = "blackbox_exporter"
S_TIME: Final = "openssl s_time"
S_TIME_TLS: Final = "openssl s_time: TLS alone"

_BLACKBOX_FILE: Final = """\
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


_Knock = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Client:
    """One that knocks: `run` does it so many times and returns the CPU seconds it took."""

    name: str
    run: Callable[[int], Awaitable[float]]


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="at most 14, or logins run out")
    parser.add_argument("--probes", type=int, default=300, help="of a client in a round")
    parser.add_argument("--rate", type=float, default=100, help="paced probes a second")
    parser.add_argument("--tls", choices=("TLSv1.2", "TLSv1.3"), default="TLSv1.3")
    options = parser.parse_args()
    logs.configure("info")
    rate = options.rate
    with (
        target.serving(options.tls) as door,
        tempfile.TemporaryDirectory() as folder,
        _blackbox(door, Path(folder)) as exporter,
    ):
        # Each org has its turn once in a run. With fewer a user would log in hundreds of times an
        # hour, and all of an hour's attempts are read again in every cycle.
        agent = Agent(door, Path(folder), options.probes)
        clients = (
            Client(AGENT, agent.knock),
            Client(AGENT_LOGIN, agent.log_in),
            Client(BLACKBOX, exporter),
            Client(S_TIME, partial(_s_time, door, ["-www", PATH])),
            Client(AGENT_TLS, agent.shake_hands),
            Client(S_TIME_TLS, partial(_s_time, door, [])),
        )
        paced = (
            Client(AGENT, partial(agent.knock, rate=rate)),
            Client(AGENT_LOGIN, partial(agent.log_in, rate=rate)),
            Client(BLACKBOX, partial(exporter, rate=rate)),
        )
        for client in clients:
            await client.run(options.probes)
        taken: dict[str, list[float]] = {client.name: [] for client in clients}
        at_rate: dict[str, list[float]] = {client.name: [] for client in paced}
        for _ in range(options.rounds):
            for kept, several in ((taken, clients), (at_rate, paced)):
                for client in several:
                    kept[client.name].append(await client.run(options.probes) / options.probes)
        await agent.close()
    whole = (AGENT, AGENT_LOGIN, BLACKBOX, S_TIME)
    _print("CPU of one probe", {name: taken[name] for name in whole}, (S_TIME, BLACKBOX))
    _print("TLS alone", {n: taken[n] for n in (AGENT_TLS, S_TIME_TLS)}, (S_TIME_TLS,))
    _print(f"paced, {rate:g} a second", at_rate, (BLACKBOX,))
    save(
        "cycle_cost",
        {
            "tls": options.tls,
            "cpu_seconds": taken,
            "rate": rate,
            "paced_cpu_seconds": at_rate,
        },
    )


class Agent:
    """Runs cycles of so many orgs in this process, which does nothing else.

    What runs them returns the CPU seconds that they took.
    """

    def __init__(self, door: Target, folder: Path, orgs: int) -> None:
        self._port = door.port
        settings = config.load(configure(folder, door, orgs).file)
        self._services = open_services(settings.agent, os.environ)
        self._runners = [OrgRunner(org, self._services) for org in settings.orgs.values()]
        for runner in self._runners:
            self._services.board.add(runner.org)

    async def knock(self, probes: int, rate: float | None = None) -> float:
        """Run cycles with handshake and door."""
        return await self._run(probes, rate, DOOR)

    async def log_in(self, probes: int, rate: float | None = None) -> float:
        """Run cycles with handshake, door, login and session."""
        return await self._run(probes, rate, DOOR_AND_LOGIN)

    async def _run(self, probes: int, rate: float | None, wanted: frozenset[Probe]) -> float:
        async def knock(runner: OrgRunner) -> None:
            result = await runner.run(0.0, wanted)
            missing = [p for p in wanted if not isinstance(result.outcomes.get(p), Success)]
            if missing:
                raise SystemExit(f"{missing} did not succeed: {result.outcomes}")

        before = time.process_time()
        await _knocking([partial(knock, runner) for runner in self._runners], probes, rate)
        return time.process_time() - before

    async def shake_hands(self, probes: int) -> float:
        """Do no more than handshakes, over a blocking socket, until there is a verdict."""
        presented = (await self._runners[0].look()).presented
        if isinstance(presented, Failure):
            raise SystemExit(f"nothing to present: {presented}")
        before = time.process_time()
        for _ in range(probes):
            _shake_hands(presented.presenting, self._port)
        return time.process_time() - before

    async def close(self) -> None:
        """Give everything back."""
        await close_services(self._services)


def _shake_hands(context: ssl.SSLContext, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake = Handshake(context, HOST)
        while handshake.outcome is None:
            if data := handshake.to_send():
                connection.sendall(data)
            handshake.receive(connection.recv(65536))
    if handshake.outcome.failure is not None:
        raise SystemExit(f"the door did not open: {handshake.outcome}")


async def _knocking(doors: Sequence[_Knock], probes: int, rate: float | None) -> None:
    """Knock so many times, some at once: as fast as it goes, or evenly at `rate` a second.

    The number of doors is a multiple of those at once, so that nobody knocks twice at one.
    """
    clock = asyncio.get_running_loop().time
    begun = clock()

    async def several(first: int) -> None:
        for number in range(first, probes, _AT_ONCE):
            if rate is not None:
                await asyncio.sleep(max(0.0, begun + number / rate - clock()))
            await doors[number % len(doors)]()

    await asyncio.gather(*map(several, range(_AT_ONCE)))


@contextmanager
def _blackbox(door: Target, folder: Path) -> Iterator[Callable[..., Awaitable[float]]]:
    """Run the exporter; give what lets it probe."""
    file = folder / "blackbox.yml"
    file.write_text(
        _BLACKBOX_FILE.format(
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
            yield partial(_ask, process.pid, port, door)
        finally:
            process.terminate()


async def _ask(pid: int, port: int, door: Target, probes: int, rate: float | None = None) -> float:
    asked = {"target": f"https://127.0.0.1:{door.port}{PATH}", "module": "door"}

    async def knock(client: httpx.AsyncClient) -> None:
        answer = await client.get("/probe", params=asked)
        if "probe_success 1" not in answer.text:
            raise SystemExit(f"blackbox_exporter did not get in: {answer.text}")

    before = cpu_seconds(pid)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        await _knocking([partial(knock, client)] * _AT_ONCE, probes, rate)
    return cpu_seconds(pid) - before


async def _s_time(door: Target, asks: Sequence[str], probes: int) -> float:
    """Let OpenSSL connect for two seconds; return what so many probes would have taken."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    connections = await asyncio.to_thread(s_time, door, 2, asks)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / connections * probes


def s_time(door: Target, seconds: int, asks: Sequence[str], under: Sequence[str] = ()) -> int:
    """Let OpenSSL connect for so long, `under` another program; return how often it did."""
    command = [*under, "openssl", "s_time", "-connect", f"127.0.0.1:{door.port}", "-new"]
    command += ["-time", str(seconds), "-CAfile", str(door.root)]
    command += ["-cert", str(door.certificate), "-key", str(door.key), *asks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) connections in", done.stdout)
    if found is None or not int(found[1]):
        raise SystemExit(f"openssl s_time did not get in: {done.stdout}{done.stderr}")
    return int(found[1])


def _print(title: str, taken: Mapping[str, Sequence[float]], references: Collection[str]) -> None:
    head = " ".join(f"{'x ' + name.split(':')[0]:>20}" for name in references)
    print(f"{title:28} {'ms':>6} {'least':>6} {'most':>6} {head}")
    for name, seconds in taken.items():
        times = " ".join(f"{1000 * figure(seconds):6.2f}" for figure in (median, min, max))
        ratios = " ".join(f"{ratio(seconds, taken[other]):20.2f}" for other in references)
        print(f"{name:28} {times} {ratios}")


if __name__ == "__main__":
    asyncio.run(main())
