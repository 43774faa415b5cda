"""The headers that every answer has, whatever it says and however it went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x-content-type-options": "nosniff",
        "x-frame-options": "deny",
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
        "cross-origin-resource-policy": "same-origin",
        # With no-referrer a browser would not tell where our own forms come from (Fetch §3.2).
        "referrer-policy": "same-origin",
        # What an answer says is true for a moment only, and not everybody's to keep.
        "cache-control": "no-store",
    }
)
