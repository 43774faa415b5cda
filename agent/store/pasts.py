"""What each org presented, as rows; every function is part of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from agent.certificate import read
from agent.policy.rule import Side
from agent.store.rows import moment, to_optional
from agent.succession import Chain, Earlier, Past, Succession

# Side, age, changed_at, until and DER of one certificate.
_Row = tuple[str, int, int | None, int | None, bytes]


@dataclass(frozen=True, slots=True)
class KeptPast:
    """The past of one org as it is kept; making certificates of ten thousand takes seconds."""

    door: str
    rows: tuple[_Row, ...]

    def read(self) -> Past:
        """Return what the org presented; ValueError when that cannot be read any more."""
        try:
            return Past(self.door, self._succession(Side.CLIENT), self._succession(Side.SERVER))
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    def _succession(self, side: Side) -> Succession | None:
        rows = (row for row in self.rows if row[0] == side)
        chains = [list(chain) for _, chain in groupby(rows, key=itemgetter(1))]
        if not chains:
            return None
        present, *before = (tuple(read(der) for *_, der in chain) for chain in chains)
        ends = (moment(until or 0) for [(*_, until, _), *_] in chains[1:])
        [(_, _, changed_at, *_), *_], *_ = chains
        return Succession(
            present=present,
            before=tuple(map(Earlier, before, ends)),
            changed_at=None if changed_at is None else moment(changed_at),
        )


def save(connection: sqlite3.Connection, pasts: Mapping[str, Past]) -> None:
    """Write these down in the place of what was there of these orgs."""
    connection.executemany("DELETE FROM presented WHERE org = ?", ((org,) for org in pasts))
    connection.executemany(
        "INSERT INTO presented (org, door, side, changed_at, age, until, position, der)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (org, past.door, side, *row)
            for org, past in pasts.items()
            for side, succession in ((Side.CLIENT, past.client), (Side.SERVER, past.server))
            if succession is not None
            for row in _rows(succession)
        ),
    )


def load(connection: sqlite3.Connection) -> Mapping[str, KeptPast]:
    """Return what is there of every org, by its name."""
    rows = connection.execute(
        "SELECT org, door, side, age, changed_at, until, der FROM presented"
        " ORDER BY org, side, age, position"
    )
    return {
        org: KeptPast(door, tuple(row[2:] for row in of_org))
        for (org, door), of_org in groupby(rows, key=itemgetter(0, 1))
    }


def server_chains(connection: sqlite3.Connection) -> Mapping[str, Chain]:
    """Return the server's present chain by org; one that cannot be read any more is left out."""
    rows = connection.execute(
        "SELECT org, der FROM presented WHERE side = ? AND age = 0 ORDER BY org, position",
        (Side.SERVER,),
    ).fetchall()
    chains: dict[str, Chain] = {}
    for org, of_org in groupby(rows, key=itemgetter(0)):
        with suppress(ValueError):
            chains[org] = tuple(read(der) for _, der in of_org)
    return chains


def orgs(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of all orgs of which something is there."""
    return tuple(org for (org,) in connection.execute("SELECT DISTINCT org FROM presented"))


def forget(connection: sqlite3.Connection, org: str) -> None:
    """Forget an org altogether."""
    connection.execute("DELETE FROM presented WHERE org = ?", (org,))


def _rows(succession: Succession) -> Iterator[tuple[int | None, int, int | None, int, bytes]]:
    """Yield changed_at, age, until, position and DER of each certificate."""
    chains = ((succession.present, None), *((one.chain, one.until) for one in succession.before))
    for age, (chain, until) in enumerate(chains):
        for position, certificate in enumerate(chain):
            yield (
                to_optional(succession.changed_at),
                age,
                to_optional(until),
                position,
                certificate.der,
            )
