"""The client leaf of every org, found by certificate and by key; it tells which orgs share one.

Salesforce wants a certificate for each org. Asked in every cycle of thousands of orgs, so nothing
here looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.certificate import Certificate
from agent.org import Org
from agent.policy.rule import OtherOrg

# Where more share one, a hundred say it as well as thousands do.
_MOST: Final = 100
# An organization's id has 15 characters; those of 18 end in a checksum of the others' case.
_ID_LENGTH: Final = 15


@dataclass(frozen=True, slots=True)
class _Entry:
    other: OtherOrg
    host: str
    organization: str | None

    def is_of(self, org: Org, leaf: Certificate) -> bool:
        """Tell whether this is what the entry of the org would be, were it made again."""
        return (
            self.other.fingerprint_sha256 == leaf.fingerprint_sha256
            and self.host == org.endpoint.host.casefold()
            and self.organization == _organization(org)
        )

    def same_organization(self, org: Org) -> bool:
        """Tell whether both are entries for one Salesforce org, which may well have one leaf."""
        if self.host == org.endpoint.host.casefold():
            return True
        return self.organization is not None and self.organization == _organization(org)


class Leaves:
    """Knows the leaf that each org presents. `configured` tells whether there still is such an org.

    Belongs to one event loop.
    """

    def __init__(self, configured: Callable[[str], bool] = lambda _: True) -> None:
        self._configured = configured
        self._known: dict[str, _Entry] = {}
        # Both hold names of orgs, in the order in which they came.
        self._by_certificate: dict[str, dict[str, None]] = {}
        self._by_key: dict[str, dict[str, None]] = {}

    def put(self, org: Org, leaf: Certificate) -> None:
        """Take in what the org presents from now on."""
        known = self._known.get(org.name)
        if known is not None and known.is_of(org, leaf):
            return
        other = OtherOrg(org.name, leaf.fingerprint_sha256, leaf.subject_public_key_info_sha256)
        entry = _Entry(other, org.endpoint.host.casefold(), _organization(org))
        self._forget(org.name)
        self._known[org.name] = entry
        self._by_certificate.setdefault(other.fingerprint_sha256, {})[org.name] = None
        self._by_key.setdefault(other.subject_public_key_info_sha256, {})[org.name] = None

    def sharing(self, org: Org) -> tuple[OtherOrg, ...]:
        """Return the other orgs with this one's leaf or its key, a hundred at most.

        Two entries for one Salesforce org, by host or organization id, do not share: they are one.
        """
        own = self._known.get(org.name)
        if own is None:
            return ()
        same_certificate = self._by_certificate[own.other.fingerprint_sha256]
        same_key = self._by_key[own.other.subject_public_key_info_sha256]
        if len(same_key) == 1:
            return ()
        # Those with the same certificate first: they must not be cut off for the others.
        found = (*self._others(org, same_certificate), *self._others(org, same_key))
        return tuple(dict.fromkeys(found))[:_MOST]

    def _others(self, org: Org, names: Iterable[str]) -> Iterator[OtherOrg]:
        entries = (self._known[name] for name in names if self._configured(name))
        others = (entry.other for entry in entries if not entry.same_organization(org))
        return islice(others, _MOST)

    def _forget(self, name: str) -> None:
        entry = self._known.pop(name, None)
        if entry is None:
            return
        for index, value in (
            (self._by_certificate, entry.other.fingerprint_sha256),
            (self._by_key, entry.other.subject_public_key_info_sha256),
        ):
            del index[value][name]
            if not index[value]:
                del index[value]


def _organization(org: Org) -> str | None:
    return org.organization_id[:_ID_LENGTH] if org.organization_id else None
