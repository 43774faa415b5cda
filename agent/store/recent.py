"""The last cycles of each org, as rows; as part of a transaction. `agent.cycles` packs them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping


def save(connection: sqlite3.Connection, cycles: Mapping[str, bytes]) -> None:
    """Write down the cycles of these orgs in the place of what was there."""
    connection.executemany(
        "INSERT OR REPLACE INTO recent (org, cycles) VALUES (?, ?)", cycles.items()
    )


def load(connection: sqlite3.Connection) -> Mapping[str, bytes]:
    """Return the cycles of every org; what is no bytes any more is left out."""
    rows = connection.execute("SELECT org, cycles FROM recent ORDER BY org")
    return {org: cycles for org, cycles in rows if isinstance(cycles, bytes)}


def orgs(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of all orgs of which something is there."""
    return tuple(org for (org,) in connection.execute("SELECT org FROM recent"))


def forget(connection: sqlite3.Connection, org: str) -> None:
    """Forget the cycles of an org."""
    connection.execute("DELETE FROM recent WHERE org = ?", (org,))
