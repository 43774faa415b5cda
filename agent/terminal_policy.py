"""How the commands about policy show things to a person: audits, forecasts, the rules.

On a terminal there is colour; into a pipe the same text goes without it. What comes from a
certificate is printed so that it cannot steer the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from agent import printing
from agent.audit import Audit, owner
from agent.drawing import printable, tree
from agent.forecast import Event
from agent.policy.rule import Rule, Severity, Side, Violation
from agent.rulebook import about, meaning

_MOST_ALIKE: Final = 5


def print_audits(audits: Sequence[Audit]) -> None:
    """Print each file: its chain as a tree, the findings with what to do, and a verdict."""
    console = printing.console()
    for number, found in enumerate(audits):
        if number:
            console.print()
        _print_audit(console, found)


def _print_audit(console: Console, found: Audit) -> None:
    console.print(Text(printable(found.name), "bold"), Text(_what_it_is(found)), soft_wrap=True)
    if found.analysis:
        for line in _circumstances(found):
            console.print(Text(line, "dim"), soft_wrap=True)
        console.print()
        for line in tree(found.analysis, found.anchors, found.question.now):
            console.print(Text(f"  {line}"), soft_wrap=True)
        console.print()
    for problem in found.problems:
        console.print(Text(f"unreadable: {printable(problem)}", "bold red"), soft_wrap=True)
    if found.problems and found.judgement:
        console.print()
    if found.judgement:
        for violation, alike in _without_repetition(found.judgement.violations):
            _print_finding(console, violation, alike, found.question.now)
    console.print(_verdict(found), soft_wrap=True)


def _what_it_is(found: Audit) -> str:
    if not found.analysis:
        return ""
    count = len(found.analysis.certificates)
    whose = (
        "a client's identity" if found.question.host is None else f"chain of {found.question.host}"
    )
    return f"{whose}: {printing.count(count, 'certificate')}, {_key(found)}"


def _key(found: Audit) -> str:
    key = found.private_key
    if key is None:
        return "no private key"
    if key.encrypted:
        return "an encrypted private key (not opened, so not compared)"
    position = owner(found)
    return "the private key of " + (
        "none of them" if position is None else f"certificate {position}"
    )


def _circumstances(found: Audit) -> Iterator[str]:
    question = found.question
    supposed = " (supposed)" if question.supposed else ""
    yield f"as of {printing.moment(question.now)}{supposed}, profile {question.profile}"
    yield (
        f"roots: Chrome's list of {found.tables.trust_list_as_of:%Y-%m-%d}, Mozilla's as certifi "
        f"ships it, {len(found.anchors)} in all"
    )


def _without_repetition(violations: Iterable[Violation]) -> Iterator[tuple[Violation, int]]:
    """Yield the first few findings of each rule, with the number of those that are left out."""
    counts = Counter(violation.rule for violation in violations)
    shown: Counter[str] = Counter()
    for violation in violations:
        shown[violation.rule] += 1
        if shown[violation.rule] <= _MOST_ALIKE:
            last = shown[violation.rule] == _MOST_ALIKE
            yield violation, counts[violation.rule] - _MOST_ALIKE if last else 0


def _print_finding(console: Console, violation: Violation, alike: int, now: datetime) -> None:
    colour = printing.COLOURS[violation.severity]
    console.print(Text(f"{violation.severity}: {violation.rule}", colour))
    printing.say(console, violation.message)
    printing.say(console, f"→ {violation.remedy}")
    since = [_since(violation.bites_from, now)] if violation.bites_from else []
    reference = [violation.reference] if violation.reference != "-" else []
    printing.say(console, " · ".join([*since, *reference]), "dim")
    if alike > 0:
        printing.say(console, f"… and {alike} more like this")
    console.print()


def _since(bites_from: datetime, now: datetime) -> str:
    return f"{'since' if bites_from <= now else 'from'} {bites_from:%Y-%m-%d}"


def _verdict(found: Audit) -> Text:
    judgement = found.judgement
    if judgement is None:
        return Text("nothing to judge", "bold red")
    counts = judgement.count()
    said = ", ".join(
        text
        for severity, text in (
            (Severity.CRITICAL, f"{counts[Severity.CRITICAL]} critical"),
            (Severity.WARNING, printing.count(counts[Severity.WARNING], "warning")),
            (Severity.INFO, printing.count(counts[Severity.INFO], "note")),
        )
        if counts[severity]
    )
    colour = "green" if found.exit_code == 0 else "bold red"
    verdict = Text(said or "nothing found", colour)
    if found.problems:
        verdict.append(f"; {printing.count(len(found.problems), 'block')} unreadable", "bold red")
    if judgement.suppressed:
        verdict.append(f"; {len(judgement.suppressed)} suppressed")
    silent = printing.count(len(judgement.not_evaluated), "rule")
    return verdict.append(f"; {silent} not evaluated for lack of evidence", "dim")


def print_events(events: Sequence[Event], now: datetime, until: datetime) -> None:
    """Print the calendar: when, what, for whom, why, and what to do."""
    console = printing.console()
    overdue = [event for event in events if event.date <= now]
    if overdue:
        console.print(Text("overdue", "bold red"))
        for event in overdue:
            _print_event(console, event, now)
    for event in events[len(overdue) :]:
        _print_event(console, event, now)
    console.print(
        Text(f"{printing.count(len(events), 'event')} up to {until:%Y-%m-%d}").append(
            "; what is wrong already today, `sfmtls-agent check` tells", "dim"
        )
    )


def _print_event(console: Console, event: Event, now: datetime) -> None:
    head = Text(f"{event.date:%Y-%m-%d}", "bold")
    head.append(f"  {_away(event.date - now)}  ", "dim")
    head.append(f"{event.severity}: {event.name}", printing.COLOURS[event.severity])
    console.print(head.append(f"  {_orgs(event.orgs)}"), soft_wrap=True)
    printing.say(console, event.cause, indent=12)
    printing.say(console, f"→ {event.remedy}", indent=12)
    console.print()


def _away(distance: timedelta) -> str:
    if distance <= timedelta(0):
        return f"{-distance // timedelta(days=1)} days ago"
    return f"in {distance // timedelta(days=1)} days"


def _orgs(names: Sequence[str]) -> str:
    shown = printing.names(names)
    return shown if len(names) == 1 else f"{len(names)} orgs: {shown}"


def print_rules(rules: Iterable[Rule]) -> None:
    """Print what each rule means and what to do about its findings."""
    console = printing.console()
    for rule in rules:
        head = Text(rule.name, "bold").append("  ")
        head.append(rule.severity.value, printing.COLOURS[rule.severity])
        console.print(head.append(f"  {about(rule)}", "dim"))
        printing.say(console, meaning(rule), indent=4)
        printing.say(console, f"→ {rule.remedy}", indent=4)
        if rule.server_remedy and rule.server_remedy != rule.remedy:
            printing.say(console, f"→ on the {Side.SERVER}'s side: {rule.server_remedy}", indent=4)
        if rule.reference != "-":
            printing.say(console, rule.reference, "dim", indent=4)
