"""Requests to one door, each under its time limit, and logins as conversations of them.

A server may close the connection after an answer, or while we think. What follows then goes over a
new one, and that one is knocked at like the first: no secret goes over a connection whose
certificate was not accepted on that connection.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import nullcontext
from typing import Self

from agent.login.answer import door_request, door_verdict
from agent.login.flow import Granted, LoginFlow, Request, Response
from agent.probe.dns import Resolver
from agent.probe.handshake import verdict_of
from agent.probe.http import HttpClient
from agent.probe.opening import NotOpened, Opened, Way, open_channel
from agent.probe.stopwatch import Stopwatch
from agent.reason import Reason
from agent.result import ClientAuth, Failure, HandshakeOutcome, Refused, Stage


class Conversation:
    """Talks to one door, over `opened` as long as it lasts; closes what it uses.

    `secrets_sent` counts the requests with a secret that may have left the machine, whatever became
    of them.
    """

    def __init__(
        self,
        opened: Opened,
        way: Way,
        *,
        path: str,
        context: ssl.SSLContext,
        resolver: Resolver,
        watch: Stopwatch,
    ) -> None:
        self._opened = opened
        self._way = way
        self._path = path
        self._context = context
        self._resolver = resolver
        self._watch = watch
        self._http = HttpClient(opened.channel, way.endpoint.authority)
        self.secrets_sent = 0

    @property
    def handshake(self) -> HandshakeOutcome:
        """What the handshake of the connection in use showed, and what has come after it."""
        return self._opened.channel.seen()

    async def knock(
        self, stage: Stage | None = None
    ) -> tuple[ClientAuth, Failure | None, Response | None]:
        """Ask the door without credentials; return its verdict, why it is shut, and the answer.

        Whether it asked for a certificate at all is in `handshake` afterwards.
        """
        answer = await self._exchange(door_request(self._path), stage)
        if isinstance(answer, Failure):
            return verdict_of(self.handshake.alert), answer, None
        return *door_verdict(answer), answer

    async def post(self, request: Request, stage: Stage | None = None) -> Response | Failure:
        """Send a request with a secret in it, over a connection that was knocked at."""
        failure = await self._confirm()
        if failure is not None:
            return failure
        if self._watch.seconds(self._way.timeouts.http) > 0:
            self.secrets_sent += 1
        return await self._exchange(request, stage)

    async def log_in(self, flow: LoginFlow) -> Granted | Refused:
        """Carry the requests of a login until it says how it ended."""
        response: Response | None = None
        while True:
            try:
                request = flow.send(response) if response else next(flow)
            except StopIteration as end:
                outcome: Granted | Refused = end.value
                return outcome
            answer = await self.post(request, Stage.LOGIN)
            if isinstance(answer, Failure):
                flow.close()
                return Refused(answer)
            response = answer

    async def _exchange(self, request: Request, stage: Stage | None) -> Response | Failure:
        limit = self._watch.seconds(self._way.timeouts.http)
        if limit <= 0:
            # Even without time a first write would still go out.
            return Failure(Reason.HTTP_TIMEOUT, "no time was left to send it")
        try:
            async with asyncio.timeout(limit):
                with nullcontext() if stage is None else self._watch.stage(stage):
                    return await self._http.post(request)
        except TimeoutError:
            return Failure(Reason.HTTP_TIMEOUT, f"no complete answer in {limit:.1f} s")

    async def _confirm(self) -> Failure | None:
        """Make sure that the connection in use can carry a request and has accepted us."""
        if self._is_usable():
            return None
        failure = await self._reopen()
        if failure is not None:
            return failure
        _, failure, _ = await self.knock()
        if failure is None and not self.handshake.certificate_requested:
            return Failure(Reason.CLIENT_NOT_REQUESTED, "another connection to it did ask")
        if failure is not None or self._is_usable():
            return failure
        # A door that closes after each answer cannot be knocked at and then used: there the word
        # of the TLS layer must do, and the door has just opened to the same certificate.
        failure = await self._reopen()
        if failure is None and self.handshake.client_auth is not ClientAuth.ACCEPTED:
            return Failure(
                Reason.UNDETERMINED, "it closes after each answer and TLS gives no verdict"
            )
        return failure

    def _is_usable(self) -> bool:
        return self._http.reusable and self._opened.channel.is_quiet()

    async def _reopen(self) -> Failure | None:
        self._opened.channel.close()
        # The stages of the cycle are those of its first connection.
        opened = await open_channel(self._way, self._context, self._resolver, self._watch.aside())
        if isinstance(opened, NotOpened):
            return opened.failure
        self._opened = opened
        self._http = HttpClient(opened.channel, self._way.endpoint.authority)
        return None

    async def __aenter__(self) -> Self:
        """Close everything at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection in use."""
        self._opened.channel.close()
