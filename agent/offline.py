"""The commands that use no network: `inspect`, `rules` and `forecast`, from arguments to exit code.

They import little, so that `inspect` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent import audit, forecast, icalendar, rulebook, terminal_policy
from agent.audit import Question
from agent.certificate import Certificate
from agent.chain import read_chain
from agent.policy.rule import Evidence
from agent.policy.tables import (
    ChromeList,
    read_chrome_list,
    shipped_anchors,
    shipped_tables,
    with_chrome_list,
)


def inspect(
    files: Sequence[Path],
    *,
    at: str | None,
    profile: str,
    host: str | None,
    roots: Path | None,
    chrome_roots: Path | None,
    as_json: bool,
    now: datetime,
) -> int:
    """Audit each file and print what was found.

    Return 0 when all is clean, 1 when anything is a warning or worse, 2 when a file or an argument
    cannot be used.
    """
    tables = shipped_tables()
    if profile not in tables.profiles:
        known = ", ".join(tables.profiles)
        return _refuse(f"there is no profile {profile!r}; there are: {known}")
    try:
        moment = now if at is None else audit.moment(at)
    except ValueError as error:
        return _refuse(f"--at: {error}")
    try:
        operators = () if roots is None else _operators(roots)
        listed = None if chrome_roots is None else _chrome_list(chrome_roots)
    except ValueError as error:
        return _refuse(str(error))
    anchors = shipped_anchors(operators, listed)
    if chrome_roots is not None and listed is not None:
        dated = datetime.fromtimestamp(chrome_roots.stat().st_mtime, UTC)
        tables = with_chrome_list(tables, listed, otherwise=dated)
        if unknown := listed.without_certificate(anchors):
            _refuse(f"--chrome-roots: no certificate is known here of {len(unknown)} of its roots")
    question = Question(moment, supposed=at is not None, profile=profile, host=host)
    audits = [audit.audit_file(file, question, tables, anchors) for file in files]
    if as_json:
        _print_json(audit.as_json(audits))
    else:
        terminal_policy.print_audits(audits)
    return max(found.exit_code for found in audits)


def _operators(roots: Path) -> tuple[Certificate, ...]:
    chain = read_chain(_content("--roots", roots))
    if chain.problems:
        raise ValueError(f"--roots {roots}: {'; '.join(chain.problems)}")
    return chain.certificates


def _chrome_list(file: Path) -> ChromeList:
    try:
        return read_chrome_list(_content("--chrome-roots", file).decode())
    except ValueError as error:
        raise ValueError(f"--chrome-roots {file}: {error}") from error


def _content(option: str, file: Path) -> bytes:
    source = audit.read_source(file)
    if isinstance(source, str):
        raise ValueError(f"{option} {file}: {source}")  # noqa: TRY004 - it is the reason
    return source.content


def rules(name: str | None, *, as_json: bool) -> int:
    """Print what the rule means, or all of them when it is None; return 1 when there is none."""
    chosen = rulebook.chosen(name)
    if not chosen:
        _refuse(f"there is no rule {name!r}; `sfmtls-agent rules` lists them")
        return 1
    if as_json:
        _print_json(rulebook.as_json(chosen))
    else:
        terminal_policy.print_rules(chosen)
    return 0


def show_forecast(
    known: Iterable[Evidence],
    problems: Sequence[str],
    *,
    months: int,
    as_json: bool,
    ics: Path | None,
    now: datetime,
) -> int:
    """Print the forecast, or write it as a calendar.

    `problems` say which orgs could not be forecast completely. Return 1 when there are any or the
    calendar cannot be written, else 0: that something will stop is no failure.
    """
    for problem in problems:
        _refuse(problem)
    events = forecast.forecast(known, now, months)
    if ics is not None:
        try:
            ics.write_bytes(icalendar.calendar(events, now))
        except OSError as error:
            return _refuse(f"--ics {ics}: {error.strerror or error}", 1)
    elif as_json:
        _print_json(forecast.as_json(events, now))
    else:
        terminal_policy.print_events(events, now, forecast.after(now, months))
    return 1 if problems else 0


def _print_json(value: object) -> None:
    # Names come out of files that strangers made: escaped, they cannot steer a terminal.
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def _refuse(message: str, code: int = audit.UNREADABLE) -> int:
    sys.stderr.write(message + "\n")
    return code
