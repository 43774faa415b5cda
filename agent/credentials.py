"""Where secrets come from, and the type that keeps them from being shown.

A Secret does not print, format, pickle, compare by content in a log or sit in a repr; its content
is asked for by name, at the last moment, by the one function that must send it.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent.org import FromCredential, FromFile, FromVariable, SecretSource

_LONGEST_SECRET: Final = 64 * 1024
_PIECE: Final = 16 * 1024
_LONGEST_MATERIAL: Final = 1024 * 1024

# systemd.exec(5): a credential is a file of this name in $CREDENTIALS_DIRECTORY.
_CREDENTIAL_NAME: Final = re.compile(r"[^\x00-\x1f\x7f/:]{1,255}")

# What XML 1.0 §2.2 calls Char; a secret with anything else can stand in no SOAP envelope.
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CredentialError(Exception):
    """A secret or a file of key material could not be read; says where and why, never what."""


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
        """Tell whether there is anything in it."""
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


def read(source: SecretSource, *, environ: Mapping[str, str]) -> Secret:
    """Return the secret that `source` holds; CredentialError names the source and the cause.

    One trailing line end is taken off. What is empty, longer than 64 KiB, not UTF-8, or not
    sendable in XML 1.0 is refused here, where the source can still be named.
    """
    if isinstance(source, FromVariable):
        text = _variable(source, environ)
    else:
        text = _decoded(_content(source, environ, _LONGEST_SECRET), source)
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    if not text:
        raise CredentialError(f"{source} is empty")
    if text.startswith("\ufeff"):
        raise CredentialError(f"{source} begins with a byte order mark; save it without one")
    if _NOT_IN_XML.search(text):
        raise CredentialError(f"{source} holds control characters, which XML cannot carry")
    return Secret(text)


def read_bytes(source: FromFile | FromCredential, *, environ: Mapping[str, str]) -> bytes:
    """Return a file of key material as it is, at most 1 MiB; CredentialError says what is wrong."""
    return _content(source, environ, _LONGEST_MATERIAL)


def is_exposed(source: SecretSource, environ: Mapping[str, str]) -> bool:
    """Tell whether every user of this machine may read the source; False when it is not there."""
    if isinstance(source, FromVariable):
        return False
    try:
        return bool(Path(_path(source, environ)).stat().st_mode & stat.S_IROTH)
    except (CredentialError, OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Protection:
    """Who may read a file: its permission bits, and whether it is this process's user's or root's.

    When root asks, any user may own it: whose service reads it is not known.
    """

    mode: int
    owned: bool


def protection(source: FromFile | FromCredential) -> Protection | None:
    """Return how a file is protected; None when it is not there.

    None too for a systemd credential: only the service's own user gets to it, whatever its bits are
    (systemd.exec(5), LoadCredential=).
    """
    if isinstance(source, FromCredential):
        return None
    try:
        status = Path(source.path).stat()
    except (OSError, ValueError):
        return None
    owned = os.geteuid() == 0 or status.st_uid in (0, os.geteuid())
    return Protection(stat.S_IMODE(status.st_mode), owned)


def is_credential_name(name: str) -> bool:
    """Tell whether systemd could pass a credential of this name; it must stay in its directory."""
    return bool(_CREDENTIAL_NAME.fullmatch(name)) and name not in {".", ".."}


def path_of(source: FromFile | FromCredential, environ: Mapping[str, str]) -> str | None:
    """Return where a source lies, or None when nothing can lie there."""
    try:
        return _path(source, environ)
    except CredentialError:
        return None


def _path(source: FromFile | FromCredential, environ: Mapping[str, str]) -> str:
    if isinstance(source, FromFile):
        return source.path
    if not is_credential_name(source.name):
        raise CredentialError("a systemd credential's name is a plain file name, without a slash")
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise CredentialError(
            f"{source} cannot be found: $CREDENTIALS_DIRECTORY is not set, so systemd passed no "
            "credentials (LoadCredential= in the unit)"
        )
    return f"{directory}/{source.name}"


def _content(source: FromFile | FromCredential, environ: Mapping[str, str], longest: int) -> bytes:
    path = _path(source, environ)
    try:
        # Opening a pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CredentialError(f"{source} is not a regular file")
            content = _read_at_most(descriptor, longest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CredentialError(f"{source} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise CredentialError("a path with a NUL character cannot be read") from None
    if len(content) > longest:
        raise CredentialError(f"{source} is longer than {longest // 1024} KiB")
    return content


def _read_at_most(descriptor: int, size: int) -> bytes:
    # Not at once: room for all that there may be costs more than to read what there is.
    content = b""
    while len(content) < size and (piece := os.read(descriptor, min(_PIECE, size - len(content)))):
        content += piece
    return content


def _variable(source: FromVariable, environ: Mapping[str, str]) -> str:
    text = environ.get(source.name)
    if text is None:
        raise CredentialError(f"{source} is not set")
    if len(text) > _LONGEST_SECRET:
        raise CredentialError(f"{source} is longer than {_LONGEST_SECRET // 1024} KiB")
    # What is not UTF-8 in the environment shows as lone surrogates (PEP 383).
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise CredentialError(f"{source} is not UTF-8 text")
    return text


def _decoded(content: bytes, source: SecretSource) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CredentialError(f"{source} is not UTF-8 text") from None
