"""Scenarios in which the answer itself is the defect: no SOAP, broken SOAP or broken HTTP.

Most come in three: at the door, where no password has been sent yet, at the login and at the
session call.
"""

# ruff: noqa: D401 - a scenario's docstring says what is so, not what to do

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

from agent.reason import Reason
from agent.result import ClientAuth
from agent.simulator import pages
from agent.simulator.http import Delivery, NotHttp, Response
from agent.simulator.scenario import (
    Scenario,
    add,
    door_fails,
    login_fails,
    scenario,
    session_fails,
)
from agent.simulator.soap import Asked

_Defect = Response | NotHttp | Delivery | Callable[[bytes], bytes]

_FAILS: Final[Mapping[Asked, Callable[[Scenario, Reason], Scenario]]] = MappingProxyType(
    {Asked.DOOR: door_fails, Asked.LOGIN: login_fails, Asked.SESSION: session_fails}
)
_SOAP: Final = b"http://schemas.xmlsoap.org/soap/envelope/"
_SOAP_12: Final = b"http://www.w3.org/2003/05/soap-envelope"
_DEPTH: Final = 20_000


def _with(base: Scenario, asked: Asked, defect: _Defect) -> Scenario:
    match defect:
        case Response() | NotHttp():
            return replace(base, answers={asked: defect})
        case Delivery():
            return replace(base, deliveries={asked: defect})
        case _:
            return replace(base, mangles={asked: defect})


def _failing(asked: Asked, defect: _Defect, reason: Reason, base: Scenario) -> Scenario:
    case = _with(base, asked, defect)
    if asked is Asked.DOOR and reason is Reason.CLIENT_ACCESS_DENIED:
        return door_fails(case, reason, ClientAuth.SOFT_REJECTED)
    return _FAILS[asked](case, reason)


def _fails_everywhere(name: str, summary: str, defect: _Defect, reason: Reason) -> None:
    for asked in Asked:
        add(f"{asked}_{name}", f"{summary} ({asked})", partial(_failing, asked, defect, reason))


def _broken_xml(name: str, summary: str, defect: Callable[[bytes], bytes]) -> None:
    for asked in Asked:
        # The door's ordinary answer is a fault, and so a 500: without SOAP in it, it is just that.
        reason = Reason.HTTP_STATUS if asked is Asked.DOOR else Reason.SOAP_MALFORMED
        add(f"{asked}_{name}", f"{summary} ({asked})", partial(_failing, asked, defect, reason))


def _does_not_matter(name: str, summary: str, defect: _Defect) -> None:
    for asked in Asked:
        add(f"{asked}_{name}", f"{summary} ({asked})", partial(_with, asked=asked, defect=defect))


def _after_declaration(addition: bytes, body: bytes) -> bytes:
    head, mark, tail = body.partition(b"?>")
    return head + mark + addition + tail


def _oversize(body: bytes) -> bytes:
    return body + b"<!--" + b"x" * (2 << 20) + b"-->"


def _deep(body: bytes) -> bytes:
    nested = b"<a>" * _DEPTH + b"</a>" * _DEPTH
    return body.replace(b"<soapenv:Body>", b"<soapenv:Body>" + nested, 1)


def _truncated(body: bytes) -> bytes:
    return body[: len(body) // 2]


def _not_utf8(body: bytes) -> bytes:
    return body.replace(b"<soapenv:Body>", b"<!-- \xff\xfe --><soapenv:Body>", 1)


def _with_bom(body: bytes) -> bytes:
    return b"\xef\xbb\xbf" + body


def _soap_1_2(body: bytes) -> bytes:
    return body.replace(_SOAP, _SOAP_12)


# "Billion laughs" with 10^7 of them; harmless where entities are refused.
_LAUGHS: Final = b"".join(
    b'<!ENTITY l%d "%s">' % (level, b"ha" if level == 0 else b"&l%d;" % (level - 1) * 10)
    for level in range(8)
)
_BOMB: Final = b"<!DOCTYPE x [" + _LAUGHS + b"]>"


def _bomb(body: bytes) -> bytes:
    filled = body.replace(b"<soapenv:Body>", b"<soapenv:Body><x>&l7;</x>", 1)
    return _after_declaration(_BOMB, filled)


_fails_everywhere(
    "maintenance_200",
    "A page says that Salesforce is down for maintenance, with status 200",
    pages.page(200, pages.MAINTENANCE),
    Reason.MAINTENANCE,
)
_fails_everywhere(
    "maintenance_503",
    "A page says that Salesforce is down for maintenance, with status 503",
    pages.page(503, pages.MAINTENANCE),
    Reason.MAINTENANCE,
)
_fails_everywhere(
    "html_unexpected",
    "A web page comes where SOAP was expected",
    pages.page(200, pages.EDGE),
    Reason.HTML_UNEXPECTED,
)
_fails_everywhere(
    "redirect",
    "The answer is a redirect to another host",
    pages.redirect("https://renamed.my.salesforce.com/services/Soap/u/64.0"),
    Reason.HTTP_REDIRECT,
)
for _status in (401, 404, 429, 500, 503):
    _fails_everywhere(
        f"status_{_status}",
        f"The answer is a bare {_status}",
        pages.plain(_status, "no"),
        Reason.HTTP_STATUS,
    )
for _asked in Asked:
    add(
        f"{_asked}_status_403",
        f"The answer is a bare 403 ({_asked})",
        partial(
            _failing,
            _asked,
            pages.plain(403, "no"),
            Reason.CLIENT_ACCESS_DENIED if _asked is Asked.DOOR else Reason.HTTP_STATUS,
        ),
    )
_fails_everywhere(
    "empty", "The answer is 200 with nothing in it", Response(200), Reason.SOAP_MALFORMED
)
_fails_everywhere(
    "not_http",
    "The answer is not HTTP",
    NotHttp(b"421 service not available\r\n\r\n"),
    Reason.HTTP_MALFORMED,
)
_fails_everywhere("oversize", "The answer has 2 MiB", _oversize, Reason.RESPONSE_TOO_LARGE)
_fails_everywhere(
    "not_soap", "The answer is XML but no SOAP", Response(200, b"<ok/>"), Reason.SOAP_MALFORMED
)
_broken_xml("truncated", "The XML stops halfway", _truncated)
_broken_xml(
    "doctype",
    "The XML has a DOCTYPE, which SOAP forbids",
    partial(_after_declaration, b"<!DOCTYPE x>"),
)
_broken_xml("entity_bomb", "The XML has an entity bomb", _bomb)
_broken_xml("wrong_namespace", "The envelope is that of SOAP 1.2", _soap_1_2)
_broken_xml("deep", f"The XML is nested {_DEPTH} levels deep", _deep)
_broken_xml("not_utf8", "The XML is not UTF-8", _not_utf8)
_fails_everywhere(
    "slow_body",
    "The answer comes so slowly that it never ends in time",
    Delivery(pause=1.0),
    Reason.HTTP_TIMEOUT,
)
_fails_everywhere(
    "cut",
    "The connection ends in the middle of the answer",
    Delivery(cut_after=100),
    Reason.TLS_EOF,
)
_does_not_matter("gzip", "The answer is compressed", Delivery(gzip=True))
_does_not_matter("chunked", "The answer comes in chunks", Delivery(chunked=True))
_does_not_matter("bom", "The XML begins with a byte order mark", _with_bom)


@scenario
def connection_close(healthy: Scenario) -> Scenario:
    """The server closes the connection after every answer, and says so."""
    return replace(healthy, deliveries=dict.fromkeys(Asked, Delivery(close=True)))


@scenario
def slow_but_well(healthy: Scenario) -> Scenario:
    """Every answer takes 150 ms."""
    return replace(healthy, deliveries=dict.fromkeys(Asked, Delivery(delay=0.15)))


@scenario
def clock_ahead(healthy: Scenario) -> Scenario:
    """The server's clock is an hour ahead."""
    return replace(healthy, clock_skew=timedelta(hours=1))


@scenario
def clock_behind(healthy: Scenario) -> Scenario:
    """The server's clock is an hour behind."""
    return replace(healthy, clock_skew=timedelta(hours=-1))
