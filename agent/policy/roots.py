"""Rules about where chains lead: shared hierarchies, roots on and off the lists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from agent.certificate import CLIENT_AUTH
from agent.chain import Anchor, AnchorKind, ChainAnalysis
from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.validity import renewal_moment
from agent.policy.wording import counting, day, which

_CHROME: Final = "Chrome Root Program Policy 1.8 §1.3.2"
_KB_PKI: Final = "https://help.salesforce.com/s/articleView?id=005237282"
_KB_ROOTS: Final = "https://help.salesforce.com/s/articleView?id=000385468"
_ALLOWED: Final = "Nothing: that is allowed under private roots."
_SEPARATE: Final = "Get the client certificate from a hierarchy that the server does not use."


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    remedy=_SEPARATE,
    reference="Salesforce Help: Configure Your API Client to Use Mutual Authentication; "
    f"{_KB_PKI}; {_CHROME}",
    unless=("same_leaf_as_server",),
)
def shared_public_root(evidence: Evidence) -> Iterator[Finding]:
    """Client and server chains can lead to the same root of Chrome's list.

    Critical from the day of the chosen profile; before it, a warning.
    """
    start = evidence.tables.profiles[evidence.profile].separate_hierarchies
    bound = start.binds(evidence.client.leaf, evidence.now)
    for root in _shared_roots(evidence):
        if root.kind is AnchorKind.CHROME:
            yield Finding(
                f"The client's and the server's chains both lead to {root.certificate.subject}, "
                f"which is on Chrome's list: that is forbidden {counting(start)}.",
                certificate=root.certificate,
                severity=Severity.CRITICAL if bound else Severity.WARNING,
                bites_from=start.date,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    remedy=_SEPARATE,
    reference=_KB_PKI,
    unless=("same_leaf_as_server",),
)
def shared_root_unlisted(evidence: Evidence) -> Iterator[Finding]:
    """Client and server chains lead to one root outside Chrome's list; a private one may be."""
    for root in _shared_roots(evidence):
        if root.kind is not AnchorKind.CHROME:
            public = root.kind is AnchorKind.PUBLIC
            yield Finding(
                f"The client's and the server's chains both lead to the {root.kind} root "
                f"{root.certificate.subject}.",
                certificate=root.certificate,
                severity=Severity.WARNING if public else Severity.INFO,
                remedy=None if public else _ALLOWED,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    remedy=_SEPARATE,
    reference=f"{_KB_PKI}; {_CHROME}",
    unless=("same_leaf_as_server", "shared_public_root", "shared_root_unlisted"),
)
def shared_intermediate(evidence: Evidence) -> Iterator[Finding]:
    """Client and server were issued under one authority, although no known root is both's.

    Critical from the day of the chosen profile if a root is on Chrome's list or unknown; a warning
    before it and under other public roots, a remark under private ones.
    """
    client, server = evidence.client, evidence.server
    start = evidence.tables.profiles[evidence.profile].separate_hierarchies
    shared = sorted(_authorities(client) & _authorities(server))
    if not shared:
        return
    counts = not (client.roots and server.roots) or client.in_chrome_list or server.in_chrome_list
    severity = Severity.WARNING if counts or client.public or server.public else Severity.INFO
    if counts and start.binds(client.leaf, evidence.now):
        severity = Severity.CRITICAL
    yield Finding(
        f"The client's and the server's chains both go through {shared[0][0]}"
        + (
            f", whose root may be a public one: that is forbidden {counting(start)}."
            if counts
            else "."
        ),
        severity=severity,
        remedy=_ALLOWED if severity is Severity.INFO else None,
        bites_from=start.date if counts else None,
    )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Plan for a private authority, or one for client certificates, that Salesforce trusts.",
    reference=f"{_CHROME}; {_KB_PKI}",
    unless=("shared_public_root", "clientauth_not_renewable"),
)
def client_root_in_chrome_list(evidence: Evidence) -> Iterator[Finding]:
    """The client's chain leads to a root of Chrome's list, which will stop to issue for clients.

    A warning; critical when the certificate was issued after the policy allows it.
    """
    analysis = evidence.client
    start = evidence.tables.dates["chrome_leaf_server_auth_only"]
    listed = [root for root in analysis.roots if root.kind is AnchorKind.CHROME]
    if listed:
        bound = start.binds(analysis.leaf, evidence.now)
        yield Finding(
            f"The client's chain leads to {listed[0].certificate.subject}, which is on Chrome's "
            f"list: it may issue no client certificates from {day(start.date)} on.",
            Side.CLIENT,
            listed[0].certificate,
            severity=Severity.CRITICAL if bound else Severity.WARNING,
            bites_from=start.date,
        )


@rule(
    Severity.WARNING,
    needs=CLIENT,
    remedy="Choose another authority before the next renewal: this one will leave clientAuth out.",
    reference="the authority's own announcement, named in data/policy.toml",
)
def clientauth_not_renewable(evidence: Evidence) -> Iterator[Finding]:
    """The public authority of the client's certificate stops clientAuth before its next renewal."""
    analysis = evidence.client
    leaf = analysis.leaf
    cutoff = evidence.tables.client_auth_cutoff(analysis.authorities())
    renewal = renewal_moment(leaf)
    asserted = CLIENT_AUTH in (leaf.extended_key_usage or ())
    # What was issued against Chrome's policy will not be renewed anyhow, and is told as such.
    dated = evidence.tables.dates["chrome_leaf_server_auth_only"]
    too_late = analysis.in_chrome_list and dated.binds(leaf, evidence.now)
    if analysis.public and asserted and cutoff and renewal > cutoff.date and not too_late:
        yield Finding(
            f"{which(Side.CLIENT, analysis.leaf_position, leaf)} is due for renewal on "
            f"{day(renewal)}, but {cutoff.name} issues no clientAuth from {day(cutoff.date)} on.",
            Side.CLIENT,
            leaf,
            analysis.leaf_position,
            bites_from=cutoff.date,
        )


@rule(
    Severity.INFO,
    needs=CLIENT,
    remedy="Check that the root is listed at https://MYDOMAIN.my.salesforce.com/cacerts.jsp.",
    reference=f"{_KB_PKI}; {_KB_ROOTS}",
    unless=("leaf_self_signed", "root_not_in_cacerts"),
)
def root_private(evidence: Evidence) -> Iterator[Finding]:
    """The client's chain leads to a private root, which Salesforce must know."""
    analysis = evidence.client
    if analysis.private and not _accepted(analysis, evidence.accepted_roots or frozenset()):
        root = analysis.roots[0].certificate
        yield Finding(
            f"The client's chain leads to the private root {_names(analysis)}, which Salesforce "
            "must be told to trust.",
            Side.CLIENT,
            root,
        )


@rule(
    Severity.CRITICAL,
    needs=("client_chain", "accepted_roots"),
    remedy="Get a certificate under a root that is listed at cacerts.jsp.",
    reference=_KB_ROOTS,
    unless=("leaf_self_signed",),
)
def root_not_in_cacerts(evidence: Evidence) -> Iterator[Finding]:
    """The client's chain leads to no root on the list of those that the server accepts.

    The list is the operator's, a saved copy of cacerts.jsp.
    """
    analysis = evidence.client
    known = evidence.accepted_roots or frozenset()
    if analysis.roots and not _accepted(analysis, known):
        root = analysis.roots[0].certificate
        yield Finding(
            f"The client's chain leads to {_names(analysis)}, which is not on the list of roots "
            f"that the server accepts (it holds {len(known)}).",
            Side.CLIENT,
            root,
        )


def _names(analysis: ChainAnalysis) -> str:
    return " or ".join(sorted(root.certificate.subject for root in analysis.roots))


def _accepted(analysis: ChainAnalysis, known: frozenset[str]) -> bool:
    return any(root.certificate.fingerprint_sha256 in known for root in analysis.roots)


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Expect the authority to move to another root, and the chain to change.",
    reference="Chrome Root Store, constraint SCTNotAfter (chromium net/data/ssl/chrome_root_store)",
)
def root_constrained(evidence: Evidence) -> Iterator[Finding]:
    """Chrome phases a root out: it accepts only certificates that were logged before a day.

    Critical when the server's certificate was logged later and no other root is reached.
    """
    for side, analysis in evidence.sides():
        limits = [root.sct_not_after for root in analysis.roots]
        for root in analysis.roots:
            if root.sct_not_after is None:
                continue
            logged = analysis.leaf.signed_certificate_timestamps
            late = bool(logged) and all(
                limit is not None and min(logged) > limit for limit in limits
            )
            refused = side is Side.SERVER and late
            yield Finding(
                f"The {side} chain leads to {root.certificate.subject}; Chrome accepts "
                f"certificates under it only if they were logged up to {day(root.sct_not_after)}"
                f"{_logged_on(logged) if refused else ''}.",
                side,
                root.certificate,
                severity=Severity.CRITICAL if refused else Severity.INFO,
                bites_from=root.sct_not_after,
            )


def _logged_on(logged: tuple[datetime, ...]) -> str:
    return f", and the server's was on {day(min(logged))}"


@rule(
    Severity.INFO,
    needs=BOTH,
    remedy="Nothing now: Chrome's policy counts roots, not owners.",
    reference=_CHROME,
    unless=("shared_public_root", "shared_root_unlisted", "shared_intermediate"),
)
def same_ca_owner(evidence: Evidence) -> Iterator[Finding]:
    """Client and server chains lead to different public roots of one owner."""
    client, server = (
        {
            root.certificate.organization
            for root in analysis.roots
            if root.certificate.organization and root.kind is not AnchorKind.PRIVATE
        }
        for analysis in (evidence.client, evidence.server)
    )
    if client & server:
        yield Finding(
            f"The client's and the server's chains lead to different roots of one owner, "
            f"{min(client & server)}."
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    remedy="Give the client a certificate and key of its own, from a hierarchy of its own.",
    reference="Salesforce Help: Configure Your API Client to Use Mutual Authentication",
)
def same_leaf_as_server(evidence: Evidence) -> Iterator[Finding]:
    """The client presents the server's own certificate."""
    leaf = evidence.client.leaf
    if leaf == evidence.server.leaf:
        yield Finding(
            f"The client presents the server's own certificate ({leaf.subject}).", certificate=leaf
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    remedy="Make a new key for the client: whoever runs one can pose as the other.",
    reference="Salesforce Help: Configure Your API Client to Use Mutual Authentication",
    unless=("same_leaf_as_server",),
)
def same_key_as_server(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate has the server's key."""
    client, server = evidence.client.leaf, evidence.server.leaf
    if client.subject_public_key_info_sha256 == server.subject_public_key_info_sha256:
        yield Finding(
            f"The client's certificate ({client.subject}) has the key of the server's "
            f"({server.subject}).",
            certificate=client,
        )


@rule(
    Severity.INFO,
    remedy="Upgrade the agent, or take a newer list (scripts/make_chrome_roots.py makes one).",
    reference="Chrome Root Store (about four updates a year); https://pypi.org/project/certifi/",
)
def trust_list_stale(evidence: Evidence) -> Iterator[Finding]:
    """The list of Chrome's roots that we go by is older than 180 days, or Mozilla's than a year."""
    tables = evidence.tables
    age = evidence.now - tables.trust_list_as_of
    if age > tables.trust_list_lasts:
        yield Finding(
            f"The list of Chrome's roots is {age.days} days old "
            f"({day(tables.trust_list_as_of)}, {tables.trust_list_source}).",
            bites_from=tables.trust_list_as_of + tables.trust_list_lasts,
        )
    age = evidence.now - tables.mozilla_list_as_of
    if age > tables.mozilla_list_lasts:
        yield Finding(
            f"The list of Mozilla's roots is {age.days} days old "
            f"({day(tables.mozilla_list_as_of)}, certifi).",
            remedy="Upgrade certifi.",
            bites_from=tables.mozilla_list_as_of + tables.mozilla_list_lasts,
        )


def _shared_roots(evidence: Evidence) -> Iterator[Anchor]:
    shared = evidence.client.root_keys & evidence.server.root_keys
    return (root for root in evidence.server.roots if root.key in shared)


def _authorities(analysis: ChainAnalysis) -> set[tuple[str, str]]:
    """Return name and key of every authority; and the identifiers that certificates know it by.

    Where the top's issuer is unknown, its identifier is all there is of it.
    """
    authorities = analysis.authorities()
    found = {(c.subject, c.subject_public_key_info_sha256) for c in authorities}
    found |= {(c.subject, c.subject_key_identifier or "") for c in authorities}
    top = analysis.walk[-1]
    if not analysis.paths and top.authority_key_identifier:
        found.add((top.issuer, top.authority_key_identifier))
    return {pair for pair in found if pair[1]}
