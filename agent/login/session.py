"""The one call that proves that a session works, and the opt-in proof that mutual TLS is enforced.

Salesforce looks for our certificate in the org only when a session is used, so a login alone does
not show that the uploaded certificate is the right one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.credentials import Secret
from agent.login.answer import SoapFault, SoapResult, failure_of, read_answer
from agent.login.flow import Request, Response, soap_request
from agent.login.soap import Element, session_envelope
from agent.org import SessionCall
from agent.reason import Reason
from agent.result import ApiUsage, Failure, Success, Undetermined

_COUNT = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class SessionAnswered:
    """The call with the session worked; `api_usage` is None when the answer did not tell it."""

    api_usage: ApiUsage | None


def session_request(path: str, call: SessionCall, soql: str, session: Secret) -> Request:
    """Return the call; ValueError, without the content, when XML cannot carry session or query."""
    return soap_request(path, call.value, session_envelope(call, soql, session))


def read_session(response: Response, *secrets: Secret) -> SessionAnswered | Failure:
    """Read the answer to a call with a session; give the session, so that no text quotes it."""
    answer = read_answer(response, *secrets)
    if isinstance(answer, SoapResult):
        return SessionAnswered(_api_usage(answer.header))
    return failure_of(answer)


def enforcement_outcome(response: Response, *secrets: Secret) -> Success | Failure | Undetermined:
    """Read the answer to a call with a session but without our certificate, which must fail.

    Only the fault that names mutual authentication is a proof; an outage proves nothing.
    """
    answer = read_answer(response, *secrets)
    if isinstance(answer, SoapResult):
        return Failure(Reason.ENFORCEMENT_OFF)
    failure = failure_of(answer)
    if isinstance(answer, SoapFault) and failure.reason is Reason.MUTUAL_AUTH_FAILED:
        return Success(failure.detail)
    return Undetermined(failure.reason, failure.detail)


def _api_usage(header: Element | None) -> ApiUsage | None:
    # SOAP API Developer Guide, LimitInfoHeader: it comes with every call except login().
    limits = header.child("LimitInfoHeader") if header else None
    if limits is None:
        return None
    for info in limits.children:
        used, limit = info.value("current"), info.value("limit")
        if (
            info.name == "limitInfo"
            and info.value("type") in {None, "API REQUESTS"}
            and used
            and limit
            and _COUNT.fullmatch(used)
            and _COUNT.fullmatch(limit)
        ):
            return ApiUsage(int(used), int(limit))
    return None
