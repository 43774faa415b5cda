"""What one HTTP answer from Salesforce says, and the request that is sent only to learn that.

Salesforce answers with SOAP, or with a web page that says why the certificate was not accepted, or
with a web page for people, whatever the content type claims. Every text that leaves here has been
through `redact`: Salesforce has quoted parts of passwords in its error texts.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from agent.credentials import Secret
from agent.login.faults import KNOWN_CODES, PUBLIC_TEXTS, reason_of
from agent.login.flow import Request, Response, soap_request
from agent.login.soap import MAX_ANSWER_BYTES, Element, Malformed, door_envelope, read_envelope
from agent.reason import Reason
from agent.result import ClientAuth, Failure

WITHHELD: Final = "text withheld: it could quote a secret"
_MAX_DETAIL: Final = 200
_MAX_PAGE: Final = 64 * 1024
_FORBIDDEN: Final = 403  # RFC 9110 §15.5.4


@dataclass(frozen=True, slots=True)
class SoapResult:
    """The application answered the call. `content` is the …Response element."""

    content: Element
    header: Element | None


@dataclass(frozen=True, slots=True)
class SoapFault:
    """The application refused the call. `code` is "" when it gave none; `message` is redacted."""

    code: str
    message: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """A web page says that the client certificate is in error; `text` is what it says, redacted."""

    text: str


Answer = SoapResult | SoapFault | CertificatePage | Failure


def read_answer(response: Response, *secrets: Secret) -> Answer:
    """Classify one answer by its content first, then by its status.

    `secrets` are those that the request carried; no text in the answer quotes them.
    """
    if len(response.body) > MAX_ANSWER_BYTES:
        return Failure(Reason.RESPONSE_TOO_LARGE, f"more than {MAX_ANSWER_BYTES} bytes")
    envelope = read_envelope(response.body)
    if isinstance(envelope, Malformed):
        return _read_page(response, envelope.detail, secrets)
    if envelope.content.name == "Fault":
        return _read_fault(envelope.content, secrets)
    if not _is_success(response.status):
        return _unexpected_status(response, "", secrets)
    return SoapResult(envelope.content, envelope.header)


def door_request(path: str) -> Request:
    """Return the request without credentials that shows whether the application is reached."""
    return soap_request(path, "getServerTimestamp", door_envelope())


def door_verdict(response: Response) -> tuple[ClientAuth, Failure | None]:
    """Return the verdict on our certificate that the answer to the door request shows.

    Any word of the application means that the door is open: without a session it answers with a
    fault. A page about the certificate is the documented way in which Salesforce keeps it shut
    after a handshake that succeeded.
    """
    match read_answer(response):
        case SoapFault(reason=Reason.MUTUAL_AUTH_FAILED, message=message):
            return ClientAuth.SOFT_REJECTED, Failure(Reason.MUTUAL_AUTH_FAILED, message)
        case SoapResult() | SoapFault():
            return ClientAuth.ACCEPTED, None
        case CertificatePage(text=text):
            return ClientAuth.SOFT_REJECTED, Failure(Reason.CLIENT_CERT_PAGE, text)
        case Failure(reason=Reason.HTTP_STATUS, detail=detail) if response.status == _FORBIDDEN:
            # Nothing was asked for that could be forbidden to anybody but for the certificate.
            return ClientAuth.SOFT_REJECTED, Failure(Reason.CLIENT_ACCESS_DENIED, detail)
        case Failure() as failure:
            return ClientAuth.UNCONFIRMED, failure


def failure_of(answer: SoapFault | CertificatePage | Failure) -> Failure:
    """Return the failure that any answer but a result is."""
    match answer:
        case SoapFault(reason=reason, message=message):
            return Failure(reason, message)
        case CertificatePage(text=text):
            return Failure(Reason.CLIENT_CERT_PAGE, text)
        case Failure():
            return answer


# --- SOAP faults

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_CODE_IN_TEXT = re.compile(r"\s*([A-Z][A-Z0-9_]{2,79})\s*:\s*")
# SOAP 1.1 §4.4.1; they tell only whose fault it is.
_GENERIC_CODES: Final = frozenset({"Client", "Server", "VersionMismatch", "MustUnderstand"})
# Salesforce's XML parser has quoted a part of the password in front of an unescaped ampersand:
# 'The reference to entity "…" must end with the ';' delimiter.'
_PARSER_CODES: Final = frozenset(
    {"UNKNOWN_EXCEPTION", "XML_PARSER_ERROR", "POST_BODY_PARSE_ERROR", "JSON_PARSER_ERROR"}
)


def _read_fault(fault: Element, secrets: Iterable[Secret]) -> SoapFault:
    detail = fault.child("detail")
    exception_code = detail.descendant("exceptionCode") if detail else None
    exception_message = detail.descendant("exceptionMessage") if detail else None
    fault_string = fault.value("faultstring") or ""
    in_text = _CODE_IN_TEXT.match(fault_string)

    code = _code_of(exception_code.text if exception_code else "")
    if not code:
        # The prefix of a fault code is not always declared, so it is not read as a QName.
        code = _code_of((fault.value("faultcode") or "").rpartition(":")[2])
        if in_text and (not code or code in _GENERIC_CODES):
            code = in_text.group(1)
    message = exception_message.text.strip() if exception_message else ""
    if not message:
        message = fault_string[in_text.end() :] if in_text else fault_string
    reason = reason_of(code, message)
    shown = WITHHELD if message and code in _PARSER_CODES else redact(message, secrets)
    if code not in KNOWN_CODES | _GENERIC_CODES and _resembles(code, secrets):
        code = ""
    return SoapFault(code, shown, reason)


def _code_of(text: str) -> str:
    text = text.strip().rpartition(":")[2]
    return text if _CODE.fullmatch(text) else ""


# --- everything that is not SOAP

# Salesforce's own page, or nginx's for its errors 495 and 496 (ngx_http_special_response.c), which
# it sends with status 400.
_CERTIFICATE_ERROR = re.compile(
    r"client certificate error:\s*(?P<salesforce>[^\n]*)"
    r"|(?P<nginx>no required ssl certificate was sent|the ssl certificate error)",
    re.IGNORECASE,
)
_MAINTENANCE = re.compile(
    r"\b(?:down for|under|undergoing|in|performing|scheduled|planned|system|server|site)"
    r" (?:\w+ )?maintenance\b",
    re.IGNORECASE,
)
_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
# One whose namespace or content is wrong, or that breaks off, is no page for all that: without a
# prefix its Body looks like one of HTML.
_ENVELOPE = re.compile(r"\s*(?:<\?.*?\?>\s*)?<(?:[\w.-]+:)?Envelope\b", re.DOTALL)


def _read_page(response: Response, malformed: str, secrets: Iterable[Secret]) -> Answer:
    page = response.body[:_MAX_PAGE].decode("utf-8", "replace")
    text = _visible_text(page)
    if error := _CERTIFICATE_ERROR.search(text):
        return CertificatePage(redact(error["salesforce"] or error["nginx"] or "", secrets))
    status = response.status
    if not 300 <= status <= 399 and _MAINTENANCE.search(text):  # noqa: PLR2004 - RFC 9110 §15.4
        return Failure(Reason.MAINTENANCE, redact(text, secrets))
    if not _is_success(status):
        return _unexpected_status(response, text, secrets)
    if _is_html(page, response):
        return Failure(Reason.HTML_UNEXPECTED, redact(text, secrets))
    return Failure(Reason.SOAP_MALFORMED, malformed)


def _is_success(status: int) -> bool:
    return 200 <= status <= 299  # noqa: PLR2004 - RFC 9110 §15.3


def _is_html(page: str, response: Response) -> bool:
    if _ENVELOPE.match(page.removeprefix("\ufeff")):
        return False
    claimed = "html" in response.headers.get("content-type", "").lower()
    return _HTML.search(page) is not None or (claimed and bool(page.strip()))


def _unexpected_status(response: Response, text: str, secrets: Iterable[Secret]) -> Failure:
    if 300 <= response.status <= 399:  # noqa: PLR2004 - RFC 9110 §15.4
        target = redact(_host(response.headers.get("location", "")), secrets)
        return Failure(Reason.HTTP_REDIRECT, f"HTTP {response.status} to {target}")
    return Failure(Reason.HTTP_STATUS, _with_status(response.status, text, secrets))


def _with_status(status: int, text: str, secrets: Iterable[Secret]) -> str:
    detail = f"HTTP {status}: {redact(text, secrets)}" if text else f"HTTP {status}"
    return detail[:_MAX_DETAIL]


def _host(url: str) -> str:
    try:
        return (
            urlsplit(url).hostname or "the same host"
        )  # or nowhere: RFC 9110 §15.4 only says SHOULD
    except ValueError:
        return "an unreadable URL"


# Each pattern runs to the end of the page when its own end is missing, so none of them can be made
# to scan the page again and again.
_INVISIBLE = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)
_INLINE = re.compile(r"</?(?:i|b|u|a|em|strong|span|font|code|tt)(?:\s[^<>]*)?>", re.IGNORECASE)
_TAG = re.compile(r"<[/!?a-z][^<>]*(?:>|\Z)", re.IGNORECASE)


def _visible_text(page: str) -> str:
    """Return what a reader of the page would see, one line for each block."""
    text = _TAG.sub("\n", _INLINE.sub(" ", _INVISIBLE.sub(" ", page)))
    lines = (" ".join(line.split()) for line in html.unescape(text).splitlines())
    return "\n".join(line for line in lines if line)


# --- what may be shown

# Error texts of XML parsers quote what they stumbled over, which may be two letters of a password.
_QUOTES_INPUT = re.compile(
    r"\bentit(?:y|ies)\b|\bpars(?:e|er|ing)\b|\bmarkup\b|\belement type\b|\bwell-?formed\b",
    re.IGNORECASE,
)


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """Return the text as one line of at most 200 printable characters, fit for a log.

    A text that quotes one of the secrets, or a fragment of one, is withheld as a whole: blanking
    the fragment in a text that everybody knows would tell the fragment.
    """
    line = _one_line(text)
    if line in PUBLIC_TEXTS:
        return line
    shown = line if len(line) <= _MAX_DETAIL else line[: _MAX_DETAIL - 1] + "…"
    if _QUOTES_INPUT.search(shown) or _resembles(shown, secrets):
        return WITHHELD
    return shown


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def _resembles(text: str, secrets: Iterable[Secret]) -> bool:
    folded = text.casefold()
    return any(
        _share(form.casefold(), folded) for secret in secrets for form in _forms(secret.reveal())
    )


def _forms(content: str) -> Iterable[str]:
    """Yield the forms in which servers and proxies echo what they were sent."""
    yield content
    yield _one_line(content)
    yield quote(content, safe="")
    # A part of it may begin anywhere in the groups of three bytes that base64 makes four of.
    for start in range(3):
        yield base64.b64encode(content.encode()[start:]).decode()


def _share(secret: str, text: str) -> bool:
    """Tell whether a fragment of the secret stands in the text."""
    # A quarter of the secret, but not so short that chance finds it in every text, and not so long
    # that a passphrase could show whole words.
    length = min(len(secret), max(4, min(8, len(secret) // 4)))
    if not length:
        return False
    # What stands in both can be looked for from either side.
    shorter, longer = sorted((secret, text), key=len)
    return any(
        shorter[start : start + length] in longer for start in range(len(shorter) - length + 1)
    )
