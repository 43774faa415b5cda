"""What each org presents: its certificate and key, with the TLS contexts made from them.

A new pair is in use when OpenSSL takes it, and only then: chain, key and contexts change together
or not at all. Files may lie where reading them hangs (a network mount), so they are read in a
thread, one at a time for each org; a cycle waits a little and goes on with what it has. Only
whether they are still the same is seen without one, where that cannot hang.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ssl import SSLContext
from typing import Final
from weakref import WeakValueDictionary

from agent import credentials
from agent.credentials import Protection
from agent.identity import Identity, Rotation
from agent.judge import Files, anchors_of
from agent.listing import read_lists
from agent.mounts import are_local
from agent.org import Endpoint, FromVariable, Org, TlsVersion, TrustAnchors
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import Failure
from agent.threads import in_a_thread

# What a file's status says of its content: device, inode, time of change in ns, size. The time is
# that of any change, so that a file which can be read at last, or has its old date back, is seen to
# differ.
_Stamp = tuple[int, int, int, int] | None

# Some file systems tell times by the second or two, so what has just changed may change once more
# without a sign of it.
_SETTLED_NS: Final = 3_000_000_000

# Reading takes less than a millisecond, making contexts for a new pair a tenth of a second.
_PATIENCE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Presented:
    """A pair that OpenSSL has taken, and two contexts: one that presents it, one that does not."""

    identity: Identity
    presenting: SSLContext
    bare: SSLContext


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the files found.

    `presented` is what to use now, a Failure only if there never was anything; `files` is what the
    policy is to know of them, None while they were never read. The rest is news: `renewed` tells
    that another pair than before is in use, `refused` why a changed one is not, `distrusted` why a
    changed trust file is not, `unlisted` which lists of the operator's are not known, and `slow`
    that reading hangs.
    """

    presented: Presented | Failure
    files: Files | None = None
    renewed: bool = False
    refused: Failure | None = None
    distrusted: Failure | None = None
    unlisted: str | None = None
    slow: bool = False


class BareContexts:
    """Contexts that present nothing, shared by all orgs that verify servers in the same way.

    Loading a bundle costs tens of milliseconds and a megabyte; a context that nobody uses any more
    is forgotten. May be called from any thread.
    """

    def __init__(self) -> None:
        self._made: WeakValueDictionary[object, SSLContext] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, endpoint: Endpoint, trust: TrustAnchors, stamp: _Stamp) -> SSLContext | Failure:
        """Return a context for this trust, with its file as it is now."""
        key = (endpoint.tls_min, endpoint.tls_max, trust, stamp)
        with self._lock:
            known = self._made.get(key)
        if known is not None:
            return known
        # Not under the lock: reading one org's trust file may hang.
        made = client_context(endpoint, trust, None)
        if isinstance(made, Failure):
            return made
        with self._lock:
            return self._made.setdefault(key, made)


class Keyring:
    """Holds what one org presents, and looks after it."""

    def __init__(
        self,
        org: Org,
        environ: Mapping[str, str],
        bare: BareContexts,
        rotation: Rotation | None = None,
    ) -> None:
        self._org = org
        self._environ = environ
        self._bare = bare
        self._rotation = rotation or Rotation(org.identity, environ)
        self._presented: Presented | None = None
        self._made_from: tuple[Identity, _Stamp] | None = None
        self._fresh: tuple[Identity, SSLContext] | None = None
        self._files: Files | None = None
        self._files_from: tuple[_Stamp, ...] = ()
        self._protection: Protection | None = None
        self._unlisted: str | None = None
        self._distrusted: Failure | None = None
        self._reading: asyncio.Future[Look] | None = None
        self._slow = False
        self._paths: tuple[str, ...] | None = None
        # What a look finds for as long as the files are these, and whether to see that can hang.
        self._settled: tuple[tuple[_Stamp, ...], Look] | None = None
        self._near = False

    def succeeded_by(self, org: Org) -> Keyring:
        """Return the keyring for the org as it is configured now, with what this one has for it.

        A good pair in memory must survive a reload that comes while its file is half written.
        """
        if org.identity != self._org.identity:
            return Keyring(org, self._environ, self._bare)
        if _tls_settings(org) != _tls_settings(self._org):
            return Keyring(org, self._environ, self._bare, self._rotation)
        if _listed(org) != _listed(self._org):
            successor = Keyring(org, self._environ, self._bare, self._rotation)
            successor._presented, successor._made_from = self._presented, self._made_from
            return successor
        return self

    async def look(self, seconds: float = _PATIENCE_SECONDS) -> Look:
        """Read the files again and return what to present now; it takes no longer than that."""
        if self._reading is None:
            # The way to a thread and back costs more than all else here.
            if self._near and (known := self._as_before()):
                return known
            self._reading = in_a_thread(self._read)
        await asyncio.wait([self._reading], timeout=seconds)
        if not self._reading.done():
            news, self._slow = not self._slow, True
            why = f"reading the files takes longer than {seconds:g} s"
            unread = Failure(Reason.CLIENT_MATERIAL_UNREADABLE, why)
            return Look(self._presented or unread, self._files, slow=news)
        found, self._reading, self._slow = self._reading, None, False
        return found.result()

    def _as_before(self) -> Look | None:
        """Return what is known of the files if they are as they were; it asks for their status."""
        if self._settled is None or self._paths is None:
            return None
        stamps, look = self._settled
        return look if tuple(map(_stamp, self._paths)) == stamps else None

    # --- in the thread

    def _read(self) -> Look:
        if known := self._as_before():
            return known
        if self._paths is None:
            self._paths = _paths(self._org, self._environ)
        # Before they are read, or a change in between would go unnoticed.
        stamps = tuple(map(_stamp, self._paths))
        look = self._read_files()
        self._settled, self._near = None, False
        if self._presented and not self._troubled() and _are_settled(stamps):
            self._settled = stamps, Look(self._presented, self._files)
            self._near = are_local(self._paths)
        return look

    def _read_files(self) -> Look:
        stamp = _stamp(self._org.trust.file)
        look = self._read_pair(stamp)
        self._files, unlisted = self._read_others(stamp)
        news, self._unlisted = unlisted if unlisted != self._unlisted else None, unlisted
        return replace(look, files=self._files, unlisted=news)

    def _troubled(self) -> bool:
        """Tell whether something cannot be used, and may be used next time although it is as it is.

        A pair that OpenSSL refused, say, or a list that could not be read for a moment.
        """
        return bool(self._rotation.last_failure or self._distrusted or self._unlisted)

    def _read_pair(self, stamp: _Stamp) -> Look:
        failures = self._rotation.failures
        identity = self._rotation.refresh(self._accept)
        refused = self._rotation.last_failure if self._rotation.failures > failures else None
        if isinstance(identity, Failure):
            return Look(identity, refused=refused)
        before, known = self._presented, self._distrusted
        if before is None or (identity, stamp) != self._made_from:
            self._distrusted = self._make(identity, stamp)
        else:
            self._distrusted = None
        if (now := self._presented) is None:
            return Look(self._distrusted or Failure(Reason.INTERNAL), refused=refused)
        return Look(
            now,
            renewed=before is not None and before.identity != now.identity,
            refused=refused,
            distrusted=self._distrusted if self._distrusted != known else None,
        )

    def _read_others(self, stamp: _Stamp) -> tuple[Files, str | None]:
        """Return what the files tell beside the pair, and which lists are not known."""
        org, known = self._org, self._files
        stamps = stamp, *map(_stamp, _listed(org))
        if known is None or stamps != self._files_from or known.lists.problems:
            anchors, lists = anchors_of(org.trust), read_lists(org.policy)
            self._files_from = stamps
        else:
            anchors, lists = known.anchors, known.lists
        # A key file that is gone leaves what is known of it, as it leaves the key.
        self._protection = credentials.protection(org.identity.private_key) or self._protection
        failure = self._rotation.last_failure if self._rotation.current else None
        problem = (failure.detail or str(failure)) if failure else None
        unlisted = "; ".join(lists.problems.values()) or None
        return Files(anchors, lists, self._protection, problem), unlisted

    def _accept(self, identity: Identity) -> Failure | None:
        """Make the context of a new pair; Failure if it is the pair that OpenSSL refuses."""
        made = client_context(self._org.endpoint, self._org.trust, identity)
        if isinstance(made, SSLContext):
            self._fresh = (identity, made)
            return None
        if made.reason is Reason.CLIENT_MATERIAL_UNREADABLE:
            return made
        # It did not get as far as the pair.
        alone = client_context(self._org.endpoint, TrustAnchors(system=False), identity)
        return alone if isinstance(alone, Failure) else None

    def _make(self, identity: Identity, stamp: _Stamp) -> Failure | None:
        bare = self._bare.get(self._org.endpoint, self._org.trust, stamp)
        if isinstance(bare, Failure):
            return bare
        fresh, self._fresh = self._fresh, None
        if fresh is not None and fresh[0] == identity:
            presenting: SSLContext | Failure = fresh[1]
        else:
            presenting = client_context(self._org.endpoint, self._org.trust, identity)
        if isinstance(presenting, Failure):
            return presenting
        self._presented = Presented(identity, presenting, bare)
        self._made_from = (identity, stamp)
        return None


def _tls_settings(org: Org) -> tuple[TlsVersion, TlsVersion, TrustAnchors]:
    return org.endpoint.tls_min, org.endpoint.tls_max, org.trust


def _listed(org: Org) -> tuple[str | None, ...]:
    return org.policy.accepted_roots, org.policy.uploaded


def _paths(org: Org, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return where everything lies that a look reads; the environment is as it was at the start."""
    identity = org.identity
    pair = (identity.certificate, identity.private_key, identity.private_key_passphrase)
    sources = dict.fromkeys(s for s in pair if s and not isinstance(s, FromVariable))
    paths = (credentials.path_of(source, environ) for source in sources)
    return tuple(path for path in (*paths, org.trust.file, *_listed(org)) if path is not None)


def _stamp(file: str | None) -> _Stamp:
    if file is None:
        return None
    try:
        status = os.stat(file)  # noqa: PTH116 - each cycle does it, and a Path costs as much again
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def _are_settled(stamps: Iterable[_Stamp]) -> bool:
    """Tell whether a file that changes from now on has another stamp."""
    latest = time.time_ns() - _SETTLED_NS
    return all(stamp is not None and stamp[2] < latest for stamp in stamps)
