"""When an org is in planned maintenance: nobody logs in then, and handshakes go on.

A window stands in the configuration, once or again and again, or was started by command. This
module says which of them is in force at a moment that it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

EVERY_ORG: Final = ""
"""Stands for all orgs where the name of one is expected; no org has it."""

# More windows than these in a row are told one after the other.
_IN_A_ROW: Final = 16
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Window:
    """A time without logins: from `begins` (None: as far back as can be) until just before `until`.

    `reason` is for people; it may be empty.
    """

    until: datetime
    begins: datetime | None = None
    reason: str = ""

    def next(self, now: datetime) -> Window | None:
        """Return this window unless it is over."""
        return self if now < self.until else None

    def holds(self, now: datetime) -> bool:
        """Tell whether it is in force."""
        return (self.begins is None or self.begins <= now) and now < self.until


@dataclass(frozen=True, slots=True)
class Recurring:
    """Windows that begin when `cron`, five fields of crontab(5), says so in `timezone`.

    Each lasts `duration` seconds by the clock that nobody turns.
    """

    cron: str
    duration: float
    timezone: str = "UTC"
    reason: str = ""

    def next(self, now: datetime) -> Window | None:
        """Return the first window that is not over, in force already or not; None without one."""
        lasts = timedelta(seconds=self.duration)
        # Windows begin with a minute, so that nothing changes within one. Most orgs share theirs.
        after = (now - lasts).astimezone(UTC).replace(second=0, microsecond=0)
        begins = start(self.cron, self.timezone, after + _MINUTE)
        return None if begins is None else Window(begins + lasts, begins, self.reason)


Planned = Window | Recurring


def started_for(org: str, started: Mapping[str, Window]) -> Iterator[Window]:
    """Yield what was started for all orgs and for this one, of what was started by name."""
    return (started[name] for name in (EVERY_ORG, org) if name in started)


def in_force(planned: Iterable[Planned], now: datetime) -> Window | None:
    """Return the time without logins around `now`, or None when logins may be made.

    Its end is that of the last of several windows in a row, its beginning and reason those of the
    one that lasts longest of those in force now.
    """
    windows = tuple(planned)
    found = _longest(windows, now)
    if found is None:
        return None
    until = found.until
    for _ in range(_IN_A_ROW):
        following = _longest(windows, until)
        if following is None:
            break
        until = following.until
    return replace(found, until=until)


def _longest(planned: Iterable[Planned], now: datetime) -> Window | None:
    windows = (window for one in planned if (window := one.next(now)) and window.holds(now))
    return max(windows, key=lambda window: window.until, default=None)


@lru_cache(maxsize=1024)
def start(cron: str, timezone: str, earliest: datetime) -> datetime | None:
    """Return the first moment from `earliest` on that `cron` names in `timezone`, if there is one.

    ValueError says what is wrong with `cron`.
    """
    # To import it takes 0.1 s, and most configurations have no such window.
    from agent.schedule import crontab_start  # noqa: PLC0415 - as said above

    return crontab_start(cron, timezone, earliest)
