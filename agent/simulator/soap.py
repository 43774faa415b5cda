"""The far side of Salesforce's SOAP API 1.1, partner and enterprise, as far as a probe uses it.

Requests and answers are bytes; nothing here does I/O. The wording of envelopes and faults follows
Salesforce's SOAP API Developer Guide and partner WSDL 48.0, with whatever public captures of real
answers show beyond them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from html import escape
from typing import Final
from xml.etree import ElementTree as ET

from agent.credentials import Secret
from agent.simulator.http import Response

ORGANIZATION_ID: Final = "00D5g000008XkzYEAS"
OTHER_ORGANIZATION_ID: Final = "00D7Q000001a2bCUAQ"
USER_ID: Final = "0055g00000DzRlYAAV"

_FIRST_VERSION: Final = 31  # 21.0-30.0 were removed in Summer '25 (Salesforce help 000354473)
_LAST_LOGIN_VERSION: Final = 64  # login() is not in 65.0 and later (Salesforce help 005132110)
_LAST_VERSION: Final = 68  # Winter '27
_PATH: Final = re.compile(r"/services/Soap/(?P<api>[uc])/(?P<version>[^/?]+)(?:/[0-9A-Za-z]+)?")
_VERSION: Final = re.compile(r"(\d{1,3})\.0")
_QUERY: Final = re.compile(r"\s*select\s+.+?\s+from\s+(\w+)", re.IGNORECASE | re.DOTALL)
_SOAP: Final = "http://schemas.xmlsoap.org/soap/envelope/"
_SCHEMA_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"


class Asked(StrEnum):
    """What the agent asks for, in its order."""

    DOOR = "door"  # any call without a session that is no login
    LOGIN = "login"
    SESSION = "session"  # any call with a session


@dataclass(frozen=True, slots=True)
class Call:
    """One SOAP request as it was understood; `operation` is "" when it was not."""

    operation: str = ""
    username: str | None = None
    password: Secret | None = None
    session_id: str | None = None
    query: str | None = None
    api: str = "u"
    version: str = ""

    @property
    def asked(self) -> Asked:
        """What this call is to the agent."""
        if self.operation == "login":
            return Asked.LOGIN
        return Asked.DOOR if self.session_id is None else Asked.SESSION

    @property
    def namespace(self) -> str:
        """The namespace of the API that was called."""
        return f"urn:{'partner' if self.api == 'u' else 'enterprise'}.soap.sforce.com"

    @property
    def fault_namespace(self) -> str:
        """The namespace of that API's faults."""
        return f"urn:fault.{'partner' if self.api == 'u' else 'enterprise'}.soap.sforce.com"


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP fault. `prefixed` puts sf: before the faultcode; real answers are seen with both."""

    code: str
    message: str
    kind: str = "UnexpectedErrorFault"
    prefixed: bool = True


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """How a successful login answers; the defaults are the ordinary answer.

    `server_host` None means the host that was asked; `server_port` whether serverUrl has the port.
    """

    password_expired: bool = False
    session_id_is_nil: bool = False
    server_host: str | None = None
    server_port: bool = False
    organization_id: str = ORGANIZATION_ID


INVALID_LOGIN: Final = Fault(
    "INVALID_LOGIN",
    "Invalid username, password, security token; or user locked out.",
    "LoginFault",
)
NO_SESSION: Final = Fault(
    "INVALID_SESSION_ID",
    "INVALID_SESSION_ID: Invalid Session ID found in SessionHeader: missing session key",
)
ILLEGAL_SESSION: Final = Fault(
    "INVALID_SESSION_ID", "Invalid Session ID found in SessionHeader: Illegal Session"
)
UNSUPPORTED_VERSION: Final = Fault(
    "UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL"
)
LOGIN_NOT_IN_VERSION: Final = Fault(
    "INVALID_OPERATION", "SOAP API login() is not available in API version 65.0 and later."
)
NOT_MUTUALLY_AUTHENTICATED: Final = Fault(
    "MUTUAL_AUTHENTICATION_FAILED",
    "This session could not be mutually authenticated for use with the API",
)
EXPIRED_PASSWORD: Final = Fault(
    "INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
    "The users password has expired, you must call SetPassword before attempting any other "
    "API operations",
)


@dataclass(slots=True)
class Service:
    """One org with one user: checks the login, keeps the session that all its clients share.

    `lockout_after` failures in a row lock the user, after which the right password fails as well.
    `sessions_lost` is how many sessions another client's logout ends right after they were given.
    `session_seconds` is the inactivity after which a session ends, on `clock` (seconds).
    """

    username: str
    password: Secret = field(repr=False)
    clock: Callable[[], float]
    today: Callable[[], datetime]
    login_answer: LoginAnswer = field(default_factory=LoginAnswer)
    enforced: bool = True
    lockout_after: int | None = None
    sessions_lost: int = 0
    session_seconds: int = 7200
    api_requests_used: int = 6
    api_requests_limit: int = 15000
    failures: int = 0
    _session_id: str | None = field(default=None, repr=False)
    _session_used: float = 0.0

    @property
    def locked(self) -> bool:
        """Whether too many wrong passwords have locked the user."""
        return self.lockout_after is not None and self.failures >= self.lockout_after

    def end_session(self) -> None:
        """End the session, as another client's logout or an administrator would."""
        self._session_id = None

    def answer(self, call: Call, host: str, *, mutually_authenticated: bool) -> Response:
        """Return the answer to a call; `host` is the request's Host header."""
        version = _VERSION.fullmatch(call.version)
        if version is None or not _FIRST_VERSION <= int(version[1]) <= _LAST_VERSION:
            return fault_response(call, UNSUPPORTED_VERSION)
        if call.operation == "login":
            if int(version[1]) > _LAST_LOGIN_VERSION:
                return fault_response(call, LOGIN_NOT_IN_VERSION)
            return self._login(call, host)
        fault = self._session_fault(call, mutually_authenticated=mutually_authenticated)
        return fault_response(call, fault) if fault else self._call(call)

    def _login(self, call: Call, host: str) -> Response:
        if self.locked or call.username != self.username or call.password != self.password:
            self.failures += 1
            return fault_response(call, INVALID_LOGIN)
        self.failures = 0
        if not self._session_lives():
            # 0-9A-Za-z and "!" as in real ones; the first part is the organization.
            organization = self.login_answer.organization_id[:15]
            self._session_id = f"{organization}!AQ{secrets.token_hex(40)}"
        self._session_used = self.clock()
        given = self._session_id or ""
        if self.sessions_lost:
            self.sessions_lost -= 1
            self.end_session()
        return _envelope(call, self._login_result(call, host, given))

    def _session_lives(self) -> bool:
        idle = self.clock() - self._session_used
        return self._session_id is not None and idle <= self.session_seconds

    def _session_fault(self, call: Call, *, mutually_authenticated: bool) -> Fault | None:
        if call.session_id is None:
            return NO_SESSION
        if not self._session_lives() or call.session_id != self._session_id:
            return ILLEGAL_SESSION
        if self.enforced and not mutually_authenticated:
            return NOT_MUTUALLY_AUTHENTICATED
        if self.login_answer.password_expired:
            return EXPIRED_PASSWORD
        return None

    def _call(self, call: Call) -> Response:
        self._session_used = self.clock()
        self.api_requests_used += 1
        match call.operation:
            case "getUserInfo":
                result = f"<result>{self._user_info()}</result>"
            case "getServerTimestamp":
                result = f"<result><timestamp>{_moment(self.today())}</timestamp></result>"
            case "query":
                asked = _QUERY.match(call.query or "")
                if asked is None:
                    malformed = Fault("MALFORMED_QUERY", "unexpected token", "MalformedQueryFault")
                    return fault_response(call, malformed)
                result = self._query_result(asked[1])
            case "logout" | "invalidateSessions":
                self.end_session()
                result = "<result><success>true</success></result>"
                if call.operation == "logout":
                    result = ""
            case _:
                unknown = f"No operation available for request {call.operation}"
                return fault_response(call, Fault("UNKNOWN_EXCEPTION", unknown))
        body = f"<{call.operation}Response>{result}</{call.operation}Response>"
        return _envelope(call, body, self._limit_info())

    def _limit_info(self) -> str:
        return (
            "<LimitInfoHeader><limitInfo>"
            f"<current>{self.api_requests_used}</current>"
            f"<limit>{self.api_requests_limit}</limit><type>API REQUESTS</type>"
            "</limitInfo></LimitInfoHeader>"
        )

    def _query_result(self, entity: str) -> str:
        record_id = ORGANIZATION_ID if entity.lower() == "organization" else USER_ID
        return (
            '<result xsi:type="QueryResult"><done>true</done><queryLocator xsi:nil="true"/>'
            '<records xsi:type="sf:sObject" xmlns:sf="urn:sobject.partner.soap.sforce.com">'
            f"<sf:type>{entity}</sf:type><sf:Id>{record_id}</sf:Id><sf:Id>{record_id}</sf:Id>"
            "</records><size>1</size></result>"
        )

    def _login_result(self, call: Call, host: str, session_id: str) -> str:
        answer = self.login_answer
        if not answer.server_port:
            # The port is not in real answers; the client has to put it back.
            host = re.sub(r":\d+$", "", host)
        url = f"https://{answer.server_host or host}/services/Soap"
        tail = f"{call.version}/{answer.organization_id[:15]}"
        session = (
            '<sessionId xsi:nil="true"/>'
            if answer.session_id_is_nil
            else f"<sessionId>{session_id}</sessionId>"
        )
        return (
            "<loginResponse><result>"
            f"<metadataServerUrl>{escape(url)}/m/{tail}</metadataServerUrl>"
            f"<passwordExpired>{str(answer.password_expired).lower()}</passwordExpired>"
            "<sandbox>false</sandbox>"
            f"<serverUrl>{escape(url)}/{call.api}/{tail}</serverUrl>"
            f"{session}<userId>{USER_ID}</userId>"
            f"<userInfo>{self._user_info()}</userInfo>"
            "</result></loginResponse>"
        )

    def _user_info(self) -> str:
        return (
            "<accessibilityMode>false</accessibilityMode>"
            "<chatterExternal>false</chatterExternal>"
            "<currencySymbol>$</currencySymbol>"
            "<orgAttachmentFileSizeLimit>5242880</orgAttachmentFileSizeLimit>"
            "<orgDefaultCurrencyIsoCode>USD</orgDefaultCurrencyIsoCode>"
            "<orgDefaultCurrencyLocale>en_US</orgDefaultCurrencyLocale>"
            "<orgDisallowHtmlAttachments>false</orgDisallowHtmlAttachments>"
            "<orgHasPersonAccounts>false</orgHasPersonAccounts>"
            f"<organizationId>{self.login_answer.organization_id}</organizationId>"
            "<organizationMultiCurrency>false</organizationMultiCurrency>"
            "<organizationName>Simulated Org</organizationName>"
            "<profileId>00e5g000003WvzHAAS</profileId>"
            '<roleId xsi:nil="true"/>'
            f"<sessionSecondsValid>{self.session_seconds}</sessionSecondsValid>"
            '<userDefaultCurrencyIsoCode xsi:nil="true"/>'
            f"<userEmail>{escape(self.username)}</userEmail>"
            "<userFullName>Door Probe</userFullName>"
            f"<userId>{USER_ID}</userId>"
            "<userLanguage>en_US</userLanguage><userLocale>en_US</userLocale>"
            f"<userName>{escape(self.username)}</userName>"
            "<userTimeZone>GMT</userTimeZone><userType>Standard</userType>"
            "<userUiSkin>Theme3</userUiSkin>"
        )


def read(target: str, body: bytes) -> Call | Fault | None:
    """Return the call in a request, a Fault if its body is no SOAP, None if the path is no API."""
    path = _PATH.fullmatch(target)
    if path is None:
        return None
    try:
        operation, header = _parts(body)
    except ValueError as error:
        return Fault("UNKNOWN_EXCEPTION", str(error))
    password = _text(operation, "password")
    return Call(
        operation=_local(operation),
        username=_text(operation, "username"),
        password=None if password is None else Secret(password),
        session_id=_text(header, "sessionId"),
        query=_text(operation, "queryString"),
        api=path["api"],
        version=path["version"],
    )


def fault_response(call: Call, fault: Fault) -> Response:
    """Return a fault as HTTP answer: 500, as SOAP 1.1 §6.2 demands and Salesforce does."""
    text = escape(f"{fault.code}: {fault.message}", quote=False)
    code = f"sf:{fault.code}" if fault.prefixed else fault.code
    content = (
        f"<soapenv:Fault><faultcode>{code}</faultcode><faultstring>{text}</faultstring>"
        f'<detail><sf:{fault.kind} xsi:type="sf:{fault.kind}">'
        f"<sf:exceptionCode>{fault.code}</sf:exceptionCode>"
        f"<sf:exceptionMessage>{escape(fault.message, quote=False)}</sf:exceptionMessage>"
        f"</sf:{fault.kind}></detail></soapenv:Fault>"
    )
    return Response(
        500,
        (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f'<soapenv:Envelope xmlns:soapenv="{_SOAP}" xmlns:sf="{call.fault_namespace}" '
            f'xmlns:xsi="{_SCHEMA_INSTANCE}"><soapenv:Body>{content}</soapenv:Body>'
            "</soapenv:Envelope>"
        ).encode(),
    )


def _envelope(call: Call, content: str, header: str = "") -> Response:
    wrapped = f"<soapenv:Header>{header}</soapenv:Header>" if header else ""
    return Response(
        200,
        (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f'<soapenv:Envelope xmlns:soapenv="{_SOAP}" xmlns="{call.namespace}" '
            f'xmlns:xsi="{_SCHEMA_INSTANCE}">{wrapped}<soapenv:Body>{content}</soapenv:Body>'
            "</soapenv:Envelope>"
        ).encode(),
    )


def login_envelope(username: str, password: Secret) -> bytes:
    """Return a login request. It survives `curl -d`, which takes the line ends out of a file."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<soapenv:Envelope xmlns:soapenv="{_SOAP}" xmlns:urn="urn:partner.soap.sforce.com">\n'
        "<soapenv:Body>\n<urn:login>\n"
        f"<urn:username>{escape(username)}</urn:username>\n"
        f"<urn:password>{escape(password.reveal())}</urn:password>\n"
        "</urn:login>\n</soapenv:Body>\n</soapenv:Envelope>\n"
    ).encode()


def call_envelope(operation: str, content: str = "", session_id: str | None = None) -> bytes:
    """Return a request for an operation, with its content already as XML."""
    header = (
        ""
        if session_id is None
        else "<soapenv:Header><urn:SessionHeader>"
        f"<urn:sessionId>{escape(session_id)}</urn:sessionId>"
        "</urn:SessionHeader></soapenv:Header>"
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<soapenv:Envelope xmlns:soapenv="{_SOAP}" xmlns:urn="urn:partner.soap.sforce.com">'
        f"{header}<soapenv:Body><urn:{operation}>{content}</urn:{operation}></soapenv:Body>"
        "</soapenv:Envelope>"
    ).encode()


def _parts(body: bytes) -> tuple[ET.Element, ET.Element | None]:
    # A DOCTYPE in UTF-16 would not be found as text, but has a zero byte in each letter.
    if b"<!DOCTYPE" in body or b"\0" in body:
        raise ValueError("DOCTYPE is not allowed")
    try:
        envelope = ET.fromstring(body)  # noqa: S314 - no DOCTYPE, so no entities
    except ET.ParseError as error:
        raise ValueError(str(error)) from None
    found = envelope.find(f"{{{_SOAP}}}Body")
    if envelope.tag != f"{{{_SOAP}}}Envelope" or found is None or len(found) == 0:
        raise ValueError("unexpected element")
    return found[0], envelope.find(f"{{{_SOAP}}}Header")


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(parent: ET.Element | None, name: str) -> str | None:
    if parent is None:
        return None
    for element in parent.iter():
        if _local(element) == name:
            return element.text or ""
    return None


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
