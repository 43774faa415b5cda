"""What is remembered of one user's logins, as rows; every function is part of a transaction."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Final

from agent.breaker import ANY, Allowed, Attempt, LoginState, Refusal
from agent.reason import Reason
from agent.store.errors import LostError
from agent.store.rows import MICROSECOND, moment, to_integer, to_optional

# Whoever writes a new wrong secret every other minute must not fill the disk. Nobody goes back to a
# secret that was refused so many secrets ago.
MOST: Final = 100
_REASONS: Final = {reason.value: reason for reason in Reason}


def load(connection: sqlite3.Connection, user: str) -> LoginState:
    """Return what is remembered of this user; LostError when no agent can have written it."""
    try:
        return _load(connection, user)
    except (TypeError, ValueError, OverflowError) as error:
        raise LostError(f"damaged: what is there of a user cannot be read ({error})") from error


def users(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of all users of whom something is remembered, sorted."""
    return tuple(
        user for (user,) in connection.execute("SELECT user FROM login_user ORDER BY user")
    )


def begin(
    connection: sqlite3.Connection,
    before: LoginState,
    digest: str,
    place: str,
    now: datetime,
    *,
    allowed: Allowed,
    expires_at: datetime,
) -> Attempt:
    """Write down an attempt that is about to be sent."""
    if not before.attempts:
        _make_known(connection, before)
    cursor = connection.execute(
        "INSERT INTO login_attempt"
        " (user, at, digest, place, half_open, hold, expires_at, settled)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        (
            before.user,
            to_integer(now),
            digest,
            place,
            allowed.half_open,
            allowed.hold // MICROSECOND,
            to_integer(expires_at),
        ),
    )
    number = cursor.lastrowid or 0  # the type says None for statements that insert nothing
    return Attempt(number, now, digest, place, allowed.half_open, allowed.hold, expires_at)


def prune(connection: sqlite3.Connection, before: LoginState, state: LoginState) -> None:
    """Delete the attempts that the breaker no longer remembers, except those of unknown end.

    `state` is that after an attempt which was just written down.
    """
    if len(state.attempts) <= len(before.attempts):
        connection.execute(
            "DELETE FROM login_attempt WHERE user = ? AND settled = 1 AND at < ?",
            (state.user, to_integer(min(state.attempts))),
        )
    if len(state.unfinished) > MOST:
        connection.execute(
            "DELETE FROM login_attempt WHERE user = ? AND settled = 0 AND id <= ("
            " SELECT id FROM login_attempt WHERE user = ? AND settled = 0"
            " ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (state.user, state.user, MOST),
        )


def save(connection: sqlite3.Connection, before: LoginState, state: LoginState) -> None:
    """Write down what has become of the state that was loaded before."""
    if state.proven != before.proven:
        _make_known(connection, before)
        connection.execute(
            "UPDATE login_user SET proven = ? WHERE user = ?", (state.proven, state.user)
        )
    still = {attempt.id for attempt in state.unfinished}
    connection.executemany(
        "UPDATE login_attempt SET settled = 1 WHERE id = ?",
        ((attempt.id,) for attempt in before.unfinished if attempt.id not in still),
    )
    connection.executemany(
        "UPDATE login_attempt SET expires_at = ? WHERE id = ?",
        (
            (to_optional(attempt.expires_at), attempt.id)
            for attempt in state.unfinished
            if attempt not in before.unfinished
        ),
    )
    if state.refusals != before.refusals:
        _make_known(connection, before)
        _save_refusals(connection, state)


def mark_lost(connection: sqlite3.Connection, at: datetime, hold: timedelta, writes: int) -> None:
    """Let every user rest, since any secret may have been refused without our knowing it.

    `writes` is more than there ever were. The numbers of attempts go on from there, so that one
    that was begun before the loss cannot be taken for another one.
    """
    lost = (to_integer(at), hold // MICROSECOND, writes)
    connection.execute(
        "UPDATE store SET lost_at = ?, lost_hold = ?, lost_attempt = ?, writes = ?",
        (*lost, writes),
    )
    connection.execute("DELETE FROM unused WHERE kind = 'loss'")
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'login_attempt'")
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('login_attempt', ?)", (writes,)
    )
    connection.execute(
        "INSERT OR REPLACE INTO login_refusal"
        " (user, digest, place, at, hold, attempt, reason, released)"
        " SELECT user, ?, '', ?, ?, ?, ?, 0 FROM login_user",
        (ANY, *lost, Reason.STATE_LOST.value),
    )


def forget(connection: sqlite3.Connection, user: str) -> None:
    """Forget a user altogether."""
    for table in ("login_attempt", "login_refusal", "login_user"):
        connection.execute(f"DELETE FROM {table} WHERE user = ?", (user,))  # noqa: S608 - as above


def _load(connection: sqlite3.Connection, user: str) -> LoginState:
    moments: list[datetime] = []
    unfinished: list[Attempt] = []
    rows = connection.execute(
        "SELECT id, at, digest, place, half_open, hold, expires_at, settled FROM login_attempt"
        " WHERE user = ? ORDER BY id",
        (user,),
    )
    for number, at, digest, place, half_open, hold, expires_at, settled in rows:
        moments.append(moment(at))
        if not settled:
            unfinished.append(
                Attempt(
                    id=number,
                    at=moment(at),
                    digest=digest,
                    place=place,
                    half_open=bool(half_open),
                    hold=hold * MICROSECOND,
                    expires_at=None if expires_at is None else moment(expires_at),
                )
            )
    refusals = [
        Refusal(
            digest=digest,
            attempt=number,
            at=moment(at),
            by=_reason(label),
            hold=hold * MICROSECOND,
            place=place,
            released=bool(released),
        )
        for digest, place, number, at, label, hold, released in connection.execute(
            "SELECT digest, place, attempt, at, reason, hold, released FROM login_refusal"
            " WHERE user = ? ORDER BY attempt",
            (user,),
        )
    ]
    row = connection.execute("SELECT proven FROM login_user WHERE user = ?", (user,)).fetchone()
    if row is None:
        refusals += _since_the_loss(connection)
    return LoginState(
        user, tuple(moments), tuple(unfinished), tuple(refusals), row[0] if row else 0
    )


def _since_the_loss(connection: sqlite3.Connection) -> list[Refusal]:
    """Return what stands for the refusals that are lost of a user who was not seen since."""
    return [
        Refusal(ANY, attempt, moment(at), Reason.STATE_LOST, hold * MICROSECOND)
        for at, hold, attempt in connection.execute(
            "SELECT lost_at, lost_hold, lost_attempt FROM store WHERE lost_at IS NOT NULL"
        )
    ]


def _make_known(connection: sqlite3.Connection, state: LoginState) -> None:
    cursor = connection.execute(
        "INSERT OR IGNORE INTO login_user (user, proven) VALUES (?, 0)", (state.user,)
    )
    if cursor.rowcount:
        _save_refusals(connection, state)


def _save_refusals(connection: sqlite3.Connection, state: LoginState) -> None:
    connection.execute("DELETE FROM login_refusal WHERE user = ?", (state.user,))
    latest = sorted(state.refusals, key=lambda refusal: refusal.attempt)[-MOST:]
    connection.executemany(
        "INSERT INTO login_refusal (user, digest, place, attempt, at, reason, hold, released)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                state.user,
                refusal.digest,
                refusal.place,
                refusal.attempt,
                to_integer(refusal.at),
                refusal.by.value,
                refusal.hold // MICROSECOND,
                refusal.released,
            )
            for refusal in latest
        ),
    )


def _reason(label: str) -> Reason:
    # A label that is not there was written by an agent that knew more reasons.
    return _REASONS.get(label, Reason.UNDETERMINED)
