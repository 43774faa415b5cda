"""What tests of revocation share: a server of lists on loopback, and lists to publish there."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from making import NOW, Made

STOLEN = x509.ReasonFlags.key_compromise
YESTERDAY, TOMORROW = NOW - timedelta(days=1), NOW + timedelta(days=1)
DER = serialization.Encoding.DER


@dataclass
class Library:
    """Answers by path, over HTTP on loopback; counts who asked for what."""

    port: int = 0
    answers: dict[str, bytes | Callable[[bytes], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    arrivals: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    concurrent: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: float = 0.0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def publish(self, path: str, document: bytes | Callable[[bytes], bytes]) -> str:
        self.answers[path] = document
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        # What is asked of a responder follows its path (RFC 6960 §A.1).
        path = "/".join(target.split("/")[:2])
        question = b64decode(unquote(target.removeprefix(f"{path}/"))) if target != path else b""
        self.asked.append(path)
        self.arrivals.put_nowait(path)
        self.concurrent += 1
        self.most = max(self.most, self.concurrent)
        await self.gate.wait()
        await asyncio.sleep(self.seconds)
        answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        answer = answer(question) if callable(answer) else answer
        if not answer.startswith(b"HTTP/"):
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        self.concurrent -= 1
        writer.write(answer)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """Serve on a port of loopback, and leave no connection open."""
    tasks = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client may have seen enough: the length, or the limit.
        with suppress(ConnectionError):
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve_one(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.gather(*tasks)


def permit_all(_: object) -> bool:
    return True


def points(*urls: str) -> tuple[x509.ExtensionType, bool]:
    found = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        for url in urls
    ]
    return x509.CRLDistributionPoints(found), False


def crl(
    issuer: Made,
    *revoked: int,
    reason: x509.ReasonFlags | None = STOLEN,
    this_update: datetime = YESTERDAY,
    next_update: datetime | None = TOMORROW,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    key: object = None,
    algorithm: hashes.HashAlgorithm | None = None,
    **signing,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.parsed.subject)
        .last_update(this_update)
        .next_update(next_update or TOMORROW)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder(serial, YESTERDAY)
        if reason:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = key or issuer.key
    hashed = None if isinstance(signer, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(signer, hashed, **signing).public_bytes(DER)
