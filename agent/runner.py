"""One org's life: what is due in each cycle, with which keys, and what becomes of the result.

A runner keeps what must last between cycles: its keyring, and when login, refusal and enforcement
were last tried. The daemon runs it on a schedule, the `probe` command once; in the first cycle
everything is due. A bug of ours in one org's cycle ends here and stops no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from agent import diagnosis, probe
from agent.component import Component
from agent.credentials import CredentialError, Secret
from agent.diagnosis import Cause
from agent.gate import Gatekeeper
from agent.history import History
from agent.judge import Judge, Verdict, anchors_of
from agent.keyring import BareContexts, Keyring, Look
from agent.leaves import Leaves
from agent.org import Org, RevocationCheck, TrustAnchors
from agent.policy import Judgement
from agent.policy.tables import Tables
from agent.probe import Keys, Plan
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import Failure, Probe, ProbeResult, SkipCause, Skipped
from agent.revocation import RevocationWatch, pairs
from agent.revocation.watch import Pair
from agent.state import Board, Standing, Transition


@dataclass(frozen=True, slots=True)
class Services:
    """What all runners share. `clock` is monotonic and counts seconds; `now` is aware and UTC.

    `internal_error` is told of every bug that was caught; it is in the log already.
    """

    board: Board
    resolver: Resolver
    gatekeeper: Gatekeeper
    revocation: RevocationWatch
    tables: Tables
    environ: Mapping[str, str]
    now: Callable[[], datetime]
    clock: Callable[[], float]
    internal_error: Callable[[Component], None] = lambda _: None
    bare: BareContexts = field(default_factory=BareContexts)
    leaves: Leaves = field(default_factory=Leaves)
    history: History = field(default_factory=History)


# How far the clocks may drift apart between two cycles without putting off what is due.
_TOLERANCE_SECONDS: Final = 1.0
# Of a fleet that starts, so many orgs a second get to these for the first time: not all of them in
# the first minute, which would be a storm of logins and keep the handshakes waiting.
_FIRSTS_A_SECOND: Final = {Probe.LOGIN: 40.0, Probe.REFUSAL: 10.0, Probe.ENFORCEMENT: 10.0}
# What was due but never came to its turn stays due: after an outage, or maintenance, the login is
# tried in the first cycle that finds the door open.
_STILL_DUE: Final = frozenset(
    {SkipCause.NOT_DUE, SkipCause.NO_VERDICT, SkipCause.IN_FLIGHT, SkipCause.MAINTENANCE}
)


class OrgRunner:
    """Runs the cycles of one org, one at a time.

    `before` is the runner of the same org as it was configured until now: what it knows stays
    known, so that a reload neither forgets a good pair nor logs in once more. `ahead` is how many
    orgs are made together with this one and before it: its first login may have to wait for theirs.
    """

    def __init__(
        self, org: Org, services: Services, before: OrgRunner | None = None, ahead: int = 0
    ) -> None:
        self.org = org
        self._services = services
        self._gate = services.gatekeeper.gate(org)
        self._verdict: Verdict | None = None
        if before is None:
            # The keyring reads the trust file, in its thread.
            self.judge = Judge(org, services.tables, anchors_of(TrustAnchors()))
            self.keyring = Keyring(org, services.environ, services.bare)
            self.tried: dict[Probe, float] = {}
            self.firsts = _firsts(services.clock(), ahead, org.interval)
            self.revocable: tuple[Pair, ...] = ()
        else:
            self.judge = before.judge.succeeded_by(org)
            self.keyring = before.keyring.succeeded_by(org)
            # The same one: a cycle of the old runner may be under way.
            self.tried = before.tried
            self.firsts = before.firsts
            self.revocable = before.revocable
        self._log = structlog.get_logger(__name__).bind(org=org.name)

    async def run(self, late: float = 0.0, only: frozenset[Probe] | None = None) -> ProbeResult:
        """Run one cycle; a bug of ours is logged, counted, and a failed handshake on the board."""
        try:
            return await self.cycle(late, only)
        except Exception:  # noqa: BLE001 - the one place: one org's bug must not stop the others
            self._log.exception("a bug in the agent stopped this cycle")
            self._services.internal_error(Component.CYCLE)
            return self._record_bug()

    async def look(self) -> Look:
        """Look at the files, so that the cycles of other orgs know what this one presents."""
        look = await self.keyring.look()
        if not isinstance(look.presented, Failure):
            self._services.leaves.put(self.org, look.presented.identity.leaf)
        return look

    async def cycle(self, late: float = 0.0, only: frozenset[Probe] | None = None) -> ProbeResult:
        """Run one cycle and put what it showed on the board.

        `late` is how many seconds after its time it begins. `only` are the probes that somebody
        asked for; None runs those that are due.
        """
        services = self._services
        planned = services.clock() - late
        await self._look_at_maintenance()
        look = await self.look()
        self._report(look)
        due = self._due(planned) if only is None else only
        plan = Plan(self.org, self._keys(look), due, self._gate)
        result = await probe.run(plan, services.resolver, services.now)
        self._remember(result, planned)
        judgement, deadlines = self._judged(result, look)
        # First, so that whoever sees this cycle on the board sees what it left of the budget.
        await self._tell_limits()
        transitions = services.board.record(
            result,
            violations=judgement.violations,
            suppressed=judgement.suppressed,
            not_evaluated=judgement.not_evaluated,
            deadlines=deadlines,
            causes=self._causes(result, judgement),
            of=self.org,
        )
        for transition in transitions:
            self._tell(transition, result)
        self._log.debug("cycle", result=result, address=result.address)
        return result

    def _record_bug(self) -> ProbeResult:
        failure = Failure(Reason.INTERNAL, "see the log")
        result = ProbeResult(self.org.name, self._services.now(), {Probe.HANDSHAKE: failure})
        # Without an outcome the org would only look stale; what was judged before still holds.
        known = self._known_judgement()
        self._services.board.record(
            result,
            violations=known.violations,
            suppressed=known.suppressed,
            not_evaluated=known.not_evaluated,
            causes=self._causes(result, known),
            of=self.org,
        )
        return result

    def _causes(
        self, result: ProbeResult, judgement: Judgement
    ) -> Mapping[Probe, tuple[Cause, ...]] | None:
        """Return the likely causes; a bug leaves them out."""
        try:
            return diagnosis.by_probe(result, judgement)
        except Exception:  # noqa: BLE001 - what the probe saw must not be lost with it
            self._log.exception("a bug in the agent kept it from finding causes")
            self._services.internal_error(Component.POLICY)
            return None

    def _judged(
        self, result: ProbeResult, look: Look
    ) -> tuple[Judgement, Mapping[str, datetime] | None]:
        """Return the judgement and the deadlines; a bug leaves what was known."""
        known = self._services.board.get(self.org.name)
        if known is None or known.org is not self.org:
            # A reload put another runner in the place of this one: the org's past is its to write.
            return self._known_judgement(), None
        try:
            verdict = self._judge_anew(result, look)
        except Exception:  # noqa: BLE001 - what the probe saw must not be lost with it
            self._log.exception("a bug in the agent kept the policy from judging")
            self._services.internal_error(Component.POLICY)
            return self._known_judgement(), None
        if verdict is not self._verdict:
            self._verdict = verdict
            # Not in every cycle: it checks signatures.
            asks = self.org.policy.revocation is not RevocationCheck.OFF
            self.revocable = pairs(self.judge.seen) if asks else ()
            for violation in verdict.judgement.violations:
                if violation.rule == "internal":
                    self._log.error("a bug in a rule of the policy", detail=violation.message)
                    self._services.internal_error(Component.POLICY)
        return verdict.judgement, verdict.deadlines

    def _judge_anew(self, result: ProbeResult, look: Look) -> Verdict:
        services, judge, now = self._services, self.judge, self._services.now()
        if look.files is not None:
            judge.read(look.files)
        identity = None if isinstance(look.presented, Failure) else look.presented.identity
        past = services.history.seen(self.org, result, judge.seen.anchors, now)
        judge.compare(
            services.leaves.sharing(self.org), past.client_before(), past.server_before(now)
        )
        self._take_answers()
        return judge.judge(result, identity, now)

    def judged_again(self, result: ProbeResult) -> Judgement:
        """Judge the last cycle with what became known of revocation since."""
        self._take_answers()
        return self.judge.judge(result, None, self._services.now()).judgement

    def _take_answers(self) -> None:
        answers = self._services.revocation.answers(self.revocable, self.org.policy.revocation)
        if answers:
            self.judge.revocation(answers)

    def _known_judgement(self) -> Judgement:
        known = self._services.board.get(self.org.name)
        return known.judgement if known else Judgement((), ())

    async def _tell_limits(self) -> None:
        if self._gate is not None:
            await self._gate.refresh()
            self._services.board.login_limits(self.org.name, *self._gate.limits(), of=self.org)

    async def _look_at_maintenance(self) -> None:
        """Tell what has begun or ended; a bug leaves what was known."""
        try:
            window = await self._services.gatekeeper.maintenance(self.org)
        except Exception:  # noqa: BLE001 - the handshake must not be lost with it
            self._log.exception("a bug in the agent kept it from knowing of maintenance")
            self._services.internal_error(Component.CYCLE)
            return
        if not self._services.board.in_maintenance(self.org.name, window, of=self.org):
            return
        if window is None:
            self._log.info("maintenance is over: logins go on")
        else:
            self._log.info(
                "maintenance: nobody logs in, handshakes go on",
                until=f"{window.until:%Y-%m-%dT%H:%M:%SZ}",
                **({"because": window.reason} if window.reason else {}),
            )

    def _report(self, look: Look) -> None:
        """Count and log what is new about certificate, key and trust file."""
        kept = "there is none to use"
        if not isinstance(look.presented, Failure):
            kept = "the one in use stays"
        if look.refused is not None:
            self._services.board.identity_failed(self.org.name, of=self.org)
            self._log.warning(
                "certificate or key cannot be used", failure=str(look.refused), kept=kept
            )
        if look.distrusted is not None:
            self._services.board.identity_failed(self.org.name, of=self.org)
            self._log.warning("trust store cannot be used", failure=str(look.distrusted), kept=kept)
        if look.unlisted is not None:
            self._log.warning("a list of the policy cannot be used", failure=look.unlisted)
        if look.slow:
            self._log.warning("certificate, key or trust file cannot be read in time", kept=kept)
        if look.renewed and not isinstance(look.presented, Failure):
            leaf = look.presented.identity.leaf
            self._log.info(
                "certificate in use",
                subject=leaf.subject,
                not_after=leaf.not_after.isoformat(),
                fingerprint_sha256=leaf.fingerprint_sha256,
            )

    def _keys(self, look: Look) -> Keys | Failure:
        presented = look.presented
        if isinstance(presented, Failure):
            return presented
        via = self.org.endpoint.proxy
        password: Secret | None = None
        if via is not None and via.password is not None:
            try:
                password = self._services.gatekeeper.read(via.password)
            except CredentialError as error:
                return Failure(Reason.CREDENTIALS_UNREADABLE, str(error))
        return Keys(presented.identity.chain, presented.presenting, presented.bare, password)

    def _due(self, clock: float) -> frozenset[Probe]:
        intervals = {
            Probe.HANDSHAKE: 0.0,
            Probe.LOGIN: self.org.login_interval,
            Probe.REFUSAL: self.org.refusal_interval,
            Probe.ENFORCEMENT: self.org.enforcement.interval if self.org.enforcement else None,
        }
        due = {
            probe
            for probe, interval in intervals.items()
            if interval is not None and self._is_due(probe, interval, clock)
        }
        return frozenset(due | {Probe.SESSION}) if Probe.LOGIN in due else frozenset(due)

    def _is_due(self, probe: Probe, interval: float, clock: float) -> bool:
        tried = self.tried.get(probe)
        if tried is None:
            return clock >= self.firsts.get(probe, clock)
        # What is due between two cycles is done in the later one: never more often than asked.
        own = self.org.interval
        whole = math.ceil(interval / own) * own
        return clock - tried >= whole - min(own / 2, _TOLERANCE_SECONDS)

    def _remember(self, result: ProbeResult, clock: float) -> None:
        for name, outcome in result.outcomes.items():
            match outcome:
                case Skipped(cause=cause) if cause in _STILL_DUE:
                    continue
                case _:
                    self.tried[name] = clock

    def _tell(self, transition: Transition, result: ProbeResult) -> None:
        handshake, cause = result.handshake, transition.cause
        write = self._log.warning if transition.after is Standing.FAILURE else self._log.info
        write(
            f"{transition.probe.value} {transition.after.value}",
            probe=transition.probe.value,
            before=transition.before.value,
            **({"reason": transition.reason.value} if transition.reason else {}),
            **({"detail": transition.detail} if transition.detail else {}),
            **({"alert": handshake.alert} if handshake and handshake.alert else {}),
            **({"cause": cause.name, "confidence": cause.confidence.value} if cause else {}),
            # The whole sentence only when it is news.
            **({"because": cause.sentence} if cause and transition.explained else {}),
            **({"address": result.address} if result.address else {}),
            **({"lasted": str(transition.lasted)} if transition.lasted else {}),
        )


def _firsts(now: float, ahead: int, interval: float) -> Mapping[Probe, float]:
    """Return from when on each probe may run for the first time.

    The first cycles are spread over an interval by themselves, so that only those wait for whom
    that is not long enough.
    """
    waits = {probe: ahead / rate - interval for probe, rate in _FIRSTS_A_SECOND.items()}
    return {probe: now + wait for probe, wait in waits.items() if wait > 0}
