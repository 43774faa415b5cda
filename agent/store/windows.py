"""The windows of maintenance that were started by command, as rows; as part of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime

from agent.maintenance import Window
from agent.store.rows import moment, to_integer


def save(
    connection: sqlite3.Connection,
    orgs: Collection[str],
    begins: datetime,
    until: datetime,
    reason: str,
) -> None:
    """Write down a window of each of these orgs, in the place of an earlier one."""
    connection.executemany(
        "INSERT OR REPLACE INTO maintenance (org, begins, until, reason) VALUES (?, ?, ?, ?)",
        ((org, to_integer(begins), to_integer(until), reason) for org in orgs),
    )


def load(connection: sqlite3.Connection) -> Mapping[str, Window]:
    """Return the window of each org; one that cannot be read any more is left out."""
    found: dict[str, Window] = {}
    for org, begins, until, reason in connection.execute(
        "SELECT org, begins, until, reason FROM maintenance ORDER BY org"
    ):
        # No login depends on it but for the better.
        with suppress(TypeError, OverflowError):
            found[org] = Window(moment(until), moment(begins), str(reason))
    return found


def forget(connection: sqlite3.Connection, org: str) -> None:
    """Forget the window of an org, if there is one."""
    connection.execute("DELETE FROM maintenance WHERE org = ?", (org,))


def forget_ended(connection: sqlite3.Connection, now: datetime) -> None:
    """Forget the windows that are over."""
    connection.execute("DELETE FROM maintenance WHERE until <= ?", (to_integer(now),))
