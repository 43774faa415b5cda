"""Events → iCalendar (RFC 5545): a file that any calendar program opens or subscribes to.

Each event is one whole day. Its UID is the same in every forecast, so that a file that is imported
again replaces what it said before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import agent
from agent.forecast import Event
from agent.policy.rule import Severity

_OCTETS: Final = 75  # RFC 5545 §3.1, without the line break
_NAMED: Final = 3
_PRIORITIES: Final = {Severity.CRITICAL: 1, Severity.WARNING: 5, Severity.INFO: 9}  # §3.8.1.9
_MOST_CHARACTERS: Final = 120


def calendar(events: Sequence[Event], now: datetime) -> bytes:
    """Return the calendar as octets; `now` is when it was made."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        f"PRODID:-//sfmtls-agent//sfmtls-agent {agent.__version__}//EN",
        "CALSCALE:GREGORIAN",
        "METHOD:PUBLISH",
        *(line for event in events for line in _event(event, now)),
        "END:VCALENDAR",
    ]
    return b"".join(_folded(line) for line in lines)


def _event(event: Event, now: datetime) -> Iterator[str]:
    yield "BEGIN:VEVENT"
    yield f"UID:{event.uid}@sfmtls-agent"
    yield f"DTSTAMP:{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    yield f"DTSTART;VALUE=DATE:{_day(event.date)}"
    yield f"SUMMARY:{_text(_title(event))}"
    yield f"DESCRIPTION:{_text(_description(event))}"
    yield f"CATEGORIES:{_text(event.kind.value)},{_text(event.severity.value)}"
    yield f"PRIORITY:{_PRIORITIES[event.severity]}"
    # It takes nobody's time (§3.8.2.7): a day full of expiries is not a busy day.
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat().replace("-", "")


def _title(event: Event) -> str:
    more = len(event.orgs) - _NAMED
    names = ", ".join(event.orgs[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    title = f"{names}: {event.cause.removesuffix('.')}"
    return title if len(title) <= _MOST_CHARACTERS else title[: _MOST_CHARACTERS - 1] + "…"


def _description(event: Event) -> str:
    return (
        f"{event.cause}\n\nWhat to do: {event.remedy}\n\n"
        f"Orgs: {', '.join(event.orgs)}\n{event.name}, {event.severity}\n{event.reference}"
    )


def _text(value: str) -> str:
    """Return a TEXT value (§3.3.11): escaped, and without the control characters it cannot hold."""
    escaped = (
        value.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")
    )
    return "".join(c if c.isprintable() else "?" for c in escaped)


def _folded(line: str) -> bytes:
    """Return a content line, folded between characters into lines of 75 octets (§3.1)."""
    lines = [b""]
    for character in line:
        octets = character.encode("utf-8", "replace")
        if len(lines[-1]) + len(octets) > _OCTETS:
            lines.append(b" ")
        lines[-1] += octets
    return b"\r\n".join(lines) + b"\r\n"
