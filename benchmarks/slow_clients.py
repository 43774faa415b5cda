"""How long a scrape takes while other clients are as slow as they can.

Usage: python benchmarks/slow_clients.py [CLIENTS [SECONDS]]

The endpoint serves 100 orgs with its usual limits, plain and with TLS. Another process holds so
many connections for so long: a third sends its request a byte a second, a third says nothing, and
a third asks for /metrics again and again and never reads an answer; what the endpoint closes is
opened again at once. With TLS the first third is as slow in its handshake. Once a second somebody
scrapes on a new connection, as a Prometheus that was just started does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

# The tests' endpoint is the one to measure.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import structlog
from boards import board, org, result
from endpoint import TLS, Served, client_context, serving, write_material

_ORGS = 100
_HEAD = b"GET /metrics HTTP/1.1\r\nHost: agent\r\nX-Slow: " + b"x" * 1000
_PATIENCE = 35
_GREEDY = b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n" * 20
_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500


async def _slow_client(host: str, port: int, sent: bytes) -> None:
    """Open a connection and send a byte a second; when it is closed, do it again."""
    while True:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while not (reader.at_eof() or writer.is_closing()):
                writer.write(sent[:1])
                sent = sent[1:] + sent[:1]
                await asyncio.sleep(1)
        except OSError:
            pass
        finally:
            writer.transport.abort()


async def _greedy_client(host: str, port: int, folder: Path | None) -> None:
    """Ask for much and take nothing; when the connection is closed, do it again."""
    context = client_context(folder) if folder else None
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=1)
            writer.write(_GREEDY)
            # Nothing is read until the endpoint has long lost its patience.
            await asyncio.sleep(_PATIENCE)
            writer.transport.abort()
            del reader
        except OSError:
            await asyncio.sleep(0.1)


async def _be_slow(host: str, port: int, clients: int, folder: Path | None) -> None:
    slow = _HELLO if folder else _HEAD
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            match number % 3:
                case 0:
                    group.create_task(_slow_client(host, port, slow))
                case 1:
                    group.create_task(_slow_client(host, port, b""))
                case _:
                    group.create_task(_greedy_client(host, port, folder))


async def _scrapes(served: Served, seconds: float) -> list[float]:
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        answer = await served.get("/metrics")
        taken.append(time.monotonic() - began)
        answer.raise_for_status()
        await asyncio.sleep(max(0.0, 1 - taken[-1]))
    return taken


def _report(title: str, taken: list[float]) -> None:
    print(
        f"{title:34} {len(taken):3} scrapes, median {1000 * median(taken):6.1f} ms, "
        f"max {1000 * max(taken):6.1f} ms"
    )


async def _measure(clients: int, seconds: float) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    made = board(*(org(f"org{number}") for number in range(_ORGS)))
    for number in range(_ORGS):
        made.record(result(f"org{number}"))
    folder = Path(tempfile.mkdtemp(prefix="slow-clients-"))
    write_material(folder)
    for name, text in (("plain", None), ("TLS", TLS)):
        async with serving(folder, text, made=made) as served:
            _report(f"{name}, nobody else:", await _scrapes(served, 3))
            others = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--be-slow", served.host, str(served.port),
                str(clients), str(folder) if text else "",
            )  # fmt: skip
            await asyncio.sleep(1)
            try:
                taken = await _scrapes(served, seconds)
            finally:
                others.kill()
                await others.wait()
            _report(f"{name}, {clients} slow clients, {seconds:g} s:", taken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be-slow"]:
        host, port, clients, folder = sys.argv[2:]
        asyncio.run(_be_slow(host, int(port), int(clients), Path(folder) if folder else None))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        asyncio.run(_measure(*(given + [200, 30][len(given) :])))
