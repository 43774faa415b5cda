"""What must survive a restart, in one SQLite file in the state directory.

That is what the login breaker needs, every attempt, recorded before anything is sent, and what was
refused; which chains each org presented and how its last cycles went; and the windows of
maintenance that were started by command. Each method of the store is one transaction, committed to
the disk before it returns, so a `kill -9` at any moment loses nothing that was sent. Daemon and
commands share the file.

The methods block; the caller runs them on a thread. Anything that goes wrong is a StoreError: no
login may be sent that could not be recorded. What is lost must not look like what never was: after
a loss nobody logs in for a while.

It does not grow for ever. A user takes 50 KB at most (the logins of four hours and the hundred
secrets refused last) and mostly less than one, an org six chains at most and mostly 10 KB, and its
cycles 3 to 25 KB; both are forgotten when they were not seen for 90 days. What is free then is used
again, and given back to the disk when it is more than half of the file. The -wal file stays at
4 MB, SQLite's default.

`store` is what may be asked, `file` opens the file and begins a new one, `schema` has the tables
and their versions, `logins`, `pasts`, `recent` and `windows` read and write rows, `rows` what is in
them.
"""

from agent.store.errors import Loss, LostError, StoreError
from agent.store.file import FILE_NAME, KNOWN_NAME
from agent.store.pasts import KeptPast
from agent.store.schema import MIGRATIONS
from agent.store.store import UNUSED_DAYS, Permit, Store

__all__ = [
    "FILE_NAME",
    "KNOWN_NAME",
    "MIGRATIONS",
    "UNUSED_DAYS",
    "KeptPast",
    "Loss",
    "LostError",
    "Permit",
    "Store",
    "StoreError",
]
