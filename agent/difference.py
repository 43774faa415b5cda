"""What a renewal changes in a client's certificate, field by field and in words.

Nothing here says whether a change is allowed: that is for the policy (`renewed_cert_regressed`).
Pure: two analysed chains in, text out. Names out of certificates are given as they are; whoever
prints them must make them harmless.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.certificate import Certificate
from agent.chain import ChainAnalysis
from agent.drawing import key, left, purposes, standing

SAME: Final = "same"
_CHANGED: Final = "changed"

# A certificate may hold a thousand names.
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Change:
    """One field before and after the renewal; `verdict` is "same" when nothing changed."""

    field: str
    before: str
    after: str
    verdict: str


def changes(before: ChainAnalysis, after: ChainAnalysis, now: datetime) -> tuple[Change, ...]:
    """Return every field that a renewal may change, in the order in which people compare."""
    old, new = before.leaf, after.leaf
    return (
        _plain("subject", old.subject or "(none)", new.subject or "(none)"),
        _names(old, new),
        _plain("issuer", old.issuer, new.issuer),
        _root(before, after),
        _purposes(old, new),
        _validity(old, new, now),
        _key(old, new),
        _chain(before, after),
        _fingerprint(old, new),
    )


def _plain(field: str, before: str, after: str) -> Change:
    return Change(field, before, after, SAME if before == after else _CHANGED)


def _names(old: Certificate, new: Certificate) -> Change:
    before, after = old.subject_alternative_names, new.subject_alternative_names
    verdict = _lost_and_new(before, after)
    return Change("names", _some(before) or "(none)", _some(after) or "(none)", verdict)


def _root(before: ChainAnalysis, after: ChainAnalysis) -> Change:
    if not before.roots and not after.roots:
        # What both do not reach has a name, and that is all there is to compare.
        common, same = False, before.walk[-1].issuer == after.walk[-1].issuer
    else:
        common = bool(before.root_keys & after.root_keys)
        same = before.root_keys == after.root_keys
    verdict = SAME if same else "some in common" if common else _CHANGED
    return Change("root", _end(before), _end(after), verdict)


def _end(analysis: ChainAnalysis) -> str:
    # Several roots are those of a cross-signed chain.
    if analysis.roots:
        return " or ".join(
            f"{root.certificate.subject} ({standing(root)})" for root in analysis.roots
        )
    if analysis.walk[-1] == analysis.leaf:
        return f"not reached without {analysis.walk[-1].issuer}"
    return f"{analysis.walk[-1].issuer} (on no list)"


def _purposes(old: Certificate, new: Certificate) -> Change:
    before, after = purposes(old), purposes(new)
    stated = old.extended_key_usage is not None and new.extended_key_usage is not None
    if before == after:
        verdict = SAME
    elif stated:
        verdict = _lost_and_new(before.split(", "), after.split(", "))
    else:
        verdict = _CHANGED
    return Change("purposes", before, after, verdict)


def _validity(old: Certificate, new: Certificate, now: datetime) -> Change:
    if (old.not_before, old.not_after) == (new.not_before, new.not_after):
        verdict = SAME
    else:
        further = new.not_after - old.not_after
        days = abs(further) // timedelta(days=1)
        when = "later" if further > timedelta(0) else "earlier"
        verdict = f"ends {_count(days, 'day')} {when}" if days else "ends on the same day"
    return Change("validity", _dates(old, now), _dates(new, now), verdict)


def _dates(certificate: Certificate, now: datetime) -> str:
    days = (certificate.not_after - certificate.not_before) // timedelta(days=1)
    return (
        f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}, "
        f"{_count(days, 'day')}, {left(certificate, now)}"
    )


def _key(old: Certificate, new: Certificate) -> Change:
    before, after = old.public_key, new.public_key
    if old == new:
        verdict = SAME
    elif old.subject_public_key_info_sha256 == new.subject_public_key_info_sha256:
        verdict = "reused"
    elif before.kind != after.kind:
        verdict = "a new one, of another kind"
    elif (after.bits or 0) < (before.bits or 0):
        verdict = "a new one, shorter"
    else:
        verdict = "a new one"
    return Change("key", key(before), key(after), verdict)


def _chain(before: ChainAnalysis, after: ChainAnalysis) -> Change:
    old, new = len(before.certificates), len(after.certificates)
    verdict = SAME if old == new else "longer" if new > old else "shorter"
    return Change("chain", _count(old, "certificate"), _count(new, "certificate"), verdict)


def _fingerprint(old: Certificate, new: Certificate) -> Change:
    before, after = old.fingerprint_sha256[:16], new.fingerprint_sha256[:16]
    verdict = SAME if old == new else "another certificate"
    return Change("sha256", before, after, verdict)


def _lost_and_new(before: Iterable[str], after: Iterable[str]) -> str:
    lost, new = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    told = (*((f"lost {_some(lost)}",) if lost else ()), *((f"new {_some(new)}",) if new else ()))
    return "; ".join(told) or SAME


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
