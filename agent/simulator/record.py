"""What the simulator saw: every connection, how its TLS ended, and every call.

A test reads it to prove what did not happen: no credentials before the door opened, no logout ever.
Contents of credentials are never kept, only that they arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Listener(StrEnum):
    """The simulator's two ports."""

    DOOR = "door"
    PLAIN = "plain"  # never asks for a client certificate, like Salesforce's port 443


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. `operation` is the SOAP operation's name, or "" when it was none.

    `certificate_verified` says whether the client had shown a certificate that leads to the trusted
    root; `credentials` whether a password was in the request, in any form.
    """

    listener: Listener
    operation: str
    username: str | None
    credentials: bool
    session: bool
    certificate_verified: bool
    status: int


@dataclass(slots=True)
class Connection:
    """One TCP connection, filled in while it lives.

    `tls_version` is set once the server's side of the handshake is done. `tls_error` is the
    OpenSSL reason why the server refused, or None.
    """

    listener: Listener
    tls_version: str | None = None
    tls_error: str | None = None
    certificate_presented: bool = False
    certificate_verified: bool = False


@dataclass(slots=True)
class Record:
    """Everything seen since the start, in order; iterates over the calls."""

    connections: list[Connection] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def __iter__(self) -> Iterator[Call]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    def operations(self) -> list[str]:
        """Return the names of the operations called, in order."""
        return [call.operation for call in self.calls]

    def count(self, operation: str) -> int:
        """Return how often an operation was called."""
        return Counter(self.operations())[operation]

    @property
    def logins(self) -> int:
        """How often login() was called."""
        return self.count("login")

    @property
    def session_endings(self) -> int:
        """How often somebody tried to end a session, which the agent must never do."""
        return self.count("logout") + self.count("invalidateSessions")

    @property
    def credentials_seen(self) -> bool:
        """Whether a password arrived in any request."""
        return any(call.credentials for call in self.calls)

    @property
    def refused(self) -> list[Connection]:
        """The connections that TLS refused."""
        return [connection for connection in self.connections if connection.tls_error]
