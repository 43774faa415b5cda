"""TOML text → Settings, or one ConfigError that names every problem by its key.

`tables` is the list of keys. What leaves this package are the frozen values of `org` and
`settings`, with nothing left to check. No text from the file is quoted in a message, so that a
secret in the wrong place is not shown either.

On the way: `files` reads TOML, `parse` makes tables of it (`tables`, `values`), here they are
merged with the defaults, `checks` looks across keys, and `build` makes the result.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.config.build import org_of, state_directory_of, timeouts_of
from agent.config.checks import CHECKS, LABELS_TAKEN, LONGEST_LABEL_VALUE, timeout_complaints
from agent.config.files import File, included_files, read_file
from agent.config.kept import Kept, written
from agent.config.parse import parse
from agent.config.problem import ConfigError, Location, Problem, key_path
from agent.config.settings import (
    AGENT,
    LISTEN,
    AgentSettings,
    LogFormat,
    LogLevel,
    Settings,
    WebSettings,
)
from agent.config.tables import (
    AgentTable,
    IncludedFile,
    Key,
    MainFile,
    MaintenanceTable,
    OrgTable,
    PolicyTable,
    WebTable,
    given_in,
    keys,
)
from agent.config.values import (
    crontab_gap,
    duration,
    listen_address,
    moment,
    one_line,
    told,
)
from agent.org import Org, SecretSource, SessionCall

__all__ = [
    "AgentSettings",
    "ConfigError",
    "Kept",
    "Key",
    "LogFormat",
    "LogLevel",
    "Problem",
    "Settings",
    "WebSettings",
    "duration",
    "key_path",
    "keys",
    "listen_address",
    "load",
    "moment",
    "one_line",
    "secrets_of",
]


def load(path: Path, environ: Mapping[str, str] = os.environ, kept: Kept | None = None) -> Settings:
    """Return the settings in `path` and the files it includes; ConfigError names every problem.

    `kept` is for whoever loads again and again: orgs that are as before are not made anew.
    """
    problems: list[Problem] = []
    main = read_file(path, problems)
    if main is None:
        raise ConfigError(tuple(problems))
    kept = kept or Kept()
    known = kept.known(main)
    sources = [*_known_of(main, known)]
    tables, bad = parse(_without(main, sources), MainFile, problems)
    sources += _orgs_of(main, tables, bad)
    for included in included_files(main, tables.include or (), problems):
        as_before = [*_known_of(included, known)]
        its_tables, its_bad = parse(_without(included, as_before), IncludedFile, problems)
        sources += as_before + _orgs_of(included, its_tables, its_bad)
    top = _Top(main, tables, bad)
    orgs = _orgs(top, sources, problems)
    agent = _agent(top, environ, problems)
    if problems:
        raise ConfigError(_in_order(problems, main))
    kept.keep(
        main,
        {s.name: (s.written, orgs[s.name]) for s in sources if s.written is not None},
    )
    web = tables.web or WebTable()
    host, port = web.listen or LISTEN
    return Settings(
        agent=agent,
        web=WebSettings(
            host, port, bool(web.lifecycle), Path(web.config_file) if web.config_file else None
        ),
        orgs=MappingProxyType(orgs),
        path=path,
    )


def secrets_of(org: Org) -> tuple[tuple[str, SecretSource], ...]:
    """Return every secret that the org needs: the path of its key, and where it is kept."""
    proxy, login = org.endpoint.proxy, org.login
    named = (
        ("private_key_passphrase", org.identity.private_key_passphrase),
        ("proxy.password", proxy.password if proxy else None),
        ("password", login.password if login else None),
        ("security_token", login.security_token if login else None),
    )
    prefix = key_path(("orgs", org.name))
    return tuple((f"{prefix}.{key}", source) for key, source in named if source is not None)


@dataclass(frozen=True, slots=True)
class _Top:
    """The main file's tables that all orgs share."""

    file: File
    tables: MainFile
    bad: frozenset[Location]

    @property
    def agent(self) -> AgentTable:
        """The agent's table, empty when it is absent."""
        return self.tables.agent or AgentTable()

    @property
    def defaults(self) -> OrgTable:
        """The defaults, empty when they are absent."""
        return self.tables.defaults or OrgTable()


_NOTHING: Final = OrgTable()


@dataclass(frozen=True, slots=True)
class _OrgSource:
    """One [orgs.NAME] table, in the file where it stands.

    `known` is the org when all of this is as it was, and then `table` is left empty.
    """

    name: str
    file: File
    written: int | None
    table: OrgTable
    bad: frozenset[Location] = frozenset()
    known: Org | None = None

    @property
    def location(self) -> Location:
        """Where it stands."""
        return ("orgs", self.name)


def _orgs_of(
    file: File, tables: MainFile | IncludedFile, bad: frozenset[Location]
) -> list[_OrgSource]:
    text = file.content.get("orgs", {})
    return [
        _OrgSource(name, file, written(file, text.get(name)), table, bad)
        for name, table in (tables.orgs or {}).items()
    ]


def _known_of(file: File, known: Mapping[str, tuple[int, Org]]) -> Iterator[_OrgSource]:
    """Yield the orgs of which there stands what stood there the last time."""
    tables = file.content.get("orgs")
    for name, table in tables.items() if known and isinstance(tables, dict) else ():
        before, org = known.get(name, (None, None))
        if org is not None and before == written(file, table):
            yield _OrgSource(name, file, before, _NOTHING, known=org)


def _without(file: File, sources: Sequence[_OrgSource]) -> File:
    """Return the file with those orgs left out."""
    if not sources:
        return file
    names = {source.name for source in sources}
    rest = {name: table for name, table in file.content["orgs"].items() if name not in names}
    return replace(file, content={**file.content, "orgs": rest})


# Whoever has one of these problems has orgs in mind, if only in a file that could not be read.
_ABOUT_ORGS: Final = ("orgs", "include")


def _orgs(top: _Top, sources: Sequence[_OrgSource], problems: list[Problem]) -> dict[str, Org]:
    first: dict[str, _OrgSource] = {}
    found: dict[str, Org] = {}
    usual = _usual(top)
    problems += _label_problems(top.file, ("defaults", "labels"), top.defaults)
    problems += _suppression_problems(top.file, ("defaults",), top.defaults, top.bad)
    problems += _maintenance_problems(top.file, ("defaults",), top.defaults, top.bad)
    for source in sources:
        if other := first.get(source.name):
            message = f"{other.file.path} has an org of this name too; each needs its own"
            problems.append(source.file.problem(source.location, message))
        first.setdefault(source.name, source)
        if source.known is not None:
            found[source.name] = source.known
            continue
        problems += _label_problems(source.file, (*source.location, "labels"), source.table)
        problems += _suppression_problems(source.file, source.location, source.table, source.bad)
        problems += _maintenance_problems(source.file, source.location, source.table, source.bad)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", source.name):
            message = "the name needs 1 to 63 letters, digits, dots, hyphens and underscores, and "
            message += "begins with a letter or digit"
            problems.append(source.file.problem(source.location, message))
        merged = _over(usual, source.table)
        wrong = list(_cross_problems(top, source, merged))
        problems += wrong
        if not wrong and not problems:
            found[source.name] = org_of(source.name, merged)
    if (
        top.defaults.soql is not None
        and not problems
        and not any(org.session.call is SessionCall.QUERY for org in found.values())
    ):
        message = 'is only for session_call = "query", and no org has that'
        problems.append(top.file.problem(("defaults", "soql"), message))
    if not sources and all(
        problem.key and not problem.key.startswith(_ABOUT_ORGS) for problem in problems
    ):
        problems.append(
            top.file.problem(("orgs",), "no org is configured; add a table such as [orgs.emea]")
        )
    return found


def _label_problems(file: File, location: Location, table: OrgTable) -> Iterator[Problem]:
    for name, value in (table.labels or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("__"):
            message = "is not a label name: letters, digits and single underscores at its start"
        elif name in LABELS_TAKEN:
            message = "is a label that the agent sets itself; choose another name"
        elif len(value) > LONGEST_LABEL_VALUE:
            message = f"is longer than {LONGEST_LABEL_VALUE} characters"
        else:
            continue
        yield file.problem((*location, name), message)


_SUPPRESSION_NEEDS: Final[Mapping[str, str]] = {
    "rule": "the name of a rule is needed; `sfmtls-agent rules` shows all",
    "until": "the date on which it ends is needed, such as 2027-01-01",
    "reason": "a reason is needed, for whoever reads it later",
}


def _suppression_problems(
    file: File, location: Location, table: OrgTable, bad: frozenset[Location]
) -> Iterator[Problem]:
    first: dict[tuple[str, str | None], int] = {}
    suppressions = table.policy.suppress if table.policy else None
    for place, suppression in enumerate(suppressions or ()):
        where = (*location, "policy", "suppress", place)
        for key, message in _SUPPRESSION_NEEDS.items():
            if getattr(suppression, key) is None and (*where, key) not in bad:
                yield file.problem((*where, key), message)
        if suppression.rule is None or (*where, "fingerprint") in bad:
            continue
        known = first.setdefault((suppression.rule, suppression.fingerprint), place)
        if known != place:
            message = f"suppress[{known}] is about the same; one is enough"
            yield file.problem((*where, "rule"), message)


def _maintenance_problems(
    file: File, location: Location, table: OrgTable, bad: frozenset[Location]
) -> Iterator[Problem]:
    for place, window in enumerate(table.maintenance or ()):
        where = (*location, "maintenance", place)
        wrong = _wrong(bad, where)
        for key, message in _window_complaints(window, wrong):
            yield file.problem((*where, key) if key else where, message)


def _window_complaints(window: MaintenanceTable, wrong: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between the keys of a window: the key to blame and a sentence."""
    again = window.cron is not None or "cron" in wrong
    once = window.until is not None or "until" in wrong
    if again and once:
        yield "until", "is for what happens once, and cron for what happens again: make two of it"
    elif again:
        if window.duration is None and "duration" not in wrong:
            yield "duration", 'is needed beside cron, such as "4h"'
        yield from _misplaced(window, {"begins": "from"}, "once, with until")
    elif once:
        keys = {"duration": "duration", "timezone": "timezone"}
        yield from _misplaced(window, keys, "again, with cron")
    elif not wrong:
        yield "", "says no time: give cron and duration, or until"
    yield from _length_complaints(window)


def _misplaced(
    window: MaintenanceTable, keys: Mapping[str, str], where: str
) -> Iterator[tuple[str, str]]:
    for name, key in keys.items():
        if getattr(window, name) is not None:
            yield key, f"is only for what happens {where}"


def _length_complaints(window: MaintenanceTable) -> Iterator[tuple[str, str]]:
    if window.begins is not None and window.until is not None and window.begins >= window.until:
        yield "from", "is not before until"
    if window.cron is not None and window.duration is not None:
        gap = crontab_gap(window.cron)
        if gap <= timedelta(seconds=window.duration):
            yield (
                "duration",
                f"is not over when the next one begins, {told(gap.total_seconds())} on",
            )


def _usual(top: _Top) -> OrgTable:
    """Return what an org has that says nothing: the defaults over what the agent's table says."""
    shared = OrgTable.model_construct(
        interval=top.agent.interval,
        login_interval=top.agent.login_interval,
        timeouts=top.agent.timeouts,
    )
    return _over(shared, top.defaults)


def _over(under: OrgTable, upper: OrgTable) -> OrgTable:
    """Return one table over another.

    Trust, policy, timeouts and labels merge key by key, and suppressions and maintenance add up; a
    secret, a certificate and a proxy are one thing each and are replaced as a whole.
    """
    changes = given_in(upper)
    if under.trust and upper.trust:
        changes["trust"] = under.trust.model_copy(update=given_in(upper.trust))
    if under.policy and upper.policy:
        changes["policy"] = _policy_over(under.policy, upper.policy)
    if under.timeouts and upper.timeouts:
        changes["timeouts"] = under.timeouts.model_copy(update=given_in(upper.timeouts))
    if under.maintenance and upper.maintenance:
        changes["maintenance"] = [*under.maintenance, *upper.maintenance]
    if under.labels and upper.labels:
        changes["labels"] = {**under.labels, **upper.labels}
    return under.model_copy(update=changes)


def _policy_over(under: PolicyTable, upper: PolicyTable) -> PolicyTable:
    changes = given_in(upper)
    if under.suppress and upper.suppress:
        changes["suppress"] = [*under.suppress, *upper.suppress]
    return under.model_copy(update=changes)


def _cross_problems(top: _Top, source: _OrgSource, merged: OrgTable) -> Iterator[Problem]:
    wrong = _wrong(source.bad, source.location)
    wrong |= _wrong(top.bad, ("defaults",)) | _wrong(top.bad, ("agent",))
    for check in CHECKS:
        if wrong.isdisjoint(check.reads):
            for key, message in check.complaints(merged):
                yield _blame(top, source, tuple(key.split(".")), message)
    if (
        source.table.soql is not None
        and merged.session_call is not SessionCall.QUERY
        and "session_call" not in wrong
    ):
        message = 'is only for session_call = "query"'
        yield source.file.problem((*source.location, "soql"), message)


def _wrong(bad: frozenset[Location], table: Location) -> set[str]:
    """Return the keys of a table that are wrong, or in which something is, dotted."""
    begin = len(table)
    return {
        key_path(place[begin:end])
        for place in bad
        if place[:begin] == table
        for end in range(begin + 1, len(place) + 1)
    }


def _blame(top: _Top, source: _OrgSource, key: tuple[str, ...], message: str) -> Problem:
    """Make the problem where the key was written: at the org, in the defaults, at the agent."""
    if _has(source.table, key):
        return source.file.problem((*source.location, *key), message)
    for name, table in (("defaults", top.defaults), ("agent", top.agent)):
        if _has(table, key):
            return top.file.problem((name, *key), message)
    return source.file.problem((*source.location, *key), message)


def _has(table: object, key: Sequence[str]) -> bool:
    for part in key:
        table = getattr(table, part, None)
    return table is not None


def _agent(top: _Top, environ: Mapping[str, str], problems: list[Problem]) -> AgentSettings:
    table = top.agent
    interval = table.interval or AGENT.interval
    wrong = _wrong(top.bad, ("agent",))
    if wrong.isdisjoint({"interval", "timeouts"}):
        for key, message in timeout_complaints(table.interval, table.timeouts):
            problems.append(top.file.problem(("agent", *key.split(".")), message))
    hold = table.breaker_hold or AGENT.breaker_hold
    longest = table.breaker_hold_max or AGENT.breaker_hold_max
    if hold > longest and wrong.isdisjoint({"breaker_hold", "breaker_hold_max"}):
        message = f"{told(hold)} is longer than breaker_hold_max ({told(longest)})"
        problems.append(top.file.problem(("agent", "breaker_hold"), message))
    return AgentSettings(
        interval=interval,
        login_interval=table.login_interval or AGENT.login_interval,
        timeouts=timeouts_of(interval, table.timeouts),
        max_in_flight=table.max_in_flight or AGENT.max_in_flight,
        state_directory=state_directory_of(table, environ),
        log_level=table.log_level or AGENT.log_level,
        log_format=table.log_format or AGENT.log_format,
        resolver_threads=table.resolver_threads or AGENT.resolver_threads,
        breaker_hold=hold,
        breaker_hold_max=longest,
    )


def _in_order(problems: Sequence[Problem], main: File) -> tuple[Problem, ...]:
    """Put each problem once, in the order in which a reader meets them."""
    return tuple(
        sorted(
            dict.fromkeys(problems),
            key=lambda problem: (
                problem.file != str(main.path),
                problem.file,
                problem.line or 0,
            ),
        )
    )
