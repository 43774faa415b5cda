"""The status page and its JSON on the web: which address is answered by what of the desk.

Pages of many orgs take long to render, so that is done in a thread of its own. What makes the agent
act is guarded: for programs as reloading is, for the buttons of our own pages by `forms`.
"""

from __future__ import annotations

import asyncio
import gzip
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from importlib import resources
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from agent.ondemand import DOOR, DOOR_AND_LOGIN, Answer, Gone, TooMany, UnderWay
from agent.result import Probe
from agent.status import Asked, Desk, Page
from agent.web.access import steering
from agent.web.forms import Forms
from agent.web.negotiation import accepts_gzip

ProbeNow = Callable[[str, frozenset[Probe]], Awaitable[Answer]]

_OFF: Final = "Trying on demand is off; `lifecycle = true` under [web] enables it."
_TRIED: Final = MappingProxyType({"door": Probe.HANDSHAKE, "login": Probe.LOGIN})
# What fits in a packet or two gains nothing.
_WORTH_PACKING: Final = 2048

_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)


class StatusSite:
    """The pages and documents of a desk.

    `probe` probes an org now; None when the configuration does not enable that. `listen_host` is
    the configured one.
    """

    def __init__(self, desk: Desk, probe: ProbeNow | None = None, listen_host: str = "") -> None:
        self._desk = desk
        self._probe = probe
        self._forms = Forms(listen_host)
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="status")
        self._files = {
            file.name: file.read_bytes()
            for file in resources.files("agent.status").joinpath("static").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }

    def routes(self) -> list[BaseRoute]:
        """Return what is answered."""
        return [
            Route("/", self._fleet),
            Route("/orgs/{name:path}/probe", self._press, methods=["POST"]),
            Route("/orgs/{name:path}", self._org),
            Route("/api/v1/openapi.json", self._openapi),
            Route("/api/v1/orgs", self._list_orgs),
            Route("/api/v1/orgs/{name:path}/probe", steering(self._probe_org), methods=["POST"]),
            Route("/api/v1/orgs/{name:path}", self._get_org),
            Route("/static/{name}", self._static),
        ]

    # --- pages

    async def _fleet(self, request: Request) -> Response:
        return await self._answer(request, partial(self._desk.fleet_page, _given(request)))

    async def _org(self, request: Request) -> Response:
        token, untried = None, _OFF
        if self._probe is not None:
            token, untried = self._forms.token(request), self._forms.why_not(request)
        asked = Asked(token, untried, _TRIED.get(_given(request).get("tried", "")))
        return await self._answer(request, partial(self._desk.org_page, _name(request), asked))

    async def _press(self, request: Request) -> Response:
        """Probe an org since somebody pressed a button on its page."""
        name, login = _name(request), _given(request).get("login") == "true"
        refusal = self._forms.refusal(request)
        if refusal is not None:
            return await self._refused(request, HTTPStatus.FORBIDDEN, refusal)
        if self._probe is None:
            return await self._refused(request, HTTPStatus.FORBIDDEN, _OFF)
        if not self._desk.knows(name):
            return await self._answer(request, partial(self._desk.org_page, name, Asked()))
        answer = await self._probe(name, DOOR_AND_LOGIN if login else DOOR)
        if (refused := _refusal(answer)) is not None:
            return await self._refused(request, *refused)
        tried = "login" if login else "door"
        address = f"/orgs/{quote(name, safe='')}?tried={tried}"
        return RedirectResponse(address, status_code=HTTPStatus.SEE_OTHER)

    async def _refused(
        self, request: Request, status: HTTPStatus, sentence: str, seconds: float | None = None
    ) -> Response:
        make = partial(self._desk.refused_page, _name(request), status, sentence)
        return _patient(await self._answer(request, make), seconds)

    # --- documents

    async def _openapi(self, request: Request) -> Response:
        return await self._answer(request, self._desk.openapi)

    async def _list_orgs(self, request: Request) -> Response:
        return await self._answer(request, partial(self._desk.fleet_document, _given(request)))

    async def _get_org(self, request: Request) -> Response:
        return await self._answer(request, partial(self._desk.org_document, _name(request)))

    async def _probe_org(self, request: Request) -> Response:
        name, login = _name(request), _given(request).get("login", "false")
        if self._probe is None:
            return await self._error(request, HTTPStatus.FORBIDDEN, _OFF)
        if login not in {"true", "false"}:
            return await self._error(request, HTTPStatus.BAD_REQUEST, "login is true or false.")
        if self._desk.knows(name):
            answer = await self._probe(name, DOOR_AND_LOGIN if login == "true" else DOOR)
            if (refused := _refusal(answer)) is not None:
                return await self._error(request, *refused)
        return await self._answer(request, partial(self._desk.org_document, name))

    async def _error(
        self, request: Request, status: HTTPStatus, sentence: str, seconds: float | None = None
    ) -> Response:
        make = partial(self._desk.error_document, status, sentence)
        return _patient(await self._answer(request, make), seconds)

    # --- the rest

    async def _static(self, request: Request) -> Response:
        name = _name(request)
        content = self._files.get(name)
        if content is None:
            return Response("Not Found", status_code=404, media_type="text/plain")
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]])

    async def _answer(self, request: Request, make: Callable[[], Page]) -> Response:
        packed = accepts_gzip(request.headers.get("accept-encoding", ""))

        def answer() -> Response:
            page = make()
            headers = {"vary": "Accept-Encoding", "content-type": page.media_type}
            body = page.body
            if packed and len(body) > _WORTH_PACKING:
                headers["content-encoding"] = "gzip"
                body = gzip.compress(body, compresslevel=1, mtime=0)
            return Response(body, status_code=page.status, headers=headers)

        return await asyncio.get_running_loop().run_in_executor(self._renderer, answer)


def _refusal(answer: Answer) -> tuple[HTTPStatus, str, float | None] | None:
    """Return why nothing was probed, and in how many seconds to ask again; None when it was."""
    match answer:
        case UnderWay():
            return HTTPStatus.CONFLICT, "The org is being probed at this moment.", 1.0
        case TooMany(seconds):
            again = math.ceil(seconds)
            sentence = f"That was asked for too often; ask again in {again} s."
            return HTTPStatus.TOO_MANY_REQUESTS, sentence, seconds
        case Gone():
            sentence = "The org is not watched any more, or the agent is stopping."
            return HTTPStatus.SERVICE_UNAVAILABLE, sentence, None
        case _:
            return None


def _patient(response: Response, seconds: float | None) -> Response:
    if seconds is not None:
        response.headers["retry-after"] = str(math.ceil(seconds))
    return response


def _given(request: Request) -> Mapping[str, str]:
    return request.query_params


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name
