"""The dated tables that rules go by, and the trust anchors that the package ships.

The only module of the package that opens files, and only those of the distribution itself
(importlib.resources); rules are handed the values. Dates become aware moments, 00:00 UTC.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import certifi

from agent.certificate import Certificate
from agent.chain import Anchor, AnchorKind, Anchors, read_chain

# Chromium, net/data/ssl/chrome_root_store: a row of root_store.md, and in root_store.textproto an
# entry of `trust_anchors` with the fields of it that matter here. Roots alone count as anchors
# there; `additional_certs` are intermediates.
_MARKDOWN_ROW: Final = re.compile(r"^([0-9a-f]{64}) \| .+ \| .+ \| .+$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^(\w+):? \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FINGERPRINT: Final = re.compile(r'^\s*sha256_hex: "([0-9a-f]{64})"', re.MULTILINE)
_LIMIT: Final = re.compile(r"^\s*sct_not_after_sec: (\d+)", re.MULTILINE)


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
    """Everything in `data/policy.toml`, and from when the lists of roots are.

    `*_lasts` is how long a list counts as fresh.
    """

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
    trust_list_lasts: timedelta
    mozilla_list_as_of: datetime
    mozilla_list_lasts: timedelta

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
        trust_list_lasts=timedelta(days=raw["trust_list"]["stale_after_days"]),
        mozilla_list_as_of=_released(certifi.__version__),
        mozilla_list_lasts=timedelta(days=raw["trust_list"]["mozilla_stale_after_days"]),
    )


def _released(version: str) -> datetime:
    """Return the day of a version of certifi, which is a date: 2026.10.18."""
    year, month, day = (int(part) for part in version.split(".")[:3])
    return _moment(date(year, month, day))


@cache
def shipped_tables() -> Tables:
    """Return the tables that this distribution ships."""
    return read_tables(_shipped("policy.toml").decode(), _shipped("chrome_roots.tsv").decode())


@dataclass(frozen=True, slots=True)
class ChromeList:
    """A list of Chrome's roots: fingerprints, and up to when Chrome takes certificates below them.

    `as_of` is None where the list does not say from when it is.
    """

    roots: Mapping[str, datetime | None]
    source: str
    as_of: datetime | None = None

    def without_certificate(self, anchors: Anchors) -> tuple[str, ...]:
        """Return the fingerprints of its roots of which `anchors` holds no certificate."""
        return tuple(root for root in self.roots if root not in anchors.fingerprints)


def read_chrome_list(text: str) -> ChromeList:
    """Return Chromium's root_store.textproto or root_store.md, or a chrome_roots.tsv of ours.

    ValueError when it is none of these. The Markdown names constrained roots without their limits:
    those that the shipped list knows are taken from there.
    """
    try:
        if rows := _MARKDOWN_ROW.findall(text):
            limits = _shipped_list().roots
            return ChromeList({row: limits.get(row) for row in rows}, _version(text))
        if roots := dict(_textproto_roots(text)):
            return ChromeList(roots, _version(text))
        head = _head(text)
        as_of = _moment(date.fromisoformat(head["as of"]))
        return ChromeList(_table_roots(text), head["source"], as_of)
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise ValueError(
            "not a list of Chrome's roots: neither root_store.textproto nor root_store.md nor a "
            "table of ours"
        ) from error


def _version(text: str) -> str:
    found = re.search(r"^(?:Version|version_major): (\d+)", text, re.MULTILINE)
    return f"Chrome Root Store version {found[1]}" if found else "Chrome Root Store"


def _textproto_roots(text: str) -> Iterator[tuple[str, datetime | None]]:
    for kind, entry in _ENTRY.findall(text):
        fingerprint = _FINGERPRINT.search(entry)
        if kind == "trust_anchors" and fingerprint:
            # Constraints are alternatives, for versions of Chrome: the earliest end counts.
            limits = [datetime.fromtimestamp(int(limit), UTC) for limit in _LIMIT.findall(entry)]
            yield fingerprint[1], min(limits, default=None)


def with_chrome_list(tables: Tables, listed: ChromeList, otherwise: datetime) -> Tables:
    """Return tables that name this list of Chrome's roots; `otherwise` dates one without date."""
    return replace(
        tables, trust_list_as_of=listed.as_of or otherwise, trust_list_source=listed.source
    )


def shipped_anchors(
    operator: Iterable[Certificate] = (), listed: ChromeList | None = None
) -> Anchors:
    """Return Chrome's roots, certifi's and the operator's own, in this order of precedence.

    `listed` says which of them are on Chrome's list, if not those that we ship as such.
    """
    if listed is None:
        return Anchors((*_public_anchors(), *(Anchor(c, AnchorKind.PRIVATE) for c in operator)))
    public = {anchor.certificate: AnchorKind.PUBLIC for anchor in _public_anchors()}
    private = dict.fromkeys(operator, AnchorKind.PRIVATE)
    return Anchors(
        Anchor(
            certificate,
            AnchorKind.CHROME if certificate.fingerprint_sha256 in listed.roots else kind,
            listed.roots.get(certificate.fingerprint_sha256),
        )
        for certificate, kind in (private | public).items()
    )


@cache
def _public_anchors() -> tuple[Anchor, ...]:
    limits = _shipped_list().roots
    chrome = read_chain(_shipped("chrome_roots.pem")).certificates
    # Mozilla's list as certifi packages it, a dependency of httpx.
    mozilla = read_chain((resources.files("certifi") / "cacert.pem").read_bytes()).certificates
    return (
        *(Anchor(c, AnchorKind.CHROME, limits.get(c.fingerprint_sha256)) for c in chrome),
        *(Anchor(c, AnchorKind.PUBLIC) for c in mozilla),
    )


@cache
def _shipped_list() -> ChromeList:
    return read_chrome_list(_shipped("chrome_roots.tsv").decode())


def _head(text: str) -> Mapping[str, str]:
    """Return what the comments at the head of a table say, as in "# as of: 2026-11-02"."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    pairs = (comment.partition(": ") for comment in comments)
    return {name: value for name, _, value in pairs}


def _table_roots(text: str) -> Mapping[str, datetime | None]:
    """Return the roots of our own table, each with its constraint SCTNotAfter if it has one."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return {
        row["sha256_cert"]: datetime.fromisoformat(row["sct_not_after"])
        if row["sct_not_after"]
        else None
        for row in rows
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
