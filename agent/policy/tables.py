"""The dated tables that rules go by, and the trust anchors that the package ships.

The only module of the package that opens files, and only those of the distribution itself
(importlib.resources); rules are handed the values. Dates become aware moments, 00:00 UTC.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache
from importlib import resources
from typing import Any, Literal

from agent.certificate import Certificate
from agent.chain import Anchor, AnchorKind, Anchors, read_chain


@dataclass(frozen=True, slots=True)
class PolicyDate:
    """The day from which something counts: for whatever is seen, or for what is issued then."""

    name: str
    date: datetime
    applies_to: Literal["not_before", "now"]
    source: str

    def binds(self, certificate: Certificate, now: datetime) -> bool:
        """Tell whether `certificate` falls under it at the moment `now`."""
        moment = certificate.not_before if self.applies_to == "not_before" else now
        return moment >= self.date


@dataclass(frozen=True, slots=True)
class Profile:
    """Whose reading counts: from when on hierarchies of clients and servers must be separate.

    `chrome_roots_only`: it concerns certificates under roots of Chrome's list and no others.
    """

    name: str
    separate_hierarchies: PolicyDate
    chrome_roots_only: bool


@dataclass(frozen=True, slots=True)
class ApiVersions:
    """A range of API versions and the days on which it is deprecated and removed."""

    first: int
    last: int
    deprecated: datetime
    removed: datetime
    source: str


@dataclass(frozen=True, slots=True)
class ValidityLimit:
    """The longest validity, in days, of public certificates issued from a day on."""

    since: datetime
    days: int
    source: str


@dataclass(frozen=True, slots=True)
class ClientAuthCutoff:
    """The day from which a public authority issues no clientAuth any more."""

    name: str
    organizations: frozenset[str]
    date: datetime
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Everything in `data/policy.toml`, and from when and where the list of Chrome's roots is."""

    compiled: datetime
    dates: Mapping[str, PolicyDate]
    profiles: Mapping[str, Profile]
    my_domain_suffixes: tuple[str, ...]
    shared_hosts: frozenset[str]
    port: int
    api_versions: tuple[ApiVersions, ...]
    validity: tuple[ValidityLimit, ...]
    client_auth_cutoffs: tuple[ClientAuthCutoff, ...]
    trust_list_as_of: datetime
    trust_list_source: str
    trust_list_stale_after_days: int

    def validity_limit(self, not_before: datetime) -> ValidityLimit | None:
        """Return the limit for a certificate issued at `not_before`; None before the first."""
        due = [limit for limit in self.validity if limit.since <= not_before]
        return max(due, key=lambda limit: limit.since) if due else None

    def client_auth_cutoff(self, certificates: Iterable[Certificate]) -> ClientAuthCutoff | None:
        """Return the cut-off of the first authority among `certificates` that has one."""
        for certificate in certificates:
            organization = (certificate.organization or "").casefold()
            for cutoff in self.client_auth_cutoffs:
                if organization in cutoff.organizations:
                    return cutoff
        return None

    def versions(self, api_version: str) -> ApiVersions | None:
        """Return the dated range that holds `api_version` ("31.0"), or None."""
        major, _, _ = api_version.partition(".")
        if not major.isdecimal():
            return None
        return next((v for v in self.api_versions if v.first <= int(major) <= v.last), None)


def read_tables(text: str, roots: str) -> Tables:
    """Return the tables of a policy.toml, and of the head of a chrome_roots.tsv.

    KeyError or ValueError when one is not what it should be.
    """
    raw = tomllib.loads(text)
    head = _head(roots)
    dates = {
        row["id"]: PolicyDate(row["id"], _moment(row["date"]), row["applies_to"], row["source"])
        for row in raw["dates"]
    }
    if len(dates) != len(raw["dates"]):
        raise ValueError("two policy dates have one id")
    return Tables(
        compiled=_moment(raw["compiled"]),
        dates=dates,
        profiles={
            name: Profile(
                name, dates[profile["separate_hierarchies"]], profile["chrome_roots_only"]
            )
            for name, profile in raw["profiles"].items()
        },
        my_domain_suffixes=tuple(raw["my_domain"]["suffixes"]),
        shared_hosts=frozenset(raw["my_domain"]["shared_hosts"]),
        port=raw["my_domain"]["port"],
        api_versions=tuple(_api_versions(row) for row in raw["api_versions"]),
        validity=tuple(
            ValidityLimit(_moment(row["from"]), row["days"], row["source"])
            for row in raw["validity"]
        ),
        client_auth_cutoffs=tuple(
            ClientAuthCutoff(
                row["name"],
                frozenset(name.casefold() for name in row["organizations"]),
                _moment(row["date"]),
                row["source"],
            )
            for row in raw["client_auth_cutoffs"]
        ),
        trust_list_as_of=_moment(date.fromisoformat(head["as of"])),
        trust_list_source=head["source"],
        trust_list_stale_after_days=raw["trust_list"]["stale_after_days"],
    )


@cache
def shipped_tables() -> Tables:
    """Return the tables that this distribution ships."""
    return read_tables(_shipped("policy.toml").decode(), _shipped("chrome_roots.tsv").decode())


def shipped_anchors(operator: Iterable[Certificate] = ()) -> Anchors:
    """Return Chrome's roots, certifi's and the operator's own, in this order of precedence."""
    return Anchors((*_public_anchors(), *(Anchor(c, AnchorKind.PRIVATE) for c in operator)))


@cache
def _public_anchors() -> tuple[Anchor, ...]:
    sct_not_after = _sct_not_after(_shipped("chrome_roots.tsv").decode())
    chrome = read_chain(_shipped("chrome_roots.pem")).certificates
    # Mozilla's list as certifi packages it, a dependency of httpx.
    mozilla = read_chain((resources.files("certifi") / "cacert.pem").read_bytes()).certificates
    return (
        *(Anchor(c, AnchorKind.CHROME, sct_not_after.get(c.fingerprint_sha256)) for c in chrome),
        *(Anchor(c, AnchorKind.PUBLIC) for c in mozilla),
    )


def _head(text: str) -> Mapping[str, str]:
    """Return what the comments at the head of a table say, as in "# as of: 2026-11-02"."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    pairs = (comment.partition(": ") for comment in comments)
    return {name: value for name, _, value in pairs}


def _sct_not_after(text: str) -> Mapping[str, datetime]:
    """Return the constraint SCTNotAfter by fingerprint, for the roots that have one."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return {
        row["sha256_cert"]: datetime.fromisoformat(row["sct_not_after"])
        for row in rows
        if row["sct_not_after"]
    }


def _shipped(name: str) -> bytes:
    return (resources.files("agent") / "data" / name).read_bytes()


def _moment(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _api_versions(row: Mapping[str, Any]) -> ApiVersions:
    return ApiVersions(
        first=row["first"],
        last=row["last"],
        deprecated=_moment(row["deprecated"]),
        removed=_moment(row["removed"]),
        source=row["source"],
    )
