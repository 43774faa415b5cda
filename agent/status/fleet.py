"""Many orgs: which of them are shown, in which order, on which page."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

from agent.status.view import State, View

PER_PAGE: Final = 200
MOST_PER_PAGE: Final = 1000
_LONGEST_SEARCH: Final = 200
_NEVER: Final = datetime.max.replace(tzinfo=UTC)

_Key = Callable[[View], tuple[object, ...]]

# What has no date comes last, and equal ones by name.
SORTS: Final[Mapping[str, _Key]] = MappingProxyType(
    {
        "state": lambda v: (v.state.rank, v.since or _NEVER, v.name),
        "name": lambda v: (v.name,),
        "since": lambda v: (v.since or _NEVER, v.name),
        "expiry": lambda v: (v.expiry.not_after if v.expiry else _NEVER, v.name),
        "violations": lambda v: (-v.critical, -v.warnings, -v.infos, v.name),
        "last_cycle": lambda v: (v.last_cycle or _NEVER, v.name),
    }
)


class QueryError(ValueError):
    """A query cannot be understood; the message is a sentence for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which orgs are asked for. `text` holds words that must all be found, in any case."""

    state: State | None = None
    text: str = ""
    sort: str = "state"
    descending: bool = False
    page: int = 1
    per_page: int = PER_PAGE

    def address(self, **changes: object) -> str:
        """Return this query, changed, as the part of an address; what is usual is left out."""
        asked = replace(self, **changes)  # type: ignore[arg-type] # whoever calls knows the fields
        said = {
            "state": asked.state.value if asked.state else "",
            "q": asked.text,
            "sort": f"{'-' if asked.descending else ''}{asked.sort}",
            "page": str(asked.page),
            "per_page": str(asked.per_page),
        }
        usual = {"state": "", "q": "", "sort": "state", "page": "1", "per_page": str(PER_PAGE)}
        pairs = {key: value for key, value in said.items() if value != usual[key]}
        return f"?{urlencode(pairs)}" if pairs else ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The orgs of one page, and how many there are of each state among all."""

    query: Query
    views: tuple[View, ...]
    matching: int
    total: int
    counts: Mapping[State, int]

    @property
    def pages(self) -> int:
        """The number of pages, at least one."""
        return max(1, -(-self.matching // self.query.per_page))

    @property
    def worst(self) -> State | None:
        """The worst state of any org, None when there are none."""
        return next((state for state in State if self.counts[state]), None)

    @property
    def alarming(self) -> int:
        """The number of orgs that somebody ought to look at now."""
        return sum(count for state, count in self.counts.items() if state.alarming)


def read_query(given: Mapping[str, str]) -> Query:
    """Return the query that an address asks; QueryError when it makes no sense."""
    state, sort = given.get("state"), given.get("sort", "state")
    if state is not None and state not in {known.value for known in State}:
        raise QueryError(f"There is no state {state[:40]!r}; there are {', '.join(State)}.")
    descending, sort = sort.startswith("-"), sort.removeprefix("-")
    if sort not in SORTS:
        raise QueryError(f"Nothing can be sorted by {sort[:40]!r}, only by {', '.join(SORTS)}.")
    text = given.get("q", "")
    if len(text) > _LONGEST_SEARCH:
        raise QueryError(f"What is searched for has {_LONGEST_SEARCH} characters at most.")
    return Query(
        state=State(state) if state else None,
        text=text,
        sort=sort,
        descending=descending,
        page=_number(given, "page", 1, 1_000_000),
        per_page=_number(given, "per_page", PER_PAGE, MOST_PER_PAGE),
    )


def select(views: Sequence[View], query: Query) -> Fleet:
    """Return the page that is asked for; beyond the last page, the last one."""
    counts = dict.fromkeys(State, 0)
    for view in views:
        counts[view.state] += 1
    words = query.text.casefold().split()
    found = [
        view
        for view in views
        if (query.state is None or view.state is query.state)
        and (not words or all(word in view.found for word in words))
    ]
    found.sort(key=SORTS[query.sort], reverse=query.descending)
    fleet = Fleet(query, (), len(found), len(views), MappingProxyType(counts))
    page = min(query.page, fleet.pages)
    first = (page - 1) * query.per_page
    shown = tuple(found[first : first + query.per_page])
    return replace(fleet, query=replace(query, page=page), views=shown)


def near(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return names that may have been meant, the likeliest first."""
    wanted = name[:100].casefold()
    folded = {known.casefold(): known for known in names}
    like = difflib.get_close_matches(wanted, folded, n=5, cutoff=0.6)
    holding = sorted(known for known in folded if wanted and wanted in known)
    return tuple(folded[known] for known in dict.fromkeys((*like, *holding)))[:5]


def _number(given: Mapping[str, str], key: str, usual: int, most: int) -> int:
    text = given.get(key)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):  # noqa: PLR2004 - so that no digits are read that cannot count
        raise QueryError(f"{key} is a whole number from 1 to {most}.")
    return int(text)
