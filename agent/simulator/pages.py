"""The web pages that come where SOAP was expected, as far as their wording is public."""

from __future__ import annotations

from html import escape
from typing import Final

from agent.simulator.door import RefusalPage
from agent.simulator.http import Response

_HTML: Final = "text/html; charset=UTF-8"


def page(status: int, text: str) -> Response:
    """Return an HTML page with one sentence."""
    return Response(
        status,
        f"<html><head><title>Salesforce</title></head><body><p>{text}</p></body></html>".encode(),
        _HTML,
    )


def plain(status: int, text: str = "") -> Response:
    """Return a bare status with a line of plain text, or with nothing."""
    return Response(status, text.encode(), "text/plain" if text else "")


def redirect(location: str) -> Response:
    """Return a redirect that nobody should follow."""
    return Response(302, b"", "", (("Location", location),))


def certificate_error(style: RefusalPage, error: str | None) -> Response:
    """Return the page of a soft door; `error` is OpenSSL's text, None when none was presented."""
    match style:
        case RefusalPage.SALESFORCE:
            # The only public capture has neither status nor headers; browsers showed it as a page.
            text = "No client certificate provided." if error is None else error
            return Response(
                200,
                (
                    "<html><head><title>Certificate Error</title></head><body>"
                    f"<h3>Client certificate error:<i>{escape(text)}</i></h3></body></html>"
                ).encode(),
                _HTML,
            )
        case RefusalPage.NGINX:
            title = (
                "No required SSL certificate was sent"
                if error is None
                else "The SSL certificate error"
            )
            return Response(
                400,
                (
                    f"<html>\r\n<head><title>400 {title}</title></head>\r\n<body>\r\n"
                    "<center><h1>400 Bad Request</h1></center>\r\n"
                    f"<center>{title}</center>\r\n"
                    "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
                ).encode(),
                "text/html",
            )
        case RefusalPage.FORBIDDEN:
            return Response(
                403,
                b"<html><body><h1>403 Forbidden</h1>\n"
                b"Request forbidden by administrative rules.\n</body></html>\n",
                "text/html",
            )


MAINTENANCE: Final = "We are down for maintenance."
EDGE: Final = "An unexpected connection error occurred."
