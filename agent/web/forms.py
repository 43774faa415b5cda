"""The buttons on our own pages, and nobody else's: when a browser may make the agent do something.

A page of another site can send a browser here, with the password that it knows (CSRF), and can even
become "same origin" by letting its own name mean this machine's address (DNS rebinding). So all of
these must hold:

- whoever asks has proved who they are, or is on this machine, as for any program;
- the browser says that a page of the very host that it asks sent it (Origin equals Host);
- that host is this machine by a name that nobody else can own: a loopback address, localhost or the
  address listened on. Where a password or a certificate was shown, any name does: a browser shows
  either only where its user, or TLS, knows who asks;
- the form holds a token of this process, which only a page of ours was given to read.

The token is in the form's address and not in its body: requests here have none. The answer leads
away from that address at once.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request

from agent.web.access import NOT_PROVED, has_proved, may_steer
from agent.web.address import is_loopback


class Forms:
    """Makes the token of this process, and knows from whom to take it back.

    `listen_host` is the configured one, a name or an address; it may be empty.
    """

    def __init__(self, listen_host: str) -> None:
        self._token = secrets.token_urlsafe(32)
        self._own = listen_host.casefold()

    def token(self, request: Request) -> str | None:
        """Return the token for a page that is shown to whoever asks; None if it may not act."""
        return None if self._stranger(request) else self._token

    def why_not(self, request: Request) -> str:
        """Return a sentence why a page has no token; empty when it has one."""
        return self._stranger(request) or ""

    def refusal(self, request: Request) -> str | None:
        """Return a sentence why this form must not be acted on; None when it may."""
        stranger = self._stranger(request)
        if stranger is not None:
            return stranger
        hosts, origins = (request.headers.getlist(name) for name in ("host", "origin"))
        site = request.headers.get("sec-fetch-site", "same-origin")
        if len(origins) != 1 or site != "same-origin" or not _is_page_of(origins[0], hosts[0]):
            return "This was not sent by a page of this agent."
        if not hmac.compare_digest(
            request.query_params.get("token", "").encode(), self._token.encode()
        ):
            return "The page is older than the agent's last start; load it again."
        return None

    def _stranger(self, request: Request) -> str | None:
        if not may_steer(request):
            return NOT_PROVED
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not (has_proved(request) or self._is_ours(hosts[0])):
            return "Open this page under localhost or the agent's own address to try things here."
        return None

    def _is_ours(self, host: str) -> bool:
        name = (_name(host) or "").casefold()
        return bool(name) and (name in {"localhost", self._own} or is_loopback(name))


def _is_page_of(origin: str, host: str) -> bool:
    """Tell whether a page of this origin (RFC 6454 §7) was got from this host."""
    scheme, found, authority = origin.partition("://")
    # Behind a proxy that ends TLS the browser says https, and its own port, as it does in Host.
    return bool(found) and scheme in {"http", "https"} and authority.casefold() == host.casefold()


def _name(host: str) -> str | None:
    """Return the name or address in a Host header, without its port; None when it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
