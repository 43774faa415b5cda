"""Scrapes the agent as Prometheus does, and reads what it says of its own punctuality."""

from __future__ import annotations

import gzip
import http.client
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# What Prometheus 2.42 sends.
_HEADERS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.42.0",
}
_LAG: Final = "sfmtls_scheduler_lag_seconds_bucket"


@dataclass(frozen=True)
class Scrape:
    """One answer as it came, and the seconds from the request to its last byte."""

    seconds: float
    body: bytes

    @property
    def text(self) -> bytes:
        """The exposition."""
        return gzip.decompress(self.body)


def scrape(port: int) -> Scrape:
    """Scrape once, on a new connection; SystemExit when the answer is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        begun = time.perf_counter()
        connection.request("GET", "/metrics", headers=_HEADERS)
        answer = connection.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - begun
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise SystemExit(f"/metrics answers {answer.status}")
    return Scrape(seconds, body)


def samples(text: bytes, name: str) -> Iterator[tuple[str, float]]:
    """Yield the labels, as they are written, and the value of each sample of this name."""
    pattern = rb"^" + re.escape(name.encode()) + rb"(?:\{(.*)\})? (\S+)$"
    for found in re.finditer(pattern, text, re.MULTILINE):
        yield (found[1] or b"").decode(), float(found[2])


@dataclass(frozen=True)
class Lags:
    """How late cycles began: for each bucket's bound in seconds, how many began no later."""

    within: Mapping[float, float]

    @classmethod
    def read(cls, text: bytes) -> Lags:
        """Return those since the agent was started."""
        return cls({float(labels.split('"')[1]): value for labels, value in samples(text, _LAG)})

    def since(self, before: Lags) -> Lags:
        """Return those of the cycles after that moment."""
        return Lags({bound: count - before.within[bound] for bound, count in self.within.items()})

    @property
    def cycles(self) -> int:
        """How many cycles began."""
        return int(self.within[math.inf])

    def bound(self, share: float) -> float:
        """Return the bound that this share of the cycles keeps: what is known of a quantile."""
        wanted = share * self.within[math.inf]
        return min(bound for bound, count in self.within.items() if count >= wanted)
