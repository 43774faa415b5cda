"""Doors that nobody here wrote: real TLS servers from Debian's packages, each on loopback.

A family is one program with its doors; a door has a name, and a port for each TLS version. All of
them want a certificate of the simulated clients' authority and answer a request with the fault that
Salesforce gives to one without a session.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

import pytest
from conftest import require_program

from agent.simulator.pki import Pki, pem

SOURCES: Final = Path(__file__).parent / "stacks"
ANSWER: Final = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
    "<faultcode>INVALID_SESSION_ID</faultcode><faultstring>INVALID_SESSION_ID: no</faultstring>"
    "</s:Fault></s:Body></s:Envelope>"
)
VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
_START_SECONDS: Final = 30.0
_NGINX_STREAM: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

Ports = Mapping[tuple[str, str], int]
Process = subprocess.Popen[bytes]


def write_material(pki: Pki, folder: Path) -> None:
    """Write what every server here is given."""
    server = pki.server()
    (folder / "server.pem").write_bytes(server.chain_pem())
    (folder / "server.key").write_bytes(server.key_pem())
    (folder / "intermediates.pem").write_bytes(b"".join(map(pem, server.intermediates)))
    (folder / "pair.pem").write_bytes(server.chain_pem() + server.key_pem())
    (folder / "clients.pem").write_bytes(pki.clients.root_pem())
    (folder / "answer.xml").write_text(ANSWER)


@contextmanager
def started(family: str, folder: Path) -> Iterator[Ports]:
    """Run a family on what `write_material` wrote; give the port of each door and version."""
    with FAMILIES[family](folder) as ports:
        yield ports


# --- programs of ours on somebody else's TLS: they choose their ports and tell them


@contextmanager
def _telling(*command: str | Path) -> Iterator[Ports]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ports = {}
        for line in process.stdout:
            if line == "ready\n":
                break
            door, version, port = line.split()
            ports[door, version] = int(port)
        else:
            pytest.fail(f"{command[0]} ended before its doors were open")
        yield ports
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def _python(folder: Path) -> Iterator[Ports]:
    with _telling(sys.executable, SOURCES / "python_doors.py", folder) as ports:
        yield ports


@contextmanager
def _node(folder: Path) -> Iterator[Ports]:
    with _telling(require_program("node"), SOURCES / "node_doors.js", folder) as ports:
        yield ports


@contextmanager
def _go(folder: Path) -> Iterator[Ports]:
    program = folder / "go_doors"
    subprocess.run(
        [require_program("go"), "build", "-o", program, SOURCES / "go_doors.go"],
        check=True,
        env=os.environ | {"GO111MODULE": "off", "GOCACHE": str(folder / "cache")},
    )
    with _telling(program, folder) as ports:
        yield ports


@contextmanager
def _java(folder: Path) -> Iterator[Ports]:
    # The compiler is not on every machine that has a Java.
    require_program("javac")
    # One run of a few seconds: the second compiler would cost more than it gives.
    quick = ("-XX:TieredStopAtLevel=1", "-Xshare:auto")
    with _telling(require_program("java"), *quick, SOURCES / "JavaDoors.java", folder) as ports:
        yield ports


# --- servers with a configuration


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _configured(folder: Path, template: str, *doors: str) -> tuple[Path, Ports]:
    """Fill in a configuration in which each door has a place for a port of each version."""
    ports = {(door, version): _free_port() for door in doors for version in VERSIONS}
    places = {
        f"{door}_{version[-3:].replace('.', '')}": port for (door, version), port in ports.items()
    }
    config = folder / template
    text = (SOURCES / template).read_text()
    config.write_text(text.format(folder=folder, answer=ANSWER, **places))
    return config, ports


@contextmanager
def _running(
    command: list[str | Path], ports: Iterable[int], **options: object
) -> Iterator[Process]:
    """Run a server until the block ends; the block begins when all ports answer."""
    process = subprocess.Popen(command, **options)
    try:
        deadline = time.monotonic() + _START_SECONDS
        for port in ports:
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} does not listen on {port}")
                time.sleep(0.02)  # the program tells nobody when it listens
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def _nginx(folder: Path) -> Iterator[Ports]:
    program = require_program("nginx")
    if not _NGINX_STREAM.exists():
        require_program("nginx's stream module")  # no program has this name: it skips or fails
    config, ports = _configured(folder, "nginx.conf", "required", "optional", "stream")
    if os.geteuid() == 0:
        # The workers drop to an unprivileged user, who must be able to write the folders.
        config.write_text("user root;\n" + config.read_text())
    with (
        (folder / "nginx.log").open("wb") as log,
        _running([program, "-c", config], ports.values(), stderr=log),
    ):
        yield ports


@contextmanager
def _haproxy(folder: Path) -> Iterator[Ports]:
    program = require_program("haproxy")
    config, ports = _configured(folder, "haproxy.cfg", "required", "optional", "lenient")
    with (
        (folder / "haproxy.log").open("wb") as log,
        _running([program, "-db", "-f", config], ports.values(), stdout=log, stderr=log),
    ):
        yield ports


@contextmanager
def _apache(folder: Path) -> Iterator[Ports]:
    program = require_program("apache2")
    config, ports = _configured(folder, "apache.conf", "server", "location")
    with _running([program, "-DFOREGROUND", "-f", config], ports.values()):
        yield ports


# --- OpenSSL's own


@contextmanager
def _openssl(folder: Path) -> Iterator[Ports]:
    with ExitStack() as running:
        yield {
            ("s_server", version): running.enter_context(s_server(folder, version, "-quiet"))[0]
            for version in VERSIONS
        }


@contextmanager
def s_server(folder: Path, version: str, *options: str) -> Iterator[tuple[int, IO[bytes]]]:
    """Run s_server; give its port and where to type what it understands, unless it is `-quiet`."""
    port = _free_port()
    command = [
        require_program("openssl"),
        "s_server",
        *options,
        f"-{version.lower().replace('v', '').replace('.', '_')}",
        *("-accept", f"127.0.0.1:{port}"),
        *("-cert", folder / "server.pem", "-cert_chain", folder / "intermediates.pem"),
        *("-key", folder / "server.key", "-CAfile", folder / "clients.pem"),
        *("-Verify", "5", "-verify_return_error"),
    ]
    with (folder / f"s_server_{version}.log").open("wb") as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "bufsize": 0}
        with _running(command, [port], **pipes) as process:
            typing = threading.Thread(target=_type_answers, args=(process.stdout, process.stdin))
            typing.start()
            yield port, process.stdin
        typing.join(10)
        process.stdin.close()
        process.stdout.close()


def _type_answers(shown: IO[bytes], typed: IO[bytes]) -> None:
    """Answer each request that s_server shows; its own web server never answers a POST."""
    answer = (
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml\r\n"
        f"Content-Length: {len(ANSWER)}\r\n\r\n{ANSWER}"
    )
    seen = b""
    while data := shown.read(65536):
        seen += data
        if b":Envelope>" in seen:
            typed.write(answer.encode())
            seen = b""


FAMILIES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Ports]]]] = {
    "openssl": _openssl,
    "python": _python,
    "nginx": _nginx,
    "apache": _apache,
    "haproxy": _haproxy,
    "java": _java,
    "go": _go,
    "node": _node,
}
