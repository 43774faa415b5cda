"""Where secrets come from, and the type that keeps them from being shown.

A Secret does not print, format, pickle, compare by content in a log or sit in a repr; its content
is asked for by name, at the last moment, by the one function that must send it.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A text that must never be shown; `reveal()` gives it."""

    __slots__ = ("__content",)

    def __init__(self, content: str) -> None:
        self.__content = content

    def reveal(self) -> str:
        """Return the content, for the one place that sends it."""
        return self.__content

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__content.encode(), other.__content.encode())

    __hash__ = None  # type: ignore[assignment] # a secret is no key of a mapping

    def __bool__(self) -> bool:
        """An empty secret is false."""
        return bool(self.__content)

    def __repr__(self) -> str:
        """Say what it is, never what is in it."""
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        """Say what it is, never what is in it."""
        return format(repr(self), specification)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied into anything that is stored."""
        raise TypeError("a Secret is not stored")
