"""login() with a password, as a conversation: no server, no port, no mock."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.credentials import Secret
from agent.login import METHODS, Granted, PasswordLogin, Response
from agent.login.answer import WITHHELD
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    FromVariable,
    Org,
    PasswordCredentials,
)
from agent.reason import Reason
from agent.result import Failure, LoggedIn, Refused

CANARY = "canary-&<>'\"é-9f2c"
SESSION = "00Dxx0000001gPL!AQcanarysession"
ORG_ID = "00Dxx0000001gPLEAY"

ADA = PasswordLogin(
    username="ada@example.com",
    password=Secret(CANARY),
    security_token=None,
    path="/services/Soap/u/64.0",
    host="acme.my.salesforce.com",
    organization_id=None,
)


def run(login, response):
    flow = login.flow()
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(response)
    return end.value.value


def soap(content: str) -> bytes:
    return (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns="urn:partner.soap.sforce.com" xmlns:sf="urn:fault.partner.soap.sforce.com"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{content}</soapenv:Body></soapenv:Envelope>"
    ).encode()


def granted(**changes: str) -> Response:
    fields = {
        "passwordExpired": "<passwordExpired>false</passwordExpired>",
        "sandbox": "<sandbox>false</sandbox>",
        "serverUrl": "<serverUrl>https://acme.my.salesforce.com/services/Soap/u/64.0/x</serverUrl>",
        "sessionId": f"<sessionId>{SESSION}</sessionId>",
        "userId": "<userId>005xx000001Sv6eAAC</userId>",
        "organizationId": f"<organizationId>{ORG_ID}</organizationId>",
        "sessionSecondsValid": "<sessionSecondsValid>7200</sessionSecondsValid>",
    } | changes
    info = fields.pop("organizationId") + fields.pop("sessionSecondsValid")
    content = "".join(fields.values()) + f"<userInfo>{info}</userInfo>"
    return Response(200, {}, soap(f"<loginResponse><result>{content}</result></loginResponse>"))


def fault(code: str, message: str) -> Response:
    content = (
        f"<soapenv:Fault><faultcode>{code}</faultcode><faultstring>{code}: {message}</faultstring>"
        f"<detail><sf:LoginFault><sf:exceptionCode>{code}</sf:exceptionCode>"
        f"<sf:exceptionMessage>{message}</sf:exceptionMessage></sf:LoginFault></detail>"
        "</soapenv:Fault>"
    )
    return Response(500, {}, soap(content))


def test_the_request_is_one_soap_post_with_user_name_and_password():
    request = next(ADA.flow())

    assert request.path == "/services/Soap/u/64.0"
    assert request.headers == (
        ("Content-Type", "text/xml; charset=UTF-8"),
        ("SOAPAction", "login"),
    )
    assert request.operation == "login"
    root = ET.fromstring(request.body)  # noqa: S314 - a second reader of what we wrote ourselves
    assert root.findtext(".//{urn:partner.soap.sforce.com}username") == "ada@example.com"
    assert root.findtext(".//{urn:partner.soap.sforce.com}password") == CANARY


def test_the_security_token_is_appended_to_the_password():
    request = next(replace(ADA, security_token=Secret("T0ken")).flow())

    root = ET.fromstring(request.body)  # noqa: S314 - a second reader of what we wrote ourselves
    assert root.findtext(".//{urn:partner.soap.sforce.com}password") == f"{CANARY}T0ken"


def test_a_granted_login_gives_the_session_and_what_may_be_shown_of_it():
    outcome = run(ADA, granted())

    assert outcome == Granted(
        LoggedIn("005xx000001Sv6eAAC", ORG_ID, sandbox=False, session_seconds_valid=7200),
        Secret(SESSION),
    )
    assert SESSION not in repr(outcome)


def test_a_sparse_answer_with_a_session_is_enough():
    sparse = granted(
        passwordExpired="",
        sandbox="",
        serverUrl='<serverUrl xsi:nil="true"/>',
        userId='<userId xsi:nil="true"/>',
        organizationId="",
        sessionSecondsValid="<sessionSecondsValid>soon</sessionSecondsValid>",
    )

    assert run(ADA, sparse) == Granted(LoggedIn("", ""), Secret(SESSION))


def test_a_result_without_its_wrapper_element_is_read_too():
    answer = Response(200, {}, soap("<loginResponse><sessionId>00D!x</sessionId></loginResponse>"))

    assert run(ADA, answer) == Granted(LoggedIn("", ""), Secret("00D!x"))


@pytest.mark.parametrize("text", ["true", "1"])
def test_y118_an_expired_password_is_a_failure_although_it_is_a_success(text):
    expired = granted(passwordExpired=f"<passwordExpired>{text}</passwordExpired>")

    assert run(ADA, expired) == Refused(Failure(Reason.PASSWORD_EXPIRED))


@pytest.mark.parametrize("session", ["", '<sessionId xsi:nil="true"/>', "<sessionId> </sessionId>"])
def test_a_success_without_a_session_is_malformed(session):
    assert run(ADA, granted(sessionId=session)) == Refused(
        Failure(Reason.SOAP_MALFORMED, "the answer has no sessionId")
    )


@pytest.mark.parametrize("configured", [ORG_ID, ORG_ID[:15]])
@pytest.mark.parametrize("answered", [ORG_ID, ORG_ID[:15]])
def test_the_right_org_is_recognised_by_its_first_15_characters(configured, answered):
    login = replace(ADA, organization_id=configured)

    outcome = run(login, granted(organizationId=f"<organizationId>{answered}</organizationId>"))

    assert isinstance(outcome, Granted)


@pytest.mark.parametrize(
    ("answered", "shown"),
    [
        ("<organizationId>00Dxx0000001gPlEAY</organizationId>", "00Dxx0000001gPlEAY"),
        ("<organizationId>no id at all!</organizationId>", "(none)"),
        ("", "(none)"),
    ],
)
def test_another_org_than_the_configured_one_is_refused(answered, shown):
    outcome = run(replace(ADA, organization_id=ORG_ID), granted(organizationId=answered))

    assert outcome == Refused(Failure(Reason.WRONG_ORG, f"the answer is from org {shown}"))


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.my.salesforce.com/services/Soap/u/64.0/00D",
        "https://acme.my.salesforce.com:8443/x",
        "https://ACME.my.salesforce.com./x",
        "https://na139.salesforce.com/x",
    ],
)
def test_y127_a_server_url_of_salesforce_with_or_without_the_port_is_fine(url):
    assert isinstance(run(ADA, granted(serverUrl=f"<serverUrl>{url}</serverUrl>")), Granted)


def test_a_server_url_of_the_configured_host_is_fine_wherever_that_is():
    login = replace(ADA, host="127.0.0.1")

    assert isinstance(
        run(login, granted(serverUrl="<serverUrl>https://127.0.0.1/x</serverUrl>")), Granted
    )


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://evil.example/x?sid=1", "https://evil.example"),
        ("https://evilsalesforce.com/", "https://evilsalesforce.com"),
        ("https://salesforce.com/", "https://salesforce.com"),
        ("https://acme.my.salesforce.com.evil.example/", None),
        ("https://acme.my.salesforce.com@evil.example/", "https://evil.example"),
        ("https://evil.example\\.salesforce.com/", None),
        ("https://evil.example%2f.salesforce.com/", None),
        ("http://acme.my.salesforce.com/", "http://acme.my.salesforce.com"),
        ("https:///x", "https://None"),
        ("acme.my.salesforce.com", "://None"),
    ],
)
def test_y126_a_server_url_elsewhere_is_refused_and_the_session_is_dropped(url, where):
    outcome = run(ADA, granted(serverUrl=f"<serverUrl>{url}</serverUrl>"))

    assert isinstance(outcome, Refused)
    assert outcome.failure.reason is Reason.HOST_POLICY
    assert SESSION not in repr(outcome)
    assert "sid" not in outcome.failure.detail
    if where is not None:
        assert outcome.failure.detail == f"serverUrl is at {where}"


def test_a_session_in_the_host_of_a_server_url_is_not_shown():
    session = "00dxx0000001gplcanary"
    url = f"<serverUrl>https://{session}.evil.example/</serverUrl>"

    outcome = run(ADA, granted(serverUrl=url, sessionId=f"<sessionId>{session}</sessionId>"))

    assert outcome == Refused(Failure(Reason.HOST_POLICY, WITHHELD))


def test_a_server_url_that_is_none_is_refused():
    outcome = run(ADA, granted(serverUrl="<serverUrl>https://[::1/x</serverUrl>"))

    assert outcome == Refused(Failure(Reason.HOST_POLICY, "serverUrl cannot be read"))


def test_y115_a_fault_is_refused_with_its_code_and_its_reason():
    text = "Invalid username, password, security token; or user locked out."

    assert run(ADA, fault("INVALID_LOGIN", text)) == Refused(
        Failure(Reason.INVALID_LOGIN, text), "INVALID_LOGIN"
    )


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", "expired", Reason.PASSWORD_EXPIRED),
        ("PASSWORD_LOCKOUT", "locked", Reason.USER_LOCKED),
    ],
)
def test_y119_an_expired_password_and_a_locked_user_have_reasons_of_their_own(
    code, message, reason
):
    outcome = run(ADA, fault(code, message))

    assert outcome == Refused(Failure(reason, message), code)
    assert reason.opens_breaker


def test_y120_a_login_rate_that_is_exceeded_is_told():
    outcome = run(ADA, fault("LOGIN_RATE_EXCEEDED", "Login rate exceeded"))

    assert outcome.failure.reason is Reason.LOGIN_RATE


def test_y121_login_that_is_switched_off_is_told():
    text = (
        "SOAP API login() is disabled by default in this org. "
        "Contact the org administrator to enable SOAP API login()."
    )

    assert run(ADA, fault("INVALID_OPERATION", text)) == Refused(
        Failure(Reason.LOGIN_DISABLED, text), "INVALID_OPERATION"
    )


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        (
            Response(200, {"content-type": "text/html"}, b"<html>We are down for maintenance."),
            Failure(Reason.MAINTENANCE, "We are down for maintenance."),
        ),
        (
            Response(200, {"content-type": "text/html"}, b"<html>Guest Wi-Fi"),
            Failure(Reason.HTML_UNEXPECTED, "Guest Wi-Fi"),
        ),
    ],
)
def test_y132_a_web_page_is_no_fault_of_the_credentials(response, failure):
    assert run(ADA, response) == Refused(failure)
    assert not failure.reason.opens_breaker


def test_y133_a_status_without_a_fault_is_kept_in_the_detail():
    assert run(ADA, Response(502, {}, b"")) == Refused(Failure(Reason.HTTP_STATUS, "HTTP 502"))


def test_y136_a_dtd_in_the_answer_is_malformed():
    body = b'<!DOCTYPE x [<!ENTITY a "b">]>' + granted().body

    outcome = run(ADA, Response(200, {}, body))

    assert outcome.failure.reason is Reason.SOAP_MALFORMED


def test_the_certificate_page_as_the_answer_to_a_login_is_told():
    outcome = run(ADA, Response(200, {}, b"<p>Client certificate error: <i>expired</i>"))

    assert outcome == Refused(Failure(Reason.CLIENT_CERT_PAGE, "expired"))


@pytest.mark.parametrize(
    "login",
    [
        replace(ADA, username="ada\x00"),
        replace(ADA, password=Secret("canary\x1b")),
        replace(ADA, security_token=Secret("canary\x01")),
    ],
)
def test_a_secret_that_xml_cannot_carry_ends_the_flow_before_anything_is_sent(login):
    with pytest.raises(StopIteration) as end:
        next(login.flow())

    assert isinstance(end.value.value, Refused)
    assert end.value.value.failure.reason is Reason.CREDENTIALS_UNREADABLE
    assert "canary" not in repr(end.value.value)


@pytest.mark.parametrize("where", ["userId", "organizationId", "sandbox", "serverUrl"])
def test_an_answer_that_echoes_the_password_into_a_field_is_not_shown(where):
    login = replace(ADA, password=Secret("canary9f2c"), organization_id=ORG_ID)

    outcome = run(login, granted(**{where: f"<{where}>canary9f2c</{where}>"}))

    assert "canary" not in repr(outcome)


@given(
    st.sampled_from([b"", granted().body[:-60], b"<html>", fault("X", CANARY[:6]).body]),
    st.binary(max_size=200),
    st.integers(100, 599),
)
@settings(max_examples=200)
def test_whatever_comes_back_the_login_has_an_outcome_that_does_not_show_the_password(
    start, rest, status
):
    outcome = run(ADA, Response(status, {}, start + rest + CANARY.encode()))

    assert isinstance(outcome, Granted | Refused)
    assert CANARY not in repr(outcome)
    assert CANARY not in repr(ADA)


def test_each_flow_is_a_login_of_its_own():
    assert next(ADA.flow()) == next(ADA.flow())
    assert isinstance(run(ADA, granted()), Granted)
    assert isinstance(run(ADA, granted()), Granted)


@pytest.mark.parametrize("token", [None, "T0ken"])
def test_the_method_is_found_by_what_the_operator_asked_for(token):
    wanted = PasswordCredentials(
        "ada@example.com", FromVariable("P"), FromVariable("T") if token else None
    )
    org = Org(
        "emea",
        Endpoint("emea.my.salesforce.com"),
        ClientIdentity(FromFile("c.pem"), FromFile("c.pem")),
        api_version="63.0",
        login=wanted,
        organization_id=ORG_ID,
    )
    kept = {"P": "pass", "T": token}

    method = METHODS[type(wanted)]
    login = method.make(org, wanted, lambda source: Secret(kept[source.name]))

    assert method.name == "password"
    assert login == PasswordLogin(
        username="ada@example.com",
        password=Secret("pass"),
        security_token=Secret(token) if token else None,
        path="/services/Soap/u/63.0",
        host="emea.my.salesforce.com",
        organization_id=ORG_ID,
    )
    assert login.secrets == (Secret("pass"), Secret("T0ken"))[: 2 if token else 1]
