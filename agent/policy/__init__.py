"""Judges what was seen: evaluate(evidence) → violations.

Every module in this package holds rules of one subject and is found by being here. Nothing in the
package does I/O, reads a clock or knows a probe; the same evidence always gives the same judgement.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.org import Suppression
from agent.policy.deadline import deadlines
from agent.policy.rule import (
    CATALOGUE,
    Evidence,
    Finding,
    Rule,
    Severity,
    Side,
    Violation,
)

__all__ = [
    "CATALOGUE",
    "Evidence",
    "Judgement",
    "Severity",
    "Side",
    "Suppressed",
    "Violation",
    "deadlines",
    "evaluate",
]

# What the rules are made of, rather than rules.
_NOT_RULES: Final = frozenset({"deadline", "rule", "tables", "wording"})


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that the operator knows about, and why."""

    violation: Violation
    suppression: Suppression


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong, worst first; what the operator suppressed; which rules lacked evidence."""

    violations: tuple[Violation, ...]
    not_evaluated: tuple[str, ...]
    suppressed: tuple[Suppressed, ...] = ()

    def count(self) -> Mapping[Severity, int]:
        """Return the number of violations of each severity, none left out."""
        return {
            severity: sum(violation.severity is severity for violation in self.violations)
            for severity in Severity
        }


def evaluate(evidence: Evidence, rules: Mapping[str, Rule] = CATALOGUE) -> Judgement:
    """Return the judgement of every rule; a rule that raises becomes an `internal` finding."""
    not_evaluated: list[str] = []
    found: list[Violation] = []
    seen = evidence.seen()
    for name, rule in sorted(rules.items()):
        if rule.lacks_evidence(seen):
            not_evaluated.append(name)
            continue
        try:
            findings = tuple(rule.check(evidence))
        except Exception as error:  # noqa: BLE001 - one rule's bug must not silence the others
            found.append(_failed(name, error))
        else:
            found.extend(_violation(rule, finding) for finding in findings)
    violations: list[Violation] = []
    suppressed: list[Suppressed] = []
    for violation in _one_for_each_cause(found, rules):
        suppression = _suppression_of(violation, evidence)
        if suppression is None:
            violations.append(violation)
        else:
            suppressed.append(Suppressed(violation, suppression))
    return Judgement(
        violations=tuple(sorted(violations, key=_order)),
        not_evaluated=tuple(not_evaluated),
        suppressed=tuple(suppressed),
    )


def _violation(rule: Rule, finding: Finding) -> Violation:
    certificate = finding.certificate
    return Violation(
        rule=rule.name,
        severity=finding.severity or rule.severity,
        side=finding.side,
        position=finding.position,
        fingerprint=certificate.fingerprint_sha256 if certificate else None,
        subject=certificate.subject if certificate else None,
        message=finding.message,
        remedy=rule.remedy_for(finding.side, finding.remedy),
        reference=rule.reference,
        bites_from=finding.bites_from,
    )


def _failed(name: str, error: Exception) -> Violation:
    message = f"The rule {name} failed with {type(error).__name__}: {error}"
    return _violation(CATALOGUE["internal"], Finding(message))


def _one_for_each_cause(found: list[Violation], rules: Mapping[str, Rule]) -> Iterable[Violation]:
    by_rule: dict[str, list[Violation]] = {}
    for violation in found:
        by_rule.setdefault(violation.rule, []).append(violation)
    critical = {v.side for v in found if v.severity is Severity.CRITICAL and v.fingerprint}
    for violation in found:
        rule = rules.get(violation.rule, CATALOGUE["internal"])
        if rule.last_resort and violation.side in critical:
            continue
        others = (other for name in rule.unless for other in by_rule.get(name, ()))
        if not any(_tells_better(other, violation, rule) for other in others):
            yield violation


def _tells_better(other: Violation, violation: Violation, rule: Rule) -> bool:
    """Tell whether `other`, of a rule that `rule` yields to, makes its `violation` needless."""
    same = other.fingerprint == violation.fingerprint or not rule.same_certificate
    near = other.side in {violation.side, Side.ORG}
    return same and near and other.severity >= violation.severity


def _suppression_of(violation: Violation, evidence: Evidence) -> Suppression | None:
    rule, fingerprint = violation.rule, violation.fingerprint
    return next(
        (s for s in evidence.suppressions if s.covers(rule, fingerprint, evidence.now)), None
    )


def _order(violation: Violation) -> tuple[int, str, str, int, str]:
    position = -1 if violation.position is None else violation.position
    return (-violation.severity.rank, violation.rule, violation.side, position, violation.message)


def _find_rules() -> None:
    """Import every rule module of this package."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for name in names:
        importlib.import_module(f"{__name__}.{name}")
    _require_rules(names, CATALOGUE)


def _require_rules(modules: Iterable[str], rules: Mapping[str, Rule]) -> None:
    """Raise TypeError when one of the modules claims no rule, so that no file is overlooked."""
    claimed = {rule.module.rpartition(".")[2] for rule in rules.values()}
    for name in modules:
        if name not in _NOT_RULES | claimed:
            raise TypeError(f"{__name__}.{name} holds no rule")


_find_rules()
