"""Bytes in and out of one accepted connection, in clear or under TLS, closed without losing any.

TLS is driven here with ssl.MemoryBIO and not by asyncio, because asyncio's own server side closes
the transport before the alert that refuses a TLS 1.3 client has been sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from typing import Final

from agent.simulator.verdict import Verdicts

_CHUNK: Final = 65536
_LINGER: Final = 5.0


class Channel:
    """A connection in clear. Reads give b"" at the end; a lost connection is an OSError."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._idle = idle

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end; TimeoutError after the idle time."""
        return await self.read_raw()

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self.write_raw(data)

    async def finish(self) -> None:
        """End our side in order and take in what the peer still sends."""
        await self.finish_raw()

    async def read_raw(self) -> bytes:
        """Return the next bytes as they are on the wire."""
        async with asyncio.timeout(self._idle):
            return await self._reader.read(_CHUNK)

    async def write_raw(self, data: bytes) -> None:
        """Send bytes as they go on the wire."""
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        async with asyncio.timeout(self._idle):
            await self._writer.drain()

    async def finish_raw(self) -> None:
        """Send FIN, then read to the end: RST would destroy what we sent (RFC 1122 §4.2.2.13)."""
        with suppress(OSError, TimeoutError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_CHUNK):
                    pass

    def reset(self) -> None:
        """Close with RST instead of FIN (SO_LINGER with zero seconds, socket(7))."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hold(self) -> None:
        """Say nothing until the peer goes away."""
        with suppress(OSError):
            while await self._reader.read(_CHUNK):
                pass

    async def close(self) -> None:
        """Let go of the connection, at once."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


class TlsChannel(Channel):
    """The server's side of TLS over a connection.

    With `verdicts`, any client certificate is accepted and `errors` tells what was wrong with it.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        idle: float,
        context: ssl.SSLContext,
        verdicts: Verdicts | None = None,
    ) -> None:
        super().__init__(reader, writer, idle)
        self.errors: list[str] = []
        self._verdicts = verdicts
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def accepts_anything(self) -> bool:
        """Whether TLS leaves it to us to refuse a client certificate."""
        return self._verdicts is not None

    async def handshake(self, *, send_alert: bool = True) -> None:
        """Shake hands; ssl.SSLError when we refuse, after the alert was sent, unless it is not."""
        while True:
            try:
                self._shake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                if send_alert:
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        finally:
            # At once: the next step of another connection would find our errors.
            if self._verdicts is not None:
                self.errors += self._verdicts.take()

    async def read(self) -> bytes:
        """Return the next decrypted bytes, b"" at the end, orderly or not."""
        while True:
            try:
                return self.tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                return b""

    async def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if data:
            self.tls.write(data)
            await self._flush()

    async def finish(self) -> None:
        """Send close_notify (RFC 8446 §6.1), then FIN, then read to the end."""
        with suppress(ssl.SSLError, OSError, TimeoutError):
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            finally:
                await self._flush()
        await self.finish_raw()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self.write_raw(data)

    async def _fill(self) -> None:
        if data := await self.read_raw():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
