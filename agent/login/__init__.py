"""How the agent logs in: one file for each method, each a generator of requests without I/O.

A new method is a file with a class that is a LoginMethod, and a line in METHODS. Nothing in this
package opens a connection, reads a clock or writes a log, and nothing in it ends a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from agent.credentials import Secret
from agent.login.flow import Granted, LoginFlow, LoginMethod, Request, Response
from agent.login.password import PasswordLogin
from agent.org import Org, PasswordCredentials, SecretSource

Read = Callable[[SecretSource], Secret]


class Method(NamedTuple):
    """A way to log in: its name in metrics, and what makes a login of what the operator asked for.

    `make` reads the secrets as they are now, and lets out what `Read` raises.
    """

    name: str
    make: Callable[[Org, PasswordCredentials, Read], LoginMethod]


# By the type of what the operator asked for (Org.login).
METHODS: Final[Mapping[type[PasswordCredentials], Method]] = {
    PasswordCredentials: Method("password", PasswordLogin.of),
}

__all__ = [
    "METHODS",
    "Granted",
    "LoginFlow",
    "LoginMethod",
    "Method",
    "PasswordLogin",
    "Read",
    "Request",
    "Response",
]
