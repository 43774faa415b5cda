"""SOAP login() with user name, password and, when needed, the security token.

Salesforce retires login() with Summer '27; until then it is what integrations on 8443 use. There is
no logout here and must never be: login() hands the same session to everyone who logs in as this
user, so a logout would end the session of the integration that is being watched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from agent.credentials import Secret
from agent.login.answer import SoapFault, SoapResult, failure_of, read_answer, redact
from agent.login.flow import Granted, LoginFlow, soap_request
from agent.login.soap import Element, is_xml_text, login_envelope
from agent.org import Org, PasswordCredentials, SecretSource
from agent.reason import Reason
from agent.result import Failure, LoggedIn, Refused

# Ids have 15 characters, or 18 of which the last three only repeat the letters' case (SOAP API
# Developer Guide, ID Field Type).
_SIGNIFICANT: Final = 15
_ID = re.compile(r"[A-Za-z0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_HOST_NAME = re.compile(r"[a-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """What one login needs. `host` is as configured; an organization id has 15 or 18 characters."""

    username: str
    password: Secret
    security_token: Secret | None
    path: str
    host: str
    organization_id: str | None

    @classmethod
    def of(
        cls, org: Org, wanted: PasswordCredentials, read: Callable[[SecretSource], Secret]
    ) -> Self:
        """Return the login that an org asks for; what `read` raises comes out."""
        token = wanted.security_token
        return cls(
            username=wanted.username,
            password=read(wanted.password),
            security_token=read(token) if token is not None else None,
            path=org.soap_path,
            host=org.endpoint.host,
            organization_id=org.organization_id,
        )

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Password and, if there is one, security token."""
        return (self.password, self.security_token) if self.security_token else (self.password,)

    def flow(self) -> LoginFlow:
        """Log in once. Without any request when a secret cannot be written in XML."""
        texts = [self.username, *(secret.reveal() for secret in self.secrets)]
        if not all(is_xml_text(text) for text in texts):
            return Refused(
                Failure(
                    Reason.CREDENTIALS_UNREADABLE,
                    "user name, password or token has a control character: XML cannot carry it",
                )
            )
        envelope = login_envelope(self.username, self.password, self.security_token)
        response = yield soap_request(self.path, "login", envelope)
        answer = read_answer(response, *self._unshown())
        if isinstance(answer, SoapResult):
            return self._judge(answer.content.child("result") or answer.content)
        code = answer.code if isinstance(answer, SoapFault) else ""
        return Refused(failure_of(answer), code or None)

    def _unshown(self) -> tuple[Secret, ...]:
        joined = Secret("".join(secret.reveal() for secret in self.secrets))
        return *self.secrets, joined

    def _judge(self, result: Element) -> Granted | Refused:
        # An expired password comes as a success with a session that can do nothing but
        # setPassword() (SOAP API Developer Guide, LoginResult).
        if _boolean(result.value("passwordExpired")):
            return Refused(Failure(Reason.PASSWORD_EXPIRED))
        session = result.value("sessionId")
        if session is None:
            return Refused(Failure(Reason.SOAP_MALFORMED, "the answer has no sessionId"))
        server_url = result.value("serverUrl")
        if server_url is not None and not _is_ours(server_url, self.host):
            place = redact(_place(server_url), (*self._unshown(), Secret(session)))
            return Refused(Failure(Reason.HOST_POLICY, place))
        organization_id = self._identifier(result.value("userInfo", "organizationId"))
        if self.organization_id is not None and (
            organization_id[:_SIGNIFICANT] != self.organization_id[:_SIGNIFICANT]
        ):
            return Refused(
                Failure(Reason.WRONG_ORG, f"the answer is from org {organization_id or '(none)'}")
            )
        return Granted(
            LoggedIn(
                user_id=self._identifier(result.value("userId")),
                organization_id=organization_id,
                sandbox=_boolean(result.value("sandbox")),
                session_seconds_valid=_seconds(result.value("userInfo", "sessionSecondsValid")),
            ),
            Secret(session),
        )

    def _identifier(self, text: str | None) -> str:
        if text is None or not _ID.fullmatch(text):
            return ""
        # Not compared with the session: that begins with the organization's id.
        return text if redact(text, self._unshown()) == text else ""


def _boolean(text: str | None) -> bool | None:
    # XML Schema Part 2 §3.2.2
    return None if text is None else text in {"true", "1"}


def _seconds(text: str | None) -> int | None:
    return int(text) if text and _SECONDS.fullmatch(text) else None


def _place(url: str) -> str:
    # Not the whole URL: a query may carry a session.
    try:
        parts = urlsplit(url)
    except ValueError:
        return "serverUrl cannot be read"
    return f"serverUrl is at {parts.scheme}://{parts.hostname}"


def _is_ours(url: str, configured: str) -> bool:
    """Tell whether a session could be sent there: https, to the configured host or Salesforce.

    The port is not compared: Salesforce leaves 8443 out of the URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme != "https" or not host:
        return False
    if host == configured.lower().removesuffix("."):
        return True
    return bool(_HOST_NAME.fullmatch(host)) and host.endswith(".salesforce.com")
