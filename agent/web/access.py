"""Lets in who may come in: rates, client certificates, passwords, and no other sites' pages.

It stands before the application and knows only what the guard says at this moment. What it refuses
says why, and nothing about what lies behind.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.certificate import Certificate
from agent.credentials import Secret
from agent.web.address import is_loopback
from agent.web.guard import Guard
from agent.web.passwords import TooMany

# Where in a request's state the verified certificate of its connection is, if it has one.
CLIENT_CERTIFICATE: Final = "client_certificate"
_PROVED: Final = "proved"

NOT_PROVED: Final = "This needs a password, a client certificate, or a local client."

_CHALLENGE: Final = {"www-authenticate": 'Basic realm="sfmtls-agent", charset="UTF-8"'}
# RFC 7239, and what proxies sent before it.
_PROXIED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Access:
    """Passes on the requests of those who may come in, and answers the others itself."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered (ASGI)."""
        refusal = await self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        protection, rates = self._guard.current, self._guard.requests
        if rates is not None and (seconds := rates.take(_host(request))):
            return _too_many(seconds)
        if _is_of_another_site(request):
            return _forbidden("Another site's page may not do this.\n")
        certificate = getattr(request.state, CLIENT_CERTIFICATE, None)
        if protection.allowed_sans and not _is_allowed(certificate, protection.allowed_sans):
            self._guard.refusals.warning(
                client=_host(request), why="no name of its certificate is allowed"
            )
            return _forbidden("No name in this client certificate is allowed here.\n")
        if protection.users:
            refusal = await self._password_refusal(request, protection.users)
            if refusal is not None:
                return refusal
        setattr(request.state, _PROVED, bool(protection.users) or certificate is not None)
        return None

    async def _password_refusal(
        self, request: Request, users: Mapping[str, Secret]
    ) -> Response | None:
        given = _credentials(request)
        if given is None:
            return _unauthorized("A user name and a password are needed.\n")
        known = await self._guard.passwords.match(users, _host(request), *given)
        if isinstance(known, TooMany):
            return _too_many(known.seconds)
        if not known:
            self._guard.refusals.warning(
                client=_host(request), why="user name or password is wrong"
            )
            return _unauthorized("User name or password is wrong.\n")
        return None


def steering(
    act: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return `act` for those who may make the agent do something.

    They have shown a password or a certificate, or are on this machine; and they are no web page:
    whoever lures a browser here has the address of its machine, and perhaps its password. (The
    forms of our own pages go through `forms`.)
    """

    async def guarded(request: Request) -> Response:
        # Browsers send Origin with every POST. That it is our own proves nothing: the page may
        # have come from a name that was made to mean this machine (DNS rebinding).
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            return _forbidden("A web page may not do this.\n")
        if not may_steer(request):
            return _forbidden(f"{NOT_PROVED}\n")
        return await act(request)

    return guarded


def may_steer(request: Request) -> bool:
    """Tell whether whoever asks has proved who they are, or is on this machine."""
    local = is_loopback(_host(request)) and not any(h in request.headers for h in _PROXIED)
    return has_proved(request) or local


def has_proved(request: Request) -> bool:
    """Tell whether whoever asks has shown a password or a client certificate."""
    return bool(getattr(request.state, _PROVED, False))


def _is_of_another_site(request: Request) -> bool:
    """Tell whether a page elsewhere made a browser ask this; following a link is no such thing."""
    site = request.headers.get("sec-fetch-site", "none")
    if site in {"none", "same-origin"}:
        return False
    followed = request.headers.get("sec-fetch-mode") == "navigate"
    framed = request.headers.get("sec-fetch-dest") != "document"
    return request.method not in {"GET", "HEAD"} or not followed or framed


def _is_allowed(certificate: Certificate | None, allowed: frozenset[str]) -> bool:
    names = certificate.subject_alternative_names if certificate is not None else ()
    return any(name.partition(":")[2] in allowed for name in names)


def _credentials(request: Request) -> tuple[str, bytes] | None:
    """Return user name and password (RFC 7617); None when there are none, or no proper ones."""
    fields = request.headers.getlist("authorization")
    scheme, _, encoded = fields[0].partition(" ") if len(fields) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon and b"\0" not in password else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def _host(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _forbidden(sentence: str) -> Response:
    return PlainTextResponse(sentence, status_code=403)


def _unauthorized(sentence: str) -> Response:
    return PlainTextResponse(sentence, status_code=401, headers=_CHALLENGE)


def _too_many(seconds: float) -> Response:
    headers = {"retry-after": str(math.ceil(seconds))}
    return PlainTextResponse("Too many requests.\n", status_code=429, headers=headers)
