"""Debian's Prometheus and Alertmanager on loopback, with this project's rules and routing.

For tests and for `make stack`. Only time is made short, by rewriting durations in the text of the
shipped files: what the rules ask, and how alerts are routed and inhibited, stays as it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final, Self

import httpx

BUNDLE: Final = Path(__file__).parent.parent / "prometheus"
RULES: Final = BUNDLE / "rules"
ROUTING: Final = BUNDLE / "alertmanager.example.yml"
SCRAPING: Final = BUNDLE / "prometheus.example.yml"
# What the shipped examples say where something is.
EXAMPLE_AGENT: Final = "127.0.0.1:10843"
EXAMPLE_ALERTMANAGER: Final = "127.0.0.1:9093"
EXAMPLE_WEBHOOK: Final = "http://127.0.0.1:9099"

# What both programs say, through Prometheus' exporter-toolkit, once their port is open.
_LISTENING: Final = re.compile(r'msg="Listening on" address=(\S+)')
_START_SECONDS: Final = 20.0


class ProgramError(Exception):
    """A program ended instead of listening; says what it logged last."""


class Program:
    """A program that runs, and its log; `address` is where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, address: str) -> None:
        self._process = process
        self.log = log
        self.address = address

    @classmethod
    async def start(
        cls, *command: str | Path, log: Path, listening: re.Pattern[str] = _LISTENING
    ) -> Self:
        """Start it and wait until its log tells the address; ProgramError when it ends instead."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                address = _address(log, listening)
                while address is None and process.returncode is None:
                    await asyncio.sleep(0.02)
                    address = _address(log, listening)
        except BaseException:
            await _end(process)
            raise
        if address is None:
            raise ProgramError(f"{command[0]} ended: {_end_of(log)}")
        return cls(process, log, address)

    @property
    def url(self) -> str:
        """Where it answers over HTTP."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        """Its number, to be killed by."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def stop(self) -> None:
        """Ask it to end and wait for that; after ten seconds it is killed."""
        await _end(self._process)


def _address(log: Path, listening: re.Pattern[str]) -> str | None:
    found = listening.search(log.read_text())
    return found[1] if found else None


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-3:])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


# --- time made short


def hurried_rules(text: str) -> str:
    """Return rules that are evaluated every second and that have little patience.

    `for` ends within two seconds. Minutes of `keep_firing_for` become seconds, so that what is kept
    longer than something else still is. So do those of windows, but between 5 and 15: short enough
    to be over soon, long enough for a rate.
    """
    text = re.sub(r"^(\s*interval:).*$", r"\1 1s", text, flags=re.MULTILINE)
    text = _with(text, r"^\s*for: *", lambda seconds: min(seconds, 2))
    text = _with(text, r"^\s*keep_firing_for: *", lambda seconds: seconds / 60)
    return _with(text, r"(?<=[\w)}])\[|\boffset ", lambda seconds: min(max(seconds / 60, 5), 15))


def hurried_routing(text: str, webhook: str) -> str:
    """Return the shipped routing with shorter waits and with `webhook` in the receivers' place."""
    # Five seconds are enough for what inhibits to arrive before what it inhibits is told.
    text = _with(text, r"^\s*group_wait: *", lambda seconds: min(seconds, 5))
    text = _with(text, r"^\s*group_interval: *", lambda seconds: min(seconds, 1))
    return _replaced(text, EXAMPLE_WEBHOOK, webhook)


def hurried_scraping(text: str, agent: str, alertmanager: str) -> str:
    """Return the shipped configuration of Prometheus with these addresses, every second."""
    text = _with(text, r"^\s*\w+_interval: *", lambda seconds: min(seconds, 1))
    return _replaced(_replaced(text, EXAMPLE_AGENT, agent), EXAMPLE_ALERTMANAGER, alertmanager)


_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def _with(text: str, before: str, made_of: Callable[[float], float]) -> str:
    """Return the text with another duration wherever one stands after `before`."""
    duration = r"(?P<duration>(?:\d+(?:ms|[smhdwy]))+)"

    def shorter(found: re.Match[str]) -> str:
        return f"{found['before']}{1000 * made_of(_seconds(found['duration'])):.0f}ms"

    return re.sub(rf"(?P<before>{before}){duration}", shorter, text, flags=re.MULTILINE)


def _seconds(duration: str) -> float:
    parts = re.findall(r"(\d+)(ms|[smhdwy])", duration)
    return sum(int(count) * _UNITS[unit] for count, unit in parts)


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise ValueError(f"the shipped file no longer has {old}")
    return text.replace(old, new)


# --- Prometheus


async def prometheus(
    folder: Path, configuration: str, *, listen: str = "127.0.0.1:0", retention: str = "15d"
) -> Program:
    """Start Prometheus; configuration, data and log are in the folder."""
    file = folder / "prometheus.yml"
    file.write_text(configuration)
    return await Program.start(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={retention}",
        f"--web.listen-address={listen}",
        # Alertmanager forgets an alert that was not sent again for four times this.
        "--rules.alert.resend-delay=2s",
        log=folder / "prometheus.log",
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer and its values, each with its moment in Unix time."""

    labels: dict[str, str]
    values: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The last value."""
        return self.values[-1][1]


class Api:
    """Prometheus' HTTP API, as far as it is asked here."""

    def __init__(self, program: Program) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{program.url}/api/v1", timeout=30, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer; ValueError with what Prometheus holds against it."""
        async with asyncio.timeout(20):
            # It listens a moment before it is ready to answer.
            response = await self._client.get(path, params=parameters)
            while response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                await asyncio.sleep(0.05)
                response = await self._client.get(path, params=parameters)
        answer = response.json()
        if answer["status"] != "success" or answer.get("warnings"):
            raise ValueError(f"{parameters}: {answer.get('error') or answer['warnings']}")
        return answer["data"]

    async def instant(self, expression: str, at: float | None = None) -> list[Sample]:
        """Return the answer as of a moment, or of now."""
        moment: dict[str, float] = {} if at is None else {"time": at}
        data = await self.get("/query", query=expression, **moment)
        if data["resultType"] == "scalar":
            return [_sample({}, [data["result"]])]
        return [_sample(one["metric"], [one["value"]]) for one in data["result"]]

    async def over(self, expression: str, start: float, end: float, step: float) -> list[Sample]:
        """Return the answers between two moments."""
        data = await self.get("/query_range", query=expression, start=start, end=end, step=step)
        return [_sample(one["metric"], one["values"]) for one in data["result"]]


def _sample(labels: dict[str, str], values: list[list[Any]]) -> Sample:
    return Sample(labels, tuple((moment, float(value)) for moment, value in values))


# --- Alertmanager


async def alertmanager(folder: Path, routing: str, *, listen: str = "127.0.0.1:0") -> Program:
    """Start Alertmanager with this routing; its data and log are in the folder."""
    file = folder / "alertmanager.yml"
    file.write_text(routing)
    return await Program.start(
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={listen}",
        # Else it would wait for others of its kind, on every interface.
        "--cluster.listen-address=",
        log=folder / "alertmanager.log",
    )


@dataclass(frozen=True, slots=True)
class Told:
    """One alert as a receiver was told of it."""

    receiver: str
    firing: bool
    since: datetime
    labels: dict[str, str] = field(repr=False)
    annotations: dict[str, str] = field(repr=False)

    @property
    def alert(self) -> str:
        """Its name."""
        return self.labels["alertname"]

    @property
    def org(self) -> str:
        """The org it is about, or "" when it is about the agent."""
        return self.labels.get("org", "")


class Webhook:
    """A receiver of Alertmanager's; hands one alert after the other to `listener`, in a thread."""

    def __init__(self, listener: Callable[[Told], None], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(HTTPStatus.OK)
                self.end_headers()
                for alert in body["alerts"]:
                    listener(
                        Told(
                            receiver=body["receiver"],
                            firing=alert["status"] == "firing",
                            since=datetime.fromisoformat(alert["startsAt"]),
                            labels=alert["labels"],
                            annotations=alert["annotations"],
                        )
                    )

            def log_message(self, *_: object) -> None:
                """Say nothing: the listener does."""

        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where Alertmanager finds it."""
        return f"http://127.0.0.1:{self._server.server_port}"
