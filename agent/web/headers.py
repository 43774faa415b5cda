"""The headers that every answer has, whatever it says and however it went wrong."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# The one style of the one page; browsers are told by its hash that no other is ours.
STYLE: Final = "body { font-family: sans-serif; margin: 2em; max-width: 40em }"

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x-content-type-options": "nosniff",
        "x-frame-options": "deny",
        "content-security-policy": (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        # What an answer says is true for a moment only, and not everybody's to keep.
        "cache-control": "no-store",
    }
)
