"""What an HTTP answer says: SOAP, a fault, the certificate page, or something else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.credentials import Secret
from agent.login.answer import (
    WITHHELD,
    CertificatePage,
    SoapFault,
    SoapResult,
    door_request,
    door_verdict,
    failure_of,
    read_answer,
    redact,
)
from agent.login.faults import KNOWN_CODES, reason_of
from agent.login.flow import Response
from agent.login.soap import MAX_ANSWER_BYTES
from agent.reason import Reason
from agent.result import ClientAuth, Failure

INVALID_LOGIN = "Invalid username, password, security token; or user locked out."


def soap(content: str) -> bytes:
    return (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns="urn:partner.soap.sforce.com" xmlns:sf="urn:fault.partner.soap.sforce.com"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{content}</soapenv:Body></soapenv:Envelope>"
    ).encode()


def fault(code: str, message: str, *, faultcode: str = "", faultstring: str = "") -> bytes:
    return soap(
        f"<soapenv:Fault><faultcode>{faultcode or code}</faultcode>"
        f"<faultstring>{faultstring or f'{code}: {message}'}</faultstring><detail>"
        f'<sf:LoginFault xsi:type="sf:LoginFault"><sf:exceptionCode>{code}</sf:exceptionCode>'
        f"<sf:exceptionMessage>{message}</sf:exceptionMessage></sf:LoginFault></detail>"
        "</soapenv:Fault>"
    )


def xml(body: bytes, status: int = 200) -> Response:
    return Response(status, {"content-type": "text/xml;charset=UTF-8"}, body)


def page(text: str, status: int = 200, content_type: str = "text/html") -> Response:
    return Response(status, {"content-type": content_type}, text.encode())


# --- SOAP


def test_a_result_is_a_result_also_when_the_content_type_calls_it_html():
    body = soap("<getServerTimestampResponse/>")

    for response in (xml(body), page(body.decode())):
        answer = read_answer(response)
        assert isinstance(answer, SoapResult)
        assert answer.content.name == "getServerTimestampResponse"


@pytest.mark.parametrize("status", [200, 403, 500])
def test_a_fault_is_a_fault_whatever_the_status(status):
    assert read_answer(xml(fault("INVALID_LOGIN", INVALID_LOGIN), status)) == SoapFault(
        "INVALID_LOGIN", INVALID_LOGIN, Reason.INVALID_LOGIN
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (
            (
                "<faultcode>soapenv:Server</faultcode><faultstring>OTHER_CODE: x</faultstring>"
                "<detail><F><exceptionCode>INVALID_LOGIN</exceptionCode></F></detail>"
            ),
            "INVALID_LOGIN",
        ),
        (
            "<faultcode>sf:INVALID_LOGIN</faultcode><faultstring>OTHER_CODE: x</faultstring>",
            "INVALID_LOGIN",
        ),
        ("<faultcode>INVALID_LOGIN</faultcode>", "INVALID_LOGIN"),
        ("<faultstring>INVALID_LOGIN: Invalid username</faultstring>", "INVALID_LOGIN"),
        (
            (
                "<faultcode>soapenv:Server</faultcode>"
                "<faultstring>INVALID_LOGIN: Invalid username</faultstring>"
            ),
            "INVALID_LOGIN",
        ),
        ("<faultcode>soapenv:Client</faultcode><faultstring>no</faultstring>", "Client"),
        ("<faultcode>a b c</faultcode><faultstring>no</faultstring>", ""),
        ("<detail><exceptionCode>%%%</exceptionCode></detail>", ""),
        ("", ""),
    ],
)
def test_the_code_is_the_exception_code_then_the_faultcode_then_the_start_of_the_faultstring(
    content, code
):
    answer = read_answer(xml(soap(f"<soapenv:Fault>{content}</soapenv:Fault>"), 500))

    assert isinstance(answer, SoapFault)
    assert answer.code == code


def test_the_message_is_the_exception_message_and_else_the_faultstring_without_the_code():
    with_detail = fault("INVALID_LOGIN", "the detail", faultstring="INVALID_LOGIN: the string")
    without = soap(
        "<soapenv:Fault><faultcode>sf:INVALID_LOGIN</faultcode>"
        "<faultstring>INVALID_LOGIN: the string</faultstring></soapenv:Fault>"
    )
    plain = soap("<soapenv:Fault><faultstring>just words</faultstring></soapenv:Fault>")

    assert [read_answer(xml(body, 500)).message for body in (with_detail, without, plain)] == [
        "the detail",
        "the string",
        "just words",
    ]


def test_an_unknown_code_is_accepted_and_its_reason_stays_in_the_closed_list():
    answer = read_answer(xml(fault("BRAND_NEW_CODE", "hm"), 500))

    assert answer == SoapFault("BRAND_NEW_CODE", "hm", Reason.FAULT_OTHER)


@pytest.mark.parametrize("status", [201, 299])
def test_a_result_with_another_success_status_is_a_result(status):
    assert isinstance(read_answer(xml(soap("<r/>"), status)), SoapResult)


@pytest.mark.parametrize("status", [199, 404, 500])
def test_a_result_with_the_status_of_an_error_is_an_unexpected_status(status):
    assert read_answer(xml(soap("<r/>"), status)) == Failure(Reason.HTTP_STATUS, f"HTTP {status}")


# --- the certificate page


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            (
                "<html><head><title>Certificate Error</title></head><body>"
                "<h3>Client certificate error:<i>No client certificate provided.</i></h3>"
                "<p>Contact us.</p></body></html>"
            ),
            "No client certificate provided.",
        ),
        (
            "Client certificate error: unable to get local issuer certificate",
            "unable to get local issuer certificate",
        ),
        (
            "<HTML><BODY>CLIENT CERTIFICATE ERROR:<br>certificate has expired</BODY></HTML>",
            "certificate has expired",
        ),
        (
            (
                "<html><head><title>400 No required SSL certificate was sent</title></head><body>"
                "<center><h1>400 Bad Request</h1></center></body></html>"
            ),
            "No required SSL certificate was sent",
        ),
        (
            "<html><head><title>400 The SSL certificate error</title></head></html>",
            "The SSL certificate error",
        ),
        ("<p>Client certificate error:</p>", ""),
    ],
)
def test_a_page_about_the_client_certificate_is_told_whatever_its_status(text, says, status):
    assert read_answer(page(text, status)) == CertificatePage(says)


def test_the_words_of_the_certificate_page_in_a_script_or_comment_are_not_the_page():
    text = (
        "<html><!-- Client certificate error: a --><script>'Client certificate error: b'</script>"
        "<body>Welcome</body></html>"
    )

    assert read_answer(page(text)) == Failure(Reason.HTML_UNEXPECTED, "Welcome")


def test_the_words_of_the_certificate_page_in_a_soap_fault_are_a_fault():
    answer = read_answer(xml(fault("UNKNOWN_CODE", "Client certificate error: x"), 500))

    assert isinstance(answer, SoapFault)


# --- other pages


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        (
            page("<html><body>We are down for maintenance.</body></html>"),
            Failure(Reason.MAINTENANCE, "We are down for maintenance."),
        ),
        (
            page("We are down for maintenance.", content_type="text/plain"),
            Failure(Reason.MAINTENANCE, "We are down for maintenance."),
        ),
        (
            page("<html><h1>Scheduled maintenance</h1></html>", 503),
            Failure(Reason.MAINTENANCE, "Scheduled maintenance"),
        ),
        (
            page("<html><title>Guest Wi-Fi</title><p>Please&nbsp;pay</html>"),
            Failure(Reason.HTML_UNEXPECTED, "Guest Wi-Fi Please pay"),
        ),
        (
            page("<!DOCTYPE html><p>hello", content_type="text/xml"),
            Failure(Reason.HTML_UNEXPECTED, "hello"),
        ),
        (
            page('<?xml version="1.0"?><!DOCTYPE html><html><p>hi</p></html>'),
            Failure(Reason.HTML_UNEXPECTED, "hi"),
        ),
        (page("hello"), Failure(Reason.HTML_UNEXPECTED, "hello")),
        (
            page("<html><h1>502 Bad Gateway</h1></html>", 502),
            Failure(Reason.HTTP_STATUS, "HTTP 502: 502 Bad Gateway"),
        ),
        (page("", 500), Failure(Reason.HTTP_STATUS, "HTTP 500")),
        (page("", 404), Failure(Reason.HTTP_STATUS, "HTTP 404")),
        (page("", 429), Failure(Reason.HTTP_STATUS, "HTTP 429")),
        (page("", 403), Failure(Reason.HTTP_STATUS, "HTTP 403")),
        (
            page("<html>Forbidden</html>", 403),
            Failure(Reason.HTTP_STATUS, "HTTP 403: Forbidden"),
        ),
        (page(""), Failure(Reason.SOAP_MALFORMED, "the answer is empty")),
        (
            page("hello", content_type="text/plain"),
            Failure(Reason.SOAP_MALFORMED, "not XML: "),
        ),
        (
            page("<soapenv:Envelope broken"),
            Failure(Reason.SOAP_MALFORMED, "not XML: "),
        ),
        (
            page("<a/>", content_type="text/xml"),
            Failure(Reason.SOAP_MALFORMED, "the root element is not an Envelope"),
        ),
        (
            Response(200, {}, b"\x00"),
            Failure(Reason.SOAP_MALFORMED, "not XML: "),
        ),
    ],
)
def test_an_answer_that_is_not_soap_is_told_apart(response, failure):
    answer = read_answer(response)

    assert isinstance(answer, Failure)
    assert answer.reason is failure.reason
    # The rest of the sentence is expat's and differs between its versions.
    assert answer.detail.partition("not XML: ")[:2] == failure.detail.partition("not XML: ")[:2]


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://new.my.salesforce.com/path?sid=canary", "new.my.salesforce.com"),
        ("/relative", "the same host"),
        ("https://[broken/", "an unreadable URL"),
    ],
)
def test_a_redirect_says_only_the_host_it_points_to(location, where):
    for body in (b"", soap("<r/>"), b"<html>down for maintenance</html>"):
        response = Response(302, {"location": location}, body)
        assert read_answer(response) == Failure(Reason.HTTP_REDIRECT, f"HTTP 302 to {where}")


def test_a_redirect_without_a_location_is_a_redirect():
    assert read_answer(Response(304, {}, b"")) == Failure(
        Reason.HTTP_REDIRECT, "HTTP 304 to the same host"
    )


def test_an_answer_above_the_cap_is_too_large_and_one_below_is_read():
    filler = "<a>" + "x" * (MAX_ANSWER_BYTES - 300) + "</a>"

    assert isinstance(read_answer(xml(soap(filler))), SoapResult)
    assert read_answer(xml(soap(filler) + b" " * 300)).reason is Reason.RESPONSE_TOO_LARGE


@pytest.mark.parametrize(
    "piece", ["<!--", "<script>", "<style", "<", "<a ", "&", "client certificate error:"]
)
def test_a_page_made_to_be_slow_is_read_at_once(piece):
    response = page("<html>" + piece * (MAX_ANSWER_BYTES // len(piece) - 10))

    assert not isinstance(read_answer(response), SoapResult)


# --- the door


@pytest.mark.parametrize(
    ("response", "verdict", "reason"),
    [
        (xml(soap("<getServerTimestampResponse/>")), ClientAuth.ACCEPTED, None),
        (xml(fault("INVALID_SESSION_ID", "x"), 500), ClientAuth.ACCEPTED, None),
        (xml(fault("NEVER_HEARD_OF", "x"), 500), ClientAuth.ACCEPTED, None),
        (
            xml(fault("MUTUAL_AUTHENTICATION_FAILED", "x"), 500),
            ClientAuth.SOFT_REJECTED,
            Reason.MUTUAL_AUTH_FAILED,
        ),
        (
            page("Client certificate error: x"),
            ClientAuth.SOFT_REJECTED,
            Reason.CLIENT_CERT_PAGE,
        ),
        (page("", 403), ClientAuth.SOFT_REJECTED, Reason.CLIENT_ACCESS_DENIED),
        (page("<html>hi</html>"), ClientAuth.UNCONFIRMED, Reason.HTML_UNEXPECTED),
        (page("down for maintenance"), ClientAuth.UNCONFIRMED, Reason.MAINTENANCE),
        (page("", 302), ClientAuth.UNCONFIRMED, Reason.HTTP_REDIRECT),
        (page("", 500), ClientAuth.UNCONFIRMED, Reason.HTTP_STATUS),
        (page(""), ClientAuth.UNCONFIRMED, Reason.SOAP_MALFORMED),
        (
            xml(b" " * (MAX_ANSWER_BYTES + 1)),
            ClientAuth.UNCONFIRMED,
            Reason.RESPONSE_TOO_LARGE,
        ),
    ],
)
def test_the_answer_to_the_door_request_gives_the_verdict(response, verdict, reason):
    seen, failure = door_verdict(response)

    assert (seen, failure.reason if failure else None) == (verdict, reason)


def test_the_door_request_is_a_soap_post_whose_body_is_not_shown():
    request = door_request("/services/Soap/u/64.0")

    assert request.path == "/services/Soap/u/64.0"
    assert dict(request.headers) == {
        "Content-Type": "text/xml; charset=UTF-8",
        "SOAPAction": "getServerTimestamp",
    }
    assert repr(request) == (
        "Request(path='/services/Soap/u/64.0', operation='getServerTimestamp')"
    )


def test_every_answer_but_a_result_is_a_failure():
    assert failure_of(SoapFault("X", "text", Reason.FAULT_OTHER)) == Failure(
        Reason.FAULT_OTHER, "text"
    )
    assert failure_of(CertificatePage("text")) == Failure(Reason.CLIENT_CERT_PAGE, "text")
    assert failure_of(Failure(Reason.MAINTENANCE)) == Failure(Reason.MAINTENANCE)


# --- what may be shown

PASSWORD = "Tr0ub4dor&<3"


@pytest.mark.parametrize(
    "text",
    [
        f"you sent {PASSWORD}",
        f"you sent {PASSWORD.upper()}",
        "you sent ub4d, really",
        "spread Tr0u\x00b4do over",
        "The reference to entity \"Cl\" must end with the ';' delimiter.",
        "The markup in the document is bad: Cl",
        "Error while parsing Cl",
    ],
)
def test_a_text_that_quotes_a_secret_or_may_do_so_is_withheld(text):
    assert redact(text, [Secret(PASSWORD)]) == WITHHELD


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing of it", "nothing of it"),
        ("Tr0 is too short to tell", "Tr0 is too short to tell"),
        ("a\x00b\r\nc\u2028d\x1b[31m", "a b c d [31m"),
        ("x" * 300, "x" * 199 + "…"),
        ("", ""),
    ],
)
def test_a_text_that_quotes_no_secret_is_one_short_printable_line(text, shown):
    assert redact(text, [Secret(PASSWORD), Secret("")]) == shown


def test_a_secret_of_one_letter_is_not_shown_either():
    assert redact("no such x", [Secret("x")]) == WITHHELD
    assert redact("no such y", [Secret("x")]) == "no such y"


def test_a_secret_with_a_line_end_is_found_where_the_text_has_it_as_a_space():
    assert redact("got: ab\ncd ef", [Secret("ab\ncd")]) == WITHHELD


def test_a_long_secret_may_share_a_short_word_with_a_text():
    session = Secret("00Dxx0000001gPL!AQ" + "Session" + "q" * 90)

    assert redact("Session expired", [session]) == "Session expired"
    assert redact("bad id 00Dxx0000001gPL", [session]) == WITHHELD


def test_a_text_that_everybody_gets_is_shown_even_when_the_password_has_a_word_of_it():
    answer = read_answer(xml(fault("INVALID_LOGIN", INVALID_LOGIN), 500), Secret("password1"))

    assert answer == SoapFault("INVALID_LOGIN", INVALID_LOGIN, Reason.INVALID_LOGIN)


def test_a_withheld_text_still_decides_about_the_reason():
    message = "SOAP API login() is disabled here"

    answer = read_answer(xml(fault("INVALID_OPERATION", message), 500), Secret("disabled"))

    assert answer == SoapFault("INVALID_OPERATION", WITHHELD, Reason.LOGIN_DISABLED)


@pytest.mark.parametrize("code", ["UNKNOWN_EXCEPTION", "XML_PARSER_ERROR"])
def test_the_text_of_a_parser_fault_is_withheld(code):
    answer = read_answer(xml(fault(code, "stumbled over Cl"), 500))

    assert isinstance(answer, SoapFault)
    assert (answer.code, answer.message) == (code, WITHHELD)


def test_a_fault_code_that_quotes_the_secret_is_dropped_and_a_known_one_is_kept():
    secret = Secret("INVALID_LOGIN_hunter2")

    quoted = read_answer(xml(fault("INVALID_LOGIN_hunter2", "x"), 500), secret)
    known = read_answer(xml(fault("INVALID_LOGIN", "x"), 500), secret)

    assert (quoted.code, known.code) == ("", "INVALID_LOGIN")


@pytest.mark.parametrize("status", [200, 302, 403, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        f"<html>{PASSWORD.replace('&<', '&amp;&lt;')}</html>",
        f"Client certificate error: {PASSWORD}",
        f"down for maintenance {PASSWORD}",
        fault("X_Tr0ub4dor", "Tr0ub4dor").decode(),
        fault("INVALID_LOGIN", "Tr0ub4dor").decode(),
        f"<Tr0ub4dor>{PASSWORD}",
        "<Tr0ub4dor/>",
    ],
)
def test_no_answer_that_echoes_the_password_is_shown(body, status):
    response = Response(status, {"location": "https://tr0ub4dor.example/"}, body.encode())

    assert "tr0ub4dor" not in repr(read_answer(response, Secret(PASSWORD))).lower()


@given(
    st.sampled_from([b"", b"<html>", soap("<r/>")[:-30], b"Client certificate error:"]),
    st.binary(max_size=300),
    st.integers(100, 599),
    st.dictionaries(st.sampled_from(["content-type", "location"]), st.text(max_size=30)),
)
@settings(max_examples=300)
def test_whatever_comes_back_there_is_an_answer_and_a_verdict(start, body, status, headers):
    response = Response(status, headers, start + body + PASSWORD.encode())

    answer = read_answer(response, Secret(PASSWORD))
    door_verdict(response)

    assert isinstance(answer, SoapResult | SoapFault | CertificatePage | Failure)
    assert PASSWORD not in repr(answer)
    assert PASSWORD not in repr(response)


# --- the table of faults


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("INVALID_LOGIN", INVALID_LOGIN, Reason.INVALID_LOGIN),
        ("INVALID_LOGIN", "Login rate exceeded", Reason.LOGIN_RATE),
        ("LOGIN_RATE_EXCEEDED", "", Reason.LOGIN_RATE),
        ("EXCEEDED_QUOTA", "too many login attempts", Reason.LOGIN_RATE),
        ("LOGIN_MUST_USE_SECURITY_TOKEN", "Are you at a new location?", Reason.LOGIN_CHALLENGE),
        ("LOGIN_CHALLENGE_ISSUED", "", Reason.LOGIN_CHALLENGE),
        ("LOGIN_CHALLENGE_PENDING", "", Reason.LOGIN_CHALLENGE),
        ("TXN_SECURITY_TWO_FA_REQUIRED", "", Reason.LOGIN_CHALLENGE),
        ("TXN_SECURITY_NO_ACCESS", "", Reason.API_DISABLED),
        ("TXN_SECURITY_NEW_ONE", "", Reason.API_DISABLED),
        (
            "LOGIN_DURING_RESTRICTED_DOMAIN",
            "cannot log in from current domain",
            Reason.LOGIN_RESTRICTED,
        ),
        ("LOGIN_DURING_RESTRICTED_TIME", "", Reason.LOGIN_RESTRICTED),
        (
            "INSUFFICIENT_ACCESS",
            "SOAP API login() requires the Use Any API Auth user permission.",
            Reason.LOGIN_DISABLED,
        ),
        ("INSUFFICIENT_ACCESS", "", Reason.API_DISABLED),
        (
            "INVALID_OPERATION",
            "SOAP API login() is disabled by default in this org.",
            Reason.LOGIN_DISABLED,
        ),
        ("INVALID_OPERATION", "login() is not available", Reason.LOGIN_DISABLED),
        ("INVALID_OPERATION", "something else", Reason.FAULT_OTHER),
        (
            "UNSUPPORTED_API_VERSION",
            "Invalid Api version specified on URL",
            Reason.API_VERSION,
        ),
        ("MUTUAL_AUTHENTICATION_FAILED", "", Reason.MUTUAL_AUTH_FAILED),
        ("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", "", Reason.PASSWORD_EXPIRED),
        ("PASSWORD_LOCKOUT", "", Reason.USER_LOCKED),
        ("API_DISABLED_FOR_ORG", "", Reason.API_DISABLED),
        ("API_CURRENTLY_DISABLED", "", Reason.API_DISABLED),
        ("UNSUPPORTED_CLIENT", "HTTPS Required", Reason.API_DISABLED),
        ("CLIENT_NOT_ACCESSIBLE_FOR_USER", "", Reason.API_DISABLED),
        ("CLIENT_REQUIRE_UPDATE_FOR_USER", "", Reason.API_DISABLED),
        ("ORG_LOCKED", "", Reason.ORG_UNAVAILABLE),
        ("TRIAL_EXPIRED", "", Reason.ORG_UNAVAILABLE),
        ("ORG_IS_SIGNING_UP", "", Reason.ORG_UNAVAILABLE),
        ("ORG_NOT_OWNED_BY_INSTANCE", "", Reason.ORG_UNAVAILABLE),
        ("ORG_IN_MAINTENANCE", "", Reason.MAINTENANCE),
        ("SERVER_UNAVAILABLE", "", Reason.SERVER_ERROR),
        ("FUNCTIONALITY_TEMPORARILY_UNAVAILABLE", "", Reason.SERVER_ERROR),
        ("SSO_SERVICE_DOWN", "", Reason.SERVER_ERROR),
        ("REQUEST_RUNNING_TOO_LONG", "", Reason.SERVER_ERROR),
        ("UNKNOWN_EXCEPTION", "", Reason.SERVER_ERROR),
        ("REQUEST_LIMIT_EXCEEDED", "", Reason.API_LIMIT),
        ("LIMIT_EXCEEDED", "", Reason.API_LIMIT),
        ("TOO_MANY_APEX_REQUESTS", "", Reason.API_LIMIT),
        ("INVALID_SESSION_ID", "Session not found", Reason.SESSION_INVALID),
        ("MALFORMED_QUERY", "", Reason.FAULT_OTHER),
        ("", "", Reason.FAULT_OTHER),
    ],
)
def test_a_fault_means_what_salesforce_documents(code, message, reason):
    assert reason_of(code, message) is reason


def test_every_code_of_the_table_has_a_meaning_that_no_earlier_row_hides():
    assert {code for code in KNOWN_CODES if reason_of(code, "") is Reason.FAULT_OTHER} == {
        "INVALID_OPERATION"
    }


@pytest.mark.parametrize(
    "code",
    [
        "INVALID_LOGIN",
        "LOGIN_MUST_USE_SECURITY_TOKEN",
        "UNSUPPORTED_API_VERSION",
        "INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
        "PASSWORD_LOCKOUT",
        "LOGIN_CHALLENGE_ISSUED",
        "API_DISABLED_FOR_ORG",
        "UNSUPPORTED_CLIENT",
        "TXN_SECURITY_FAIL_CLOSE",
    ],
)
def test_a_fault_after_which_another_login_is_useless_or_harmful_opens_the_breaker(code):
    assert reason_of(code, "").opens_breaker


@pytest.mark.parametrize(
    "code", ["LOGIN_DURING_RESTRICTED_TIME", "SERVER_UNAVAILABLE", "ORG_IN_MAINTENANCE", "NEW"]
)
def test_a_fault_that_passes_by_itself_does_not_open_the_breaker(code):
    assert not reason_of(code, "").opens_breaker
