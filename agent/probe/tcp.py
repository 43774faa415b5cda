"""One TCP connection as bytes: connects to the first address that answers, sends, receives.

Whatever the kernel reports becomes a Failure here, by one table. Time limits are the caller's:
every coroutine here may be cancelled by `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from agent.org import authority
from agent.reason import Reason
from agent.result import Failure

_READ_SIZE: Final = 65536

# Most specific first; what is not here is a network trouble that the text tells.
_REASONS: Final[Mapping[type[OSError], Reason]] = {
    ConnectionRefusedError: Reason.TCP_REFUSED,
    ConnectionResetError: Reason.TCP_RESET,
    ConnectionAbortedError: Reason.TCP_RESET,
    BrokenPipeError: Reason.TCP_RESET,
    TimeoutError: Reason.TCP_TIMEOUT,
    # What a `prohibit` route or a local firewall answers (EPERM, EACCES).
    PermissionError: Reason.TCP_UNREACHABLE,
}
_UNREACHABLE: Final = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EINVAL}
)

Address = tuple[socket.AddressFamily, tuple[str, int]]


def shown(address: Address) -> str:
    """Return an address as people write it: 192.0.2.1:8443 or [2001:db8::1]:8443."""
    _, target = address
    return authority(*target)


def failure_of(error: OSError) -> Failure:
    """Translate what the kernel said."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return Failure(reason, _text(error))
    if error.errno in _UNREACHABLE:
        return Failure(Reason.TCP_UNREACHABLE, _text(error))
    return Failure(Reason.UNDETERMINED, _text(error))


def _settle(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


def _text(error: OSError) -> str:
    # asyncio puts words of its own, with the address, in the place of the kernel's.
    if error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


class Connection:
    """An open TCP connection. `address` is where it leads; `round_trip` about one, in seconds."""

    def __init__(self, sock: socket.socket, address: Address, round_trip: float) -> None:
        self._socket = sock
        self.address = address
        self.round_trip = round_trip

    async def send(self, data: bytes) -> Failure | None:
        """Send all of it."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as error:
            return failure_of(error)
        return None

    async def receive(self) -> bytes | Failure:
        """Return what has arrived, at least a byte; empty when the peer has closed.

        Cancelled, it takes nothing: `loop.sock_recv` can lose what it has just read when a timeout
        strikes in the same turn of the event loop, and what it loses may be the alert.
        """
        while (arrived := self.receive_now()) is None:
            await self._readable()
        return arrived

    def receive_now(self) -> bytes | Failure | None:
        """Return what has arrived without waiting for it; None when nothing has."""
        try:
            return self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            return failure_of(error)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        # Its number: of a socket, `selectors` would put the repr, with two system calls, in an
        # exception each time.
        descriptor = self._socket.fileno()
        loop.add_reader(descriptor, _settle, arrived)
        try:
            await arrived
        finally:
            loop.remove_reader(descriptor)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


async def connect(addresses: Sequence[Address], seconds: float) -> Connection | Failure:
    """Connect to the first address that answers; each gets its share of the seconds left.

    The failure returned is that of the last address; all of them are in its detail.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    failures: list[str] = []
    failure = Failure(Reason.DNS_ERROR, "no address to connect to")
    for tried, address in enumerate(addresses):
        share = (deadline - clock()) / (len(addresses) - tried)
        result = await _connect(address, share)
        if isinstance(result, Connection):
            return result
        failures.append(f"{shown(address)} {result.detail}")
        failure = Failure(result.reason, "; ".join(failures))
    return failure


async def _connect(address: Address, seconds: float) -> Connection | Failure:
    family, target = address
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        return failure_of(error)
    try:
        # A login is one small request and one answer: waiting to fill a segment only adds delay.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, target)
    except TimeoutError:
        sock.close()
        return Failure(Reason.TCP_TIMEOUT, f"no answer in {seconds:.1f} s")
    except OSError as error:
        sock.close()
        return failure_of(error)
    except BaseException:
        sock.close()
        raise
    return Connection(sock, address, clock() - began)
