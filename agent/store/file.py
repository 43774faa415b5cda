"""The file on disk: making, opening and setting it aside, and knowing that there was one.

Beside it lies a second file, `state.known`, that outlives it: how often the state was written, as
far as is known. Without it a file that is gone could not be told from a new installation, nor an
older copy, or one whose -wal file was deleted, from the latest. A commit comes first and its number
after it, so the number may be behind and is never ahead.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from agent.store import logins, schema
from agent.store.errors import Loss, LostError, StoreError

FILE_NAME: Final = "state.sqlite3"
KNOWN_NAME: Final = "state.known"

# How long to wait for the other process to end its transaction, which takes milliseconds.
_BUSY_TIMEOUT: Final = 2.0
_BETWEEN_TRIES: Final = 0.01
_SET_ASIDE: Final = "corrupt"
_SET_ASIDE_KEPT: Final = 3
# The file, and what is beside it while it is open or after a kill (sqlite.org/wal.html).
_PARTS: Final = ("", "-wal", "-shm")
_PRIVATE: Final = 0o600
_DIGITS: Final = 20

# Any other error is one of the disk, the directory or another process, and may pass.
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file of ours: which one, the key of its digests, and how often it was written."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    key: bytes
    writes: int
    loss: Loss | None = None


Readable = Callable[[sqlite3.Connection], None]
"""Reads all that logins depend on; LostError when something cannot be read."""


def open_file(path: Path, readable: Readable) -> Opened:
    """Open the file as it is; it is made where there never was one.

    LostError when there was one and it cannot be relied on, StoreError when it cannot be used now.
    """
    with _alone(path):
        known = read_known(path)
        opened = _open(path, known, readable)
        if opened.writes < known:
            opened.connection.close()
            raise LostError(_older(opened.writes, known))
        return opened


def open_or_begin_anew(
    path: Path, readable: Readable, at: datetime, hold: timedelta, known: int
) -> Opened:
    """Open the file, in which every user rests for `hold` if anything was lost.

    A damaged one is set aside and a new one begun. `known` is how often the caller has seen it
    written. StoreError when it cannot be used now, be it only that it cannot be written.
    """
    with _alone(path):
        known = max(known, read_known(path))
        loss = None
        try:
            opened = _open(path, known, readable)
        except LostError as error:
            known = max(known, 1)
            # First of all, so that a kill in between leaves no new file that looks complete.
            write_known(path, known)
            loss = Loss(at, str(error), _set_aside(path, at))
            opened = _open(path, 0, readable)
        if loss is None and opened.writes < known:
            loss = Loss(at, _older(opened.writes, known))
        try:
            writes = _write(opened, loss, hold, known)
        except BaseException:
            opened.connection.close()
            raise
        write_known(path, writes)
        return replace(opened, writes=writes, loss=loss)


def identity(path: Path) -> tuple[int, int]:
    """Return what tells this very file from another one of its name; OSError when it is gone."""
    status = path.stat()
    return status.st_dev, status.st_ino


def read_known(path: Path) -> int:
    """Return how often the state beside `path` was written at least; 0 when there never was one."""
    try:
        descriptor = os.open(path.with_name(KNOWN_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except PermissionError:
        return 1
    try:
        _lock(descriptor, fcntl.LOCK_SH)
        return max(1, int(os.pread(descriptor, _DIGITS, 0)))
    except ValueError:
        return 1
    finally:
        os.close(descriptor)


def write_known(path: Path, writes: int) -> None:
    """Write down how often the state beside `path` was written."""
    descriptor = _open_private(path.with_name(KNOWN_NAME))
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        # In place: it works on a full disk, and a power failure leaves the old number at worst.
        os.pwrite(descriptor, b"%0*d\n" % (_DIGITS, writes), 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    # One that waits for ever would keep the agent from its end.
    last = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > last:
                raise TimeoutError("another process keeps it locked") from error
            time.sleep(_BETWEEN_TRIES)
        else:
            return


# --- opening


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from opening; what goes wrong in here is a StoreError with the path."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two processes that switch a new file to WAL at once get "database is locked" whatever the
        # busy timeout is. The lock is on a file of its own, because closing the database file by
        # other means drops SQLite's locks on it (sqlite.org/howtocorrupt.html, section 2.2).
        descriptor = _open_private(path.with_name(f"{path.name}.lock"))
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except LostError as error:
        raise LostError(f"{path}: {error}") from error
    except (OSError, sqlite3.Error, StoreError) as error:
        raise StoreError(f"{path}: {error}") from error


def _open(path: Path, known: int, readable: Readable) -> Opened:
    for part in _PARTS:
        _look_at(path.with_name(path.name + part))
    if not path.exists():
        if known:
            raise LostError("it is gone")
        os.close(_open_private(path))
    elif known and not path.stat().st_size:
        raise LostError("damaged: it is empty")
    try:
        return _prepared(path, readable)
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        # Without a code it is text that is none.
        if code is None or code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise LostError(f"damaged: {error}") from error
        raise


def _prepared(path: Path, readable: Readable) -> Opened:
    # Before it is opened: one that takes its place meanwhile must not pass for it later.
    this = identity(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        version = schema.check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # The default in WAL mode, NORMAL, can lose the last commits when the power fails.
        connection.execute("PRAGMA synchronous = FULL")
        schema.migrate(connection, version)
        key, writes = _key_and_writes(connection)
        readable(connection)
        return Opened(connection, this, key, writes)
    except BaseException:
        connection.close()
        raise


def _key_and_writes(connection: sqlite3.Connection) -> tuple[bytes, int]:
    keys = connection.execute("SELECT key FROM secret_key").fetchall()
    rows = connection.execute("SELECT writes FROM store").fetchall()
    match keys, rows:
        case [(bytes(key),)], [(int(writes),)]:
            return key, writes
        case _:
            raise LostError("damaged: what there must be one of is not there once")


def _write(opened: Opened, loss: Loss | None, hold: timedelta, known: int) -> int:
    """Show that it can be written, and write down a loss; return how often it was written now."""
    writes = max(opened.writes, known) + 1
    connection = opened.connection
    connection.execute("BEGIN IMMEDIATE")
    if loss is None:
        connection.execute("UPDATE store SET writes = ?", (writes,))
    else:
        logins.mark_lost(connection, loss.at, hold, writes)
    connection.execute("COMMIT")
    return writes


def _look_at(path: Path) -> None:
    """Make a file of ours private; LostError when it is another user's, put into our directory."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path.name} is not a file")
    user = os.geteuid()
    if user not in {0, status.st_uid}:
        if path.parent.stat().st_uid == user:
            raise LostError(f"{path.name} belongs to another user ({status.st_uid})")
        raise StoreError(f"it belongs to another user ({status.st_uid})")
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        path.chmod(_PRIVATE)


def _open_private(path: Path) -> int:
    """Open a small file for writing, made private when it is not there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, _PRIVATE)
    except PermissionError:
        # Another user's, say of a copy that root put back. In our directory we may replace it.
        path.unlink()
        descriptor = os.open(path, flags, _PRIVATE)
    if os.geteuid() == 0 and not os.fstat(descriptor).st_size:
        # What root's command makes, the daemon must be able to use.
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _older(writes: int, known: int) -> str:
    return f"it is an older copy: {writes} of {known} writes are in it"


# --- setting aside


def _set_aside(path: Path, at: datetime) -> str | None:
    """Give the file and its parts another name, and delete the oldest such; return the name."""
    target = path.with_name(f"{path.name}.{_SET_ASIDE}-{at:%Y%m%dT%H%M%S.%fZ}")
    moved = None
    # The file first: alone, an old -wal file belongs to nothing and is deleted by SQLite.
    for part in _PARTS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(target.with_name(target.name + part))
            moved = target.name
    names = {
        found.name.removesuffix("-wal").removesuffix("-shm")
        for found in path.parent.glob(f"{path.name}.{_SET_ASIDE}-*")
    }
    for name in sorted(names)[:-_SET_ASIDE_KEPT]:
        for part in _PARTS:
            path.with_name(name + part).unlink(missing_ok=True)
    return moved
