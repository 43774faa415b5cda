"""Which chain came after which: what each side of an org presents, and what it presented before.

A change is news for a while and then history. Several servers may stand behind one door and show
their chains in turn, so a chain that was shown lately is no change when it is shown again. Pure:
chains and moments come in, and `history` keeps what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, analyse

Chain = tuple[Certificate, ...]

# A person back from a holiday still finds it, and an alert has long fired; a server's certificate
# of 47 days (CA/Browser Forum Ballot SC-081v3) is not renewed twice meanwhile.
NEWS: Final = timedelta(days=14)
# A door with more authorities than this within the time is news each time.
_REMEMBERED: Final = 4


@dataclass(frozen=True, slots=True)
class Earlier:
    """A chain that another one took the place of, and when."""

    chain: Chain
    until: datetime


@dataclass(frozen=True, slots=True)
class Succession:
    """The chain that one side presents, and those before it, latest first.

    `changed_at` is when something was presented that had not been there lately; None until then.
    """

    present: Chain
    before: tuple[Earlier, ...] = ()
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What one org presented until now. `door` is the host and port that it was watched at."""

    door: str
    client: Succession | None = None
    server: Succession | None = None

    def client_before(self) -> Chain | None:
        """Return the client's chain before the present one, for as long as that one is in use."""
        return self.client.before[0].chain if self.client and self.client.before else None

    def server_before(self, now: datetime) -> Chain | None:
        """Return the server's chain before the present one while that it changed is news."""
        server = self.server
        if not server or not server.before or not server.changed_at:
            return None
        return server.before[0].chain if now - server.changed_at < NEWS else None


def client_after(known: Succession | None, shown: Chain, now: datetime) -> Succession:
    """Return what is known of the client's side when it presents `shown`.

    Another leaf is a renewal. The one before it, put back, is none and has nothing before it.
    """
    if known is None:
        return Succession(shown)
    if shown[0] == known.present[0]:
        return known if shown == known.present else replace(known, present=shown)
    if any(shown[0] == earlier.chain[0] for earlier in known.before):
        return Succession(shown)
    return Succession(shown, (Earlier(known.present, now),), now)


def server_after(
    known: Succession | None, shown: Chain, now: datetime, anchors: Anchors
) -> Succession:
    """Return what is known of the server's side when it presents `shown`.

    Another authority is a change, unless it was there lately; another leaf of the same is none.
    """
    if known is None:
        return Succession(shown)
    if shown == known.present:
        return known
    if _same_authority(known.present, shown, anchors):
        return replace(known, present=shown)
    lately = [earlier for earlier in known.before if now - earlier.until < NEWS]
    others = [one for one in lately if not _same_authority(one.chain, shown, anchors)]
    return Succession(
        present=shown,
        before=(Earlier(known.present, now), *others)[:_REMEMBERED],
        changed_at=now if len(others) == len(lately) else known.changed_at,
    )


def _same_authority(before: Chain, now: Chain, anchors: Anchors) -> bool:
    """Tell whether the rules server_root_changed and server_issuer_changed both find no change."""
    one, other = analyse(before, anchors), analyse(now, anchors)
    other_root = one.roots and other.roots and not one.root_keys & other.root_keys
    return one.leaf.issuer == other.leaf.issuer and not other_root
