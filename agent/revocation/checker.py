"""Asks the places that a certificate names, one after the other, until one of them answers.

A place is asked one thing at a time, by us as a whole, and one that failed is left alone for a
while. Lists are kept just long enough to serve the certificates that are asked about together;
what lasts is the answers, and those are the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar, TypeVarTuple
from weakref import WeakValueDictionary
from zlib import crc32

from agent.certificate import Certificate
from agent.policy.rule import Revocation, RevocationState
from agent.probe.dns import Resolver
from agent.revocation import lists, responder
from agent.revocation.answer import Answer, unavailable
from agent.revocation.fetch import IpAddress, Unanswered, fetch, routable
from agent.revocation.lists import RevocationList

# A certificate names one or two places of each kind; a hostile one may name thousands.
_PLACES: Final = 4
_SHOWN: Final = 200
# By how much of its time an answer is asked for early at most.
_SPREAD: Final = 0.2

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(frozen=True, slots=True)
class Limits:
    """What asking may cost. Sizes are in bytes; `seconds` is for one document, name and all.

    Nothing is asked for twice within a `pause`. After a failure it is asked for again then, else
    before its nextUpdate, after `longest` at most.
    """

    list_bytes: int = 10 << 20
    answer_bytes: int = 64 << 10
    kept_list_bytes: int = 32 << 20
    seconds: float = 20.0
    pause: timedelta = timedelta(minutes=10)
    longest: timedelta = timedelta(hours=24)


class Subject(NamedTuple):
    """What is asked about: a certificate, who issued it, and whether responders are asked too."""

    certificate: Certificate
    issuer: Certificate
    ocsp: bool

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists that are asked."""
        return _first(self.certificate.crl_distribution_points)

    @property
    def responders(self) -> tuple[str, ...]:
        """The responders that are asked when no list answers."""
        return _first(self.certificate.ocsp_responders) if self.ocsp else ()


@dataclass(frozen=True, slots=True)
class Told:
    """What one place said, or the sum of several; when to ask again, and its nextUpdate."""

    revocation: Revocation
    due: datetime
    next_update: datetime | None = None

    @property
    def settled(self) -> bool:
        """Somebody gave an answer that counts."""
        return self.revocation.state in (RevocationState.GOOD, RevocationState.REVOKED)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A list, until when it is kept here, and when it is to be fetched anew."""

    found: RevocationList
    until: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a place gave nothing, and until when it is left alone."""

    detail: str
    until: datetime


class RevocationChecker:
    """Asks about one certificate; one checker for the whole agent, in one event loop.

    Its resolver is its own, so that names in certificates cannot take the probes' place in the
    queue. `permitted` tells which addresses may be connected to.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        limits: Limits | None = None,
        permitted: Callable[[IpAddress], bool] = routable,
    ) -> None:
        self._resolver = resolver or Resolver(threads=4)
        self._limits = limits or Limits()
        self._permitted = permitted
        # One thread: reading costs memory, and the machine has other work.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="revocation")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._lists: dict[str, _Kept] = {}
        self._failed: dict[str, _Failed] = {}

    def give_up(self, detail: str, now: datetime) -> Told:
        """Return that there is no answer, to be asked for again as after any failure."""
        return Told(unavailable(detail).revocation, now + self._limits.pause)

    async def ask(self, subject: Subject, now: datetime) -> Told:
        """Return what is known of a certificate now; it must name somebody who can be asked."""
        self.forget(now)
        certificate, issuer, _ = subject
        heard: list[Told] = []
        for url in subject.lists:
            heard.append(await self._ask_list(url, certificate, issuer, now))
            if heard[-1].settled:
                return heard[-1]
        for url in subject.responders:
            heard.append(await self._ask_responder(url, certificate, issuer, now))
            if heard[-1].settled:
                return heard[-1]
        return _sum(heard)

    def forget(self, now: datetime) -> None:
        """Drop the lists that have been here long enough, and the failures that are over."""
        for url in [url for url, kept in self._lists.items() if kept.until <= now]:
            del self._lists[url]
        for url in [url for url, failed in self._failed.items() if failed.until <= now]:
            del self._failed[url]

    def close(self) -> None:
        """Give the thread back; what it reads, it reads to its end."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    # --- lists

    async def _ask_list(
        self, url: str, certificate: Certificate, issuer: Certificate, now: datetime
    ) -> Told:
        async with self._turn(url):
            kept = self._lists.get(url) or await self._load(url, now)
        if isinstance(kept, _Failed):
            return _refused(url, kept)
        answer = await self._in_thread(lists.judge, kept.found, certificate, issuer, now)
        return self._told(url, answer, kept.due, now)

    async def _load(self, url: str, now: datetime) -> _Kept | _Failed:
        body = await self._document(url, url, self._limits.list_bytes, now)
        if isinstance(body, _Failed):
            return body
        try:
            found = await self._in_thread(lists.read_list, body)
        except ValueError as error:
            return self._note(url, str(error), now)
        due = self._due(url, found.next_update, now)
        kept = _Kept(found, now + self._limits.pause, due)
        self._lists[url] = kept
        total = sum(other.found.size for other in self._lists.values())
        while total > self._limits.kept_list_bytes:
            oldest = next(iter(self._lists))
            total -= self._lists.pop(oldest).found.size
        return kept

    # --- responders

    async def _ask_responder(
        self, url: str, certificate: Certificate, issuer: Certificate, now: datetime
    ) -> Told:
        asked = responder.request(certificate, issuer)
        where = responder.address(url, asked)
        async with self._turn(url):
            body = await self._document(url, where, self._limits.answer_bytes, now)
        if isinstance(body, _Failed):
            return _refused(url, body)
        answer = await self._in_thread(responder.read_answer, body, asked, issuer, now)
        if answer.delegate:
            answer = await self._unless_revoked(answer, answer.delegate, issuer, now)
        due = self._due(certificate.fingerprint_sha256, answer.next_update, now)
        return self._told(url, answer, due, now)

    async def _unless_revoked(
        self, answer: Answer, delegate: Certificate, issuer: Certificate, now: datetime
    ) -> Answer:
        # Only the lists: asking a responder about itself would lead nowhere. When they do not
        # answer the delegate is believed, for the issuer made it for this.
        for url in _first(delegate.crl_distribution_points):
            found = (await self._ask_list(url, delegate, issuer, now)).revocation
            if found.state is RevocationState.REVOKED:
                return unavailable(f"answers with a certificate of which {found.detail}")
        return answer

    # --- both

    def _turn(self, url: str) -> asyncio.Lock:
        return self._turns.setdefault(url, asyncio.Lock())

    async def _document(self, place: str, url: str, limit: int, now: datetime) -> bytes | _Failed:
        if failed := self._failed.get(place):
            return failed
        body = await fetch(url, limit, self._resolver, self._limits.seconds, self._permitted)
        return self._note(place, body.detail, now) if isinstance(body, Unanswered) else body

    def _note(self, place: str, detail: str, now: datetime) -> _Failed:
        self._failed[place] = failed = _Failed(detail, now + self._limits.pause)
        return failed

    def _told(self, url: str, answer: Answer, due: datetime, now: datetime) -> Told:
        told = Told(_by(url, answer.revocation), due, answer.next_update)
        return told if told.settled else replace(told, due=now + self._limits.pause)

    def _due(self, label: str, next_update: datetime | None, now: datetime) -> datetime:
        """Return when to ask again: early, and each at its own time.

        The time is a hash of the label, so that what began together does not go on together.
        """
        period = min((next_update or now) - now, self._limits.longest)
        early = _SPREAD * (crc32(label.encode()) / 0xFFFFFFFF)
        return now + max(period * (1 - early), self._limits.pause)

    async def _in_thread(
        self, function: Callable[[*_Arguments], _Result], *arguments: *_Arguments
    ) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, function, *arguments)


def _first(urls: Iterable[str]) -> tuple[str, ...]:
    """Return the few places that are asked, those that can be before those that cannot."""
    return tuple(sorted(urls, key=lambda url: not url.lower().startswith("http:"))[:_PLACES])


def _refused(url: str, failed: _Failed) -> Told:
    return Told(_by(url, unavailable(failed.detail).revocation), failed.until)


def _sum(heard: Sequence[Told]) -> Told:
    """Sum up that nobody gave an answer that counts; an old one says more than none."""
    states = {told.revocation.state for told in heard}
    state = (
        RevocationState.STALE if RevocationState.STALE in states else RevocationState.UNAVAILABLE
    )
    details = "; ".join(told.revocation.detail for told in heard)
    return Told(Revocation(state, details), min(told.due for told in heard))


def _by(url: str, revocation: Revocation) -> Revocation:
    """Put the place into what it said: "http://… answered 404"."""
    if not revocation.detail:
        return revocation
    # A URL may hold anything but is shown to people.
    shown = url[:_SHOWN] if url.isprintable() else repr(url[:_SHOWN])
    return replace(revocation, detail=f"{shown} {revocation.detail}")
