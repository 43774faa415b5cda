"""Keeps answers about revocation ready for the cycles, which never wait for one.

A cycle asks what is known of its org's certificates and gets it at once. What is not known, or due
to be asked again, is put in a queue that a few tasks beside the cycles work off. So nothing has to
be told when an org is added or removed: what no cycle asks for is never fetched again, and in time
forgotten. All orgs share the answers, so certificates of one authority cost one fetch of its list.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import structlog

from agent.certificate import Certificate
from agent.chain import Link, link
from agent.org import RevocationCheck
from agent.policy.rule import Evidence, Revocation, RevocationState
from agent.revocation.checker import RevocationChecker, Subject, Told

# Longer than any interval between cycles that makes sense.
_FORGOTTEN: Final = timedelta(days=2)

_log: Final = structlog.get_logger(__name__)

Pair = tuple[Certificate, Certificate]


def pairs(evidence: Evidence) -> tuple[Pair, ...]:
    """Return the certificates of both chains that have an issuer, each with that issuer.

    The client's chain is the operator's own. The server's counts only where authorities' signatures
    lead from a root that we know: whoever made another one may have written any URL into it.
    For chains that are new: it checks signatures.
    """
    paths: list[tuple[Certificate, ...]] = []
    if evidence.client_chain:
        paths.extend(evidence.client.paths or (evidence.client.walk,))
    if evidence.server_chain:
        paths.extend(
            path
            for path in evidence.server.paths
            if path[-1] in evidence.anchors and all(_signed(*pair) for pair in pairwise(path))
        )
    found: dict[Certificate, Certificate] = {}
    for certificate, issuer in (pair for path in paths for pair in pairwise(path)):
        # Several issuers mean several certificates of one authority, which has one list.
        found.setdefault(certificate, issuer)
    return tuple(found.items())


def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    return issuer.is_ca and link(issuer, certificate) is Link.SIGNED


@dataclass(slots=True)
class _Watched:
    """What is known of one subject, and when a cycle asked for it last."""

    wanted: datetime
    told: Told | None = None
    queued: bool = False

    def take(self, told: Told, now: datetime) -> None:
        """Take in what was told, unless what was known before says more."""
        before = self.told
        if before and not told.settled and _outlasts(before, now):
            told = replace(before, due=told.due)
        self.told = told


def _outlasts(told: Told, now: datetime) -> bool:
    """Tell whether an answer is worth more than none: a revocation is for good."""
    if told.revocation.state is RevocationState.REVOKED:
        return True
    return told.settled and told.next_update is not None and now <= told.next_update


class RevocationWatch:
    """What is known of all orgs' certificates. One for the whole agent, in one event loop.

    `start` makes it work, `aclose` ends it; `bug` is called when one of ours was caught and logged.
    `at_once` is how many certificates are asked about at the same time.
    """

    def __init__(
        self,
        checker: RevocationChecker,
        now: Callable[[], datetime],
        *,
        at_once: int = 4,
        bug: Callable[[], None] = lambda: None,
    ) -> None:
        self._checker = checker
        self._now = now
        self._at_once = at_once
        self._bug = bug
        # In the order in which they were asked for, the last one last.
        self._watched: OrderedDict[Subject, _Watched] = OrderedDict()
        self._queue: asyncio.Queue[Subject] = asyncio.Queue()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def answers(
        self, chain: Iterable[Pair], mode: RevocationCheck
    ) -> Mapping[str, Revocation] | None:
        """Return what is known now, by the certificates' SHA-256 fingerprints; never waits.

        None means that nothing is: it is off, nobody can be asked, or nobody was yet. Certificates
        that name nobody to ask are left out. A cycle calls it each time, with what `pairs` gave.
        """
        if mode is RevocationCheck.OFF:
            return None
        now = self._now()
        self._forget(now)
        known: dict[str, Revocation] = {}
        for certificate, issuer in chain:
            subject = Subject(certificate, issuer, mode is RevocationCheck.CRL_AND_OCSP)
            if not (subject.lists or subject.responders):
                continue
            if told := self._want(subject, now).told:
                known[certificate.fingerprint_sha256] = told.revocation
        return known or None

    def start(self) -> None:
        """Begin to ask."""
        self._tasks = tuple(
            asyncio.create_task(self._work(), name=f"revocation {number}")
            for number in range(self._at_once)
        )

    async def settled(self) -> None:
        """Return when everything that is due has been asked."""
        await self._queue.join()

    async def aclose(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._checker.close()

    def _want(self, subject: Subject, now: datetime) -> _Watched:
        watched = self._watched.get(subject)
        if watched is None:
            watched = self._watched[subject] = _Watched(now)
        self._watched.move_to_end(subject)
        watched.wanted = now
        if not watched.queued and (watched.told is None or watched.told.due <= now):
            watched.queued = True
            self._queue.put_nowait(subject)
        return watched

    def _forget(self, now: datetime) -> None:
        self._checker.forget(now)
        while self._watched:
            subject, watched = next(iter(self._watched.items()))
            if watched.queued or now - watched.wanted < _FORGOTTEN:
                break
            del self._watched[subject]

    async def _work(self) -> None:
        while True:
            subject = await self._queue.get()
            watched = self._watched[subject]
            try:
                told = await self._checker.ask(subject, self._now())
            except Exception:  # noqa: BLE001 - the one place: the other certificates go on
                _log.exception("a bug in the agent stopped a check for revocation")
                self._bug()
                told = self._checker.give_up("a bug in the agent, see the log", self._now())
            watched.take(told, self._now())
            watched.queued = False
            self._queue.task_done()
            # What is known already comes without waiting: let others have a turn.
            await asyncio.sleep(0)
