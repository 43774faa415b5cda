"""A chain as a tree of text: the leaf on top, under each certificate whoever issued it.

A cross-signed chain branches; every branch ends at a root, or at the issuer that nobody has. What
the file holds beside the tree is named under it. Pure: text in lines, without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from agent.certificate import (
    ANY_EXTENDED_KEY_USAGE,
    CLIENT_AUTH,
    SERVER_AUTH,
    Certificate,
    PublicKey,
)
from agent.chain import Anchor, AnchorKind, Anchors, ChainAnalysis

# A hostile file can have dozens of paths and hundreds of certificates beside them.
_MOST_PATHS: Final = 8
_MOST_BESIDE: Final = 12
_MOST_CHARACTERS: Final = 160

_PURPOSES: Final[Mapping[str, str]] = {
    CLIENT_AUTH: "clientAuth",
    SERVER_AUTH: "serverAuth",
    ANY_EXTENDED_KEY_USAGE: "any purpose",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
}
_KINDS: Final[Mapping[AnchorKind, str]] = {
    AnchorKind.CHROME: "on Chrome's list",
    AnchorKind.PUBLIC: "on Mozilla's list, not on Chrome's",
    AnchorKind.PRIVATE: "private",
}
_CURVES: Final[Mapping[str, str]] = {
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}


def tree(analysis: ChainAnalysis, anchors: Anchors, now: datetime) -> tuple[str, ...]:
    """Return the lines of the tree, and under it what lies beside it."""
    paths = sorted(analysis.paths, key=len)[:_MOST_PATHS] or [analysis.walk]
    lines = [*_node(_Picture(analysis, anchors, now), paths, "", "")]
    more = len(analysis.paths) - len(paths)
    if more > 0:
        lines.append(f"… and {more} more {'path' if more == 1 else 'paths'}")
    beside = [
        *((i, "repeats an earlier one") for i in analysis.duplicates),
        *((i, "issued none of the others") for i in analysis.extra if i not in analysis.duplicates),
    ]
    for position, why in sorted(beside)[:_MOST_BESIDE]:
        lines.append(f"beside it: [{position}] {name(analysis.certificates[position])}, {why}")
    if len(beside) > _MOST_BESIDE:
        lines.append(f"… and {len(beside) - _MOST_BESIDE} more beside it")
    return tuple(lines)


class _Picture:
    """What is the same for the whole tree: the chain, the roots that are known, and the moment."""

    def __init__(self, analysis: ChainAnalysis, anchors: Anchors, now: datetime) -> None:
        self.analysis = analysis
        self.anchors = anchors
        self.now = now

    def title(self, certificate: Certificate) -> str:
        position = self.analysis.position(certificate)
        place = "" if position is None else f"[{position}] "
        return f"{place}{name(certificate)}"

    def root(self, certificate: Certificate) -> str:
        """Return what to know about a root: who trusts it, and until when."""
        anchor = self.anchors.anchor(certificate)
        sent = "" if self.analysis.position(certificate) is not None else ", not in the file"
        return f"root, {standing(anchor)}{sent}"


def _node(
    picture: _Picture, paths: Sequence[tuple[Certificate, ...]], first: str, rest: str
) -> Iterator[str]:
    """Yield the lines of the certificate that all `paths` begin with, and of what is above it."""
    certificate = paths[0][0]
    above = [path[1:] for path in paths if len(path) > 1]
    ends = any(len(path) == 1 for path in paths)
    reached = ends and bool(picture.analysis.paths)
    unknown = ends and not picture.analysis.paths and not certificate.self_issued
    yield first + picture.title(certificate)
    bar = "│  " if above or unknown else "   "
    yield f"{rest}{bar}{facts(certificate, picture.now)}"
    if reached:
        yield f"{rest}{bar}{picture.root(certificate)}"
    branches: dict[Certificate, list[tuple[Certificate, ...]]] = {}
    for path in above:
        branches.setdefault(path[0], []).append(path)
    for number, branch in enumerate(branches.values(), 1):
        last = number == len(branches)
        turn, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _node(picture, branch, rest + turn, rest + below)
    if unknown:
        yield f"{rest}└─ ? {printable(certificate.issuer)}"
        yield f"{rest}      neither in the file nor on any list"


def facts(certificate: Certificate, now: datetime) -> str:
    """Return one line of facts: dates, key, purposes, short fingerprint."""
    dates = f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
    return " · ".join(
        (
            f"{dates}, {left(certificate, now)}",
            key(certificate.public_key),
            *(("CA",) if certificate.is_ca else ()),
            purposes(certificate),
            f"sha256 {certificate.fingerprint_sha256[:16]}",
        )
    )


def left(certificate: Certificate, now: datetime) -> str:
    """Return how much time is left, how long it is over, or when it begins."""
    if now < certificate.not_before:
        return "not valid yet"
    remaining = certificate.not_after - now
    if remaining < timedelta(0):
        return f"EXPIRED {_days(-remaining)} ago"
    return f"{_days(remaining)} left"


def _days(length: timedelta) -> str:
    if length < timedelta(days=2):
        return f"{length // timedelta(hours=1)} h"
    return f"{length.days} days"


def key(public_key: PublicKey) -> str:
    """Return kind and size of a key, as in "RSA 2048" and "EC P-256"."""
    if public_key.curve:
        return f"EC {_CURVES.get(public_key.curve, public_key.curve)}"
    if public_key.kind.startswith("ed"):
        return public_key.kind.capitalize()
    size = f" {public_key.bits}" if public_key.bits else ""
    return ("unknown key" if public_key.kind == "unknown" else public_key.kind.upper()) + size


def purposes(certificate: Certificate) -> str:
    """Return what the extended key usage says; its absence is told too."""
    usage = certificate.extended_key_usage
    if usage is None:
        return "no EKU"
    return ", ".join(sorted(_PURPOSES.get(oid, oid) for oid in usage)) or "empty EKU"


def standing(anchor: Anchor) -> str:
    """Return who trusts an anchor, and up to when Chrome does where that is limited."""
    limit = anchor.sct_not_after
    phased_out = f" (logged up to {limit:%Y-%m-%d} only)" if limit else ""
    return _KINDS[anchor.kind] + phased_out


def name(certificate: Certificate) -> str:
    """Return a certificate's subject, fit to be printed."""
    return printable(certificate.subject) or "(no subject)"


def printable(text: str, most: int | None = _MOST_CHARACTERS) -> str:
    """Return text from a certificate without what would steer a terminal, and not too long."""
    # isprintable() is false for control characters and for those that turn the writing direction.
    clean = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return clean if most is None or len(clean) <= most else clean[: most - 1] + "…"
