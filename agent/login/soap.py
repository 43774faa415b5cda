"""SOAP 1.1: bytes ↔ values, for the few operations that the agent uses.

Every text in an envelope is escaped, so that no user name, password or query can become markup.
Answers come from a stranger: DTDs and entities are refused, depth and number of elements are
capped, and what cannot be read is a value, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from agent import __version__
from agent.credentials import Secret
from agent.org import SessionCall

ENVELOPE_NAMESPACE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
PARTNER_NAMESPACE: Final = "urn:partner.soap.sforce.com"

# A login answer is about 2 KB, a certificate error page less; the query returns one row.
MAX_ANSWER_BYTES: Final = 1024 * 1024
_MAX_DEPTH: Final = 64
_MAX_ELEMENTS: Final = 10_000

# The complement of Char, https://www.w3.org/TR/xml/#charsets
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


# --- values → bytes


def is_xml_text(text: str) -> bool:
    """Tell whether XML 1.0 can carry this text; most control characters it cannot."""
    return _NOT_XML.search(text) is None


def login_envelope(username: str, password: Secret, token: Secret | None) -> bytes:
    """Return the envelope of login(); the security token is appended to the password.

    Raises ValueError, without the content, when a text holds a character that XML cannot carry.
    Source: developer.salesforce.com, SOAP API Developer Guide, login().
    """
    secret = password.reveal() + (token.reveal() if token else "")
    login = _text("urn:username", username) + _text("urn:password", secret)
    return _envelope(_CALL_OPTIONS, _element("urn:login", login))


def session_envelope(call: SessionCall, soql: str, session: Secret) -> bytes:
    """Return the envelope of a call with a session; `soql` is used by query() only.

    Raises ValueError, without the content, when a text holds a character that XML cannot carry.
    """
    header = _element("urn:SessionHeader", _text("urn:sessionId", session.reveal()))
    query = _text("urn:queryString", soql) if call is SessionCall.QUERY else ""
    return _envelope(header + _CALL_OPTIONS, _element(f"urn:{call.value}", query))


@cache
def door_envelope() -> bytes:
    """Return a call without any credential: the application must answer, if only with a fault."""
    call = SessionCall.GET_SERVER_TIMESTAMP
    return _envelope(_CALL_OPTIONS, _element(f"urn:{call.value}", ""))


def _envelope(header: str, body: str) -> bytes:
    content = _element("soapenv:Header", header) + _element("soapenv:Body", body)
    namespaces = f'xmlns:soapenv="{ENVELOPE_NAMESPACE}" xmlns:urn="{PARTNER_NAMESPACE}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<soapenv:Envelope {namespaces}>{content}</soapenv:Envelope>"
    ).encode()


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


def _text(name: str, text: str) -> str:
    if not is_xml_text(text):
        raise ValueError(f"{name} holds a character that XML cannot carry")
    # A reader turns a bare carriage return into a line feed
    # (https://www.w3.org/TR/xml/#sec-line-ends).
    return _element(name, escape(text, {"\r": "&#13;"}))


# The label by which Salesforce's support can tell our calls from others'.
_CALL_OPTIONS: Final = _element(
    "urn:CallOptions", _text("urn:client", f"sfmtls-agent/{__version__}")
)


# --- bytes → values


@dataclass(slots=True)
class Element:
    """One element of an answer under its local name; `text` is its own text, exactly as sent.

    The text may be a session id, so it is not shown.
    """

    name: str
    namespace: str = field(repr=False)
    nil: bool = field(repr=False)
    text: str = field(default="", repr=False)
    children: list[Element] = field(default_factory=list, repr=False)

    def child(self, name: str) -> Element | None:
        """Return the first child of this local name; one that is xsi:nil counts as absent."""
        return next(
            (child for child in self.children if child.name == name and not child.nil), None
        )

    def descendant(self, name: str) -> Element | None:
        """Return the first element below this one, in document order, of this local name."""
        for child in self.children:
            found = child if child.name == name and not child.nil else child.descendant(name)
            if found is not None:
                return found
        return None

    def value(self, *path: str) -> str | None:
        """Return the trimmed text at the end of a path of local names; empty counts as absent."""
        element: Element | None = self
        for name in path:
            element = element.child(name) if element else None
        return (element.text.strip() or None) if element else None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A SOAP 1.1 message: its header, if any, and the first element of its body."""

    header: Element | None
    content: Element


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are no SOAP 1.1 message; `detail` says why and quotes nothing of them."""

    detail: str


class _RefusedXmlError(ValueError):
    """XML that may be well-formed and is not wanted."""


def read_envelope(body: bytes) -> Envelope | Malformed:
    """Return the message in these bytes. Only the Envelope's namespace matters (SOAP 1.1 §4.1.2).

    Any encoding that expat knows is read; the caller caps the size, see MAX_ANSWER_BYTES.
    """
    if not body.strip():
        return Malformed("the answer is empty")
    root = _read(body)
    if isinstance(root, Malformed):
        return root
    if root.name != "Envelope":
        return Malformed("the root element is not an Envelope")
    if root.namespace != ENVELOPE_NAMESPACE:
        return Malformed("the Envelope is not one of SOAP 1.1")
    soap_body = root.child("Body")
    if soap_body is None or not soap_body.children:
        return Malformed("the Envelope has no content")
    return Envelope(root.child("Header"), soap_body.children[0])


def _read(body: bytes) -> Element | Malformed:
    tree = _Tree()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.text
    # Without a DOCTYPE there are no entities but XML's own five, so nothing can expand.
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)  # noqa: FBT003 - pyexpat takes no keywords
    except expat.ExpatError as error:
        return Malformed(f"not XML: {expat.ErrorString(error.code)}, line {error.lineno}")
    except _RefusedXmlError as error:
        return Malformed(str(error))
    except (ValueError, LookupError):
        # pyexpat asks Python's codecs for encodings that expat does not know.
        return Malformed("not XML: unknown encoding")
    return tree.root


def _refuse_doctype(*_declaration: object) -> None:
    raise _RefusedXmlError("the answer has a DOCTYPE, which SOAP forbids")  # SOAP 1.1 §3


def _is_nil(attributes: Mapping[str, str]) -> bool:
    return any(
        attribute.rpartition(" ")[2] == "nil" and value.strip() in {"true", "1"}
        for attribute, value in attributes.items()
    )


class _Tree:
    """Collects expat's events; `root` is there once the parser has ended without an error."""

    root: Element

    def __init__(self) -> None:
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= _MAX_DEPTH or self._count > _MAX_ELEMENTS:
            raise _RefusedXmlError("the answer has too many elements or is nested too deeply")
        namespace, _, local = name.rpartition(" ")
        element = Element(local, namespace, bool(attributes) and _is_nil(attributes))
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def text(self, text: str) -> None:
        self._open[-1].text += text

    def end(self, _name: str) -> None:
        self._open.pop()
