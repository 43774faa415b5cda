"""How moments, spans, dates of policies and places in a chain are said in messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from agent.certificate import Certificate
from agent.policy.rule import Side
from agent.policy.tables import PolicyDate

_MOST: Final = 5


def day(moment: datetime) -> str:
    """Return the UTC day of a moment, as in 2026-06-15."""
    return f"{moment:%Y-%m-%d}"


def days(seconds: float) -> str:
    """Return a number of seconds in days, of which a fraction counts as one (BR §6.3.2)."""
    return f"{math.ceil(seconds / 86_400)} days"


def span(length: timedelta) -> str:
    """Return a span in whole days, hours or minutes, at least two of them where there are."""
    if length >= timedelta(days=2):
        return f"{length.days} days"
    if length >= timedelta(hours=2):
        return f"{length // timedelta(hours=1)} hours"
    if length >= timedelta(minutes=2):
        return f"{length // timedelta(minutes=1)} minutes"
    return "less than two minutes"


def counting(policy: PolicyDate) -> str:
    """Return from when on a policy counts, as in "from 2026-06-15 on"."""
    issued = "for certificates issued " if policy.applies_to == "not_before" else ""
    return f"{issued}from {day(policy.date)} on"


def which(side: Side, position: int | None, certificate: Certificate) -> str:
    """Return how to call a certificate by its place and name: the beginning of a sentence."""
    name = f"({certificate.subject or 'without a name'})"
    if position is None:
        return f"The authority above the {side} chain {name}"
    if position == 0:
        return f"The {side} certificate {name}"
    return f"Certificate {position} of the {side} chain {name}"


def some(names: Sequence[str]) -> str:
    """Return names as a list in a sentence, not more than a few of them."""
    shown = ", ".join(names[:_MOST])
    more = len(names) - _MOST
    return f"{shown} and {more} more" if more > 0 else shown
