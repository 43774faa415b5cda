"""Moments and durations in the words of whoever reads them at three in the morning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_STEPS: Final = (
    (timedelta(days=2), timedelta(days=1), "d"),
    (timedelta(hours=2), timedelta(hours=1), "h"),
    (timedelta(minutes=2), timedelta(minutes=1), "min"),
)


def length(duration: timedelta) -> str:
    """Return a duration in its largest sensible unit: "12 s", "5 min", "3 h", "40 d"."""
    for least, unit, name in _STEPS:
        if duration >= least:
            return f"{duration // unit} {name}"
    return f"{max(0, int(duration.total_seconds()))} s"


def relative(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or in how much time it comes."""
    if moment > now:
        return f"in {length(moment - now)}"
    return f"{length(now - moment)} ago"


def absolute(moment: datetime) -> str:
    """Return the moment in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def milliseconds(seconds: float) -> str:
    """Return the time that something took."""
    if seconds >= 10:  # noqa: PLR2004 - where milliseconds say nothing more
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "< 1 ms"  # noqa: PLR2004 - 1 ms


def days(left: timedelta) -> str:
    """Return how much of a certificate's life is left, or how long it is over."""
    if left < timedelta(0):
        return f"expired {length(-left)} ago"
    return f"{length(left)} left"


def count(number: int, noun: str) -> str:
    """Return a number of things: "1 org", "3 orgs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
