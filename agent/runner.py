"""One org's life: what is due in each cycle, with which keys, and what becomes of the result.

A runner keeps what must last between cycles: the rotation of the identity, the TLS contexts made
from it, when login, refusal and enforcement were last tried. The daemon calls `cycle` on a
schedule, the `probe` command calls it once; in the first cycle of a runner everything is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from agent import probe
from agent.credentials import CredentialError
from agent.gate import Gatekeeper
from agent.identity import Identity, Rotation
from agent.judge import Judge
from agent.org import Org
from agent.policy.tables import Tables
from agent.probe import Keys, Plan
from agent.probe.dns import Resolver
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import Failure, Probe, ProbeResult, SkipCause, Skipped
from agent.state import Board, Standing, Transition


@dataclass(frozen=True, slots=True)
class Services:
    """What all runners share. `clock` is monotonic and counts seconds; `now` is aware and UTC."""

    board: Board
    resolver: Resolver
    gatekeeper: Gatekeeper
    tables: Tables
    environ: Mapping[str, str]
    now: Callable[[], datetime]
    clock: Callable[[], float]


class OrgRunner:
    """Runs the cycles of one org."""

    def __init__(self, org: Org, services: Services) -> None:
        self.org = org
        self._services = services
        self._rotation = Rotation(org.identity, services.environ)
        self._gate = services.gatekeeper.gate(org)
        self._judge = Judge(org, services.tables)
        self._contexts = _Contexts(org)
        self._tried: dict[Probe, float] = {}
        self._log = structlog.get_logger(__name__).bind(org=org.name)

    async def cycle(self) -> ProbeResult:
        """Run one cycle and put what it showed on the board."""
        services = self._services
        identity = self._identity()
        plan = Plan(self.org, self._keys(identity), self._due(services.clock()), self._gate)
        result = await probe.run(plan, services.resolver, services.now)
        self._remember(result, services.clock())
        verdict = self._judge.judge(
            result, identity if isinstance(identity, Identity) else None, services.now()
        )
        transitions = services.board.record(
            result,
            violations=verdict.judgement.violations,
            not_evaluated=verdict.judgement.not_evaluated,
            deadlines=verdict.deadlines,
        )
        if self._gate is not None:
            services.board.login_limits(self.org.name, *self._gate.limits())
        for transition in transitions:
            self._tell(transition, result)
        self._log.debug("cycle", result=repr(result), address=result.address)
        return result

    def _identity(self) -> Identity | Failure:
        rotation = self._rotation
        before = (rotation.changes, rotation.failures)
        identity = rotation.refresh()
        if rotation.failures > before[1]:
            self._services.board.identity_failed(self.org.name)
            kept = "the one in use stays" if rotation.current else "there is none to use"
            self._log.warning(
                "certificate or key cannot be used", failure=str(rotation.last_failure), kept=kept
            )
        if isinstance(identity, Identity) and rotation.changes > before[0]:
            leaf = identity.leaf
            self._log.info(
                "certificate in use",
                subject=leaf.subject,
                not_after=leaf.not_after.isoformat(),
                fingerprint_sha256=leaf.fingerprint_sha256,
            )
        return identity

    def _keys(self, identity: Identity | Failure) -> Keys | Failure:
        if isinstance(identity, Failure):
            return identity
        keys = self._contexts.keys(identity)
        via = self.org.endpoint.proxy
        if isinstance(keys, Failure) or via is None or via.password is None:
            return keys
        try:
            password = self._services.gatekeeper.read(via.password)
        except CredentialError as error:
            return Failure(Reason.CREDENTIALS_UNREADABLE, str(error))
        return Keys(keys.chain, keys.presenting, keys.bare, password)

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
        tried = self._tried.get(probe)
        # Cycles do not fall exactly on a multiple: half a cycle early is on time.
        return tried is None or clock - tried >= interval - self.org.interval / 2

    def _remember(self, result: ProbeResult, clock: float) -> None:
        # What was due but never came to its turn stays due: after an outage the login is tried in
        # the first cycle that finds the door open.
        for name, outcome in result.outcomes.items():
            match outcome:
                case Skipped(cause=SkipCause.NOT_DUE | SkipCause.NO_VERDICT | SkipCause.IN_FLIGHT):
                    continue
                case _:
                    self._tried[name] = clock

    def _tell(self, transition: Transition, result: ProbeResult) -> None:
        handshake = result.handshake
        write = self._log.warning if transition.after is Standing.FAILURE else self._log.info
        write(
            f"{transition.probe.value} {transition.after.value}",
            probe=transition.probe.value,
            before=transition.before.value,
            **({"reason": transition.reason.value} if transition.reason else {}),
            **({"detail": transition.detail} if transition.detail else {}),
            **({"alert": handshake.alert} if handshake and handshake.alert else {}),
            **({"address": result.address} if result.address else {}),
            **({"lasted": str(transition.lasted)} if transition.lasted else {}),
        )


class _Contexts:
    """The TLS contexts of an org, made again only when the identity or the trust file changes."""

    def __init__(self, org: Org) -> None:
        self._org = org
        self._made_from: tuple[Identity, object] | None = None
        self._keys: Keys | Failure = Failure(Reason.CLIENT_MATERIAL_UNREADABLE)

    def keys(self, identity: Identity) -> Keys | Failure:
        """Return keys that present `identity`; those made before while new ones cannot be made."""
        source = (identity, self._trust_file())
        if self._made_from is not None and source == self._made_from:
            return self._keys
        made = self._make(identity)
        if isinstance(made, Keys) or not isinstance(self._keys, Keys):
            self._keys = made
        if isinstance(made, Keys):
            self._made_from = source
        return self._keys

    def _make(self, identity: Identity) -> Keys | Failure:
        endpoint, trust = self._org.endpoint, self._org.trust
        presenting = client_context(endpoint, trust, identity)
        if isinstance(presenting, Failure):
            return presenting
        bare = client_context(endpoint, trust, None)
        if isinstance(bare, Failure):
            return bare
        return Keys(identity.chain, presenting, bare)

    def _trust_file(self) -> object:
        if self._org.trust.file is None:
            return None
        try:
            stat = Path(self._org.trust.file).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
