"""The one counter at which the web asks: names and query strings in, finished answers out.

It takes what board and journal know at this moment. Rendering thousands of orgs takes long, so
every method is meant for a thread of its own, and they are for one thread at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from agent.chain import Anchors
from agent.drawing import printable
from agent.journal import Journal
from agent.policy.rule import Side
from agent.result import Failure, Probe, ProbeResult, Skipped, Success, Undetermined
from agent.state import Board, Snapshot
from agent.status import document, fleet, trail
from agent.status.fleet import Fleet, QueryError, near, read_query
from agent.status.openapi import description
from agent.status.pages import Notice, Pages
from agent.status.tree import tree
from agent.status.view import PROBES, View, is_stale, steps, view

_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
# What somebody asked for is told until then.
_NEWS: Final = timedelta(minutes=1)

# Version and staleness of a snapshot, and what is said about it.
_Kept = tuple[tuple[int, bool], View]


@dataclass(frozen=True, slots=True)
class Page:
    """A finished answer."""

    body: bytes
    media_type: str
    status: int = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page of an org may offer to whoever asked for it.

    `token` goes with what the page's forms send; without it there are none, and `untried` is a
    sentence why, if one is worth saying. `tried` is what the page before asked for.
    """

    token: str | None = None
    untried: str = ""
    tried: Probe | None = None


class Desk:
    """Gives the pages and documents about orgs.

    `anchors` are the roots that are known for an org's chains.
    """

    def __init__(
        self,
        board: Board,
        journal: Journal,
        *,
        version: str,
        now: Callable[[], datetime],
        anchors: Callable[[str], Anchors] = lambda _: Anchors(()),
    ) -> None:
        self._board = board
        self._journal = journal
        self._now = now
        self._anchors = anchors
        self._pages = Pages(version)
        self._description = _json(description(version))
        # Most of ten thousand orgs are as they were when somebody asked last.
        self._views: Mapping[str, _Kept] = {}

    def knows(self, name: str) -> bool:
        """Tell whether there is such an org."""
        return self._board.get(name) is not None

    def fleet_page(self, given: Mapping[str, str]) -> Page:
        """Return the page of the orgs that a query string asks for."""
        now = self._now()
        try:
            found = self._select(given, now)
        except QueryError as error:
            text = self._pages.trouble("That cannot be shown", str(error), now)
            return _html(text, HTTPStatus.BAD_REQUEST)
        return _html(
            self._pages.fleet(found, now, network_suspect=bool(self._board.network_suspect))
        )

    def org_page(self, name: str, asked: Asked) -> Page:
        """Return the page of an org; of an unknown one, a page that names those like it."""
        now, snapshot = self._now(), self._board.get(name)
        if snapshot is None:
            sentence = f"No org is named {printable(name, 100)!r}."
            names = near(name, (known.org.name for known in self._board.snapshots()))
            text = self._pages.trouble("No such org", sentence, now, names)
            return _html(text, HTTPStatus.NOT_FOUND)
        said = view(snapshot, now)
        values = self._values(snapshot, said, now)
        return _html(
            self._pages.org(
                said.state,
                now,
                token=asked.token,
                untried=asked.untried,
                notice=_notice(asked.tried, self._journal.last(name), now),
                **values,
            )
        )

    def refused_page(self, name: str, status: HTTPStatus, sentence: str) -> Page:
        """Return a page that says why something was not done for an org."""
        back = name if self.knows(name) else ""
        text = self._pages.trouble("That was not done", sentence, self._now(), back=back)
        return _html(text, status)

    def fleet_document(self, given: Mapping[str, str]) -> Page:
        """Return the document of the orgs that a query string asks for."""
        now = self._now()
        try:
            return _document(document.fleet(self._select(given, now), now))
        except QueryError as error:
            return self.error_document(HTTPStatus.BAD_REQUEST, str(error))

    def org_document(self, name: str) -> Page:
        """Return the document of an org; of an unknown one, an error that names those like it."""
        now, snapshot = self._now(), self._board.get(name)
        if snapshot is None:
            names = near(name, (known.org.name for known in self._board.snapshots()))
            said = document.error("No org has this name.", near=list(names))
            return _document(said, HTTPStatus.NOT_FOUND)
        return _document(
            document.org(
                snapshot,
                view(snapshot, now),
                self._journal.last(name),
                self._journal.cycles(name),
                now,
            )
        )

    def error_document(self, status: HTTPStatus, sentence: str) -> Page:
        """Return why there is no answer."""
        return _document(document.error(sentence), status)

    def openapi(self) -> Page:
        """Return the description of the documents."""
        return Page(self._description, _JSON)

    def _select(self, given: Mapping[str, str], now: datetime) -> Fleet:
        query = read_query(given)
        views: dict[str, _Kept] = {}
        for snapshot in self._board.snapshots():
            name, key = snapshot.org.name, (snapshot.version, is_stale(snapshot, now))
            kept = self._views.get(name)
            if kept is None or kept[0] != key:
                kept = key, view(snapshot, now)
            views[name] = kept
        self._views = views
        return fleet.select([said for _, said in views.values()], query)

    def _values(self, snapshot: Snapshot, said: View, now: datetime) -> dict[str, Any]:
        cycles = self._journal.cycles(said.name)
        marks = trail.trail(cycles, now)
        result = self._journal.last(said.name)
        anchors = self._anchors(said.name)
        return {
            "org": said,
            "interval": snapshot.org.interval,
            "window": snapshot.maintenance,
            "steps": steps(snapshot),
            "probes": tuple(snapshot.probes.items()),
            "marks": marks,
            "troubled": [mark for mark in reversed(marks) if mark.kind != "well"],
            "stages": trail.bars(result.stages if result else snapshot.stages),
            "chains": [
                (side, seen, tree(seen.certificates, anchors, now))
                for side in (Side.CLIENT, Side.SERVER)
                if (seen := snapshot.chains.get(side)) is not None
            ],
            "findings": snapshot.violations,
            "suppressed": snapshot.suppressed,
            "client_auth": snapshot.client_auth,
            "alert": snapshot.alert,
            "tls_version": snapshot.tls_version,
            "cipher_suite": snapshot.cipher_suite,
            "address": result.address if result else None,
            "api_usage": snapshot.api_usage,
            "clock_skew": snapshot.clock_skew,
            "deadlines": sorted(snapshot.deadlines.items(), key=lambda item: item[1]),
        }


def _notice(tried: Probe | None, result: ProbeResult | None, now: datetime) -> Notice | None:
    """Return what came of a try; None when that is no news any more."""
    if tried is None or result is None or now - result.started_at > _NEWS:
        return None
    match result.outcomes.get(tried):
        case Success():
            return Notice(f"Tried just now: {PROBES[tried]} works.")
        case Failure(reason) | Undetermined(reason):
            return Notice(f"Tried just now: {reason.meaning}", bad=True)
        case Skipped(cause, detail):
            more = f" {printable(detail)}" if detail else ""
            return Notice(
                f"Tried just now, without {PROBES[tried]}: {cause.value}{more}.", bad=True
            )
        case None:
            return None


def _html(text: str, status: HTTPStatus = HTTPStatus.OK) -> Page:
    # A lone surrogate, of a name that somebody asked for, is no UTF-8.
    return Page(text.encode(errors="replace"), _HTML, status)


def _document(said: object, status: HTTPStatus = HTTPStatus.OK) -> Page:
    return Page(_json(said), _JSON, status)


def _json(said: object) -> bytes:
    return json.dumps(said, allow_nan=False).encode()
