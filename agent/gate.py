"""The gate before every login: asks the breaker and the budget, and records the attempt first.

A login is made only after its attempt is on disk, so that a kill between sending and bookkeeping
loses nothing; without a store there is no login, while handshakes go on. Secrets are read here, at
the last moment, so that a changed one is used, and noticed, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from agent import breaker, credentials
from agent.breaker import Denied, Limits, LoginState
from agent.credentials import CredentialError, Secret
from agent.login import PasswordLogin
from agent.org import Org, PasswordCredentials, SecretSource
from agent.reason import Reason
from agent.result import Failure, LoginOutcome, Refused, SkipCause, Skipped
from agent.store import Permit, Store, StoreError

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Hold:
    """How long the breaker stays open at first, and at most."""

    first: timedelta = timedelta(hours=1)
    most: timedelta = timedelta(hours=24)


class Gatekeeper:
    """Owns the store and the one thread that uses it; makes the gate of each org.

    `store` None means that the state directory cannot be used.
    """

    def __init__(
        self,
        store: Store | None,
        hold: Hold,
        environ: Mapping[str, str],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._hold = hold
        self._environ = environ
        self._now = now
        # SQLite waits for the disk: never on the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    def gate(self, org: Org) -> Gate | None:
        """Return the gate of an org, or None when it has no login."""
        if org.login is None:
            return None
        limits = Limits(org.logins_per_hour, self._hold.first, self._hold.most)
        return Gate(self, org, org.login, limits)

    def read(self, source: SecretSource) -> Secret:
        """Return a secret as it is now; CredentialError when it cannot be read."""
        return credentials.read(source, environ=self._environ)

    def now(self) -> datetime:
        """Return the current moment."""
        return self._now()

    async def ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        """Put a question to the store on its thread; StoreError when there is none."""
        store = self._store
        if store is None:
            raise StoreError("the state directory cannot be used")
        return await asyncio.get_running_loop().run_in_executor(self._thread, question, store)

    def close(self) -> None:
        """Finish what was asked and close the store."""
        self._thread.shutdown(wait=True)
        if self._store is not None:
            self._store.close()


class Gate:
    """The gate of one org; `admit` and `done` are what a cycle calls (see `agent.probe`)."""

    def __init__(
        self, keeper: Gatekeeper, org: Org, login: PasswordCredentials, limits: Limits
    ) -> None:
        self._keeper = keeper
        self._org = org
        self._login = login
        self._limits = limits
        self._permit: Permit | None = None
        self._state: LoginState | None = None
        self._digest: str | None = None
        self._log = structlog.get_logger(__name__).bind(org=org.name)

    async def admit(self) -> PasswordLogin | Skipped | Failure:
        """Record an attempt and return the login, or say why there must be none now."""
        try:
            password = self._keeper.read(self._login.password)
            source = self._login.security_token
            token = self._keeper.read(source) if source is not None else None
        except CredentialError as error:
            return Failure(Reason.CREDENTIALS_UNREADABLE, str(error))
        parts = [text.reveal().encode() for text in (password, token) if text]
        # A corrected API version or host deserves another try as a corrected password does.
        parts.append(f"{self._org.endpoint.host} {self._org.api_version}".encode())
        try:
            decision = await self._keeper.ask(lambda store: self._decide(store, parts))
        except StoreError as error:
            return Skipped(SkipCause.STATE_UNAVAILABLE, str(error))
        if isinstance(decision, Denied):
            return Skipped(decision.cause, self._explained(decision))
        self._permit = decision
        return PasswordLogin(
            username=self._login.username,
            password=password,
            security_token=token,
            path=self._org.soap_path,
            host=self._org.endpoint.host,
            organization_id=self._org.organization_id,
        )

    async def done(self, outcome: LoginOutcome) -> None:
        """Write down how the admitted login ended."""
        reason = outcome.failure.reason if isinstance(outcome, Refused) else None
        await self._settle(lambda store, permit: store.finish(permit, self._keeper.now(), reason))

    async def not_sent(self) -> None:
        """Take back the attempt: nothing of it left the machine."""
        await self._settle(lambda store, permit: store.abandon(permit))

    async def _settle(self, settle: Callable[[Store, Permit], None]) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return

        def ask(store: Store) -> LoginState:
            settle(store, permit)
            return store.login_state(self._login.username)

        try:
            self._state = await self._keeper.ask(ask)
        except StoreError as error:
            # The attempt stays recorded as begun, which counts for the budget and, if it happens
            # again, opens the breaker: the safe side.
            self._log.warning("the end of a login could not be recorded", error=str(error))

    def limits(self) -> tuple[bool | None, int | None]:
        """Return whether the breaker is open and how many logins are left in the hour, if known."""
        if self._state is None or self._digest is None:
            return None, None
        now = self._keeper.now()
        return (
            breaker.breaker_open(self._state, self._digest, now),
            breaker.budget_remaining(self._state, now, self._limits),
        )

    def _explained(self, denied: Denied) -> str:
        after = self._state.opened_by if self._state else None
        because = (
            f"after {after.value} " if after and denied.cause is SkipCause.BREAKER_OPEN else ""
        )
        return because + (f"until {denied.until:%Y-%m-%dT%H:%M:%SZ}" if denied.until else "")

    def _decide(self, store: Store, parts: list[bytes]) -> Permit | Denied:
        user, now = self._login.username, self._keeper.now()
        self._digest = store.secret_digest(user, parts)
        # Nobody waits longer than a cycle for a login, so an older unfinished one is dead.
        lease = timedelta(seconds=self._org.timeouts.cycle)
        decision = store.admit(user, self._digest, now, self._limits, lease)
        self._state = store.login_state(user)
        return decision
