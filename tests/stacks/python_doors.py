"""Doors of CPython's ssl. usage: python python_doors.py FOLDER.

"at_once" asks for the certificate in the handshake, "late" once a request has come, by
post-handshake authentication (RFC 8446 §4.6.2), which needs TLS 1.3.
"""

import contextlib
import select
import socket
import ssl
import sys
import threading
from pathlib import Path

FOLDER = Path(sys.argv[1])
ANSWER = (FOLDER / "answer.xml").read_bytes()
HEAD = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n"
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def context(version, *, late):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(FOLDER / "server.pem", FOLDER / "server.key")
    made.load_verify_locations(FOLDER / "clients.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = made.maximum_version = VERSIONS[version]
    made.post_handshake_auth = late
    return made


def request(tls):
    seen = b""
    while b"\r\n\r\n" not in seen:
        if not (data := tls.recv(65536)):
            return
        seen += data
    head, _, body = seen.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length and (data := tls.recv(65536)):
        body += data


def ask(tls):
    """Ask for the certificate and read on until it is verified."""
    tls.verify_client_post_handshake()
    tls.do_handshake()
    tls.settimeout(0)
    while not tls.getpeercert():
        select.select([tls], [], [], 5)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.recv(1)
    tls.settimeout(None)


def serve(client, made, *, late):
    # A refusal is an SSLError here; the alert has gone out by then.
    with contextlib.suppress(OSError), client, made.wrap_socket(client, server_side=True) as tls:
        request(tls)
        if late:
            ask(tls)
        tls.sendall(HEAD.format(len(ANSWER)).encode() + ANSWER)
        tls.recv(1)


def accept(listening, made, *, late):
    while True:
        client, _ = listening.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = {"late": late}
        threading.Thread(target=serve, args=(client, made), kwargs=arguments, daemon=True).start()


def main():
    for name, version in (("at_once", "TLSv1.2"), ("at_once", "TLSv1.3"), ("late", "TLSv1.3")):
        listening = socket.create_server(("127.0.0.1", 0))
        late = name == "late"
        arguments = (listening, context(version, late=late))
        threading.Thread(target=accept, args=arguments, kwargs={"late": late}).start()
        print(name, version, listening.getsockname()[1])  # noqa: T201
    print("ready", flush=True)  # noqa: T201


main()
