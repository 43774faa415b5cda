"""A last independent check: the library's own verifier over the same chain.

The only module that knows `cryptography.x509.verification`, whose interface is not stable yet. It
returns one path and one error as prose, so it cannot report; but what our rules forgot, it sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from agent.certificate import Certificate, parse
from agent.chain import ChainAnalysis
from agent.policy.rule import BOTH, Evidence, Finding, Severity, rule
from agent.policy.wording import which

# Purposes and names of the leaf are our rules' business; the least that it takes for authorities.
_LEAF: Final = ExtensionPolicy.permit_all()
_AUTHORITY: Final = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, None
)
_MOST_INTERMEDIATES: Final = 32


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued for names that its authority may issue for.",
    reference="RFC 5280 §4.2.1.10",
)
def name_constraint_violated(evidence: Evidence) -> Iterator[Finding]:
    """A leaf has a name that an authority above it may not issue for."""
    for side, analysis in evidence.sides():
        objection = _objection(evidence, analysis)
        if objection and _about_names(objection):
            yield Finding(
                f"{which(side, analysis.leaf_position, analysis.leaf)} has a name that its "
                f"authorities may not issue for ({objection}).",
                side,
                analysis.leaf,
                analysis.leaf_position,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Compare with `openssl verify`; report it if the chain is right.",
    reference="RFC 5280 §6",
    last_resort=True,
)
def verifier_disagrees(evidence: Evidence) -> Iterator[Finding]:
    """No rule finds anything critical in a chain, but an independent verifier refuses it."""
    for side, analysis in evidence.sides():
        objection = _objection(evidence, analysis)
        if objection and not _about_names(objection):
            yield Finding(
                f"An independent verifier does not accept the {side} chain of "
                f"{analysis.leaf.subject}, and no rule here says why: {objection}.",
                side,
                analysis.leaf,
                analysis.leaf_position,
            )


def _about_names(objection: str) -> bool:
    return "name constraint" in objection.casefold() or "permitted" in objection.casefold()


def _objection(evidence: Evidence, analysis: ChainAnalysis) -> str | None:
    """Return what the verifier says against every path, or None; no path, nothing to verify."""
    if not analysis.paths:
        return None
    roots = tuple(dict.fromkeys(path[-1] for path in analysis.paths))
    between = tuple(dict.fromkeys(c for path in analysis.paths for c in path[1:-1]))
    moment = _last_change(evidence.now, (analysis.leaf, *between, *roots))
    return _verdict(analysis.leaf, between[:_MOST_INTERMEDIATES], roots, moment)


_LAST_SECOND: Final = datetime.max.replace(microsecond=0, tzinfo=UTC)


def _last_change(now: datetime, certificates: Iterable[Certificate]) -> datetime:
    """Return the last moment up to `now` at which one of them became valid or expired.

    The verdict then is the verdict now, so that it need not be asked for again every day.
    """
    second = timedelta(seconds=1)
    # RFC 5280 §4.1.2.5 writes "never" as the last second that there is: after it comes nothing.
    changes = {
        moment
        for c in certificates
        for moment in (c.not_before, min(c.not_after, _LAST_SECOND - second) + second)
    }
    past = [moment for moment in changes if moment <= now]
    return max(past) if past else min(changes) - second


@lru_cache(maxsize=4096)
def _verdict(
    leaf: Certificate,
    between: tuple[Certificate, ...],
    roots: tuple[Certificate, ...],
    moment: datetime,
) -> str | None:
    try:
        verifier = (
            PolicyBuilder()
            .store(Store([parse(root.der) for root in roots]))
            .time(moment)
            .extension_policies(ca_policy=_AUTHORITY, ee_policy=_LEAF)
            .build_client_verifier()
        )
        verifier.verify(parse(leaf.der), [parse(c.der) for c in between])
    except VerificationError as error:
        return str(error).replace("\n", " ")
    return None
