"""Moments and durations as they are in a row: whole microseconds, so that nothing is rounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_integer(moment: datetime) -> int:
    """Return the microseconds since 1970."""
    return (moment - _EPOCH) // MICROSECOND


def to_optional(moment: datetime | None) -> int | None:
    """Return the same, or None for None."""
    return None if moment is None else to_integer(moment)


def moment(integer: int) -> datetime:
    """Return the moment; OverflowError or TypeError when no agent can have written it."""
    return _EPOCH + integer * MICROSECOND
