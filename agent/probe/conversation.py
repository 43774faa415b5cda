"""Requests over a channel, each under its time limit, and logins as conversations of them.

A server may close the connection after an answer; the next request then goes over a new one,
opened as the first was, so that no password goes where the certificate has not been first.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Self

from agent.login.flow import Granted, LoginFlow, Request, Response
from agent.probe.dns import Resolver
from agent.probe.http import HttpClient
from agent.probe.opening import NotOpened, Opened, Way, open_channel
from agent.probe.stopwatch import Stopwatch
from agent.reason import Reason
from agent.result import Failure, Refused, Stage


class Conversation:
    """Sends requests to one door, over `opened` as long as it lasts; closes what it uses.

    `requests_sent` counts those that may have left the machine, whatever became of them.
    """

    def __init__(
        self,
        opened: Opened,
        way: Way,
        context: ssl.SSLContext,
        resolver: Resolver,
        watch: Stopwatch,
    ) -> None:
        self._opened = opened
        self._way = way
        self._context = context
        self._resolver = resolver
        self._watch = watch
        self._http = HttpClient(opened.channel, way.endpoint.authority)
        self.requests_sent = 0

    async def post(self, request: Request, stage: Stage | None) -> Response | Failure:
        """Send one request and return its answer; `stage` is timed, None is not."""
        limit = self._watch.seconds(self._way.timeouts.http)
        try:
            async with asyncio.timeout(limit):
                if stage is None:
                    return await self._post(request)
                with self._watch.stage(stage):
                    return await self._post(request)
        except TimeoutError:
            return Failure(Reason.HTTP_TIMEOUT, f"no complete answer in {limit:.1f} s")

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

    @property
    def alert(self) -> str | None:
        """The last fatal TLS alert on the connection in use."""
        return self._opened.channel.alert

    async def _post(self, request: Request) -> Response | Failure:
        if not self._http.reusable and (failure := await self._reopen()):
            return failure
        self.requests_sent += 1
        return await self._http.post(request)

    async def _reopen(self) -> Failure | None:
        self._opened.channel.close()
        # The stages of the cycle are those of its first connection.
        aside = Stopwatch(asyncio.get_running_loop().time, self._way.timeouts.http)
        opened = await open_channel(self._way, self._context, self._resolver, aside)
        if isinstance(opened, NotOpened):
            return opened.failure
        await self._http.aclose()
        self._opened = opened
        self._http = HttpClient(opened.channel, self._way.endpoint.authority)
        return None

    async def __aenter__(self) -> Self:
        """Close everything at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection in use."""
        self._opened.channel.close()
        await self._http.aclose()
