"""The state of one agent, and what may be asked of it: each method is one transaction."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from agent.breaker import (
    Attempt,
    Denied,
    Limits,
    LoginState,
    after_begin,
    after_finish,
    after_reset,
    decide,
    in_flight,
)
from agent.maintenance import EVERY_ORG, Window
from agent.reason import Reason
from agent.store import file, logins, pasts, recent, windows
from agent.store.errors import Loss, StoreError
from agent.store.file import Opened
from agent.store.pasts import KeptPast
from agent.store.rows import moment, to_integer
from agent.succession import Chain, Past

# For how many days in a row nothing of an org or a user was seen when it is forgotten. Days are
# counted, not subtracted: a clock that was wrong once makes it one day more and not thousands.
UNUSED_DAYS: Final = 90
_DAY: Final = timedelta(days=1)
# A file that shrinks to half is worth the work, from a size on that anybody would notice.
_FREE_PAGES: Final = 256


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one login, already recorded. Give it back by `finish` or `abandon`.

    `state` is what is remembered about the user's logins, with this one.
    """

    user: str
    attempt: Attempt
    state: LoginState = field(repr=False)


class Store:
    """The state of one agent; the case of a user name does not matter, as with Salesforce.

    `loss` is what was found to be lost when it was opened.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        self.loss: Loss | None = opened.loss
        self._connection = opened.connection
        self._path = path
        self._file = opened.identity
        self._key = opened.key
        self._writes = opened.writes
        self._own_writes = 0
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store in this file; file and state directory are made where there never were.

        LostError when what was remembered is lost, which is for `open_or_begin_anew` to deal with;
        StoreError when it cannot be used now, or is of a newer agent.
        """
        return cls(path, file.open_file(path, _read_logins))

    @classmethod
    def open_or_begin_anew(cls, path: Path, at: datetime, hold: timedelta, known: int = 0) -> Self:
        """Open the store in this file for logins: it can be written, and knows of what was lost.

        What is damaged is set aside (three such files are kept). After a loss each user rests for
        `hold` from `at` on, whatever the secret, since it may have been refused before. `known` is
        what `writes` was when the caller used it last. StoreError when it cannot be used now.
        """
        return cls(path, file.open_or_begin_anew(path, _read_logins, at, hold, known))

    def close(self) -> None:
        """Close the file; the store is of no use afterwards."""
        with self._lock:
            self._connection.close()

    @property
    def writes(self) -> int:
        """How often the state was written, as far as this store knows."""
        return self._writes

    def writes_elsewhere(self) -> int:
        """Return a number that changes whenever somebody else has written the state."""
        with self._reading() as connection:
            ((writes,),) = connection.execute("SELECT writes FROM store")
            return int(writes) - self._own_writes

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
        with self._writing() as connection:
            state = logins.load(connection, user)
            busy = in_flight(state, now)
            if busy is not None:
                return busy
            decision = decide(state, digest, place, now, limits)
            if isinstance(decision, Denied):
                return decision
            attempt = logins.begin(
                connection, state, digest, place, now, allowed=decision, expires_at=now + lease
            )
            after = after_begin(state, attempt)
            logins.prune(connection, state, after)
            return Permit(user, attempt, after)

    def finish(self, permit: Permit, now: datetime, failure: Reason | None) -> LoginState:
        """Record how a sent attempt ended: with a session (None) or with a failure.

        Returns what is remembered about the user's logins now.
        """
        with self._writing() as connection:
            before = logins.load(connection, permit.user)
            after = after_finish(before, permit.attempt, now, failure)
            logins.save(connection, before, after)
        return after

    def abandon(self, permit: Permit) -> None:
        """Forget an attempt that was provably never sent."""
        with self._writing() as connection:
            connection.execute("DELETE FROM login_attempt WHERE id = ?", (permit.attempt.id,))

    def login_state(self, user: str) -> LoginState:
        """Return what is remembered about this user's logins."""
        with self._reading() as connection:
            return logins.load(connection, user.lower())

    def reset(self, user: str, now: datetime) -> None:
        """Let one login with each secret of this user through at once."""
        user = user.lower()
        with self._writing() as connection:
            before = logins.load(connection, user)
            logins.save(connection, before, after_reset(before, now))
            connection.execute(
                "UPDATE login_attempt SET at = ? WHERE user = ? AND at > ?",
                (to_integer(now), user, to_integer(now)),
            )

    def users(self) -> tuple[str, ...]:
        """Return the names of all users that ever logged in, in lower case and sorted."""
        with self._reading() as connection:
            return logins.users(connection)

    def keep_pasts(self, kept: Mapping[str, Past]) -> None:
        """Keep what these orgs presented, in the place of what was kept of them."""
        with self._writing() as connection:
            pasts.save(connection, kept)

    def pasts(self) -> Mapping[str, KeptPast]:
        """Return what is kept of every org, by its name, those no longer configured included."""
        with self._reading() as connection:
            return pasts.load(connection)

    def server_chains(self) -> Mapping[str, Chain]:
        """Return the server's chain that was seen last by each org's name; no daemon need run.

        A chain that cannot be read any more is left out.
        """
        with self._reading() as connection:
            return pasts.server_chains(connection)

    def keep_cycles(self, packed: Mapping[str, bytes]) -> None:
        """Keep the last cycles of these orgs, in the place of what was kept of them."""
        with self._writing() as connection:
            recent.save(connection, packed)

    def cycles(self) -> Mapping[str, bytes]:
        """Return the last cycles of every org, by its name."""
        with self._reading() as connection:
            return recent.load(connection)

    def start_maintenance(
        self, orgs: Collection[str], begins: datetime, until: datetime, reason: str
    ) -> None:
        """Keep a window of each of these orgs, in the place of one that was started before.

        EVERY_ORG among them stands for all orgs, whether they are known now or not.
        """
        with self._writing() as connection:
            windows.save(connection, orgs, begins, until, reason)

    def stop_maintenance(self, orgs: Collection[str] | None, now: datetime) -> Collection[str]:
        """Forget the windows of these orgs, or all there are; return whose were not over yet."""
        with self._writing() as connection:
            windows.forget_ended(connection, now)
            there = windows.load(connection).keys()
            stopped = there if orgs is None else there & {*orgs}
            for org in stopped:
                windows.forget(connection, org)
            return stopped

    def maintenance(self) -> Mapping[str, Window]:
        """Return what was started, by the name of the org or EVERY_ORG; some may be over."""
        with self._reading() as connection:
            return windows.load(connection)

    def tidy(self, orgs: Collection[str], users: Collection[str], now: datetime) -> bool:
        """Forget what was out of use for UNUSED_DAYS, of which these are the names in use today.

        Once a day at most; returns whether it was done.
        """
        with self._writing() as connection:
            ((tidied_at, lost_at),) = connection.execute("SELECT tidied_at, lost_at FROM store")
            if tidied_at is not None and abs(now - moment(tidied_at)) < _DAY:
                return False
            connection.execute("UPDATE store SET tidied_at = ?", (to_integer(now),))
            in_use = {user.lower() for user in users}
            for user in _grown_old(connection, "user", {*logins.users(connection)} - in_use):
                logins.forget(connection, user)
            windows.forget_ended(connection, now)
            known = {
                *pasts.orgs(connection),
                *recent.orgs(connection),
                *windows.load(connection),
            } - {EVERY_ORG}
            for org in _grown_old(connection, "org", known - {*orgs}):
                pasts.forget(connection, org)
                recent.forget(connection, org)
                windows.forget(connection, org)
            # Who was not seen since the loss has been forgotten like anybody else.
            if _grown_old(connection, "loss", set() if lost_at is None else {""}):
                connection.execute("UPDATE store SET lost_at = NULL")
        self._shrink()
        return True

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
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("DEFERRED") as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("IMMEDIATE") as connection:
            changes, writes = connection.total_changes, None
            yield connection
            if connection.total_changes > changes:
                connection.execute("UPDATE store SET writes = writes + 1")
                ((writes,),) = connection.execute("SELECT writes FROM store")
        if writes is not None:
            self._writes = writes
            self._own_writes += 1
            # To know too little of what is on the disk is the safe side.
            with suppress(OSError):
                file.write_known(self._path, writes)

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # SQLite goes on in a file that was deleted; what it writes there is lost.
                if file.identity(self._path) != self._file:
                    raise StoreError(f"{self._path}: replaced by another file since the start")
                self._connection.execute(f"BEGIN {kind}")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # some errors end it by themselves
                        self._connection.execute("ROLLBACK")
                    raise
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"{self._path}: {error}") from error

    def _shrink(self) -> None:
        # SQLite uses free pages again, but gives none back.
        with self._lock, suppress(sqlite3.Error):
            ((free,),) = self._connection.execute("PRAGMA freelist_count")
            ((pages,),) = self._connection.execute("PRAGMA page_count")
            if free > max(_FREE_PAGES, pages // 2):
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _read_logins(connection: sqlite3.Connection) -> None:
    for user in logins.users(connection):
        logins.load(connection, user)


def _grown_old(connection: sqlite3.Connection, kind: str, unused: Collection[str]) -> list[str]:
    """Count one more day for what is not in use, none for all else; return what is too old."""
    rows = connection.execute("SELECT name, days FROM unused WHERE kind = ?", (kind,))
    before = dict(rows.fetchall())
    days = {name: before.get(name, 0) + 1 for name in unused}
    connection.execute("DELETE FROM unused WHERE kind = ?", (kind,))
    connection.executemany(
        "INSERT INTO unused (kind, name, days) VALUES (?, ?, ?)",
        ((kind, name, count) for name, count in days.items() if count < UNUSED_DAYS),
    )
    return [name for name, count in days.items() if count >= UNUSED_DAYS]
