"""What must survive a restart, in one SQLite file in the state directory.

That is what the login breaker needs, every attempt, recorded before anything is sent, and what was
refused; and which chains each org presented. Each method is one transaction, committed to the disk
before it returns, so a `kill -9` at any moment loses nothing that was sent. Daemon and `probe`
command share the file.

The methods block; the caller runs them on a thread. Anything that goes wrong is a StoreError: no
login may be sent that could not be recorded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, Self

from agent.breaker import (
    Allowed,
    Attempt,
    Denied,
    Limits,
    LoginState,
    Refusal,
    after_begin,
    after_finish,
    after_reset,
    decide,
    in_flight,
)
from agent.certificate import read
from agent.policy.rule import Side
from agent.reason import Reason
from agent.succession import Chain, Earlier, Past, Succession

FILE_NAME: Final = "state.sqlite3"

# How long to wait for the other process to end its transaction, which takes milliseconds.
_BUSY_TIMEOUT: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_REASONS: Final = {reason.value: reason for reason in Reason}

# MIGRATIONS[n] leads from version n (PRAGMA user_version) to n + 1. Moments and durations are whole
# microseconds, so that what is read is exactly what was written. `settled` is 1 for an attempt that
# only counts for the budget; the columns else are the fields of Attempt and Refusal.
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
)


class StoreError(Exception):
    """The state file cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one login, already recorded. Give it back by `finish` or `abandon`."""

    user: str
    attempt: Attempt


# Side, age, changed_at, until and DER of one certificate.
_Row = tuple[str, int, int | None, int | None, bytes]


@dataclass(frozen=True, slots=True)
class KeptPast:
    """The past of one org as it is kept; making certificates of ten thousand takes seconds."""

    door: str
    rows: tuple[_Row, ...]

    def read(self) -> Past:
        """Return what the org presented; ValueError when a certificate cannot be read any more."""
        return Past(self.door, self._succession(Side.CLIENT), self._succession(Side.SERVER))

    def _succession(self, side: Side) -> Succession | None:
        rows = (row for row in self.rows if row[0] == side)
        chains = [list(chain) for _, chain in groupby(rows, key=itemgetter(1))]
        if not chains:
            return None
        present, *before = (tuple(read(der) for *_, der in chain) for chain in chains)
        ends = (_moment(until or 0) for [(*_, until, _), *_] in chains[1:])
        [(_, _, changed_at, *_), *_], *_ = chains
        return Succession(
            present=present,
            before=tuple(map(Earlier, before, ends)),
            changed_at=None if changed_at is None else _moment(changed_at),
        )


class Store:
    """The state of one agent; the case of a user name does not matter, as with Salesforce."""

    def __init__(self, connection: sqlite3.Connection, path: Path, key: bytes) -> None:
        self._connection = connection
        self._path = path
        self._file = _file_at(path)
        self._key = key
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store in this file; file and state directory are made when they are missing.

        StoreError when they cannot be, or when the file is damaged or of a newer agent.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _one_at_a_time(path.with_name(f"{path.name}.lock")):
                _make_private(path)
                connection = sqlite3.connect(
                    path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
                )
                try:
                    return cls(connection, path, _prepare(connection))
                except BaseException:
                    connection.close()
                    raise
        except (OSError, sqlite3.Error, StoreError) as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        """Close the file; the store is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def admit(
        self,
        user: str,
        digest: str,
        place: str,
        now: datetime,
        *,
        limits: Limits,
        lease: timedelta,
    ) -> Permit | Denied:
        """Decide whether this user may log in now and, if so, record the attempt before it is sent.

        `lease` is longer than this login can take: until then it counts as under way for every org
        and process, unless it is given back before.
        """
        user = user.lower()
        with self._transaction("IMMEDIATE"):
            state = self._load(user)
            busy = in_flight(state, now)
            if busy is not None:
                return busy
            decision = decide(state, digest, place, now, limits)
            if isinstance(decision, Denied):
                return decision
            attempt = self._insert(user, digest, place, now, allowed=decision, lease=lease)
            # What the breaker no longer remembers need not be kept, except an unknown end.
            remembered = after_begin(state, attempt)
            self._connection.execute(
                "DELETE FROM login_attempt WHERE user = ? AND settled = 1 AND at < ?",
                (user, _to_integer(min(remembered.attempts))),
            )
            return Permit(user, attempt)

    def finish(self, permit: Permit, now: datetime, failure: Reason | None) -> None:
        """Record how a sent attempt ended: with a session (None) or with a failure."""
        with self._transaction("IMMEDIATE"):
            before = self._load(permit.user)
            self._save(before, after_finish(before, permit.attempt, now, failure))

    def abandon(self, permit: Permit) -> None:
        """Forget an attempt that was provably never sent."""
        with self._transaction("IMMEDIATE"):
            self._connection.execute("DELETE FROM login_attempt WHERE id = ?", (permit.attempt.id,))

    def login_state(self, user: str) -> LoginState:
        """Return what is remembered about this user's logins."""
        with self._transaction("DEFERRED"):
            return self._load(user.lower())

    def reset(self, user: str, now: datetime) -> None:
        """Let one login with each secret of this user through at once."""
        user = user.lower()
        with self._transaction("IMMEDIATE"):
            before = self._load(user)
            self._save(before, after_reset(before, now))
            self._connection.execute(
                "UPDATE login_attempt SET at = ? WHERE user = ? AND at > ?",
                (_to_integer(now), user, _to_integer(now)),
            )

    def users(self) -> tuple[str, ...]:
        """Return the names of all users that ever logged in, in lower case and sorted."""
        with self._transaction("DEFERRED"):
            rows = self._connection.execute("SELECT user FROM login_user ORDER BY user")
            return tuple(user for (user,) in rows)

    def keep_pasts(self, pasts: Mapping[str, Past]) -> None:
        """Keep what these orgs presented, in the place of what was kept of them."""
        with self._transaction("IMMEDIATE"):
            self._connection.executemany(
                "DELETE FROM presented WHERE org = ?", ((org,) for org in pasts)
            )
            self._connection.executemany(
                "INSERT INTO presented (org, door, side, changed_at, age, until, position, der)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (org, past.door, side, *row)
                    for org, past in pasts.items()
                    for side, succession in ((Side.CLIENT, past.client), (Side.SERVER, past.server))
                    if succession is not None
                    for row in _rows(succession)
                ),
            )

    def pasts(self) -> Mapping[str, KeptPast]:
        """Return what is kept of every org, by its name, those no longer configured included."""
        with self._transaction("DEFERRED"):
            rows = self._connection.execute(
                "SELECT org, door, side, age, changed_at, until, der FROM presented"
                " ORDER BY org, side, age, position"
            )
            return {
                org: KeptPast(door, tuple(row[2:] for row in of_org))
                for (org, door), of_org in groupby(rows, key=itemgetter(0, 1))
            }

    def server_chains(self) -> Mapping[str, Chain]:
        """Return the server's chain that was seen last by each org's name; no daemon need run.

        A chain that cannot be read any more is left out.
        """
        with self._transaction("DEFERRED"):
            rows = self._connection.execute(
                "SELECT org, der FROM presented WHERE side = ? AND age = 0 ORDER BY org, position",
                (Side.SERVER,),
            ).fetchall()
        chains: dict[str, Chain] = {}
        for org, of_org in groupby(rows, key=itemgetter(0)):
            with suppress(ValueError):
                chains[org] = tuple(read(der) for _, der in of_org)
        return chains

    def secret_digest(self, user: str, parts: Sequence[bytes]) -> str:
        """Return eight hexadecimal digits that change when the secret of a user changes.

        Give the secret alone: what else changes must not bring a refused secret another try.
        """
        # The key is this file's own, so a digest means nothing anywhere else. 32 bits are enough to
        # see a change, and too few to find a random secret by: billions of candidates fit as well.
        # A word from a dictionary could still be found by who has the file, hence its mode.
        digest = hashlib.blake2b(digest_size=4, key=self._key)
        for part in (user.lower().encode(), *parts):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.hexdigest()

    # --- the parts

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with self._lock:
            try:
                # SQLite goes on in a file that was deleted; what it writes there is lost.
                if _file_at(self._path) != self._file:
                    raise StoreError(f"{self._path}: replaced by another file since the start")
                self._connection.execute(f"BEGIN {kind}")
                try:
                    yield
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # some errors end it by themselves
                        self._connection.execute("ROLLBACK")
                    raise
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"{self._path}: {error}") from error

    def _load(self, user: str) -> LoginState:
        moments: list[datetime] = []
        unfinished: list[Attempt] = []
        rows = self._connection.execute(
            "SELECT id, at, digest, place, half_open, hold, expires_at, settled FROM login_attempt"
            " WHERE user = ? ORDER BY id",
            (user,),
        )
        for number, at, digest, place, half_open, hold, expires_at, settled in rows:
            moments.append(_moment(at))
            if not settled:
                unfinished.append(
                    Attempt(
                        id=number,
                        at=_moment(at),
                        digest=digest,
                        place=place,
                        half_open=bool(half_open),
                        hold=hold * _MICROSECOND,
                        expires_at=None if expires_at is None else _moment(expires_at),
                    )
                )
        refusals = tuple(
            Refusal(
                digest=digest,
                attempt=number,
                at=_moment(at),
                by=_reason(label),
                hold=hold * _MICROSECOND,
                place=place,
                released=bool(released),
            )
            for digest, place, number, at, label, hold, released in self._connection.execute(
                "SELECT digest, place, attempt, at, reason, hold, released FROM login_refusal"
                " WHERE user = ? ORDER BY attempt",
                (user,),
            )
        )
        row = self._connection.execute(
            "SELECT proven FROM login_user WHERE user = ?", (user,)
        ).fetchone()
        return LoginState(user, tuple(moments), tuple(unfinished), refusals, row[0] if row else 0)

    def _save(self, before: LoginState, state: LoginState) -> None:
        self._connection.execute(
            "UPDATE login_user SET proven = ? WHERE user = ?", (state.proven, state.user)
        )
        still = {attempt.id for attempt in state.unfinished}
        self._connection.executemany(
            "UPDATE login_attempt SET settled = 1 WHERE id = ?",
            ((attempt.id,) for attempt in before.unfinished if attempt.id not in still),
        )
        self._connection.executemany(
            "UPDATE login_attempt SET expires_at = ? WHERE id = ?",
            ((_to_optional(attempt.expires_at), attempt.id) for attempt in state.unfinished),
        )
        self._connection.execute("DELETE FROM login_refusal WHERE user = ?", (state.user,))
        self._connection.executemany(
            "INSERT INTO login_refusal (user, digest, place, attempt, at, reason, hold, released)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    state.user,
                    refusal.digest,
                    refusal.place,
                    refusal.attempt,
                    _to_integer(refusal.at),
                    refusal.by.value,
                    refusal.hold // _MICROSECOND,
                    refusal.released,
                )
                for refusal in state.refusals
            ),
        )

    def _insert(
        self,
        user: str,
        digest: str,
        place: str,
        now: datetime,
        *,
        allowed: Allowed,
        lease: timedelta,
    ) -> Attempt:
        self._connection.execute(
            "INSERT OR IGNORE INTO login_user (user, proven) VALUES (?, 0)", (user,)
        )
        cursor = self._connection.execute(
            "INSERT INTO login_attempt"
            " (user, at, digest, place, half_open, hold, expires_at, settled)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (
                user,
                _to_integer(now),
                digest,
                place,
                allowed.half_open,
                allowed.hold // _MICROSECOND,
                _to_integer(now + lease),
            ),
        )
        number = cursor.lastrowid or 0  # the type says None for statements that insert nothing
        return Attempt(number, now, digest, place, allowed.half_open, allowed.hold, now + lease)


# --- opening


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    # Two processes that switch a new file to WAL at once get "database is locked" whatever the
    # busy timeout is. The lock is on a file of its own, because closing the database file by other
    # means drops SQLite's locks on it (sqlite.org/howtocorrupt.html, section 2.2).
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_private(file: Path) -> None:
    # SQLite gives its -wal and -shm files the mode of the database (sqlite.org/wal.html).
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if file.is_file() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _file_at(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _prepare(connection: sqlite3.Connection) -> bytes:
    connection.execute("PRAGMA journal_mode = WAL")
    # The default in WAL mode, NORMAL, can lose the last commits when the power fails.
    connection.execute("PRAGMA synchronous = FULL")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(f"damaged: {verdict}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(f"made by a newer agent (schema {version})")
    connection.execute("BEGIN IMMEDIATE")
    for statement in (statement for step in MIGRATIONS[version:] for statement in step):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    row = connection.execute("SELECT key FROM secret_key").fetchone()
    if row is None:
        row = (secrets.token_bytes(32),)
        connection.execute("INSERT INTO secret_key (key) VALUES (?)", row)
    connection.execute("COMMIT")
    return bytes(row[0])


# --- values


def _rows(succession: Succession) -> Iterator[tuple[int | None, int, int | None, int, bytes]]:
    """Yield changed_at, age, until, position and DER of each certificate."""
    chains = ((succession.present, None), *((one.chain, one.until) for one in succession.before))
    for age, (chain, until) in enumerate(chains):
        for position, certificate in enumerate(chain):
            yield (
                _to_optional(succession.changed_at),
                age,
                _to_optional(until),
                position,
                certificate.der,
            )


def _to_integer(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _to_optional(moment: datetime | None) -> int | None:
    return None if moment is None else _to_integer(moment)


def _moment(integer: int) -> datetime:
    return _EPOCH + integer * _MICROSECOND


def _reason(label: str) -> Reason:
    # A label that is not there was written by an agent that knew more reasons.
    return _REASONS.get(label, Reason.UNDETERMINED)
