"""How the agent logs in: one file for each method, each a generator of requests without I/O.

A new method is a file with a class that has `flow()` and a line in METHODS. Nothing in this package
opens a connection, reads a clock or writes a log, and nothing in it ends a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agent.login.flow import Granted, LoginFlow, LoginMethod, Request, Response
from agent.login.password import PasswordLogin

METHODS: Final[Mapping[str, Callable[..., LoginMethod]]] = {
    "password": PasswordLogin,
}

__all__ = [
    "METHODS",
    "Granted",
    "LoginFlow",
    "LoginMethod",
    "PasswordLogin",
    "Request",
    "Response",
]
