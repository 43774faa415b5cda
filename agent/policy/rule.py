"""What a rule is: the evidence it is given, the findings it makes, and its registration.

A rule is one function of Evidence, decorated with `@rule`. Its name is the metric label, its
docstring the documentation, its findings sentences for whoever was woken. It must never know where
the evidence came from; time comes in as `evidence.now`, so every rule can be asked "at date D".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, ChainAnalysis, analyse
from agent.org import Suppression
from agent.policy.tables import Tables
from agent.result import ClientAuth, Failure, Outcome


class Severity(StrEnum):
    """How much a finding matters; ordered info < warning < critical."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return _RANKS[self.value]

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


_RANKS: Final = {"info": 0, "warning": 1, "critical": 2}


class Side(StrEnum):
    """Whose certificates a finding is about; ORG is about both or about none."""

    CLIENT = "client"
    SERVER = "server"
    ORG = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding. `position` counts from 0 in the chain as presented; None when it has no place.

    `bites_from` is the moment since which it counts, or from which on it will count in full; None
    when no date has to do with it.
    """

    rule: str
    severity: Severity
    side: Side
    position: int | None
    fingerprint: str | None
    subject: str | None
    message: str
    remedy: str
    reference: str
    bites_from: datetime | None

    def __repr__(self) -> str:
        """Say which rule, how bad and why."""
        where = f" {self.side}" if self.side else ""
        return f"<Violation {self.rule}{where} {self.severity}: {self.message}>"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule yields: the message, and whatever differs from the rule's own defaults."""

    message: str
    side: Side = Side.ORG
    certificate: Certificate | None = None
    position: int | None = None
    severity: Severity | None = None
    remedy: str | None = None
    bites_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The operator's notice periods for leaf certificates; None leaves the rule's own."""

    expiry_warning: timedelta | None = None
    expiry_critical: timedelta | None = None


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What is known of the client's private key without showing it.

    The hash is that of its public half, None when the key could not be opened. `encrypted` means
    that it needs a passphrase; `blocks` counts the private keys in the file; `mode` holds the
    file's permission bits, None when it is not a file; `owned` tells whether it belongs to this
    process's user or to root.
    """

    subject_public_key_info_sha256: str | None
    encrypted: bool = False
    blocks: int = 1
    mode: int | None = None
    owned: bool = True


@dataclass(frozen=True, slots=True)
class OtherOrg:
    """The client leaf of another configured org."""

    org: str
    fingerprint_sha256: str
    subject_public_key_info_sha256: str


class RevocationState(StrEnum):
    """What a certificate's issuer says about it, or why it could not be asked."""

    GOOD = "good"
    REVOKED = "revoked"
    UNAVAILABLE = "unavailable"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Revocation:
    """The answer for one certificate; `detail` says when and why, or what failed."""

    state: RevocationState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that rules may judge about one org. None means that it was not seen.

    Chains are as presented, leaf first if the presenter kept to the order. `previous_*` are the
    chains that were in use before the present ones. `refusal` and `enforcement` are the last
    outcomes of these probes; `server_failure` is why we refused the server, if we did;
    `clock_skew` is their clock minus ours in seconds. `revocation` maps fingerprints to answers.
    `accepted_roots` holds the fingerprints of the roots that the operator knows the server accepts.
    `server_name` is the name that the server's certificate must carry if it is not `host`.
    `uploaded` holds the fingerprints of the certificates that the operator uploaded to the org.
    `identity_problem` says why a changed certificate or key file is not in use.
    """

    now: datetime
    tables: Tables
    anchors: Anchors
    org: str = ""
    host: str | None = None
    server_name: str | None = None
    port: int | None = None
    api_version: str | None = None
    soap_login: bool = False
    client_chain: tuple[Certificate, ...] | None = None
    server_chain: tuple[Certificate, ...] | None = None
    private_key: PrivateKey | None = None
    client_auth: ClientAuth | None = None
    tls_version: str | None = None
    cipher_suite: str | None = None
    acceptable_issuers: tuple[str, ...] | None = None
    server_failure: Failure | None = None
    refusal: Outcome | None = None
    enforcement: Outcome | None = None
    clock_skew: float | None = None
    previous_client_chain: tuple[Certificate, ...] | None = None
    previous_server_chain: tuple[Certificate, ...] | None = None
    other_orgs: tuple[OtherOrg, ...] | None = None
    revocation: Mapping[str, Revocation] | None = None
    accepted_roots: frozenset[str] | None = None
    uploaded: frozenset[str] | None = None
    identity_problem: str | None = None
    profile: str = "salesforce"
    thresholds: Thresholds = field(default_factory=Thresholds)
    suppressions: tuple[Suppression, ...] = ()
    # Made when a rule first asks: most rules do, and to find it by the chain costs more than they.
    _client: ChainAnalysis | None = field(default=None, init=False, repr=False, compare=False)
    _server: ChainAnalysis | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def client(self) -> ChainAnalysis:
        """The client's chain, taken apart; ask only when `client_chain` was seen."""
        if (known := self._client) is None:
            key = self.private_key
            leaf_key = key.subject_public_key_info_sha256 if key else None
            known = analyse(self.client_chain or (), self.anchors, leaf_key)
            object.__setattr__(self, "_client", known)
        return known

    @property
    def server(self) -> ChainAnalysis:
        """The server's chain, taken apart; ask only when `server_chain` was seen."""
        if (known := self._server) is None:
            known = analyse(self.server_chain or (), self.anchors)
            object.__setattr__(self, "_server", known)
        return known

    def seen(self) -> frozenset[str]:
        """Return the names of the fields that say something; an empty chain does not."""
        values = ((name, getattr(self, name)) for name in _FIELDS)
        return frozenset(n for n, v in values if v is not None and not (n in BOTH and not v))

    def sides(self) -> Iterator[tuple[Side, ChainAnalysis]]:
        """Yield each side whose chain was seen."""
        if self.client_chain:
            yield Side.CLIENT, self.client
        if self.server_chain:
            yield Side.SERVER, self.server

    def analysis(self, side: Side) -> ChainAnalysis:
        """Return the chain of one side, taken apart."""
        return self.client if side is Side.CLIENT else self.server

    def sent(self) -> Iterator[tuple[Side, int, Certificate]]:
        """Yield side, position and certificate of everything presented; duplicates once."""
        for side, analysis in self.sides():
            for position, certificate in analysis.presented():
                yield side, position, certificate

    def leaves(self) -> Iterator[tuple[Side, int, Certificate]]:
        """Yield side, position and certificate of each side's end-entity certificate."""
        for side, analysis in self.sides():
            yield side, analysis.leaf_position, analysis.leaf


_FIELDS: Final = tuple(part.name for part in fields(Evidence) if part.init)

Check = Callable[[Evidence], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One registered rule. `severity` is its worst; a finding may say less.

    `needs` names the fields of Evidence without which it is not evaluated: all of them, except
    that a rule about chains with `either` needs one of them. `unless` names the rules that tell
    the same root cause better: where one of them fired on the same side or on the org, and matters
    as much, this one is silent; with `same_certificate` only if it fired about the same one. A
    `last_resort` is silent where anything critical fired about a certificate of the same side.
    `server_remedy` is what to do about the server's side, where that is not for us to mend; None
    means the same.
    """

    name: str
    severity: Severity
    documentation: str
    remedy: str
    reference: str
    needs: tuple[str, ...]
    either: bool
    unless: tuple[str, ...]
    same_certificate: bool
    last_resort: bool
    server_remedy: str | None
    module: str
    check: Check = field(repr=False, compare=False)

    def remedy_for(self, side: Side, own: str | None = None) -> str:
        """Return what to do about a finding on this side; `own` is what the finding itself says."""
        return (self.server_remedy if side is Side.SERVER else None) or own or self.remedy

    def lacks_evidence(self, seen: frozenset[str]) -> bool:
        """Tell whether the rule cannot be evaluated where these fields of Evidence were seen."""
        if not self.needs:
            return False
        return seen.isdisjoint(self.needs) if self.either else not seen.issuperset(self.needs)


_registered: Final[dict[str, Rule]] = {}

# Every rule by name: what may become the label `rule`. Filled by importing the rule modules.
CATALOGUE: Final[Mapping[str, Rule]] = MappingProxyType(_registered)

TELL_OWNER: Final = "Tell the server's owner (Salesforce Support)."

CLIENT: Final = ("client_chain",)
SERVER: Final = ("server_chain",)
BOTH: Final = ("client_chain", "server_chain")


def rule(
    severity: Severity,
    *,
    remedy: str,
    reference: str,
    needs: tuple[str, ...] = (),
    either: bool = False,
    unless: tuple[str, ...] = (),
    same_certificate: bool = False,
    last_resort: bool = False,
    server_remedy: str | None = TELL_OWNER,
) -> Callable[[Check], Check]:
    """Register a function as a rule; TypeError when its name is taken or it has no docstring."""

    def register(check: Check) -> Check:
        name = check.__name__
        if name in _registered:
            raise TypeError(f"two rules are called {name!r}")
        if unknown := sorted({*needs} - {*_FIELDS}):
            raise TypeError(f"rule {name!r} needs what no evidence has: {', '.join(unknown)}")
        documentation = inspect.getdoc(check)
        if not documentation:
            raise TypeError(f"rule {name!r} has no docstring: it is the documentation")
        _registered[name] = Rule(
            name=name,
            severity=severity,
            documentation=documentation,
            remedy=remedy,
            reference=reference,
            needs=needs,
            either=either,
            unless=unless,
            same_certificate=same_certificate,
            last_resort=last_resort,
            server_remedy=server_remedy if either else None,
            module=check.__module__,
            check=check,
        )
        return check

    return register


@rule(
    Severity.WARNING,
    remedy="Report it with the evidence (`sfmtls-agent inspect --json`); other rules still ran.",
    reference="-",
)
def internal(evidence: Evidence) -> Iterator[Finding]:  # noqa: ARG001 - evaluate() makes it
    """A rule failed instead of judging: a bug in the agent, reported in the rule's place."""
    yield from ()
