"""What is known of the configured orgs without asking anybody: their files, their last cycles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace

from agent import identity
from agent.certificate import Certificate
from agent.config import AgentSettings
from agent.identity import IdentityError
from agent.judge import anchors_of, basis
from agent.listing import read_lists
from agent.org import Org
from agent.policy.rule import Evidence
from agent.policy.tables import Tables
from agent.store import FILE_NAME, Store, StoreError


def known(
    orgs: Iterable[Org],
    server_chains: Mapping[str, tuple[Certificate, ...]],
    tables: Tables,
    environ: Mapping[str, str],
) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Return the evidence for each org, and what is wrong with files that cannot be read.

    `server_chains` maps names of orgs to the chain last seen; an org may be absent. An org whose
    identity cannot be read is there without its client certificate.
    """
    found: list[Evidence] = []
    problems: list[str] = []
    for org in orgs:
        chain: tuple[Certificate, ...] | None = None
        try:
            chain = identity.read(org.identity, environ=environ).chain
        except IdentityError as error:
            problems.append(f"{org.name}: {error.failure.detail or error.failure}")
        lists = read_lists(org.policy)
        problems.extend(f"{org.name}: {why}" for why in lists.problems.values())
        evidence = basis(org, tables, anchors_of(org.trust), lists)
        found.append(
            replace(evidence, client_chain=chain, server_chain=server_chains.get(org.name))
        )
    return tuple(found), tuple(problems)


def last_server_chains(settings: AgentSettings) -> Mapping[str, tuple[Certificate, ...]] | str:
    """Return the chain that the daemon saw last at each org's door, or why that is not known."""
    path = settings.state_directory / FILE_NAME
    # To look must not be to make one.
    if not path.exists():
        return f"{path} is not there yet; the daemon makes it"
    try:
        with closing(Store.open(path)) as store:
            return store.server_chains()
    except StoreError as error:
        return str(error)
