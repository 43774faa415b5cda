"""A chain as a tree of values: the leaf first, under each certificate whoever issued it.

The same tree as `drawing` prints, for a page that can fold it and copy from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, ChainAnalysis, analyse
from agent.drawing import key, left, name, printable, purposes, standing

# A hostile chain can have dozens of paths and hundreds of certificates beside them.
_MOST_PATHS: Final = 8
_MOST_BESIDE: Final = 12
_SOON: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Node:
    """One certificate, or the name of an issuer that nobody has (then `certificate` is None).

    `standing` says who trusts a root; `sent` is whether the certificate was in the chain.
    """

    title: str
    certificate: Certificate | None = None
    dates: str = ""
    left: str = ""
    soon: bool = False
    over: bool = False
    key: str = ""
    purposes: str = ""
    standing: str = ""
    sent: bool = True
    issuers: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """A chain as it was presented, and what lies beside it."""

    root: Node
    more: int = 0
    beside: tuple[tuple[str, str], ...] = ()


def tree(certificates: Sequence[Certificate], anchors: Anchors, now: datetime) -> Tree:
    """Return the tree of a chain that is not empty."""
    analysis = analyse(tuple(certificates), anchors)
    paths = sorted(analysis.paths, key=len)[:_MOST_PATHS] or [analysis.walk]
    duplicates = frozenset(analysis.duplicates)
    beside = [
        *((i, "repeats an earlier one") for i in analysis.duplicates),
        *((i, "issued none of the others") for i in analysis.extra if i not in duplicates),
    ]
    return Tree(
        root=_node(analysis, anchors, now, paths),
        more=max(0, len(analysis.paths) - len(paths)),
        beside=tuple(
            (name(analysis.certificates[position]), why)
            for position, why in sorted(beside)[:_MOST_BESIDE]
        ),
    )


def _node(
    analysis: ChainAnalysis,
    anchors: Anchors,
    now: datetime,
    paths: Sequence[tuple[Certificate, ...]],
) -> Node:
    """Return the certificate that all `paths` begin with, and what is above it."""
    certificate = paths[0][0]
    ends = any(len(path) == 1 for path in paths)
    branches: dict[Certificate, list[tuple[Certificate, ...]]] = {}
    for path in paths:
        if len(path) > 1:
            branches.setdefault(path[1], []).append(path[1:])
    issuers = [_node(analysis, anchors, now, branch) for branch in branches.values()]
    if ends and not analysis.paths and not certificate.self_issued:
        issuers.append(Node(printable(certificate.issuer) or "(no name)", sent=False))
    return Node(
        title=name(certificate),
        certificate=certificate,
        dates=f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}",
        left=left(certificate, now),
        soon=certificate.not_after - now < _SOON,
        over=not certificate.not_before <= now <= certificate.not_after,
        key=key(certificate.public_key),
        purposes=purposes(certificate),
        standing=standing(anchors.anchor(certificate)) if ends and analysis.paths else "",
        sent=analysis.position(certificate) is not None,
        issuers=tuple(issuers),
    )


def fields(node: Node) -> Mapping[str, str]:
    """Return what somebody may want to copy of a certificate, by its name."""
    if node.certificate is None:
        return {}
    return {
        "SHA-256": node.certificate.fingerprint_sha256,
        "serial number": node.certificate.serial_number,
    }
