"""How moments, spans and places in a chain are said in messages."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from agent.policy.rule import Side


def day(moment: datetime) -> str:
    """Return the UTC day of a moment, as in 2026-06-15."""
    return f"{moment:%Y-%m-%d}"


def days(seconds: float) -> str:
    """Return a number of seconds in days, of which a fraction counts as one (BR §6.3.2)."""
    return f"{math.ceil(seconds / 86_400)} days"


def span(length: timedelta) -> str:
    """Return a span in whole days, hours or minutes, at least two of them unless it is shorter."""
    if length >= timedelta(days=2):
        return f"{length.days} days"
    if length >= timedelta(hours=2):
        return f"{length // timedelta(hours=1)} hours"
    return f"{length // timedelta(minutes=1)} minutes"


def which(side: Side, position: int | None) -> str:
    """Return how to call a certificate by its place: the beginning of a sentence."""
    if position is None:
        return f"An authority above the {side} chain"
    if position == 0:
        return f"The {side} certificate"
    return f"Certificate {position} of the {side} chain"
