"""The door that the benchmarks knock at: nginx, which asks for a certificate and talks SOAP.

RSA-2048 leaves with two intermediates on both sides, TLS 1.3 or 1.2, a fresh connection each time
(no ticket, no session cache), and answers of a fixed text: what is measured is the client. Its
authority issues certificates for as many clients as are wanted.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

# The tests' certificates are good enough to be knocked with. At the end: they have a `fleet` too.
sys.path.append(str(Path(__file__).parent.parent / "tests"))

from making import Made, make

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.simulator import soap
from agent.simulator.server import PASSWORD

HOST: Final = "bench.my.salesforce.com"
PATH: Final = "/services/Soap/u/64.0"
USER: Final = "probe@bench.example"
# As root's: nginx is no program for everybody.
SEARCH_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin"
# The programs that the benchmarks need, and Debian's packages that have them.
PACKAGES: Final[Mapping[str, str]] = {
    "nginx": "nginx-light",
    "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
    "openssl": "openssl",
}

_CONFIGURATION: Final = """\
daemon off;
worker_processes 1;
error_log stderr error;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    ssl_client_certificate {folder}/clients.pem;
    ssl_verify_client on;
    ssl_verify_depth 4;
    ssl_session_tickets off;
    ssl_session_cache off;
    default_type "text/xml; charset=utf-8";
    map $http_soapaction $said {{
        default '{fault}';
        login '{login}';
        getUserInfo '{session}';
    }}
    map $http_soapaction $code {{ default 500; login 200; getUserInfo 200; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_protocols {protocol};
        location / {{
            if ($code = 200) {{ return 200 '$said'; }}
            return 500 '$said';
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Target:
    """Where the door is, and the files of whoever knocks."""

    port: int
    folder: Path
    authorities: Sequence[Made]  # of the clients: root, policy, issuing

    def issue(self, name: str, key: rsa.RSAPrivateKey) -> bytes:
        """Return a certificate that the door takes, in PEM, with its two intermediates."""
        _, policy, issuing = self.authorities
        leaf = _leaf("client", name, issuing, key)
        return b"".join(made.pem for made in (leaf, issuing, policy))

    @property
    def root(self) -> Path:
        """The root that the server's chain leads to."""
        return self.folder / "root.pem"

    @property
    def certificate(self) -> Path:
        """The client's certificate with its two intermediates."""
        return self.folder / "client.pem"

    @property
    def key(self) -> Path:
        """The client's key, alone."""
        return self.folder / "client.key"


@contextmanager
def serving(protocol: str = "TLSv1.3") -> Iterator[Target]:
    """Run the door for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The workers of an nginx that root starts are another user.
        folder.chmod(0o711)
        port = free_port()
        _write_side(folder, "server", HOST)
        clients = _write_side(folder, "client", USER)
        # s_time sends its leaf alone; with the intermediates here it is let in all the same.
        (folder / "clients.pem").write_bytes(b"".join(made.pem for made in clients))
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(folder=folder, port=port, protocol=protocol, **_answers())
        )
        command = [program("nginx"), "-p", name, "-c", str(configuration), "-e", "stderr"]
        with subprocess.Popen(command) as process:
            try:
                wait_for(port, process)
                yield Target(port, folder, clients)
            finally:
                process.terminate()


def call_body() -> bytes:
    """Return the request that the agent sends to see whether the door is open."""
    return soap.call_envelope("getServerTimestamp")


def pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return a private key as the agent and nginx read it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_side(folder: Path, side: str, name: str) -> Sequence[Made]:
    """Write chain and key of one side; return its authorities, the root first."""
    chain = [make(f"{side} root", ca=True, key=_key())]
    for authority in ("policy", "issuing"):
        chain.append(make(f"{side} {authority}", chain[-1], ca=True, key=_key()))
    root, policy, issuing = chain
    key = _key()
    leaf = _leaf(side, name, issuing, key)
    (folder / f"{side}.pem").write_bytes(leaf.pem + issuing.pem + policy.pem)
    (folder / f"{side}.key").write_bytes(pem(key))
    if side == "server":
        (folder / "root.pem").write_bytes(root.pem)
    return chain


def _leaf(side: str, name: str, issuing: Made, key: rsa.RSAPrivateKey) -> Made:
    now = datetime.now(UTC)
    server = side == "server"
    return make(
        name,
        issuing,
        key=key,
        eku=(SERVER_AUTH if server else CLIENT_AUTH,),
        # Every org of a fleet has a host of its own.
        names=(name, "*.my.salesforce.com") if server else (),
        not_before=now - timedelta(days=1),
        not_after=now + timedelta(days=90),
    )


def _answers() -> Mapping[str, str]:
    """Return what Salesforce says to each call, as the simulator has it."""
    service = soap.Service(USER, PASSWORD, time.monotonic, lambda: datetime.now(UTC))

    def answer(body: bytes) -> str:
        call = soap.read(PATH, body)
        if not isinstance(call, soap.Call):
            raise TypeError("the benchmark's request is no call")
        text = service.answer(call, HOST, mutually_authenticated=True).body.decode()
        # To nginx that begins a variable.
        return text.replace("$", "&#36;")

    login = answer(soap.login_envelope(USER, PASSWORD))
    session = login.partition("<sessionId>")[2].partition("</sessionId>")[0]
    return {
        "fault": answer(call_body()),
        "login": login,
        "session": answer(soap.call_envelope("getUserInfo", session_id=session)),
    }


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def program(name: str) -> str:
    """Return where a program is; SystemExit when it is not installed."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise SystemExit(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return found


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens; SystemExit when the process ends before."""
    for _ in range(100):
        if process.poll() is not None:
            raise SystemExit("nginx ended by itself")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("nginx does not answer")
