"""What a client accepts, read from its headers (RFC 9110 §12.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_OPENMETRICS: Final = "application/openmetrics-text"
_OPENMETRICS_VERSIONS: Final = (None, "1.0.0")
_TEXT_VERSIONS: Final = (None, "0.0.4")


def wants_openmetrics(accept: str) -> bool:
    """Tell whether OpenMetrics 1.0 is asked for by name and liked no less than the text format.

    A wildcard gets the text format: it is what people and old tools can read.
    """
    openmetrics = text = 0.0
    for media_type, parameters, quality in _ranges(accept):
        version = parameters.get("version")
        if media_type == _OPENMETRICS and version in _OPENMETRICS_VERSIONS:
            openmetrics = max(openmetrics, quality)
        elif media_type == "text/plain" and version in _TEXT_VERSIONS:
            text = max(text, quality)
    return openmetrics > 0 and openmetrics >= text


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether a gzipped answer is welcome."""
    qualities = {coding: quality for coding, _, quality in _ranges(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _ranges(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for part in header.split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        if not name:
            continue
        parameters = {
            key.strip().lower(): value.strip().strip('"')
            for key, _, value in (piece.partition("=") for piece in rest)
        }
        yield name.lower(), parameters, _quality(parameters.pop("q", "1"))


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
