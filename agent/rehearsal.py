"""What a rehearsal showed, and whether the candidate is at least as good as what is in use.

What the policy says of the candidate is what the daemon would say after the deployment, with the
chain in use as the one before. So whatever is a warning then is an objection now; an operator who
knows better suppresses it in the configuration, for both. Pure: `rehearser` does the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from agent import report
from agent.chain import ChainAnalysis
from agent.difference import Change, changes
from agent.org import Org
from agent.policy import CATALOGUE, Judgement
from agent.policy.rule import Severity, Side, Violation
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    Outcome,
    Probe,
    ProbeResult,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
)

_CHAIN_RULES: Final = "agent.policy.chain"
_REFUSED: Final = frozenset({ClientAuth.REJECTED, ClientAuth.SOFT_REJECTED})
_BEFORE_HTTP: Final = frozenset({Stage.DNS, Stage.PROXY, Stage.TCP, Stage.TLS, Stage.CLIENT_AUTH})


@dataclass(frozen=True, slots=True)
class Tried:
    """A certificate that was tried: what its door showed, and what the policy says of it."""

    analysis: ChainAnalysis
    result: ProbeResult
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal showed. A Failure stands for files that cannot be used.

    `login` tells whether the candidate was asked to log in. `changes` are empty when there are no
    two certificates to compare.
    """

    org: Org
    at: datetime
    login: bool
    current: Tried | Failure
    candidate: Tried | Failure

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the candidate changes."""
        if isinstance(self.current, Failure) or isinstance(self.candidate, Failure):
            return ()
        return changes(self.current.analysis, self.candidate.analysis, self.at)

    @property
    def standard(self) -> Tried | None:
        """What the candidate must be at least as good as; None when it must be good by itself."""
        if isinstance(self.current, Failure):
            return None
        expired = any(c.not_after < self.at for c in self.current.analysis.certificates)
        return None if expired else self.current

    @property
    def worse(self) -> tuple[str, ...]:
        """Why the candidate is not at least as good as what is in use, in words.

        Empty is leave to deploy it. What was not proven counts: a door that nobody reached is no
        leave.
        """
        return tuple(_objections(self))

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do beside the remedies of findings and failures."""
        return tuple(_advice(self))


def findings(of: Tried) -> tuple[Violation, ...]:
    """Return what the policy says of the certificate; server and org are as they are."""
    return tuple(v for v in of.judgement.violations if _is_about_the_client(v))


def _is_about_the_client(violation: Violation) -> bool:
    if violation.side is Side.ORG:
        # Some rules compare it with the server's; one that failed might have found anything.
        return violation.rule == "internal" or "client_chain" in CATALOGUE[violation.rule].needs
    return violation.side is Side.CLIENT


def _cause(violation: Violation) -> tuple[str, Side, str]:
    # The rule that failed is named in the message.
    told = violation.message if violation.rule == "internal" else ""
    return violation.rule, violation.side, told


def new_findings(rehearsal: Rehearsal) -> tuple[Violation, ...]:
    """Return the candidate's warnings and worse that what is in use does not have as badly."""
    if isinstance(rehearsal.candidate, Failure):
        return ()
    had: dict[tuple[str, Side, str], Severity] = {}
    for violation in findings(rehearsal.standard) if rehearsal.standard else ():
        cause = _cause(violation)
        had[cause] = max(violation.severity, had.get(cause, Severity.INFO))
    return tuple(
        violation
        for violation in findings(rehearsal.candidate)
        if violation.severity > had.get(_cause(violation), Severity.INFO)
    )


def _objections(rehearsal: Rehearsal) -> Iterator[str]:
    candidate = rehearsal.candidate
    if isinstance(candidate, Failure):
        yield f"it cannot be used: {candidate}"
        return
    for violation in new_findings(rehearsal):
        yield f"{violation.rule} ({violation.severity})"
    outcome = candidate.result.outcomes[Probe.HANDSHAKE]
    if not isinstance(outcome, Success):
        yield f"the door does not open ({said(outcome)}){_for_the_other(rehearsal.current)}"
    elif rehearsal.login:
        yield from _login_objections(rehearsal.org, candidate.result)


def _for_the_other(current: Tried | Failure) -> str:
    if isinstance(current, Failure):
        return ""
    if isinstance(current.result.outcomes[Probe.HANDSHAKE], Success):
        return ", although it opens for the current one"
    return ", nor for the current one, so it may not be the candidate's fault"


def _login_objections(org: Org, result: ProbeResult) -> Iterator[str]:
    if org.login is None:
        yield "no login was made: the org has none configured"
        return
    for probed in (Probe.LOGIN, Probe.SESSION):
        outcome = result.outcomes[probed]
        if not isinstance(outcome, Success):
            yield f"{probed.value}: {said(outcome)}"
            return


def _advice(rehearsal: Rehearsal) -> Iterator[str]:
    candidate, current = rehearsal.candidate, rehearsal.current
    if isinstance(candidate, Failure):
        return
    if isinstance(current, Tried) and current.analysis.leaf == candidate.analysis.leaf:
        return
    # Salesforce looks for the leaf among those uploaded to the org
    # (https://help.salesforce.com/s/articleView?id=000383575), as far as is known when a session is
    # used; a new one that is refused earlier may be refused for the same reason.
    if candidate.result.client_auth in _REFUSED and not new_findings(rehearsal):
        yield (
            "Nothing is wrong with the file, so the org may not know this certificate yet: upload "
            "it to the org's Mutual Authentication Certificates and rehearse again."
        )
    elif not rehearsal.login and not rehearsal.worse:
        yield (
            "Whether the org knows this certificate shows only when a session is used: upload it "
            "to the org's Mutual Authentication Certificates before you deploy it here, and "
            "rehearse with --login."
        )


def said(outcome: Outcome) -> str:
    """Return an outcome in words."""
    match outcome:
        case Success(detail):
            return detail or "ok"
        case Failure():
            return str(outcome)
        case Undetermined(reason, detail):
            return str(Failure(reason, detail))
        case Skipped(cause, detail):
            return f"not tried, {cause.value} {detail}".rstrip()


# --- step by step


class Step(StrEnum):
    """What is looked at, in this order."""

    LINT = "lint"
    KEY = "key"
    CHAIN = "chain"
    HANDSHAKE = "handshake"
    DOOR = "door"
    LOGIN = "login"
    SESSION = "session"


class Mark(StrEnum):
    """How a step went; `none` means that it was not its turn."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Taken:
    """One step of one certificate. `detail` is for people."""

    step: Step
    mark: Mark
    detail: str = ""


def steps(of: Tried | Failure, *, login: bool) -> tuple[Taken, ...]:
    """Return how it went, step by step; the last two only when a login was asked for."""
    taken = _unusable(of) if isinstance(of, Failure) else tuple(_taken(of))
    last = (Step.LOGIN, Step.SESSION)
    return tuple(one for one in taken if login or one.step not in last)


def _unusable(failure: Failure) -> tuple[Taken, ...]:
    failed = Step.KEY if failure.reason is Reason.CLIENT_KEY_MISMATCH else Step.LINT
    return tuple(
        Taken(step, Mark.BAD, str(failure)) if step is failed else Taken(step, Mark.NONE)
        for step in Step
    )


def _taken(of: Tried) -> Iterator[Taken]:
    found = [v for v in findings(of) if v.severity >= Severity.WARNING]
    chain = [v for v in found if CATALOGUE[v.rule].module == _CHAIN_RULES]
    lint = [v for v in found if v not in chain]
    yield Taken(Step.LINT, _mark(lint), _rules(lint) or "clean")
    yield Taken(Step.KEY, Mark.GOOD, "matches")
    yield Taken(Step.CHAIN, _mark(chain), _rules(chain) or "complete and in order")
    yield from _at_the_door(of.result)
    for step, probed in ((Step.LOGIN, Probe.LOGIN), (Step.SESSION, Probe.SESSION)):
        outcome = of.result.outcomes.get(probed)
        yield Taken(step, Mark.NONE) if outcome is None else _outcome(step, outcome)


def _mark(found: Sequence[Violation]) -> Mark:
    if not found:
        return Mark.GOOD
    worst = max(violation.severity for violation in found)
    return Mark.BAD if worst is Severity.CRITICAL else Mark.WARNING


def _rules(found: Sequence[Violation]) -> str:
    by_severity = (
        (severity, dict.fromkeys(v.rule for v in found if v.severity is severity))
        for severity in (Severity.CRITICAL, Severity.WARNING)
    )
    return "; ".join(f"{severity}: {', '.join(rules)}" for severity, rules in by_severity if rules)


def _at_the_door(result: ProbeResult) -> Iterator[Taken]:
    outcome, seen = result.outcomes[Probe.HANDSHAKE], result.handshake
    verdict = result.client_auth.value
    if Stage.DOOR in result.stages:
        took = sum(result.stages.get(stage, 0.0) for stage in _BEFORE_HTTP)
        version = seen.tls_version if seen else None
        yield Taken(Step.HANDSHAKE, Mark.GOOD, f"{version or 'TLS'}, {took * 1000:.0f} ms")
        if isinstance(outcome, Success):
            yield Taken(Step.DOOR, Mark.GOOD, verdict)
        else:
            yield Taken(Step.DOOR, Mark.BAD, f"{verdict}, {said(outcome)}")
        return
    yield Taken(Step.HANDSHAKE, Mark.BAD, said(outcome))
    reached = result.client_auth is not ClientAuth.NOT_REACHED
    yield Taken(Step.DOOR, Mark.BAD if reached else Mark.NONE, verdict if reached else "")


def _outcome(step: Step, outcome: Outcome) -> Taken:
    match outcome:
        case Success():
            return Taken(step, Mark.GOOD, said(outcome))
        case Failure():
            return Taken(step, Mark.BAD, said(outcome))
        case Skipped(cause=SkipCause.NO_VERDICT):
            return Taken(step, Mark.NONE)
        case Undetermined() | Skipped():
            return Taken(step, Mark.WARNING, said(outcome))


# --- as JSON


def as_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """Return the rehearsal, ready for `json.dumps`. It is an interface.

    `worse` says why the candidate is not at least as good. `current` and `candidate` each have
    `problem`, why its files cannot be used, or a `cycle` as `probe --json` prints it, whose
    violations are those of the server's side too; the other one is null.
    """
    return {
        "org": rehearsal.org.name,
        "at": report.moment(rehearsal.at),
        "login": rehearsal.login,
        "at_least_as_good": not rehearsal.worse,
        "worse": list(rehearsal.worse),
        "advice": list(rehearsal.advice),
        "changes": [
            {
                "field": change.field,
                "before": change.before,
                "after": change.after,
                "verdict": change.verdict,
            }
            for change in rehearsal.changes
        ],
        "current": _tried_as_json(rehearsal.current, login=rehearsal.login),
        "candidate": _tried_as_json(rehearsal.candidate, login=rehearsal.login),
    }


def _tried_as_json(of: Tried | Failure, *, login: bool) -> dict[str, Any]:
    return {
        "problem": report.outcome(of) if isinstance(of, Failure) else None,
        "steps": [
            {"step": one.step.value, "mark": one.mark.value, "detail": one.detail}
            for one in steps(of, login=login)
        ],
        "cycle": None if isinstance(of, Failure) else report.cycle(of.result, of.judgement),
    }
