"""Runs the stages of one cycle in order, under one deadline; always returns a ProbeResult.

The verdict on our certificate takes three looks, in this order and before any password is sent: the
handshake's return; a short read before the first write, since a TLS 1.3 server judges us after our
side is done (RFC 8446 §4.4.2.4); and one request without credentials, since a server may accept
anything in TLS and refuse with a web page, or ask for the certificate only now. Only then may a
login follow, on the same connection.

A probe reports what it saw; it never says whether that is good (see `agent.policy`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from agent.certificate import Certificate
from agent.credentials import Secret
from agent.login.flow import Granted, LoginMethod, Request, Response
from agent.login.session import (
    SessionAnswered,
    enforcement_outcome,
    read_session,
    session_request,
)
from agent.org import Org
from agent.probe.conversation import Conversation
from agent.probe.dns import Resolver
from agent.probe.opening import NotOpened, Opened, Way, open_channel
from agent.probe.stopwatch import Stopwatch
from agent.probe.tcp import Address, shown
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    HandshakeOutcome,
    LoginOutcome,
    Outcome,
    Probe,
    ProbeResult,
    Refused,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
    probes_of,
)

# With less time than this a login would be sent without much hope to hear the answer.
_LEAST_LOGIN_SECONDS: Final = 5.0
_LEAST_PROBE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Keys:
    """What a cycle presents: the chain as sent, a context that holds it, one that holds nothing."""

    chain: tuple[Certificate, ...]
    presenting: ssl.SSLContext
    bare: ssl.SSLContext
    proxy_password: Secret | None = None


class LoginGate(Protocol):
    """Says whether a login may be made, and is told how it ended."""

    async def admit(self) -> LoginMethod | Skipped | Failure:
        """Record an attempt and let it happen, or say why not. Called right before sending."""
        ...

    async def done(self, outcome: LoginOutcome) -> None:
        """Take note of how the admitted login ended."""
        ...

    async def not_sent(self) -> None:
        """Take note that nothing of the admitted login left the machine."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """One cycle to run: which probes are due, and with what.

    `keys` is a Failure when there is nothing to present; then nothing is sent at all.
    """

    org: Org
    keys: Keys | Failure
    due: frozenset[Probe]
    gate: LoginGate | None = None


async def run(plan: Plan, resolver: Resolver, now: Callable[[], datetime]) -> ProbeResult:
    """Run one cycle and return what it saw, however far it got."""
    cycle = _Cycle(plan, resolver, now)
    if isinstance(plan.keys, Failure):
        cycle.outcomes[Probe.HANDSHAKE] = plan.keys
    else:
        await cycle.run(plan.keys)
    return cycle.result()


class _Cycle:
    """The cycle under way; what it has seen so far is in its attributes."""

    def __init__(self, plan: Plan, resolver: Resolver, now: Callable[[], datetime]) -> None:
        self._plan = plan
        self._org = plan.org
        self._resolver = resolver
        self._now = now
        self._started_at = now()
        clock = asyncio.get_running_loop().time
        self._watch = Stopwatch(clock, clock() + plan.org.timeouts.cycle)
        self._client_auth = ClientAuth.NOT_REACHED
        self._handshake: HandshakeOutcome | None = None
        self._address: Address | None = None
        self._login: LoginOutcome | None = None
        self._api_usage: ApiUsage | None = None
        self._clock_skew: float | None = None
        self.outcomes: dict[Probe, Outcome] = {}

    def result(self) -> ProbeResult:
        keys = self._plan.keys
        cause = SkipCause.NO_VERDICT
        return ProbeResult(
            org=self._org.name,
            started_at=self._started_at,
            outcomes={
                probe: self.outcomes.get(
                    probe, Skipped(cause if probe in self._plan.due else SkipCause.NOT_DUE)
                )
                for probe in probes_of(self._org)
            },
            stages=self._watch.stages,
            handshake=self._handshake,
            client_auth=self._client_auth,
            address=shown(self._address) if self._address else None,
            client_chain=() if isinstance(keys, Failure) else keys.chain,
            login=self._login,
            api_usage=self._api_usage,
            clock_skew=self._clock_skew,
        )

    async def run(self, keys: Keys) -> None:
        way = Way(self._org.endpoint, self._org.timeouts, keys.proxy_password)
        opened = await open_channel(way, keys.presenting, self._resolver, self._watch)
        self._address = opened.address
        if isinstance(opened, NotOpened):
            if opened.handshake is not None:
                self._handshake = opened.handshake
                self._client_auth = opened.handshake.client_auth
            self.outcomes[Probe.HANDSHAKE] = opened.failure
            return
        self._handshake = opened.handshake
        pinned = way if self._org.endpoint.proxy else replace(way, address=opened.address)
        session: tuple[Secret, ...] = ()
        async with self._conversation(opened, pinned, keys.presenting, self._watch) as talk:
            failure = await self._knock(talk)
            if failure is None:
                session = await self._log_in(talk)
        if failure is None:
            await self._beside(way, pinned, keys, session)

    async def _knock(self, talk: Conversation) -> Failure | None:
        asked_at_once = talk.handshake.certificate_requested
        self._client_auth, failure, answer = await talk.knock(Stage.DOOR)
        self._clock_skew = self._skew(answer)
        self._handshake = talk.handshake
        if not self._handshake.certificate_requested:
            # That is the news, however the request ended.
            self._client_auth = ClientAuth.NOT_REQUESTED
            failure = Failure(Reason.CLIENT_NOT_REQUESTED, str(failure or ""))
        late = "" if asked_at_once else "it asked for our certificate only after a request"
        self.outcomes[Probe.HANDSHAKE] = failure or Success(late)
        return failure

    async def _log_in(self, talk: Conversation) -> tuple[Secret, ...]:
        """Log in and use the session, if due.

        Returns the session when it works, and behind it the secrets that gave it: whatever answers
        may quote any of them.
        """
        gate = self._plan.gate
        if gate is None or Probe.LOGIN not in self._plan.due:
            return ()
        if not (session := await self._login_once(talk, gate)):
            return ()
        answer = await self._session(talk, session)
        if isinstance(answer, Failure) and answer.reason is Reason.SESSION_INVALID:
            # Another client of the same user may have logged out in between: once more, within
            # the budget. A second failure is news.
            again = await self._login_once(talk, gate)
            if again:
                session = again
                answer = await self._session(talk, session)
        if isinstance(answer, Failure):
            self.outcomes[Probe.SESSION] = answer
            return ()
        self._api_usage = answer.api_usage
        self.outcomes[Probe.SESSION] = Success()
        return session

    async def _login_once(self, talk: Conversation, gate: LoginGate) -> tuple[Secret, ...]:
        if not self._is_time_for(min(self._org.timeouts.http, _LEAST_LOGIN_SECONDS)):
            # A password that is sent too late to hear the answer is an attempt all the same.
            admitted: LoginMethod | Skipped | Failure = Skipped(SkipCause.NO_TIME)
        else:
            admitted = await gate.admit()
        if isinstance(admitted, Skipped | Failure):
            self.outcomes.setdefault(Probe.LOGIN, admitted)
            if isinstance(admitted, Skipped):
                self.outcomes.setdefault(Probe.SESSION, admitted)
            return ()
        before = talk.secrets_sent
        outcome = await talk.log_in(admitted.flow())
        self._login = outcome.login if isinstance(outcome, Granted) else outcome
        if talk.secrets_sent > before:
            await gate.done(self._login)
        else:
            await gate.not_sent()
        if isinstance(outcome, Refused):
            self.outcomes[Probe.LOGIN] = outcome.failure
            return ()
        self.outcomes[Probe.LOGIN] = Success()
        return outcome.session, *admitted.secrets

    async def _session(
        self, talk: Conversation, session: tuple[Secret, ...]
    ) -> SessionAnswered | Failure:
        answer = await talk.post(self._session_request(session[0]), Stage.SESSION)
        return answer if isinstance(answer, Failure) else read_session(answer, *session)

    async def _beside(self, way: Way, pinned: Way, keys: Keys, session: tuple[Secret, ...]) -> None:
        """Run the probes that show no certificate, in what is left of the cycle's time."""
        due = self._plan.due
        if session and Probe.ENFORCEMENT in due:
            self.outcomes[Probe.ENFORCEMENT] = await self._enforcement(way, keys, session)
        if Probe.REFUSAL in due:
            self.outcomes[Probe.REFUSAL] = await self._refusal(pinned, keys)

    async def _refusal(self, way: Way, keys: Keys) -> Outcome:
        """Knock without a certificate: the same door that has just let us in must refuse."""
        if not self._is_time_for(_LEAST_PROBE_SECONDS):
            return Skipped(SkipCause.NO_TIME)
        watch = self._watch.aside()
        opened = await open_channel(way, keys.bare, self._resolver, watch)
        handshake = opened.handshake
        if isinstance(opened, NotOpened):
            verdict = handshake.client_auth if handshake else ClientAuth.NOT_REACHED
            failure: Failure | None = opened.failure
        else:
            async with self._conversation(opened, way, keys.bare, watch) as talk:
                verdict, failure, _ = await talk.knock()
                handshake = talk.handshake
        if failure is None:
            return Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE)
        if verdict in {ClientAuth.REJECTED, ClientAuth.SOFT_REJECTED}:
            return Success(str(failure))
        if failure.reason is Reason.TLS_EOF and handshake and handshake.certificate_requested:
            # Some servers refuse without a word. The good certificate has just got an answer at
            # this very address, so a close after our "none" is not an outage.
            return Success(str(failure))
        return Undetermined(Reason.UNDETERMINED, str(failure))

    async def _enforcement(self, way: Way, keys: Keys, session: tuple[Secret, ...]) -> Outcome:
        """Use the session on the ordinary port without the certificate: it must be refused."""
        enforcement = self._org.enforcement
        if enforcement is None or not self._is_time_for(_LEAST_PROBE_SECONDS):
            return Skipped(SkipCause.NO_TIME)
        endpoint = way.endpoint
        host, _ = endpoint.connect_to or (endpoint.host, endpoint.port)
        there = replace(endpoint, port=enforcement.port, connect_to=(host, enforcement.port))
        plain = replace(way, endpoint=there)
        watch = self._watch.aside()
        opened = await open_channel(plain, keys.bare, self._resolver, watch)
        if isinstance(opened, NotOpened):
            return Undetermined(Reason.UNDETERMINED, str(opened.failure))
        async with self._conversation(opened, plain, keys.bare, watch) as talk:
            answer = await talk.post(self._session_request(session[0]))
        if isinstance(answer, Failure):
            return Undetermined(Reason.UNDETERMINED, str(answer))
        return enforcement_outcome(answer, *session)

    def _session_request(self, session: Secret) -> Request:
        wanted = self._org.session
        return session_request(self._org.soap_path, wanted.call, wanted.soql, session)

    def _conversation(
        self, opened: Opened, way: Way, context: ssl.SSLContext, watch: Stopwatch
    ) -> Conversation:
        return Conversation(
            opened,
            way,
            path=self._org.soap_path,
            context=context,
            resolver=self._resolver,
            watch=watch,
        )

    def _is_time_for(self, seconds: float) -> bool:
        return self._watch.seconds(seconds) >= seconds

    def _skew(self, answer: Response | None) -> float | None:
        date = answer.headers.get("date") if answer is not None else None
        if date is None:
            return None
        try:
            return (parsedate_to_datetime(date) - self._now()).total_seconds()
        except (ValueError, TypeError, OverflowError):
            # No date, or one without a time zone, which Date must not be (RFC 9110 §5.6.7).
            return None
