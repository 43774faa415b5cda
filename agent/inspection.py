"""What `check` looks at for each org: its secrets and its identity, offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from agent import credentials, identity
from agent.config import key_path, secrets_of
from agent.credentials import CredentialError
from agent.identity import Identity, IdentityError
from agent.judge import Files, Judge, anchors_of
from agent.leaves import Leaves
from agent.listing import read_lists
from agent.org import Endpoint, Org, TrustAnchors
from agent.policy import Judgement
from agent.policy.rule import OtherOrg
from agent.policy.tables import shipped_tables
from agent.probe.tls import client_context
from agent.processes import in_processes
from agent.result import Failure, ProbeResult


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found for one org. `problems` keep it from being watched; `warnings` do not."""

    org: Org
    identity: Identity | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    judgement: Judgement


_Distrusted = Callable[[TrustAnchors], Failure | None]
"""Says why OpenSSL would not use these certificates to trust."""


def inspect_all(
    orgs: Sequence[Org], environ: Mapping[str, str], processes: int | None = None
) -> list[Inspection]:
    """Read everything that the orgs need and say what is wrong with it; no network.

    It is shared by so many processes; None leaves that to `in_processes`.
    """
    leaves = Leaves()
    # Orgs share their few trust stores, and to load one takes up to tens of milliseconds.
    distrusted = cache(_distrusted)
    identities = [_identity(org, environ) for org in orgs]
    for org, found in zip(orgs, identities, strict=True):
        if isinstance(found, Identity):
            leaves.put(org, found.leaf)

    def told(number: int) -> tuple[tuple[str, ...], tuple[str, ...], Judgement]:
        org = orgs[number]
        found = _inspection(org, identities[number], distrusted, leaves.sharing(org), environ)
        return found.problems, found.warnings, found.judgement

    return [
        Inspection(org, found if isinstance(found, Identity) else None, *what)
        for org, found, what in zip(
            orgs, identities, in_processes(told, len(orgs), processes), strict=True
        )
    ]


def inspect(org: Org, environ: Mapping[str, str]) -> Inspection:
    """Do the same for one org; whether it shares its certificate with another is not known."""
    return _inspection(org, _identity(org, environ), _distrusted, None, environ)


def _identity(org: Org, environ: Mapping[str, str]) -> Identity | Failure:
    try:
        return identity.read(org.identity, environ=environ)
    except IdentityError as error:
        return error.failure


def _distrusted(trust: TrustAnchors) -> Failure | None:
    context = client_context(Endpoint("-"), trust, None)
    return context if isinstance(context, Failure) else None


def _refused(org: Org, found: Identity) -> Failure | None:
    """Return why OpenSSL would not use this pair."""
    context = client_context(org.endpoint, TrustAnchors(system=False), found)
    return context if isinstance(context, Failure) else None


def _inspection(
    org: Org,
    found: Identity | Failure,
    distrusted: _Distrusted,
    others: tuple[OtherOrg, ...] | None,
    environ: Mapping[str, str],
) -> Inspection:
    secrets = secrets_of(org)
    problems: list[str] = []
    for key, source in secrets:
        try:
            credentials.read(source, environ=environ)
        except CredentialError as error:
            problems.append(f"{key}: {error}")
    # What protects the private key, the policy says.
    warnings = [
        f"{key}: {source} can be read by every user of this machine"
        for key, source in secrets
        if credentials.is_exposed(source, environ=environ)
    ]
    lists = read_lists(org.policy)
    for name, why in lists.problems.items():
        warnings.append(f"{key_path(('orgs', org.name, 'policy', name))}: {why}")
    if isinstance(found, Failure):
        problems.append(found.detail or str(found))
        return Inspection(org, None, tuple(problems), tuple(warnings), Judgement((), ()))
    refused = distrusted(org.trust) or _refused(org, found)
    if refused is not None:
        problems.append(str(refused))
    now = datetime.now(UTC)
    anchors = anchors_of(org.trust)
    judge = Judge(org, shipped_tables(), anchors)
    judge.read(Files(anchors, lists, credentials.protection(org.identity.private_key)))
    judge.compare(others, None, None)
    shown = ProbeResult(org.name, now, {}, client_chain=found.chain)
    judgement = judge.judge(shown, found, now).judgement
    return Inspection(org, found, tuple(problems), tuple(warnings), judgement)
