"""The gate before every login: asks maintenance, breaker and budget, and records the attempt first.

A login is made only after its attempt is on disk, so that a kill between sending and bookkeeping
loses nothing; without a store there is no login, while handshakes go on. Secrets are read here, at
the last moment, so that a changed one is used, and noticed, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from agent import breaker, credentials
from agent.breaker import Denied, Limits, LoginState, Refusal
from agent.credentials import CredentialError, Secret
from agent.login import METHODS, LoginMethod
from agent.maintenance import Window, in_force, started_for
from agent.org import Org, PasswordCredentials, SecretSource
from agent.reason import Reason
from agent.result import Failure, LoginOutcome, Refused, SkipCause, Skipped
from agent.store import Permit, Store, StoreError

_Answer = TypeVar("_Answer")

# Longer than SQLite waits for another process, shorter than a cycle.
_PATIENCE_SECONDS: Final = 3.0
_AT_START: Final = 10
_BETWEEN_OPENINGS: Final = timedelta(seconds=5)
_BETWEEN_LOOKS: Final = timedelta(seconds=1)
_HANGS: Final = "the state directory does not answer"

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hold:
    """How long the breaker stays open at first, and at most."""

    first: timedelta = timedelta(hours=1)
    most: timedelta = timedelta(hours=24)


class Gatekeeper:
    """Owns the store and the one thread that uses it; makes the gate of each org.

    `open_store` opens the store, told how often the one before was written when it was used last;
    None means that there is none. It is opened again, a little later, whenever it could not be used
    or opened: a state directory may come late, go, fill up and come back. That is told once.
    """

    def __init__(
        self,
        open_store: Callable[[int], Store] | None,
        hold: Hold,
        environ: Mapping[str, str],
        now: Callable[[], datetime],
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._open_store = open_store
        self._hold = hold
        self._environ = environ
        self._now = now
        self._patience = patience
        # SQLite waits for the disk: never on the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._overdue: Future[Any] | None = None
        self._closed = False
        self._started: Mapping[str, Window] | None = None
        self._looked_at: datetime | None = None
        # How often others had written to the store at the last look, None while it cannot be used;
        # and what is known of each user, as of so many writes of others.
        self._elsewhere: int | None = None
        self._known: dict[str, tuple[int | None, LoginState]] = {}
        # These belong to the thread.
        self._store: Store | None = None
        self._writes = 0
        self._failed_at: datetime | None = None
        self._trouble: StoreError | None = None

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

    async def maintenance(self, org: Org) -> Window | None:
        """Return the window in which this org may not log in now, or None.

        What is started or stopped by command counts within a second, and while the store cannot be
        used not at all: then what was started before goes on.
        """
        await self.look()
        started = started_for(org.name, self._started or {})
        return in_force((*org.maintenance, *started), self._now())

    async def look(self) -> None:
        """See whether others have written to the store; at most once a second, for all orgs."""
        now, known = self._now(), self._started is not None
        if known and self._looked_at and abs(now - self._looked_at) < _BETWEEN_LOOKS:
            return
        self._looked_at = now
        self._elsewhere = None
        # It is told already; and without the store no login is admitted.
        with suppress(StoreError):
            self._started, self._elsewhere = await self.ask(
                lambda store: (store.maintenance(), store.writes_elsewhere())
            )

    def known(self, user: str) -> LoginState | None:
        """Return how the logins of a user stood when any org's gate last asked, if it could."""
        found = self._known.get(user.lower())
        return None if found is None else found[1]

    def is_current(self, user: str) -> bool:
        """Tell whether nobody else can have written of the user since that was known."""
        found = self._known.get(user.lower())
        return found is not None and found[0] is not None and found[0] == self._elsewhere

    async def ask_of(
        self,
        user: str,
        question: Callable[[Store], tuple[_Answer, LoginState]],
        undo: Callable[[Store, _Answer], None] | None = None,
    ) -> _Answer:
        """Put a question as `ask` does, and know how the logins of the user stand after it."""

        def ask(store: Store) -> _Answer:
            answer, state = question(store)
            self._known[user.lower()] = self._elsewhere, state
            return answer

        try:
            return await self.ask(ask, undo)
        except StoreError:
            self._known.pop(user.lower(), None)
            raise

    async def ask(
        self,
        question: Callable[[Store], _Answer],
        undo: Callable[[Store, _Answer], None] | None = None,
    ) -> _Answer:
        """Put a question to the store on its thread; StoreError when there is no answer in time.

        It is answered all the same when the caller has given up; `undo` then takes that back.
        """
        job = self._submit(question)
        try:
            # A disk that hangs, or another program's lock, must not keep the handshakes waiting.
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the answer.
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(asyncio.wrap_future(job))
        except (TimeoutError, asyncio.CancelledError) as error:
            if undo is not None:
                job.add_done_callback(partial(self._take_back, undo))
            if isinstance(error, asyncio.CancelledError):
                raise
            raise self._hanging(job) from error

    def ask_at_once(self, question: Callable[[Store], _Answer]) -> _Answer:
        """Put a question to the store and wait longer for it, since nothing else runs yet."""
        job = self._submit(question)
        try:
            return job.result(_AT_START * self._patience)
        except TimeoutError as error:
            raise self._hanging(job) from error

    def close(self) -> None:
        """Finish what was asked and close the store; what is asked later is a StoreError."""
        self._closed = True
        self._thread.shutdown(wait=True)
        if self._store is not None:
            self._store.close()

    def _submit(self, question: Callable[[Store], _Answer]) -> Future[_Answer]:
        if self._closed or self._open_store is None:
            raise StoreError("the state directory cannot be used")
        # Nothing piles up behind what hangs.
        if self._overdue is not None and not self._overdue.done():
            raise StoreError(_HANGS)
        return self._thread.submit(self._answer, question, self._open_store)

    def _hanging(self, job: Future[_Answer]) -> StoreError:
        self._overdue = job
        return self._failed(StoreError(_HANGS))

    def _failed(self, error: StoreError) -> StoreError:
        if self._trouble is None:
            _log.error(
                "no login will be made: the state directory cannot be used", error=str(error)
            )
        self._trouble = error
        return error

    def _take_back(self, undo: Callable[[Store, _Answer], None], job: Future[_Answer]) -> None:
        def act() -> None:
            if self._store is not None:
                undo(self._store, job.result())

        if job.exception() is None:
            # What cannot be taken back stays recorded as begun: the safe side.
            with suppress(RuntimeError):
                self._thread.submit(act)

    # --- on the store's thread

    def _answer(
        self, question: Callable[[Store], _Answer], open_store: Callable[[int], Store]
    ) -> _Answer:
        if self._store is None and self._rests():
            raise StoreError(str(self._trouble))
        try:
            answer = question(self._opened(open_store))
        except StoreError as error:
            self._failed_at = self._now()
            # Whatever it was: to open it is to look at all of it.
            store, self._store = self._store, None
            if store is not None:
                self._writes = max(self._writes, store.writes)
                store.close()
            raise self._failed(error) from None
        if self._trouble is not None:
            self._trouble = None
            _log.info("the state directory can be used again")
        return answer

    def _rests(self) -> bool:
        """Tell whether it failed so lately that to try again would only keep cycles waiting."""
        failed_at = self._failed_at
        return failed_at is not None and abs(self._now() - failed_at) < _BETWEEN_OPENINGS

    def _opened(self, open_store: Callable[[int], Store]) -> Store:
        if self._store is not None:
            return self._store
        self._store = store = open_store(self._writes)
        if store.loss is not None:
            _log.error(
                "the state was lost: nobody logs in until the hold is over, or `breaker reset`",
                why=store.loss.why,
                until=f"{store.loss.at + self._hold.first:%Y-%m-%dT%H:%M:%SZ}",
                **({"set_aside": store.loss.set_aside} if store.loss.set_aside else {}),
            )
        return store


class Gate:
    """The gate of one org: `admit` and then `done` or `not_sent` (see `agent.probe.LoginGate`).

    `refresh` and `limits` are for the metrics: they say how the logins of the user stand, whoever
    made them.
    """

    def __init__(
        self, keeper: Gatekeeper, org: Org, login: PasswordCredentials, limits: Limits
    ) -> None:
        self._keeper = keeper
        self._org = org
        self._login = login
        self._limits = limits
        # Whether a secret is accepted may depend on these, but a wrong one is wrong everywhere: so
        # they are no part of its digest.
        self._place = f"{org.endpoint.host} {org.api_version}"
        self._permit: Permit | None = None
        self._digest: str | None = None
        self._log = structlog.get_logger(__name__).bind(org=org.name)

    async def admit(self) -> LoginMethod | Skipped | Failure:
        """Record an attempt and return the login, or say why there must be none now."""
        window = await self._keeper.maintenance(self._org)
        if window is not None:
            because = f": {window.reason}" if window.reason else ""
            return Skipped(SkipCause.MAINTENANCE, f"{_until(window.until)}{because}")
        try:
            login = self._made()
        except CredentialError as error:
            return Failure(Reason.CREDENTIALS_UNREADABLE, str(error))
        parts = _parts(login)
        try:
            decision = await self._keeper.ask_of(
                self._login.username, lambda store: self._decide(store, parts), _not_sent
            )
        except StoreError as error:
            return Skipped(SkipCause.STATE_UNAVAILABLE, str(error))
        if isinstance(decision, Denied):
            return Skipped(decision.cause, self._explained(decision))
        self._permit = decision
        return login

    async def done(self, outcome: LoginOutcome) -> None:
        """Write down how the admitted login ended."""
        reason = outcome.failure.reason if isinstance(outcome, Refused) else None
        await self._settle(lambda store, permit: store.finish(permit, self._keeper.now(), reason))

    async def not_sent(self) -> None:
        """Take back the attempt: nothing of it left the machine."""

        def take_back(store: Store, permit: Permit) -> LoginState:
            store.abandon(permit)
            return store.login_state(permit.user)

        await self._settle(take_back)

    async def refresh(self) -> None:
        """Look again at what is remembered, for `limits`: other orgs, processes and people wrote.

        While the secret cannot be read, the breaker is told for the one that was last in hand, or
        else for the one last refused.
        """
        keeper, user = self._keeper, self._login.username
        await keeper.look()
        known = keeper.known(user)
        if known is not None and known.refusal is None and keeper.is_current(user):
            # With nothing refused it does not matter what the secret is.
            return
        try:
            parts = _parts(self._made())
        except CredentialError:
            parts = None
        with suppress(StoreError):
            await keeper.ask_of(user, lambda store: self._take_in(store, parts))

    def limits(self) -> tuple[bool | None, int | None]:
        """Return whether the breaker is open and how many logins are left in the hour, if known.

        Known is what the last call of another method saw.
        """
        state = self._keeper.known(self._login.username)
        if state is None:
            return None, None
        now = self._keeper.now()
        return (
            self._barring(state, now) is not None,
            breaker.budget_remaining(state, now, self._limits),
        )

    async def _settle(self, settle: Callable[[Store, Permit], LoginState]) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return

        try:
            await self._keeper.ask_of(
                self._login.username, lambda store: (None, settle(store, permit))
            )
        except StoreError as error:
            # The attempt stays recorded as begun, which counts for the budget and, if it happens
            # again, opens the breaker: the safe side.
            self._log.warning("the end of a login could not be recorded", error=str(error))

    def _made(self) -> LoginMethod:
        return METHODS[type(self._login)].make(self._org, self._login, self._keeper.read)

    def _barring(self, state: LoginState, now: datetime) -> Refusal | None:
        digest = state.digest if self._digest is None else self._digest
        return None if digest is None else breaker.barring(state, digest, self._place, now)

    def _explained(self, denied: Denied) -> str:
        state = self._keeper.known(self._login.username)
        refusal = self._barring(state, self._keeper.now()) if state else None
        after = denied.cause is SkipCause.BREAKER_OPEN and refusal
        because = f"after {after.by.value} " if after else ""
        return because + (_until(denied.until) if denied.until else "")

    # --- on the store's thread

    def _decide(self, store: Store, parts: list[bytes]) -> tuple[Permit | Denied, LoginState]:
        user, now = self._login.username, self._keeper.now()
        self._digest = store.secret_digest(user, parts)
        # No login of this org takes longer than its cycle, so an older unfinished one is dead.
        lease = timedelta(seconds=self._org.timeouts.cycle)
        decision = store.admit(
            user, self._digest, self._place, now, limits=self._limits, lease=lease
        )
        return decision, store.login_state(user) if isinstance(decision, Denied) else decision.state

    def _take_in(self, store: Store, parts: list[bytes] | None) -> tuple[None, LoginState]:
        user = self._login.username
        if parts is not None:
            self._digest = store.secret_digest(user, parts)
        return None, store.login_state(user)


def _until(moment: datetime) -> str:
    return f"until {moment:%Y-%m-%dT%H:%M:%SZ}"


def _not_sent(store: Store, decision: Permit | Denied) -> None:
    if isinstance(decision, Permit):
        store.abandon(decision)


def _parts(login: LoginMethod) -> list[bytes]:
    return [secret.reveal().encode() for secret in login.secrets]
