"""Bytes between us and a client, plain or through TLS.

TLS is driven by hand: asyncio's own closes without sending the alert that tells a client why it
was refused, and takes whatever is written into buffers, however slowly the client reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

_T = TypeVar("_T")

_READ: Final = 4 * 1024
_WRITE: Final = 16 * 1024  # a record of TLS (RFC 8446 §5.1)


class Channel(Protocol):
    """What a conversation needs. OSError when the client is gone."""

    async def read(self) -> bytes:
        """Return what has come, nothing at the end."""

    async def write(self, data: bytes) -> None:
        """Return when the client, or the kernel on its behalf, has taken everything."""

    async def finish(self) -> None:
        """Say that this was all, and return when the client has said so too.

        To close at once could take away what is still on its way (RFC 9112 §9.6).
        """


class PlainChannel:
    """A connection as it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # So that `drain` waits until nothing is left here.
        writer.transport.set_write_buffer_limits(high=0)

    async def read(self) -> bytes:
        """Return what has come, nothing at the end."""
        return await self._reader.read(_READ)

    async def write(self, data: bytes) -> None:
        """Return when the kernel has taken everything."""
        for piece in _pieces(data):
            self._writer.write(piece)
            await self._writer.drain()

    async def finish(self) -> None:
        """Say that this was all, and return when the client has said so too."""
        self._writer.write_eof()
        while await self.read():
            pass


class TlsChannel:
    """A connection with TLS on it: `handshake` first."""

    def __init__(self, wire: Channel, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> bytes | None:
        """Return the client's certificate in DER, if it showed one; ssl.SSLError if that fails."""
        await self._do(self._tls.do_handshake)
        return self._tls.getpeercert(binary_form=True)

    async def read(self) -> bytes:
        """Return what has come, nothing at the end."""
        try:
            return await self._do(lambda: self._tls.read(_READ))
        except ssl.SSLEOFError:
            return b""

    async def write(self, data: bytes) -> None:
        """Return when the kernel has taken everything."""
        for piece in _pieces(data):
            self._tls.write(piece)
            await self._flush()

    async def finish(self) -> None:
        """Say that this was all, and return when the client has said so too."""
        # The error is that the client has not said so yet, or that there is no TLS between us.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()
        await self._wire.finish()

    async def _do(self, act: Callable[[], _T]) -> _T:
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self._wire.read():
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            finally:
                # What is to be said is said in any case: most of all, an alert.
                await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._wire.write(data)


def _pieces(data: bytes) -> Iterator[memoryview]:
    """Cut it, so that what a client does not take is not also in buffers."""
    whole = memoryview(data)
    for begin in range(0, len(whole), _WRITE):
        yield whole[begin : begin + _WRITE]
