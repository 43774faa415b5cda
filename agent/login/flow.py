"""A login as a conversation: requests out, responses in, an outcome at the end.

Whoever runs a flow carries the requests over the connection that was just measured; a flow itself
does no I/O and knows neither sockets nor clocks, so a test needs neither.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.credentials import Secret
from agent.result import LoggedIn, Refused


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP POST to the org; `operation` names what it asks for, such as "login".

    Headers and body carry secrets, so neither is shown.
    """

    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    operation: str


@dataclass(frozen=True, slots=True)
class Response:
    """One complete HTTP answer; header names are lower case.

    Body and headers may carry a session id (as Set-Cookie does), so neither is shown.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """A login that worked: what may be shown of it, and the session, which may not."""

    login: LoggedIn
    session: Secret


# A flow may end before its first request, when a secret cannot be sent at all. Nothing has left
# the machine then, so that is no login attempt.
LoginFlow = Generator[Request, Response, Granted | Refused]


class LoginMethod(Protocol):
    """A login that can be made, with the secrets that it takes in hand."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What the far side judges, in a fixed order: one that changes deserves a new try."""

    def flow(self) -> LoginFlow:
        """Start one login; each call is a new attempt."""


def soap_request(path: str, operation: str, body: bytes) -> Request:
    """Return the POST that carries a SOAP 1.1 envelope (SOAP 1.1 §6)."""
    headers = (("Content-Type", "text/xml; charset=UTF-8"), ("SOAPAction", operation))
    return Request(path, headers, body, operation)
