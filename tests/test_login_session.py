"""The call with the session, and the proof that mutual TLS is enforced."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import agent.login
from agent.credentials import Secret
from agent.login.flow import Response
from agent.login.session import (
    SessionAnswered,
    enforcement_outcome,
    read_session,
    session_request,
)
from agent.org import SessionCall
from agent.reason import Reason
from agent.result import ApiUsage, Failure, Success, Undetermined

SESSION = Secret("00Dxx0000001gPL!AQcanary9f2c")
NOT_MUTUAL = "This session could not be mutually authenticated for use with the API"


def soap(content: str, header: str = "") -> bytes:
    return (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns="urn:partner.soap.sforce.com">'
        f"<soapenv:Header>{header}</soapenv:Header><soapenv:Body>{content}</soapenv:Body>"
        "</soapenv:Envelope>"
    ).encode()


def result(header: str = "") -> Response:
    return Response(200, {}, soap("<getUserInfoResponse><result/></getUserInfoResponse>", header))


def fault(code: str, message: str) -> Response:
    content = (
        f"<soapenv:Fault><faultcode>sf:{code}</faultcode>"
        f"<faultstring>{code}: {message}</faultstring></soapenv:Fault>"
    )
    return Response(500, {}, soap(content))


def limits(*infos: str) -> str:
    inside = "".join(f"<limitInfo>{info}</limitInfo>" for info in infos)
    return f"<LimitInfoHeader>{inside}</LimitInfoHeader>"


USAGE = "<current>6</current><limit>15000</limit><type>API REQUESTS</type>"


@pytest.mark.parametrize("call", list(SessionCall))
def test_the_request_carries_the_session_and_shows_nothing_of_it(call):
    request = session_request("/services/Soap/u/64.0", call, "SELECT Id FROM User", SESSION)

    root = ET.fromstring(request.body)  # noqa: S314 - a second reader of what we wrote ourselves
    assert root.findtext(".//{urn:partner.soap.sforce.com}sessionId") == SESSION.reveal()
    assert dict(request.headers)["SOAPAction"] == request.operation == call.value
    assert "canary" not in repr(request)


def test_an_answer_says_how_many_api_requests_were_used():
    assert read_session(result(limits(USAGE)), SESSION) == SessionAnswered(ApiUsage(6, 15000))


def test_the_api_requests_are_found_among_other_limits():
    other = "<current>1</current><limit>2</limit><type>OTHER</type>"

    assert read_session(result(limits(other, USAGE))) == SessionAnswered(ApiUsage(6, 15000))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "<Other/>",
        limits(),
        limits("<current>6</current>"),
        limits("<limit>6</limit>"),
        limits("<current>-6</current><limit>15000</limit>"),
        limits("<current>6</current><limit>many</limit>"),
        limits("<current>6</current><limit>9</limit><type>OTHER</type>"),
        f"<LimitInfoHeader><x>{USAGE}</x></LimitInfoHeader>",
    ],
)
def test_an_answer_without_readable_api_usage_is_an_answer(header):
    assert read_session(result(header)) == SessionAnswered(None)


def test_an_answer_without_a_soap_header_is_an_answer():
    response = result()
    bare = response.body.replace(b"<soapenv:Header></soapenv:Header>", b"")

    assert read_session(Response(200, {}, bare)) == SessionAnswered(None)


def test_y128_a_certificate_that_does_not_match_shows_in_the_session_call():
    assert read_session(fault("MUTUAL_AUTHENTICATION_FAILED", NOT_MUTUAL)) == Failure(
        Reason.MUTUAL_AUTH_FAILED, NOT_MUTUAL
    )


def test_a_session_that_is_not_accepted_is_told_so_that_the_caller_may_log_in_again():
    answer = read_session(fault("INVALID_SESSION_ID", "Session not found"), SESSION)

    assert answer == Failure(Reason.SESSION_INVALID, "Session not found")


def test_a_fault_that_quotes_the_session_is_not_shown():
    answer = read_session(fault("INVALID_SESSION_ID", f"bad {SESSION.reveal()}"), SESSION)

    assert isinstance(answer, Failure)
    assert answer.reason is Reason.SESSION_INVALID
    assert "canary" not in answer.detail


def test_enforcement_is_proven_by_the_fault_that_names_mutual_authentication():
    answer = fault("MUTUAL_AUTHENTICATION_FAILED", NOT_MUTUAL)

    assert enforcement_outcome(answer, SESSION) == Success(NOT_MUTUAL)


def test_y130_a_session_that_works_without_the_certificate_means_nothing_is_enforced():
    assert enforcement_outcome(result()) == Failure(Reason.ENFORCEMENT_OFF)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (fault("INVALID_SESSION_ID", "gone"), Reason.SESSION_INVALID),
        (fault("SERVER_UNAVAILABLE", "gone"), Reason.SERVER_ERROR),
        (Response(503, {}, b""), Reason.HTTP_STATUS),
        (Response(200, {}, b"<p>Client certificate error: none"), Reason.CLIENT_CERT_PAGE),
    ],
)
def test_anything_else_proves_nothing_about_enforcement(response, reason):
    outcome = enforcement_outcome(response, SESSION)

    assert isinstance(outcome, Undetermined)
    assert outcome.reason is reason


def test_y139_no_operation_that_ends_a_session_is_ever_written():
    for source in Path(agent.login.__file__).parent.glob("*.py"):
        code = source.read_text(encoding="utf-8")
        assert "urn:logout" not in code
        assert "invalidateSessions" not in code
    assert {call.value for call in SessionCall} == {"getUserInfo", "getServerTimestamp", "query"}
