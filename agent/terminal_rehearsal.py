"""How a rehearsal is shown to a person: both certificates side by side, and what to do.

On a terminal there is colour; into a pipe the same text goes without it. What comes from a
certificate or from the far side is printed so that it cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent import printing
from agent.difference import SAME
from agent.drawing import printable
from agent.org import authority
from agent.policy.rule import Severity
from agent.rehearsal import Mark, Rehearsal, Taken, findings, new_findings, steps
from agent.result import Failure

_MARKS: Final = {Mark.GOOD: "green", Mark.WARNING: "yellow", Mark.BAD: "bold red", Mark.NONE: "dim"}


def print_rehearsal(rehearsal: Rehearsal) -> None:
    """Print steps and changes side by side, the candidate's findings and failures, a verdict."""
    console = printing.console()
    endpoint = rehearsal.org.endpoint
    console.print(
        Text(rehearsal.org.name, "bold"),
        Text(f"rehearsal of a client certificate at {authority(endpoint.host, endpoint.port)}"),
        soft_wrap=True,
    )
    console.print(_side_by_side(rehearsal))
    _print_findings(console, rehearsal)
    _print_failures(console, rehearsal)
    for advice in rehearsal.advice:
        console.print(Text(f"→ {advice}"))
        console.print()
    _print_verdict(console, rehearsal)


def _side_by_side(rehearsal: Rehearsal) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("current", "candidate"):
        table.add_column(column, overflow="fold")
    login = rehearsal.login
    for current, candidate in zip(
        steps(rehearsal.current, login=login), steps(rehearsal.candidate, login=login), strict=True
    ):
        table.add_row(candidate.step.value, _cell(current), _cell(candidate))
    table.add_section()
    for change in rehearsal.changes:
        if change.verdict == SAME:
            after = Text(SAME, "dim")
        else:
            after = Text(printable(change.after)).append(f"\n{printable(change.verdict)}", "yellow")
        table.add_row(change.field, Text(printable(change.before)), after)
    return table


def _cell(taken: Taken) -> Text:
    return Text(printable(taken.detail, None) or "-", _MARKS[taken.mark])


def _print_findings(console: Console, rehearsal: Rehearsal) -> None:
    candidate = rehearsal.candidate
    if isinstance(candidate, Failure):
        return
    new = new_findings(rehearsal)
    for violation in findings(candidate):
        if violation.severity is Severity.INFO:
            continue
        head = Text(f"{violation.severity}: {violation.rule}", printing.COLOURS[violation.severity])
        if violation not in new:
            head.append(" (as with the current one)", "dim")
        console.print(head)
        printing.say(console, violation.message)
        printing.say(console, f"→ {violation.remedy}")
        console.print()
    for known in candidate.judgement.suppressed:
        until, reason = known.suppression.until, printable(known.suppression.reason)
        rule = known.violation.rule
        console.print(Text(f"suppressed until {until:%Y-%m-%d}: {rule} ({reason})", "dim"))
        console.print()


def _print_failures(console: Console, rehearsal: Rehearsal) -> None:
    for name, failure in _failures(rehearsal):
        console.print(Text(f"{name}: {failure.reason.value}", "bold red"))
        printing.say(console, failure.reason.meaning)
        printing.say(console, failure.detail)
        printing.say(console, f"→ {failure.reason.remedy}")
        console.print()


def _failures(rehearsal: Rehearsal) -> Iterator[tuple[str, Failure]]:
    candidate = rehearsal.candidate
    if isinstance(candidate, Failure):
        yield "candidate", candidate
        return
    for probe, outcome in candidate.result.outcomes.items():
        if isinstance(outcome, Failure):
            yield probe.value, outcome


def _print_verdict(console: Console, rehearsal: Rehearsal) -> None:
    if rehearsal.worse:
        verdict, colour = "do not deploy it", "bold red"
    elif rehearsal.standard:
        verdict, colour = "the candidate is at least as good as the current one", "green"
    else:
        why = "cannot be used" if isinstance(rehearsal.current, Failure) else "has expired"
        verdict, colour = f"the candidate is good by itself; the current one {why}", "green"
    console.print(Text(f"{rehearsal.org.name}: {verdict}", colour))
    for why in rehearsal.worse:
        printing.say(console, why)
