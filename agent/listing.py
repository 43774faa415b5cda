"""The operator's lists of certificates: what the server accepts, and what was uploaded to the org.

Both are PEM files that the policy compares fingerprints with. A list that can be read in part is of
no use: a certificate would seem not to be on it because its block is damaged, or not written yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from agent.chain import read_chain
from agent.org import Policy


@dataclass(frozen=True, slots=True)
class Lists:
    """The SHA-256 fingerprints on each list, None where there is no list or it cannot be used.

    `problems` says which cannot be used, by the key of Policy, and why.
    """

    accepted_roots: frozenset[str] | None = None
    uploaded: frozenset[str] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)


def read_lists(policy: Policy) -> Lists:
    """Return what the files hold that the policy names."""
    problems: dict[str, str] = {}
    read: dict[str, frozenset[str] | None] = {}
    for key, path in (("accepted_roots", policy.accepted_roots), ("uploaded", policy.uploaded)):
        found = None if path is None else _read(path)
        if isinstance(found, str):
            problems[key], found = found, None
        read[key] = found
    return Lists(read["accepted_roots"], read["uploaded"], problems)


def _read(path: str) -> frozenset[str] | str:
    try:
        listed = _listed(Path(path).read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return listed if isinstance(listed, frozenset) else f"{path}: {listed}"


# Orgs share their few lists.
@lru_cache(maxsize=64)
def _listed(content: bytes) -> frozenset[str] | str:
    file = read_chain(content)
    if file.problems:
        return "; ".join(file.problems)
    return frozenset(certificate.fingerprint_sha256 for certificate in file.certificates)
