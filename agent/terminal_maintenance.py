"""How windows of maintenance are shown: to a person, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from agent import printing, report
from agent.downtime import Listed, Stopped
from agent.drawing import printable
from agent.maintenance import EVERY_ORG, Window


def print_started(orgs: Sequence[str], until: datetime) -> None:
    """Say what was started."""
    printing.console().print(
        Text(f"{_names(orgs)}: nobody logs in until {printing.moment(until)}; handshakes go on"),
        soft_wrap=True,
    )


def print_stopped(orgs: Sequence[str], stopped: Stopped) -> None:
    """Say of each org whether it is out of maintenance, and if not, until when it is in it."""
    console = printing.console()
    for name in orgs:
        over = "maintenance is over" if _ended(name, stopped) else "no maintenance was started"
        console.print(Text(f"{_names([name])}: {over}"), soft_wrap=True)
    for name, window in stopped.still.items():
        console.print(
            Text(f"{name}: still in maintenance {_why(window)}; `maintenance list` shows which"),
            soft_wrap=True,
        )


def print_listed(found: Sequence[Listed], now: datetime) -> None:
    """Print a line for each window, or that there is none."""
    console = printing.console()
    if not found:
        console.print("no maintenance is under way or planned")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("orgs", "", "from", "until", "by", "reason"):
        table.add_column(column, overflow="fold")
    for one in found:
        window = one.window
        table.add_row(
            Text(_names([EVERY_ORG] if one.every else one.orgs)),
            Text("now", "yellow") if window.holds(now) else Text("planned", "dim"),
            Text(printing.moment(window.begins) if window.begins else ""),
            Text(printing.moment(window.until)),
            Text("command" if one.started else "configuration"),
            Text(printable(window.reason, None)),
        )
    console.print(table)


def as_json(found: Sequence[Listed], now: datetime) -> list[dict[str, Any]]:
    """Return the windows as JSON; `cron` and `timezone` are null for what happens once."""
    return [
        {
            "orgs": list(one.orgs),
            "all": one.every,
            "active": one.window.holds(now),
            "from": report.moment(one.window.begins) if one.window.begins else None,
            "until": report.moment(one.window.until),
            "reason": one.window.reason,
            "by": "command" if one.started else "configuration",
            "cron": one.recurring.cron if one.recurring else None,
            "timezone": one.recurring.timezone if one.recurring else None,
        }
        for one in found
    ]


def _ended(name: str, stopped: Stopped) -> bool:
    return bool(stopped.orgs) if name == EVERY_ORG else name in stopped.orgs


def _why(window: Window) -> str:
    because = f" ({printable(window.reason, None)})" if window.reason else ""
    return f"until {printing.moment(window.until)}{because}"


def _names(orgs: Sequence[str]) -> str:
    if EVERY_ORG in orgs:
        return "all orgs"
    return printing.names(orgs)
