"""What a cause is, the case that it is looked for in, and its registration.

A cause is one function of a Case, decorated with `@cause`, or one row of a table. Its name is the
metric label, its docstring the documentation. It returns a Suspicion with the evidence in a
sentence, or None. It must never quote what a server wrote freely: an error text may hold a secret.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from agent.policy import Judgement
from agent.policy.rule import Severity, Side, Violation
from agent.reason import Reason
from agent.result import Failure, HandshakeOutcome, Probe, ProbeResult, Refused, Stage


class Confidence(StrEnum):
    """How sure a cause is: proven by what was seen, spoken for by it, or only not excluded."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"

    @property
    def rank(self) -> int:
        """0 for certain, 1 for likely, 2 for possible."""
        return _RANKS[self.value]


_RANKS: Final = {"certain": 0, "likely": 1, "possible": 2}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a probe failed, in a sentence with its evidence, and what to do; `basis` is the source.

    `name` is a metric label: renaming one is a breaking change.
    """

    name: str
    confidence: Confidence
    sentence: str
    remedy: str
    basis: str

    def __repr__(self) -> str:
        """Say what it is and how sure."""
        return f"<Cause {self.name}, {self.confidence}: {self.sentence}>"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a cause's function found.

    `evidence` is whole sentences, or a few words that will stand in parentheses; `remedy` is what
    differs from the cause's own.
    """

    confidence: Confidence
    evidence: str = ""
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One failed probe of one cycle, and what the policy found in our own files."""

    probe: Probe
    failure: Failure
    result: ProbeResult
    judgement: Judgement

    @property
    def reason(self) -> Reason:
        """Why the probe failed, as far as it could see."""
        return self.failure.reason

    @property
    def detail(self) -> str:
        """What goes with the reason; where a server wrote it, it is never quoted."""
        return self.failure.detail

    @property
    def handshake(self) -> HandshakeOutcome | None:
        """What the handshake showed, if there was one."""
        return self.result.handshake

    @property
    def alert(self) -> str | None:
        """The last fatal TLS alert of the server, if it sent one."""
        return self.handshake.alert if self.handshake else None

    @property
    def code(self) -> str:
        """Salesforce's own word for a refused login; empty when it said none."""
        login = self.result.login
        if self.probe is not Probe.LOGIN or not isinstance(login, Refused):
            return ""
        return login.code or ""

    @property
    def status(self) -> int | None:
        """The HTTP status of a server or a proxy, where it was not the right one."""
        # Our own words, of agent.login.answer and agent.probe.proxy.
        told = re.match(r"(?:HTTP|the proxy answered) (\d{3})\b", self.detail)
        return int(told[1]) if told else None

    @property
    def at_the_door(self) -> bool:
        """The door request was under way when the handshake probe failed."""
        return self.probe is Probe.HANDSHAKE and Stage.DOOR in self.result.stages

    @property
    def certificate_sent(self) -> bool:
        """The server was given a certificate of ours."""
        return self.handshake is not None and self.handshake.certificate_sent

    @property
    def unanswered(self) -> bool:
        """The server closed before anything of an answer had come."""
        return self.detail.endswith(" without an answer")  # our own words, of probe.http

    @property
    def cut_short(self) -> bool:
        """The server closed when a part of an answer had come."""
        return self.detail.endswith(" in the middle of the answer")  # likewise

    @property
    def closes_each_time(self) -> bool:
        """The server ends the connection after each answer, and TLS gives no verdict."""
        return "closes after each answer" in self.detail  # our own words, of probe.conversation

    def finding(self, *rules: str) -> Violation | None:
        """Return the first finding of these rules; what is suppressed is true all the same."""
        return self._first(rules, frozenset(Side), Severity.INFO)

    def ours(self, *rules: str, least: Severity = Severity.INFO) -> Violation | None:
        """Return the first finding of these rules that is not about the server's certificates."""
        return self._first(rules, frozenset({Side.CLIENT, Side.ORG}), least)

    def theirs(self, *rules: str) -> Violation | None:
        """Return the first finding of these rules that is about the server's certificates."""
        return self._first(rules, frozenset({Side.SERVER}), Severity.INFO)

    def _first(
        self, rules: tuple[str, ...], sides: frozenset[Side], least: Severity
    ) -> Violation | None:
        suppressed = (known.violation for known in self.judgement.suppressed)
        found = (*self.judgement.violations, *suppressed)
        fits = (v for v in found if v.rule in rules and v.side in sides and v.severity >= least)
        return next(fits, None)


Look = Callable[[Case], Suspicion | None]


@dataclass(frozen=True, slots=True)
class Known:
    """One registered cause: what it means, what to do about it, and where that is written."""

    name: str
    meaning: str
    remedy: str
    basis: str
    module: str
    look: Look = field(repr=False, compare=False)

    def of(self, case: Case) -> Cause | None:
        """Return the cause as far as this case has it."""
        found = self.look(case)
        if found is None:
            return None
        return Cause(
            name=self.name,
            confidence=found.confidence,
            sentence=_told(self.meaning, found.evidence),
            remedy=found.remedy or self.remedy,
            basis=self.basis,
        )


def _told(meaning: str, evidence: str) -> str:
    if evidence.endswith((".", "…")):
        return f"{meaning} {evidence}"
    return f"{meaning.removesuffix('.')} ({evidence})." if evidence else meaning


_registered: Final[dict[str, Known]] = {}

# Every cause by name, of equal confidence the more common one first: what may become the label
# `cause`.
CATALOGUE: Final[Mapping[str, Known]] = MappingProxyType(_registered)


def cause(*, remedy: str, basis: str = "-") -> Callable[[Look], Look]:
    """Register a function as a cause; TypeError when its name is taken or it has no docstring."""

    def register(look: Look) -> Look:
        meaning = " ".join((inspect.getdoc(look) or "").split())
        add(Known(look.__name__, meaning, remedy, basis, look.__module__, look))
        return look

    return register


def add(known: Known) -> None:
    """Register a cause; TypeError when its name is taken or something of it is not said."""
    if known.name in _registered:
        raise TypeError(f"two causes are called {known.name!r}")
    if not known.meaning or not known.remedy:
        raise TypeError(f"cause {known.name!r} does not say what it means and what to do about it")
    _registered[known.name] = known


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cause that follows from the reason, with one more condition at most.

    Evidence is what the policy found by `rule` about the server, or the failure's detail where
    `quotes` says that it was written by ourselves. The remedy is the first reason's unless there is
    a better one.
    """

    name: str
    reasons: tuple[Reason, ...]
    confidence: Confidence
    meaning: str
    remedy: str | None = None
    when: Callable[[Case], bool] = lambda _: True
    quotes: bool = False
    rule: str | None = None
    basis: str = "-"

    def look(self, case: Case) -> Suspicion | None:
        """Look for it."""
        if case.reason not in self.reasons or not self.when(case):
            return None
        found = case.theirs(self.rule) if self.rule else None
        told = found.message if found else ""
        return Suspicion(self.confidence, case.detail if self.quotes else told)


def rows(module: str, *table: Row) -> None:
    """Register the rows of a module as causes."""
    for row in table:
        remedy = row.remedy or row.reasons[0].remedy
        add(Known(row.name, row.meaning, remedy, row.basis, module, row.look))
