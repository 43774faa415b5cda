"""A plain client for the simulator's tests: stdlib ssl on blocking sockets, in a thread."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

from agent.simulator.pki import ClientCertificate, Issued, Pki
from agent.simulator.server import Simulator

PATIENCE = 10.0
PATH = "/services/Soap/u/64.0"


@cache
def pki() -> Pki:
    return Pki.create(datetime.now(UTC))


@cache
def client_certificate(defect: ClientCertificate) -> Issued | None:
    return pki().client(defect)


@cache
def context(defect: ClientCertificate = ClientCertificate.GOOD) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=pki().servers.root_pem().decode())
    # Otherwise a truncation looks like an orderly end.
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    presented = client_certificate(defect)
    if presented is not None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "client.pem")
            file.write_bytes(presented.chain_pem() + presented.key_pem())
            made.load_cert_chain(file)
    return made


@dataclass(frozen=True, slots=True)
class Heard:
    """`step` is where it ended: connect, handshake, read, or "" when `data` ended in order."""

    step: str
    reason: str
    data: bytes
    version: str | None


async def hear(
    simulator: Simulator,
    defect: ClientCertificate = ClientCertificate.GOOD,
    request: bytes = b"",
    trust: ssl.SSLContext | None = None,
) -> Heard:
    """Shake hands, write the request if there is one, read to the end."""
    return await asyncio.to_thread(_hear, simulator.port, trust or context(defect), request)


def _hear(port: int, tls: ssl.SSLContext, request: bytes) -> Heard:
    try:
        raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    except ConnectionResetError as error:
        return Heard("connect", _reason(error), b"", None)
    with raw:
        # Else our request waits for the acknowledgement of our Finished, 40 ms at its leisure.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            stream = tls.wrap_socket(
                raw, server_hostname="org.my.salesforce.com", suppress_ragged_eofs=False
            )
        except (ssl.SSLError, ConnectionResetError) as error:
            return Heard("handshake", _reason(error), b"", None)
        with stream:
            version = stream.version()
            data = b""
            try:
                if request:
                    stream.sendall(request)
                while piece := stream.recv(65536):
                    data += piece
            except (ssl.SSLError, ConnectionResetError) as error:
                return Heard("read", _reason(error), data, version)
            return Heard("", "", data, version)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "reason", None) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def text(self, name: str) -> str | None:
        """Return the text of the first element of this local name."""
        for element in ET.fromstring(self.body).iter():  # noqa: S314 - our own simulator's answer
            if element.tag.rpartition("}")[2] == name:
                return element.text
        return None


async def post(
    simulator: Simulator,
    *bodies: bytes,
    defect: ClientCertificate = ClientCertificate.GOOD,
    path: str = PATH,
    port: int | None = None,
) -> list[Answer]:
    """Post each body on one connection and return the answers."""
    return await asyncio.to_thread(_post, port or simulator.port, context(defect), path, bodies)


def _post(port: int, tls: ssl.SSLContext, path: str, bodies: tuple[bytes, ...]) -> list[Answer]:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
    answers = []
    try:
        for body in bodies:
            headers = {"Content-Type": "text/xml; charset=UTF-8", "SOAPAction": '""'}
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answers.append(Answer(response.status, dict(response.getheaders()), response.read()))
    finally:
        connection.close()
    return answers
