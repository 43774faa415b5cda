"""The endpoint with a web-config file, as it is served: files, server, clients."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import bcrypt
import httpx
from boards import NOON, board, org
from cryptography.x509.oid import ExtendedKeyUsageOID
from prometheus_client import CollectorRegistry

from agent.metrics import Exposition, Instruments
from agent.simulator.pki import Pki
from agent.web import Guard, WebServer, create_app

TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
MUTUAL = f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n"


@cache
def hashed(password, cost=4):
    """Return a bcrypt hash as htpasswd writes it; the least cost, so that tests do not wait.

    Always the same salt: it is in the names of tests, which must not change from run to run.
    """
    return bcrypt.hashpw(password.encode(), b"$2y$%02d$abcdefghijklmnopqrstuu" % cost).decode()


def users(**passwords):
    lines = [f"  {name}: {hashed(password)}\n" for name, password in passwords.items()]
    return "basic_auth_users:\n" + "".join(lines)


@cache
def pki():
    return Pki.create(datetime.now(UTC))


def write_material(folder: Path, names=("localhost", "127.0.0.1")):
    """Write what the endpoint may present and trust, and what its clients may."""
    server = pki().servers.issue("endpoint", ExtendedKeyUsageOID.SERVER_AUTH, names=names)
    (folder / "server.pem").write_bytes(server.chain_pem())
    (folder / "server.key").write_bytes(server.key_pem())
    (folder / "servers.pem").write_bytes(pki().servers.root_pem())
    (folder / "clients.pem").write_bytes(pki().clients.root_pem())
    return server


def write_client(folder: Path, name, authority=None, usage=ExtendedKeyUsageOID.CLIENT_AUTH):
    """Write a client's certificate, of the authority that is trusted, and its key."""
    issued = (authority or pki().clients).issue(name, usage, names=(name,))
    (folder / f"{name}.pem").write_bytes(issued.chain_pem() + issued.key_pem())


def write_everybody(folder: Path):
    """Write the endpoint's own, and a client of two names each and one of a strange authority."""
    write_material(folder)
    write_client(folder, "prometheus.example")
    write_client(folder, "other.example")
    write_client(folder, "stranger.example", pki().strangers)


def client_context(folder: Path, certificate=None):
    context = ssl.create_default_context(cafile=str(folder / "servers.pem"))
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem")
    return context


@dataclass
class Served:
    """An endpoint that is up."""

    folder: Path
    host: str
    port: int
    guard: Guard
    server: WebServer
    exposition: Exposition
    reloads: list

    def client(self, certificate=None, context=None, **differently):
        """Return a client, with TLS if the endpoint has it."""
        if context is None and self.guard.current.context is not None:
            context = client_context(self.folder, certificate)
        scheme = "http" if context is None else "https"
        return httpx.AsyncClient(
            base_url=f"{scheme}://{self.host}:{self.port}",
            verify=True if context is None else context,
            trust_env=False,
            **differently,
        )

    async def get(self, path="/metrics", *, certificate=None, context=None, **differently):
        """Ask once, on a connection of its own."""
        async with self.client(certificate, context) as client:
            return await client.get(path, **differently)

    def write(self, text):
        (self.folder / "web-config.yml").write_text(text)


class Gate:
    """A reload that takes until it is told to go on."""

    def __init__(self):
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def reload(self):
        self.entered.set()
        await self.open.wait()
        return True


@asynccontextmanager
async def serving(folder, text=None, *, limits=None, made=None, lifecycle=True, reload=None):
    """Serve a board under a web-config file; without a text, under none."""
    path = folder / "web-config.yml" if text is not None else None
    if path is not None:
        path.write_text(text)
    # Tests look themselves.
    guard = Guard(path, seconds=3600)
    made = made or board(org())
    exposition = Exposition(made, Instruments(CollectorRegistry()))
    reloads = []

    async def count():
        reloads.append(1)
        return True

    app = create_app(
        exposition,
        readiness=made.every_org_seen,
        now=lambda: NOON,
        reload=(reload or count) if lifecycle else None,
        guard=guard,
    )
    server = WebServer(app, guard, limits=limits, bug=lambda: bugs.append(1))
    bugs = []
    address = await server.start("127.0.0.1", 0)
    try:
        yield Served(folder, *address, guard, server, exposition, reloads)
    finally:
        await server.stop()
    assert bugs == []
