"""Rehearses a renewal: tries the renewed certificate beside the one in use, before it is deployed.

Both knock at the door at the same time, so that an outage is told from a bad certificate; only the
candidate may log in, once, past the breaker and the budget that it shares with a running daemon.
Nothing else of the daemon's is touched: without a login the state directory is not even opened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent import credentials, identity, probe
from agent.config import Settings
from agent.credentials import CredentialError, Protection, Secret
from agent.gate import Gate
from agent.identity import Identity, IdentityError
from agent.judge import anchors_of, basis, taken_in
from agent.leaves import Leaves
from agent.listing import read_lists
from agent.login.flow import LoginMethod
from agent.org import ClientIdentity, Org
from agent.policy import evaluate
from agent.policy.tables import shipped_tables
from agent.probe import Keys, Plan
from agent.probe.dns import Resolver
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.rehearsal import Rehearsal, Tried
from agent.result import Failure, LoginOutcome, Probe, ProbeResult, SkipCause, Skipped
from agent.services import close_services, now, open_services
from agent.succession import Chain

_WANTED: Final = frozenset({Probe.HANDSHAKE, Probe.LOGIN, Probe.SESSION})


async def rehearse(
    settings: Settings, org: Org, candidate: ClientIdentity, *, login: bool
) -> Rehearsal:
    """Try the candidate beside the identity that `org` is configured with."""
    environ = os.environ
    in_use, new = _read(org.identity, environ), _read(candidate, environ)
    password = _proxy_password(org, environ)
    resolver = Resolver(settings.agent.resolver_threads)
    logs_in = login and org.login is not None and isinstance(new, _Pair)
    services = open_services(settings.agent, environ) if logs_in else None
    gate = services.gatekeeper.gate(org) if services else None
    try:
        seen, shown = await asyncio.gather(
            _try(org, in_use, password, resolver), _try(org, new, password, resolver, gate)
        )
    finally:
        if services is not None:
            await close_services(services)
    at = now()
    bench = _Bench(settings, org, at, environ)
    before = in_use.identity.chain if isinstance(in_use, _Pair) else None
    return Rehearsal(
        org=org,
        at=at,
        login=login,
        current=bench.judged(seen, shown),
        candidate=bench.judged(shown, seen, before),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and key, and how the key's file is protected."""

    identity: Identity
    key_file: Protection | None


_Shown = tuple[_Pair, ProbeResult]


def _read(source: ClientIdentity, environ: Mapping[str, str]) -> _Pair | Failure:
    try:
        read = identity.read(source, environ=environ)
    except IdentityError as error:
        return error.failure
    return _Pair(read, credentials.protection(source.private_key))


def _proxy_password(org: Org, environ: Mapping[str, str]) -> Secret | Failure | None:
    via = org.endpoint.proxy
    if via is None or via.password is None:
        return None
    try:
        return credentials.read(via.password, environ=environ)
    except CredentialError as error:
        return Failure(Reason.CREDENTIALS_UNREADABLE, str(error))


async def _try(
    org: Org,
    pair: _Pair | Failure,
    password: Secret | Failure | None,
    resolver: Resolver,
    gate: Gate | None = None,
) -> _Shown | Failure:
    """Knock with this pair, and log in if there is a gate.

    No other probe runs: whether the door is shut for strangers is not the certificate's doing.
    """
    if isinstance(pair, Failure):
        return pair
    login = None if gate is None else org.login
    wanted = replace(org, login=login, refusal_interval=None, enforcement=None)
    keys = _keys(org, pair.identity, password)
    plan = Plan(wanted, keys, _WANTED, None if gate is None else _Once(gate))
    return pair, await probe.run(plan, resolver, now)


def _keys(org: Org, presented: Identity, password: Secret | Failure | None) -> Keys | Failure:
    if isinstance(password, Failure):
        return password
    bare = client_context(org.endpoint, org.trust, None)
    if isinstance(bare, Failure):
        return bare
    presenting = client_context(org.endpoint, org.trust, presented)
    if isinstance(presenting, Failure):
        return presenting
    return Keys(presented.chain, presenting, bare, password)


class _Once:
    """A gate that lets one login through: a rehearsal makes no second one for a lost session."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._asked = False

    async def admit(self) -> LoginMethod | Skipped | Failure:
        if self._asked:
            return Skipped(SkipCause.BUDGET, "a rehearsal logs in once")
        self._asked = True
        return await self._gate.admit()

    async def done(self, outcome: LoginOutcome) -> None:
        await self._gate.done(outcome)

    async def not_sent(self) -> None:
        await self._gate.not_sent()


class _Bench:
    """Judges both of them, on the same evidence of everything but themselves."""

    def __init__(
        self, settings: Settings, org: Org, at: datetime, environ: Mapping[str, str]
    ) -> None:
        lists = read_lists(org.policy)
        base = basis(org, shipped_tables(), anchors_of(org.trust), lists)
        self._org = org
        self._base = replace(base, now=at)
        self._leaves = Leaves()
        for other in settings.orgs.values():
            pair = _read(other.identity, environ)
            if isinstance(pair, _Pair):
                self._leaves.put(other, pair.identity.leaf)

    def judged(
        self, own: _Shown | Failure, other: _Shown | Failure, before: Chain | None = None
    ) -> Tried | Failure:
        if isinstance(own, Failure):
            return own
        pair, result = own
        self._leaves.put(self._org, pair.identity.leaf)
        seen = replace(
            self._base,
            other_orgs=self._leaves.sharing(self._org),
            previous_client_chain=before,
        )
        if not isinstance(other, Failure):
            # What either of them saw of the server holds for both: it must not tell them apart.
            seen = taken_in(seen, other[1], None)
        seen = taken_in(seen, result, pair.identity, pair.key_file)
        # A pair that OpenSSL refuses was shown to nobody, and is judged all the same.
        seen = replace(seen, client_chain=pair.identity.chain)
        return Tried(seen.client, result, evaluate(seen))
