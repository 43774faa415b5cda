"""Carries the application on sockets, inside the event loop that is running already.

It is made for a machine that strangers can reach: whoever is slow waits alone. There are at most
so many connections; when there are as many, the one that has kept us waiting longest gives way to
the next, so that a scraper, which is quick, always gets in. (uvicorn, which served here before,
knows no limit for a slow request head, an answer that nobody takes or a trickling body, and holds
such a connection for ever; and its TLS context cannot change.)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import structlog
from starlette.types import ASGIApp

from agent.web.connection import Connection, Limits, Phase
from agent.web.guard import Guard

_BACKLOG: Final = 128
_IP: Final = (socket.AF_INET, socket.AF_INET6)

_log: Final = structlog.get_logger("agent.web")


class ListenError(OSError):
    """The address cannot be had: it is taken, forbidden, or not of this machine."""


class WebServer:
    """Serves one application, from `start` to `stop`, to those whom the guard lets in.

    `bug` is called for whatever goes wrong that is ours to mend.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: Guard | None = None,
        *,
        limits: Limits | None = None,
        bug: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._guard = guard or Guard()
        self._limits = limits or Limits()
        self._bug = bug
        self._sockets: Sequence[socket.socket] = ()
        self._servers: list[asyncio.Server] = []
        self._serving: list[asyncio.Task[None]] = []
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on, once started; the port is real when 0 was asked."""
        if not self._sockets:
            raise RuntimeError("the server was not started")
        host, port = self._sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(
        self, host: str, port: int, *, sockets: Sequence[socket.socket] = ()
    ) -> tuple[str, int]:
        """Begin to serve and return the address; ListenError when it cannot be had.

        With `sockets`, which listen already (systemd's), host and port do not matter.
        """
        _check(sockets)
        self._sockets = sockets or (await _bound(host, port),)
        address = self.address
        for listening in self._sockets:
            server = await asyncio.start_server(
                self._arrive, sock=listening, backlog=_BACKLOG, start_serving=False
            )
            self._servers.append(server)
            self._serving.append(asyncio.create_task(server.serve_forever(), name="web server"))
        self._guard.watch(partial(self._tell, asyncio.get_running_loop()), self._bug)
        # Listening begins with the first steps of these tasks.
        await asyncio.sleep(0)
        return address

    async def ended(self) -> None:
        """Return when it serves no more, whatever the cause; only once it was started."""
        if not self._serving:
            raise RuntimeError("the server was not started")
        await asyncio.wait(self._serving, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """Finish the running requests, within a few seconds, and close the sockets."""
        for server in self._servers:
            server.close()
        self._renew(but=(Phase.ASKING, Phase.WRITING))
        await _over(self._tasks, self._limits.drain)
        for task in (*self._tasks, *self._serving):
            task.cancel()
        await _over({*self._tasks, *self._serving})
        for listening in self._sockets:
            listening.close()
        self._guard.close()

    def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = writer.get_extra_info("peername") is None
        if gone or not self._make_room(self._limits.connections, self._connections):
            writer.transport.abort()
            return
        connection = Connection(
            reader,
            writer,
            self._app,
            guard=self._guard,
            limits=self._limits,
            make_room=self._make_room_for_an_answer,
        )
        task = asyncio.create_task(connection.run(), name="web connection")
        self._connections[connection] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._leave(connection, done))

    def _leave(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._connections.pop(connection, None)
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a bug in the agent ended a connection", exc_info=error)
            self._bug()

    def _make_room_for_an_answer(self) -> None:
        writing = [c for c in self._connections if c.phase is Phase.WRITING]
        self._make_room(self._limits.answers, writing)

    def _make_room(self, most: int, crowd: Collection[Connection]) -> bool:
        """Tell whether there are fewer than `most`, after sending the slowest away if need be.

        Who waits for our own answer stays. Who had an answer before and asks nothing at the moment
        goes last.
        """
        if len(crowd) < most:
            return True
        waiting = [c for c in crowd if c.phase is not Phase.ASKING]
        if not waiting:
            return False
        slowest = min(waiting, key=lambda c: (c.phase is Phase.IDLE, c.since))
        # Its place is free at once, although its task ends a little later.
        self._connections.pop(slowest).cancel()
        return True

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Renew the connections, from another thread; the loop may be gone meanwhile."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._renew)

    def _renew(
        self, but: Collection[Phase] = (Phase.ARRIVING, Phase.ASKING, Phase.WRITING)
    ) -> None:
        """Let no connection outlive the protection under which it began, save for its answer."""
        for connection, task in list(self._connections.items()):
            connection.ending = True
            if connection.phase not in but:
                task.cancel()


async def _over(tasks: Collection[asyncio.Task[None]], seconds: float | None = None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _check(sockets: Sequence[socket.socket]) -> None:
    for given in sockets:
        if given.family not in _IP or given.type is not socket.SOCK_STREAM:
            raise ListenError(errno.EAFNOSUPPORT, "a socket that was passed is not a TCP socket")


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
