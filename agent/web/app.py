"""The answers: a Starlette application over an Exposition and a few questions to the daemon.

It must never make the event loop wait: the metrics are rendered and compressed in a thread of
their own. No answer holds an exception's text, a trace or the version of a library.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

import structlog
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.metrics import Component, Exposition
from agent.web.access import Access, steering
from agent.web.guard import Guard
from agent.web.negotiation import accepts_gzip, wants_openmetrics

_log: Final = structlog.get_logger("agent.web")


def create_app(
    exposition: Exposition,
    *,
    readiness: Callable[[], bool],
    now: Callable[[], datetime],
    reload: Callable[[], Awaitable[bool]] | None = None,
    guard: Guard | None = None,
    pages: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the application.

    `readiness` tells whether every org had a cycle. `reload` reads the configuration again and
    tells whether the new one is in use; None when the configuration does not enable that. `guard`
    says who may come in; None lets in everybody. `pages` are answered beside what is here.
    """
    guard = guard or Guard()
    answers = _Answers(exposition, readiness, now, reload)
    app = Starlette(
        routes=[
            *pages,
            Route("/metrics", answers.metrics),
            Route("/-/healthy", answers.healthy),
            Route("/-/ready", answers.ready),
            Route("/-/reload", steering(answers.reload), methods=["POST"]),
        ],
        middleware=[
            Middleware(_Border, exposition=exposition, guard=guard),
            Middleware(Access, guard=guard),
        ],
    )
    app.router.redirect_slashes = False
    return app


class _Answers:
    def __init__(
        self,
        exposition: Exposition,
        readiness: Callable[[], bool],
        now: Callable[[], datetime],
        reload: Callable[[], Awaitable[bool]] | None,
    ) -> None:
        self._exposition = exposition
        self._readiness = readiness
        self._now = now
        self._reload = reload
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exposition")
        self._turn = asyncio.Lock()
        # By OpenMetrics or not, and compressed or not.
        self._queued: dict[tuple[bool, bool], asyncio.Task[bytes]] = {}

    async def metrics(self, request: Request) -> Response:
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))

        # It is not ours alone: others may wait for the same text when this client goes.
        body = await asyncio.shield(self._rendered((openmetrics, compressed)))
        headers = {
            "content-type": CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_PLAIN_0_0_4,
            "vary": "Accept, Accept-Encoding",
        }
        if compressed:
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    def _rendered(self, form: tuple[bool, bool]) -> asyncio.Task[bytes]:
        """Return the text as it will be; whoever asks before it is begun gets the same one.

        So a crowd of scrapes costs no more than two of them.
        """
        queued = self._queued.get(form)
        if queued is None:
            queued = self._queued[form] = asyncio.create_task(self._render(form))
        return queued

    async def _render(self, form: tuple[bool, bool]) -> bytes:
        openmetrics, compressed = form

        def render() -> bytes:
            parts = self._exposition.parts(self._now(), openmetrics=openmetrics)
            return b"".join(_gzipped(parts) if compressed else parts)

        # One at a time, so that scrapes do not slow the probes together.
        async with self._turn:
            del self._queued[form]
            return await asyncio.get_running_loop().run_in_executor(self._renderer, render)

    async def healthy(self, _request: Request) -> Response:
        return PlainTextResponse("The agent is running.\n")

    async def ready(self, _request: Request) -> Response:
        if self._readiness():
            return PlainTextResponse("Every org has been probed.\n")
        return PlainTextResponse("Some orgs have not been probed yet.\n", status_code=503)

    async def reload(self, _request: Request) -> Response:
        if self._reload is None:
            sentence = "The configuration does not enable reloading over HTTP; send SIGHUP.\n"
            return PlainTextResponse(sentence, status_code=403)
        if await self._reload():
            return PlainTextResponse("The configuration was reloaded.\n")
        # The problems may quote the file; they are in the log only.
        sentence = "The new configuration cannot be used, see the log; the old one stays in use.\n"
        return PlainTextResponse(sentence, status_code=500)


def _gzipped(parts: Iterable[bytes]) -> Iterator[bytes]:
    # A higher level costs three to seven times as much for a tenth of the size.
    compressor = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    for part in parts:
        yield compressor.compress(part)
    yield compressor.flush()


class _Border:
    """Gives every answer the same headers, and a bare 500 for any bug behind it."""

    def __init__(self, app: ASGIApp, exposition: Exposition, guard: Guard) -> None:
        self._app = app
        self._exposition = exposition
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(self._guard.current.headers)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            self._exposition.instruments.internal_error(Component.WEB)
            _log.exception("request failed", path=scope["path"])
            if started:
                # Half an answer cannot be mended; the server must cut the connection.
                raise
            answer = PlainTextResponse("Internal error: see the log.\n", status_code=500)
            await answer(scope, receive, send_with_headers)
