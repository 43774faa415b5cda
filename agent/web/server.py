"""Carries the application on a socket, inside the event loop that is running already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

# Longer than the usual scrape intervals, so that Prometheus keeps its connection.
_KEEP_ALIVE_SECONDS: Final = 75
_DRAIN_SECONDS: Final = 3


class ListenError(OSError):
    """The address cannot be had: it is taken, forbidden, or not of this machine."""


class _Server(uvicorn.Server):
    """Leaves signals to the daemon, who knows what must be drained first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves one application on one address, from `start` to `stop`."""

    def __init__(self, app: ASGIApp) -> None:
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        self._socket: socket.socket | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on, once started; the port is real when 0 was asked."""
        if self._socket is None:
            raise RuntimeError("the server was not started")
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Begin to serve and return the address; ListenError when it cannot be had."""
        self._socket = await _bound(host, port)
        self._running = asyncio.create_task(
            self._server.serve(sockets=[self._socket]), name="web server"
        )
        while not self._server.started:
            if self._running.done():
                self._socket.close()
                await self._running
                raise RuntimeError("the web server ended before it began")
            await asyncio.sleep(0)
        return self.address

    async def ended(self) -> None:
        """Return when it serves no more, whatever the cause; only once it was started."""
        if self._running is None:
            raise RuntimeError("the server was not started")
        await asyncio.wait([self._running])

    async def stop(self) -> None:
        """Finish the running requests, within a few seconds, and close the socket."""
        if self._socket is None or self._running is None:
            return
        self._server.should_exit = True
        # uvicorn looks ten times a second, and bounds its own draining.
        await asyncio.wait([self._running], timeout=_DRAIN_SECONDS + 2)
        if self._running.cancel():
            await asyncio.wait([self._running])
        self._socket.close()
        if not self._running.cancelled():
            self._running.result()


async def _bound(host: str, port: int) -> socket.socket:
    """Return a listening socket; an empty host is every address of this machine."""
    loop = asyncio.get_running_loop()
    try:
        if not host:
            return _everywhere(port)
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=socket.AddressFamily(family))
    except OSError as error:
        raise ListenError(error.errno, error.strerror or str(error)) from error


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
