"""Keeps the endpoint's protection as its web-config file says, also when that changes.

The file and those that it names are read once a second, in a thread that keeps nobody waiting and
does not keep the process from ending: they may lie where reading hangs. Their content counts, not
their times. A new content must be the same at two looks, since it may be half written at one; a
bad one leaves the old protection in use and is told once.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from agent import credentials
from agent.config import ConfigError
from agent.credentials import CredentialError
from agent.org import FromFile
from agent.web import webconfig
from agent.web.buckets import Buckets
from agent.web.passwords import Passwords
from agent.web.sparing import SparingLog
from agent.web.webconfig import Protection

_LOOK_SECONDS: Final = 1.0

_log: Final = structlog.get_logger("agent.web")


class Guard:
    """Who may come in at this moment; without a file, everybody.

    ConfigError when the file cannot be used from the start. It looks again every `seconds`.
    """

    def __init__(self, path: Path | None = None, seconds: float = _LOOK_SECONDS) -> None:
        self._path = path
        self._seconds = seconds
        # A plain digest of a short password's hash could be compared with others'.
        self._key = secrets.token_bytes(32)
        self._refused: str | None = None
        self._ended = threading.Event()
        self.current = Protection()
        self.requests: Buckets | None = None
        self.passwords = Passwords()
        self.refusals = SparingLog("a client was refused")
        self.failed_handshakes = SparingLog("a client's TLS handshake failed")
        if path is not None:
            seal, protection = self._read(path)
            self._good = self._seen = seal
            self._use(protection)

    def look(self) -> bool:
        """Read the files again; tell whether another protection is in use now. It blocks."""
        if self._path is None:
            return False
        seal = self._seal(self._path, self.current)
        if seal == self._good:
            self._seen, self._refused = seal, None
            return False
        if seal != self._seen:
            self._seen = seal
            return False
        try:
            # A bad content is tried again at each look: another file that it names may be mended.
            self._good, fresh = self._read(self._path)
        except ConfigError as error:
            self._refuse(error)
            return False
        self._seen, self._refused = self._good, None
        self._use(fresh)
        _log.info("web-config file taken in", file=str(self._path))
        return True

    def watch(self, changed: Callable[[], object], bug: Callable[[], None]) -> None:
        """Look again and again until `close`, calling `changed` in a thread of the guard's."""
        if self._path is not None:
            threading.Thread(
                target=self._watch, args=(changed, bug), name="web-config", daemon=True
            ).start()

    def close(self) -> None:
        """End the watch and give back what is held."""
        self._ended.set()
        self.passwords.close()

    def _watch(self, changed: Callable[[], object], bug: Callable[[], None]) -> None:
        while not self._ended.wait(self._seconds):
            try:
                if self.look():
                    changed()
            except Exception:  # noqa: BLE001 - whatever it is, the old protection stays in use
                _log.exception("a bug in the agent kept the web-config file from being read")
                bug()

    def _read(self, path: Path) -> tuple[bytes, Protection]:
        """Return the protection, and a seal of what it was read from at the latest."""
        names = webconfig.read(path)
        seal = self._seal(path, names)
        return seal, webconfig.read(path)

    def _use(self, protection: Protection) -> None:
        limit = protection.rate_limit
        if limit != self.current.rate_limit:
            self.requests = Buckets(limit.interval, limit.burst) if limit else None
        self.current = protection

    def _refuse(self, error: ConfigError) -> None:
        if str(error) != self._refused:
            self._refused = str(error)
            for problem in error.problems:
                _log.error("web-config file not usable, the old one stays", problem=str(problem))

    def _seal(self, path: Path, protection: Protection) -> bytes:
        """Return a digest of all files that changes with any byte of them and reveals none."""
        digest = hashlib.blake2b(key=self._key)
        named = protection.server.files if protection.server else ()
        for file in (str(path), *named):
            try:
                content = credentials.read_bytes(FromFile(file), environ={})
            except CredentialError as error:
                content = str(error).encode()
            digest.update(len(content).to_bytes(8) + content)
        return digest.digest()
