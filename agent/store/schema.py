"""The tables, their versions, and the way from each to the next.

MIGRATIONS[n] leads from version n (PRAGMA user_version) to n + 1, all of them in one transaction
with what makes a file one of ours. A step that was released is never changed: an existing file is
compared with what the steps up to its version make.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from agent.store.errors import LostError, StoreError

# `settled` is 1 for an attempt that only counts for the budget; the columns else are the fields of
# Attempt and Refusal.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        "CREATE TABLE secret_key (key BLOB NOT NULL)",
        "CREATE TABLE login_user (user TEXT PRIMARY KEY, proven INTEGER NOT NULL) WITHOUT ROWID",
        # AUTOINCREMENT: an id says which of two attempts is later, so none is used twice.
        """CREATE TABLE login_attempt (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            user TEXT NOT NULL,
            at INTEGER NOT NULL,
            digest TEXT NOT NULL,
            place TEXT NOT NULL,
            half_open INTEGER NOT NULL,
            hold INTEGER NOT NULL,
            expires_at INTEGER,
            settled INTEGER NOT NULL
        )""",
        "CREATE INDEX login_attempt_by_user ON login_attempt (user, at)",
        """CREATE TABLE login_refusal (
            user TEXT NOT NULL,
            digest TEXT NOT NULL,
            place TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            at INTEGER NOT NULL,
            reason TEXT NOT NULL,
            hold INTEGER NOT NULL,
            released INTEGER NOT NULL,
            PRIMARY KEY (user, digest, place)
        ) WITHOUT ROWID""",
    ),
    (
        # One row for each certificate as presented. Of the chains of one side the present one has
        # the age 0; `until` is when another one took the place of an earlier one.
        """CREATE TABLE presented (
            org TEXT NOT NULL,
            side TEXT NOT NULL,
            age INTEGER NOT NULL,
            position INTEGER NOT NULL,
            door TEXT NOT NULL,
            changed_at INTEGER,
            until INTEGER,
            der BLOB NOT NULL,
            PRIMARY KEY (org, side, age, position)
        )""",
    ),
    (
        # One row. `writes` is never less than the id of an attempt, since each of them is a write.
        # `lost_...` tell of the last loss and stand for the refusal of every user who is not in
        # login_user.
        """CREATE TABLE store (
            writes INTEGER NOT NULL,
            tidied_at INTEGER,
            lost_at INTEGER,
            lost_hold INTEGER,
            lost_attempt INTEGER
        )""",
        "INSERT INTO store (writes) SELECT coalesce(max(seq), 0) FROM sqlite_sequence",
        # For how many days in a row nothing of this name was seen; kind is org, user or loss.
        """CREATE TABLE unused (
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            days INTEGER NOT NULL,
            PRIMARY KEY (kind, name)
        ) WITHOUT ROWID""",
    ),
    (
        # The windows that were started by command; the org '' stands for all.
        """CREATE TABLE maintenance (
            org TEXT PRIMARY KEY,
            begins INTEGER NOT NULL,
            until INTEGER NOT NULL,
            reason TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
    (
        # The last cycles of each org, as agent.cycles packs them.
        "CREATE TABLE recent (org TEXT PRIMARY KEY, cycles BLOB NOT NULL)",
    ),
)


def check(connection: sqlite3.Connection) -> int:
    """Return the version of a file, 0 for a new one, and change nothing.

    LostError when it is damaged, StoreError when it is of a newer agent.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(f"made by a newer agent (schema {version})")
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        # A line that names the page and what is wrong with it follows the name of the database.
        raise LostError(f"damaged: {' '.join(str(verdict).split())}")
    found = _objects(connection)
    if version < 0 or (not version and found):
        raise LostError("damaged: it is another program's database")
    for name, wanted in _made_by(version).items():
        if found.get(name) != wanted:
            raise LostError(f"damaged: {name} is not as it was made")
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of this version up to date, all or nothing."""
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in _steps(version, len(MIGRATIONS)):
        connection.execute(statement)
    if version == 0:
        connection.execute("INSERT INTO secret_key (key) VALUES (?)", (secrets.token_bytes(32),))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


def _steps(version: int, to: int) -> Iterator[str]:
    return (statement for step in MIGRATIONS[version:to] for statement in step)


@cache
def _made_by(version: int) -> dict[str, str]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in _steps(0, version):
            connection.execute(statement)
        return _objects(connection)
    finally:
        connection.close()


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what makes each table and index, by its name; white space has no meaning."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.split()) for name, sql in rows}
