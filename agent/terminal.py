"""How the commands show things to a person: tables, and under them what to do.

On a terminal there is colour; into a pipe the same text goes without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from agent import printing
from agent.certificate import Certificate
from agent.diagnosis import Cause, Confidence, by_probe
from agent.drawing import printable
from agent.inspection import Inspection
from agent.once import BreakerShown, Seen
from agent.policy import Judgement
from agent.policy.rule import Severity, Violation
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    Outcome,
    Probe,
    SkipCause,
    Skipped,
    Success,
    Undetermined,
)
from agent.simulator.scenario import Scenario

_PROBES: Final = (
    Probe.HANDSHAKE,
    Probe.LOGIN,
    Probe.SESSION,
    Probe.REFUSAL,
    Probe.ENFORCEMENT,
)
# Of more orgs than these nobody reads a line each.
_MANY: Final = 100
_WORTH_SAYING: Final = frozenset(
    {
        SkipCause.BREAKER_OPEN,
        SkipCause.BUDGET,
        SkipCause.IN_FLIGHT,
        SkipCause.MAINTENANCE,
        SkipCause.STATE_UNAVAILABLE,
    }
)


def print_cycles(seen: Sequence[Seen], *, everything: bool) -> None:
    """Print one line for each org, then org by org what is wrong and what to do about it.

    `everything` shows findings that are only information too.
    """
    console = printing.console()
    shown = [p for p in _PROBES if any(p in result.outcomes for result, _ in seen)]
    columns = ("org", "door", *(probe.value for probe in shown))
    table = _table(*columns, "client cert", "server cert", "ms")
    now = datetime.now(UTC)
    for result, _ in seen:
        table.add_row(
            _plain(result.org),
            _door(result.client_auth),
            *(_outcome(result.outcomes.get(probe)) for probe in shown),
            _days_left(result.client_chain, now),
            _days_left(result.server_chain, now),
            f"{sum(result.stages.values()) * 1000:.0f}",
        )
    console.print(table)
    found = [(result.org, judgement) for result, judgement in seen]
    worth, common, hidden = _worth_showing(found, everything=everything)
    for result, judgement in seen:
        causes = by_probe(result, judgement)
        failures = (
            _failure(probe, outcome, causes.get(probe, ()))
            for probe, outcome in result.outcomes.items()
        )
        _print_trouble(console, result.org, (*failures, *worth[result.org]))
    _print_common(console, common)
    failed = sum(not result.healthy for result, _ in seen)
    console.print(
        f"{printing.count(len(seen), 'org')}: "
        + (f"[red]{failed} failed[/red]" if failed else "[green]all well[/green]")
        + (f" ({printing.count(hidden, 'note')} not shown; --all)" if hidden else "")
    )


def print_inspections(inspections: Sequence[Inspection]) -> None:
    """Print one line for each org, then the problems, warnings and findings of the policy.

    Of many orgs only those have a line of whom there is something to say.
    """
    console = printing.console()
    table = _table("org", "host", "login as", "client certificate", "days left", "configuration")
    now = datetime.now(UTC)
    judged = [(found.org.name, found.judgement) for found in inspections]
    worth, common, _ = _worth_showing(judged, everything=False)
    listed = [
        found
        for found in inspections
        if len(inspections) <= _MANY or (found.problems or found.warnings or worth[found.org.name])
    ]
    for found in listed:
        org = found.org
        chain = found.identity.chain if found.identity else ()
        table.add_row(
            _plain(org.name),
            _plain(f"{org.endpoint.host}:{org.endpoint.port}"),
            _plain(org.login.username) if org.login else "[dim]door only[/dim]",
            _plain(chain[0].subject) if chain else "-",
            _days_left(chain, now),
            "[red]not usable[/red]" if found.problems else "[green]good[/green]",
        )
    if listed:
        console.print(table)
    if len(listed) < len(inspections):
        others = printing.count(len(inspections) - len(listed), "other org" if listed else "org")
        console.print(f"{others}: [green]good[/green]\n")
    for found in listed:
        problems = (f"[red]{_plain(problem)}[/red]" for problem in found.problems)
        warnings = (f"[yellow]{_plain(warning)}[/yellow]" for warning in found.warnings)
        _print_trouble(console, found.org.name, (*problems, *warnings, *worth[found.org.name]))
    _print_common(console, common)


def print_endpoint(problems: Sequence[str], warnings: Sequence[str]) -> None:
    """Print what is wrong with the endpoint's protection; nothing when nothing is."""
    told = (
        *(f"[red]{_plain(problem)}[/red]" for problem in problems),
        *(f"[yellow]{_plain(warning)}[/yellow]" for warning in warnings),
    )
    _print_trouble(printing.console(), "endpoint", told)


def print_reasons(reasons: Iterable[Reason]) -> None:
    """Print what each reason means and what to do about it."""
    console = printing.console()
    for reason in reasons:
        stops = "  [dim](stops logins)[/dim]" if reason.opens_breaker else ""
        console.print(f"[bold]{reason.value}[/bold]{stops}")
        printing.say(console, reason.meaning, indent=4)
        printing.say(console, f"→ {reason.remedy}", indent=4)


def print_breakers(breakers: Sequence[BreakerShown]) -> None:
    """Print how each org's logins stand."""
    table = _table("org", "user", "logins", "because", "next try", "left this hour")
    for shown in breakers:
        table.add_row(
            _plain(shown.org),
            _plain(shown.username),
            f"[red]stopped {printing.moment(shown.opened_at)}[/red]"
            if shown.opened_at
            else "allowed",
            shown.opened_by.value if shown.opened_by else "",
            printing.moment(shown.until) if shown.until else ("now" if shown.opened_at else ""),
            f"{shown.budget_remaining} of {shown.logins_per_hour}",
        )
    printing.console().print(table)


def print_scenarios(scenarios: Iterable[Scenario]) -> None:
    """Print every scenario with what it is."""
    table = _table("scenario", "what the far side does", "client_auth")
    for scenario in scenarios:
        table.add_row(scenario.name, _plain(scenario.summary), scenario.expected_client_auth.value)
    printing.console().print(table)


@contextmanager
def progress(total: int, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that is told what is done; on a terminal a bar shows it."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("probing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[org]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("probing", total=total, org="")
        yield lambda org: bar.update(task, advance=1, org=org)


def _worth_showing(
    found: Sequence[tuple[str, Judgement]], *, everything: bool
) -> tuple[dict[str, list[str]], dict[str, list[str]], int]:
    """Part findings into those of one org and those that several share, which are said once.

    Returns the texts of the former by org, the orgs of the latter by text, and how many were left
    out.
    """
    texts: dict[str, list[str]] = {}
    orgs: dict[str, list[str]] = {}
    hidden = 0
    for org, judgement in found:
        shown = [v for v in judgement.violations if everything or v.severity is not Severity.INFO]
        hidden += len(judgement.violations) - len(shown)
        texts[org] = [*map(_finding, shown), *_suppressions(judgement)]
        for text in texts[org]:
            orgs.setdefault(text, []).append(org)
    common = {text: names for text, names in orgs.items() if len(names) > 1}
    worth = {org: [t for t in of_org if t not in common] for org, of_org in texts.items()}
    return worth, common, hidden


def _print_trouble(console: Console, org: str, texts: Iterable[str]) -> None:
    shown = [text for text in texts if text]
    if not shown:
        return
    console.print(f"[bold]{_plain(org)}[/bold]")
    for text in shown:
        console.print(Padding(text, (0, 0, 0, 2)))
    console.print()


def _print_common(console: Console, common: Mapping[str, Sequence[str]]) -> None:
    for text, orgs in common.items():
        console.print(f"[bold]{len(orgs)} orgs[/bold]: {_plain(printing.names(orgs))}")
        console.print(Padding(text, (0, 0, 0, 2)))
        console.print()


def _failure(probe: Probe, outcome: Outcome, causes: Sequence[Cause]) -> str:
    match outcome:
        case Failure(reason, detail):
            said = f" ({detail})" if detail else ""
            head = (
                f"[red]{probe.value}: {reason.value}[/red]\n"
                f"  {_plain(reason.meaning + said)}\n  → {_plain(reason.remedy)}"
            )
            return "\n".join((head, *map(_cause, causes)))
        case Undetermined(_, detail):
            return f"[yellow]{probe.value}: undetermined[/yellow]\n  {_plain(detail)}"
        case Skipped(cause, detail) if cause in _WORTH_SAYING:
            return f"[yellow]{probe.value}: not tried, {cause.value}[/yellow] {_plain(detail)}"
        case Success() | Skipped():
            return ""


def _cause(cause: Cause) -> str:
    style = "dim" if cause.confidence is Confidence.POSSIBLE else "yellow"
    return (
        f"  [{style}]{cause.confidence.value}: {cause.name}[/{style}]\n"
        f"    {_plain(cause.sentence)}\n    → {_plain(cause.remedy)}"
    )


def _finding(violation: Violation) -> str:
    colour = printing.COLOURS[violation.severity]
    return (
        f"[{colour}]{violation.severity.value}: {violation.rule}[/{colour}]\n"
        f"  {_plain(violation.message)}\n  → {_plain(violation.remedy)}"
    )


def _suppressions(judgement: Judgement) -> Iterator[str]:
    """Yield a line for each suppression that something is suppressed by."""
    counts = Counter(known.suppression for known in judgement.suppressed)
    for suppression, count in counts.items():
        said = f"{suppression.until:%Y-%m-%d}: {suppression.rule}, {suppression.reason}"
        yield f"[dim]{count} suppressed until {_plain(said)}[/dim]"


def _plain(text: str) -> str:
    """Return text of anybody's that is neither markup nor can steer the terminal."""
    return escape(printable(text, None))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"org", "door", "ms"})
    return table


def _door(verdict: ClientAuth) -> str:
    colour = "green" if verdict is ClientAuth.ACCEPTED else "red"
    return f"[{colour}]{verdict.value}[/{colour}]"


def _outcome(outcome: Outcome | None) -> str:
    match outcome:
        case None:
            return ""
        case Success():
            return "[green]ok[/green]"
        case Failure():
            return "[red]failed[/red]"
        case Undetermined():
            return "[yellow]undetermined[/yellow]"
        case Skipped():
            return "[dim]-[/dim]"


def _days_left(chain: Sequence[Certificate], now: datetime) -> str:
    if not chain:
        return "-"
    days = (min(certificate.not_after for certificate in chain) - now).total_seconds() / 86400
    if days < 0:
        return f"[bold red]expired {-days:.0f} d ago[/bold red]"
    return f"{days:.0f} d"
