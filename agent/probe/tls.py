"""The SSLContext of an identity, and the bytes between a connection and its Handshake.

One context is made for each version of an identity, never per cycle. The system's trust store is
given as a directory that OpenSSL reads on demand: a loaded bundle would cost 17 ms and 700 KB for
every context.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.identity import Identity
from agent.org import Endpoint, TlsVersion, TrustAnchors
from agent.probe.handshake import Handshake, observe
from agent.probe.tcp import Connection
from agent.reason import Reason
from agent.result import Failure, HandshakeOutcome

_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")
_VERSIONS: Final[Mapping[TlsVersion, ssl.TLSVersion]] = {
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}


def client_context(
    endpoint: Endpoint, trust: TrustAnchors, identity: Identity | None
) -> ssl.SSLContext | Failure:
    """Return a context that presents `identity` (or nothing) and verifies the server strictly."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[endpoint.tls_min]
    context.maximum_version = _VERSIONS[endpoint.tls_max]
    context.set_alpn_protocols(["http/1.1"])
    # Python sets it by default where OpenSSL (3.0 on) has it, and then a cut connection looks like
    # a clean close.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    # A server may ask for the certificate only once it knows what is wanted (RFC 8446 §4.6.2), and
    # may not unless we offer it: Apache then answers 403 to the best of certificates.
    context.post_handshake_auth = True
    observe(context)
    return _trust(context, trust) or (identity and _present(context, identity)) or context


def _trust(context: ssl.SSLContext, trust: TrustAnchors) -> Failure | None:
    if trust.file is not None:
        try:
            context.load_verify_locations(cafile=trust.file)
        except OSError as error:
            why = f"trust store: {trust.file}: {error.strerror or error}"
            return Failure(Reason.SERVER_UNTRUSTED, why)
    if trust.system:
        try:
            return _trust_system(context, ssl.get_default_verify_paths())
        except OSError as error:
            return Failure(Reason.SERVER_UNTRUSTED, f"trust store: {error.strerror or error}")
    return None


def _trust_system(context: ssl.SSLContext, paths: ssl.DefaultVerifyPaths) -> Failure | None:
    # A file named by $SSL_CERT_FILE is the operator's word. A directory is only of use when it has
    # the hashed names that OpenSSL looks for (c_rehash(1)); Red Hat's has none, but a bundle.
    named = paths.cafile and paths.cafile != paths.openssl_cafile
    if not named and paths.capath and _is_hashed(Path(paths.capath)):
        context.load_verify_locations(capath=paths.capath)
    elif paths.cafile:
        context.load_verify_locations(cafile=paths.cafile)
    else:
        return Failure(Reason.SERVER_UNTRUSTED, "this system has no trust store; set trust.file")
    return None


def _is_hashed(directory: Path) -> bool:
    return any(_HASHED_NAME.fullmatch(entry.name) for entry in directory.iterdir())


def _present(context: ssl.SSLContext, identity: Identity) -> Failure | None:
    # `ssl` loads only from files. The pair was read and checked in memory, and must be used as
    # checked although the files may change meanwhile, so it goes through an unnamed file (memfd).
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    passphrase = identity.passphrase
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(identity.certificate_pem + b"\n" + identity.key_pem.reveal().encode())
        context.load_cert_chain(
            f"/proc/self/fd/{descriptor}",
            password=passphrase.reveal if passphrase is not None else _no_passphrase,
        )
    except (OSError, ssl.SSLError) as error:
        word = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return Failure(Reason.CLIENT_MATERIAL_UNREADABLE, f"OpenSSL refuses the pair: {word}")
    finally:
        os.close(descriptor)
    return None


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal.
    return ""


class Channel:
    """A connection with TLS on it: `handshake` first, then `send` and `receive` plaintext."""

    def __init__(self, connection: Connection, context: ssl.SSLContext, server_name: str) -> None:
        self._connection = connection
        self._handshake = Handshake(context, server_name)
        # Once the connection is broken, this says why; what had arrived is still read.
        self._broken: Failure | None = None

    def seen(self) -> HandshakeOutcome:
        """Return what the handshake showed, and what has come after it."""
        return self._handshake.seen()

    async def establish(self) -> HandshakeOutcome | None:
        """Drive the handshake until our side is done (None) or it has failed."""
        while not self._handshake.established and self._handshake.outcome is None:
            await self._exchange()
        return self._failed()

    async def verdict(self, seconds: float) -> HandshakeOutcome:
        """Wait for the server's word on our certificate, without writing anything first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._handshake.outcome is None:
                    await self._exchange()
        return self._handshake.give_up_waiting()

    def abandon(self, failure: Failure) -> HandshakeOutcome:
        """Stop the handshake for a reason of ours and return what it showed so far."""
        self._handshake.broken(failure)
        return self._handshake.give_up_waiting()

    async def send(self, plaintext: bytes) -> None:
        """Send application data; if the connection is broken, `receive` will say how."""
        self._handshake.write(plaintext)
        await self._flush()

    async def receive(self) -> bytes | Failure:
        """Return application data, empty after a clean close, or why there is none."""
        while (data := self._handshake.read()) is None:
            # What was read may want an answer: a server may ask for our certificate only now.
            await self._flush()
            if failure := await self._fill():
                return failure
        return data

    def is_quiet(self) -> bool:
        """Tell whether nothing came that nobody asked for: data, an alert, a close, a handshake."""
        while (arrived := self._connection.receive_now()) is not None:
            if isinstance(arrived, Failure) or not arrived:
                return False
            self._handshake.receive(arrived)
        return self._handshake.read() is None and not self._handshake.has_to_send

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _failed(self) -> HandshakeOutcome | None:
        outcome = self._handshake.outcome
        return outcome if outcome is not None and outcome.failure is not None else None

    async def _exchange(self) -> None:
        await self._flush()
        if self._handshake.outcome is None and (failure := await self._fill()):
            self._handshake.broken(failure)
        # The alert by which we refuse a server must reach it.
        await self._flush()

    async def _flush(self) -> None:
        # A failed write is no news yet: the alert that explains it may be waiting to be read.
        if data := self._handshake.to_send():
            self._broken = await self._connection.send(data) or self._broken

    async def _fill(self) -> Failure | None:
        data = await self._connection.receive()
        if isinstance(data, Failure):
            return data
        if not data and self._broken:
            return self._broken
        self._handshake.receive(data)
        return None
