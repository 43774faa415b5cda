"""What `check` looks at for one org: its secrets and its identity, offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from agent import credentials, identity
from agent.config import key_path, secrets_of
from agent.credentials import CredentialError
from agent.identity import Identity, IdentityError
from agent.judge import Judge
from agent.org import Org
from agent.policy.rule import Violation
from agent.policy.tables import shipped_tables
from agent.probe.tls import client_context
from agent.result import Failure, ProbeResult


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found for one org. `problems` keep it from being watched; `warnings` do not."""

    org: Org
    identity: Identity | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    violations: tuple[Violation, ...]


def inspect(org: Org, environ: Mapping[str, str]) -> Inspection:
    """Read everything the org needs and say what is wrong with it; no network."""
    problems: list[str] = []
    for key, source in secrets_of(org):
        try:
            credentials.read(source, environ=environ)
        except CredentialError as error:
            problems.append(f"{key}: {error}")
    private_key = (key_path(("orgs", org.name, "private_key")), org.identity.private_key)
    warnings = [
        f"{key}: {source} can be read by every user of this machine"
        for key, source in (private_key, *secrets_of(org))
        if credentials.is_exposed(source, environ=environ)
    ]
    found: Identity | None = None
    violations: tuple[Violation, ...] = ()
    try:
        found = identity.read(org.identity, environ=environ)
    except IdentityError as error:
        problems.append(error.failure.detail or str(error.failure))
    else:
        context = client_context(org.endpoint, org.trust, found)
        if isinstance(context, Failure):
            problems.append(str(context))
        now = datetime.now(UTC)
        judge = Judge(org, shipped_tables())
        shown = ProbeResult(org.name, now, {}, client_chain=found.chain)
        violations = judge.judge(shown, found, now).judgement.violations
    return Inspection(org, found, tuple(problems), tuple(warnings), violations)
