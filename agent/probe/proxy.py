"""HTTP CONNECT through a proxy (RFC 9110 §9.3.6), spoken with h11 on an open connection."""

from __future__ import annotations

import base64

import h11

from agent.credentials import Secret
from agent.probe.tcp import Connection
from agent.reason import Reason
from agent.result import Failure

_OK_CLASS = range(200, 300)


async def open_tunnel(
    connection: Connection, authority: str, credentials: tuple[str, Secret] | None
) -> Failure | None:
    """Ask the proxy to connect to `authority` ("host:port"); None means that the tunnel is open.

    A refusal tells the proxy's status, never our credentials.
    """
    headers = [("Host", authority)]
    if credentials is not None:
        username, password = credentials
        pair = base64.b64encode(f"{username}:{password.reveal()}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {pair}"))
    protocol = h11.Connection(h11.CLIENT)
    request = protocol.send(h11.Request(method="CONNECT", target=authority, headers=headers))
    request += protocol.send(h11.EndOfMessage()) or b""
    if await connection.send(request):
        return Failure(Reason.PROXY_REFUSED, "the proxy closed the connection")
    return await _read_answer(connection, protocol)


async def _read_answer(connection: Connection, protocol: h11.Connection) -> Failure | None:
    while True:
        try:
            event = protocol.next_event()
        except h11.RemoteProtocolError:
            # The library's text quotes what came, and a proxy may echo our credentials.
            return Failure(Reason.PROXY_DENIED, "the proxy does not speak HTTP")
        match event:
            case h11.NEED_DATA:
                data = await connection.receive()
                if isinstance(data, Failure):
                    return Failure(Reason.PROXY_DENIED, f"the proxy hung up: {data.detail}")
                protocol.receive_data(data)
            case h11.Response(status_code=status) if status in _OK_CLASS:
                return None
            case h11.Response(status_code=status):
                return Failure(Reason.PROXY_DENIED, f"the proxy answered {status}")
            case h11.ConnectionClosed():
                return Failure(Reason.PROXY_DENIED, "the proxy hung up without an answer")
            case _:
                continue
