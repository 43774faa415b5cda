"""The HTML: templates that escape everything, filled with values that say all there is to say.

There is no script or style in a page, so that the strictest Content-Security-Policy holds: what a
stranger wrote could not run even if it were not escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent.drawing import printable
from agent.report import moment
from agent.status import wording
from agent.status.fleet import Fleet
from agent.status.tree import fields
from agent.status.view import State, rule_page

_LONGEST: Final = 400

_ICONS: Final = {
    State.FAILING: "failing",
    State.UNCLEAR: "failing",
    State.STALE: "failing",
    State.WARNING: "warning",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What came of something that was asked for on the page before."""

    sentence: str
    bad: bool = False


class Pages:
    """Renders pages; the templates are compiled once. For one thread at a time."""

    def __init__(self, version: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("agent.status"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters["clean"] = _clean
        self._environment.globals.update(
            version=version,
            count=wording.count,
            absolute=wording.absolute,
            machine=moment,
            length=lambda seconds: wording.length(timedelta(seconds=seconds)),
            fields=fields,
            rule_page=rule_page,
            quoted=_quoted,
            org_address=lambda name: f"/orgs/{_quoted(name)}",
        )

    def fleet(self, fleet: Fleet, now: datetime, *, network_suspect: bool) -> str:
        """Return the page of many orgs."""
        return self._render(
            "fleet.html",
            now,
            refreshing=True,
            icon=icon(fleet.worst),
            here="fleet",
            fleet=fleet,
            title=_title(fleet),
            headline=_headline(fleet),
            network_suspect=network_suspect,
        )

    def org(self, state: State, now: datetime, **values: object) -> str:
        """Return the page of one org."""
        values |= {"refreshing": True, "icon": icon(state), "here": "org"}
        return self._render("org.html", now, **values)

    def trouble(
        self,
        headline: str,
        sentence: str,
        now: datetime,
        names: tuple[str, ...] = (),
        back: str = "",
    ) -> str:
        """Return a page that says why there is no other one."""
        return self._render(
            "trouble.html",
            now,
            refreshing=False,
            icon="warning",
            here="",
            headline=headline,
            sentence=sentence,
            names=names,
            back=back,
        )

    def _render(self, name: str, now: datetime, **values: object) -> str:
        def when(at: datetime | None, never: str = "-") -> Markup:
            return _time(at, now, never)

        def until(at: datetime) -> Markup:
            return _element(at, wording.days(at - now))

        return self._environment.get_template(name).render(
            now=now, when=when, until=until, **values
        )


def icon(state: State | None) -> str:
    """Return the name of the icon that a browser shows in its tab."""
    return "well" if state is None else _ICONS.get(state, "well")


def _time(when: datetime | None, now: datetime, never: str) -> Markup:
    if when is None:
        return Markup('<span class="nothing">{}</span>').format(never)
    return _element(when, wording.relative(when, now))


def _element(when: datetime, words: str) -> Markup:
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment(when), wording.absolute(when), words
    )


def _title(fleet: Fleet) -> str:
    if not fleet.total:
        return "no orgs"
    if fleet.alarming:
        return f"✕ {fleet.alarming} of {fleet.total}"
    warned = fleet.counts[State.WARNING]
    if warned:
        return f"! {warned} of {fleet.total}"
    return f"✓ {wording.count(fleet.total, 'org')}"


def _headline(fleet: Fleet) -> str:
    if not fleet.total:
        return "No orgs"
    if fleet.alarming:
        verb = "needs" if fleet.alarming == 1 else "need"
        return f"{fleet.alarming} of {wording.count(fleet.total, 'org')} {verb} attention"
    warned, waiting = fleet.counts[State.WARNING], fleet.counts[State.WAITING]
    if warned:
        verb = "works, and has" if warned == 1 else "work, and have"
        return f"{warned} of {wording.count(fleet.total, 'org')} {verb} something to mend in time"
    if waiting:
        return f"{waiting} of {wording.count(fleet.total, 'org')} not probed yet"
    return "All is well" if fleet.total > 1 else "It is well"


def _clean(text: object) -> str:
    return printable(str(text), _LONGEST)


def _quoted(name: str) -> str:
    return quote(name, safe="")
