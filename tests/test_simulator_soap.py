from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

import pytest
from simulator_client import Answer, pki, post

from agent.credentials import Secret
from agent.simulator import soap
from agent.simulator.http import Response
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, USERNAME, Simulator
from agent.simulator.soap import Asked, Call, Fault, Service, call_envelope, login_envelope

USER = "ada@example.com"
WORD = Secret("s3cret")
HOST = "org.my.salesforce.com:8443"
AT = datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC)
PATH = "/services/Soap/u/64.0"
LOGIN = login_envelope(USERNAME, PASSWORD)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def service(**changes) -> Service:
    return Service(
        **{"username": USER, "password": WORD, "clock": Clock(), "today": lambda: AT, **changes}
    )


def read(response: Response) -> Answer:
    return Answer(response.status, {}, response.body)


def ask(far: Service, body: bytes, *, path: str = PATH, mutual: bool = True) -> Answer:
    call = soap.read(path, body)
    assert isinstance(call, Call)
    return read(far.answer(call, HOST, mutually_authenticated=mutual))


def log_in(far: Service, **changes) -> Answer:
    return ask(far, login_envelope(USER, WORD), **changes)


def session_call(far: Service, operation: str = "getUserInfo", content: str = "", **changes):
    session = log_in(far).text("sessionId")
    return ask(far, call_envelope(operation, content, session), **changes)


# --- login


def test_a_login_answers_as_the_developer_guide_says():
    answer = log_in(service())

    assert answer.status == 200
    assert answer.text("passwordExpired") == "false"
    assert answer.text("sandbox") == "false"
    assert answer.text("organizationId") == soap.ORGANIZATION_ID
    assert answer.text("userId") == soap.USER_ID
    assert answer.text("userName") == USER
    assert answer.text("sessionSecondsValid") == "7200"
    assert answer.text("sessionId").startswith("00D5g000008XkzY!AQ")
    result = ET.fromstring(answer.body).find(".//{urn:partner.soap.sforce.com}result")  # noqa: S314 - our own
    order = [element.tag.partition("}")[2] for element in result]
    assert order == sorted(order, key=str.lower)
    assert len(result.find("{urn:partner.soap.sforce.com}userInfo")) == 24


def test_server_url_has_no_port_as_in_real_answers():
    assert log_in(service()).text("serverUrl") == (
        "https://org.my.salesforce.com/services/Soap/u/64.0/00D5g000008XkzY"
    )


def test_server_url_has_the_port_or_another_host_when_asked_for():
    with_port = service(login_answer=soap.LoginAnswer(server_port=True))
    elsewhere = service(login_answer=soap.LoginAnswer(server_host="evil.example"))

    assert log_in(with_port).text("serverUrl").startswith("https://org.my.salesforce.com:8443/")
    assert log_in(elsewhere).text("serverUrl").startswith("https://evil.example/")


@pytest.mark.parametrize(("name", "word"), [(USER, "wrong"), ("eve@example.com", "s3cret")])
def test_a_wrong_user_or_password_is_an_invalid_login(name, word):
    answer = ask(service(), login_envelope(name, Secret(word)))

    assert answer.status == 500
    assert answer.text("faultcode") == "sf:INVALID_LOGIN"
    assert answer.text("exceptionCode") == "INVALID_LOGIN"
    assert answer.text("faultstring") == (
        "INVALID_LOGIN: Invalid username, password, security token; or user locked out."
    )


async def test_the_security_token_belongs_to_the_password():
    simulator = Simulator(
        SCENARIOS["healthy"], pki(), username=USER, password=WORD, security_token="T0ken"
    )
    async with simulator:
        without, with_token = await post(
            simulator, login_envelope(USER, WORD), login_envelope(USER, Secret("s3cretT0ken"))
        )

    assert (without.status, with_token.status) == (500, 200)


def test_three_wrong_passwords_lock_the_user_where_there_is_a_lockout():
    wrong = login_envelope(USER, Secret("wrong"))
    strict, lax = service(lockout_after=3), service()
    for _ in range(3):
        ask(strict, wrong)
        ask(lax, wrong)

    assert strict.locked
    assert log_in(strict).text("exceptionCode") == "INVALID_LOGIN"
    assert not lax.locked
    assert log_in(lax).status == 200


def test_a_right_password_in_time_starts_the_count_again():
    far = service(lockout_after=2)
    for _ in range(4):
        ask(far, login_envelope(USER, Secret("wrong")))
        assert log_in(far).status == 200


@pytest.mark.parametrize(
    "word", ["& < > ' \"", "]]>", "ünïcödé ☃ 密码", "x" * 200, "  spaces  ", "&amp;"]
)
def test_any_password_survives_the_envelope(word):
    far = service(password=Secret(word))

    assert ask(far, login_envelope(USER, Secret(word))).status == 200
    assert ask(far, login_envelope(USER, Secret(word + "x"))).status == 500


# --- versions and namespaces


@pytest.mark.parametrize("version", ["31.0", "41.0", "64.0"])
def test_every_version_that_has_login_logs_in(version):
    assert log_in(service(), path=f"/services/Soap/u/{version}").status == 200


@pytest.mark.parametrize("version", ["30.0", "7.0", "v51.0", "69.0", "51", "0.0"])
def test_a_version_that_is_retired_or_unknown_is_unsupported(version):
    answer = log_in(service(), path=f"/services/Soap/u/{version}")

    assert (answer.status, answer.text("exceptionCode")) == (500, "UNSUPPORTED_API_VERSION")
    assert answer.text("exceptionMessage") == "Invalid Api version specified on URL"


def test_from_65_on_there_is_no_login_but_the_rest():
    far = service()
    path = "/services/Soap/u/65.0"

    assert log_in(far, path=path).text("exceptionCode") == "INVALID_OPERATION"
    assert session_call(far, path=path).text("userName") == USER


@pytest.mark.parametrize(("api", "name"), [("u", "partner"), ("c", "enterprise")])
def test_answers_and_faults_have_the_namespace_of_the_api_called(api, name):
    path = f"/services/Soap/{api}/64.0"
    good = log_in(service(), path=path)
    bad = ask(service(), login_envelope(USER, Secret("wrong")), path=path)

    assert f"urn:{name}.soap.sforce.com".encode() in good.body
    assert f"urn:fault.{name}.soap.sforce.com".encode() in bad.body
    assert good.text("serverUrl").endswith(f"/services/Soap/{api}/64.0/00D5g000008XkzY")


@pytest.mark.parametrize("path", ["/", "/services/Soap/m/64.0", "/services/oauth2/token"])
def test_another_path_is_no_api(path):
    assert soap.read(path, login_envelope(USER, WORD)) is None


# --- calls with a session


def test_a_call_without_a_session_is_told_so_which_proves_that_the_application_answered():
    answer = ask(service(), call_envelope("getServerTimestamp"))

    assert answer.status == 500
    assert answer.text("faultcode") == "sf:INVALID_SESSION_ID"


def test_get_user_info_tells_user_org_and_api_usage():
    far = service()
    first, second = session_call(far), session_call(far)

    assert first.text("userName") == USER
    assert first.text("organizationId") == soap.ORGANIZATION_ID
    assert (first.text("current"), first.text("limit")) == ("7", "15000")
    assert first.text("type") == "API REQUESTS"
    assert second.text("current") == "8"


def test_a_login_tells_no_api_usage():
    assert log_in(service()).text("current") is None


def test_get_server_timestamp_tells_the_time():
    answer = session_call(service(), "getServerTimestamp")

    assert answer.text("timestamp") == "2026-03-01T12:30:15.250Z"


def test_a_query_answers_with_one_record():
    text = "<urn:queryString>SELECT Id FROM Organization</urn:queryString>"
    answer = session_call(service(), "query", text)

    assert answer.text("done") == "true"
    assert answer.text("size") == "1"
    assert answer.text("Id") == soap.ORGANIZATION_ID


def test_a_malformed_query_is_a_fault():
    text = "<urn:queryString>DROP TABLE Organization</urn:queryString>"

    assert session_call(service(), "query", text).text("exceptionCode") == "MALFORMED_QUERY"


def test_an_unknown_operation_is_a_fault():
    answer = session_call(service(), "launchMissiles")

    assert answer.text("exceptionCode") == "UNKNOWN_EXCEPTION"


def test_a_wrong_session_is_illegal():
    far = service()
    log_in(far)
    answer = ask(far, call_envelope("getUserInfo", session_id="00D!AQwrong"))

    assert answer.text("exceptionCode") == "INVALID_SESSION_ID"
    assert answer.text("exceptionMessage").endswith("Illegal Session")


def test_everyone_who_logs_in_as_the_user_gets_the_same_session():
    far = service()

    assert log_in(far).text("sessionId") == log_in(far).text("sessionId")


@pytest.mark.parametrize("operation", ["logout", "invalidateSessions"])
def test_ending_the_session_ends_it_for_all(operation):
    far = service()
    session = log_in(far).text("sessionId")

    assert session_call(far, operation).status == 200
    assert ask(far, call_envelope("getUserInfo", session_id=session)).status == 500
    assert log_in(far).text("sessionId") != session


def test_an_idle_session_expires_and_a_used_one_does_not():
    clock = Clock()
    far = service(clock=clock, session_seconds=100)
    session = log_in(far).text("sessionId")
    body = call_envelope("getUserInfo", session_id=session)

    for _ in range(3):
        clock.seconds += 90
        assert ask(far, body).status == 200
    clock.seconds += 101
    assert ask(far, body).text("exceptionCode") == "INVALID_SESSION_ID"


def test_an_enforced_user_needs_the_certificate_for_a_call_but_not_for_the_login():
    far = service()

    assert log_in(far, mutual=False).status == 200
    refused = session_call(far, mutual=False)
    assert refused.text("faultcode") == "sf:MUTUAL_AUTHENTICATION_FAILED"
    assert session_call(far).status == 200


def test_a_user_who_is_not_enforced_does_not_need_it():
    assert session_call(service(enforced=False), mutual=False).status == 200


def test_with_an_expired_password_the_login_succeeds_and_the_session_can_do_nothing():
    far = service(login_answer=soap.LoginAnswer(password_expired=True))

    assert log_in(far).text("passwordExpired") == "true"
    assert log_in(far).text("sessionId") is not None
    answer = session_call(far)
    assert answer.text("exceptionCode") == "INVALID_OPERATION_WITH_EXPIRED_PASSWORD"


def test_a_session_lost_once_is_replaced_by_the_next_login():
    far = service(sessions_lost=1)

    assert session_call(far).text("exceptionCode") == "INVALID_SESSION_ID"
    assert session_call(far).status == 200


# --- requests that are no SOAP


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"<a/>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        "<!DOCTYPE x><x/>".encode("utf-16"),
        b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body/></e:Envelope>',
    ],
)
def test_a_request_that_is_no_soap_is_a_fault(body):
    parsed = soap.read(PATH, body)

    assert isinstance(parsed, Fault)
    assert parsed.code == "UNKNOWN_EXCEPTION"


# --- nothing that is secret shows


def test_the_password_and_the_session_are_in_no_repr():
    far = service()
    session = log_in(far).text("sessionId")
    call = soap.read(PATH, login_envelope(USER, WORD))

    assert "s3cret" not in repr(far) + repr(call)
    assert session not in repr(far)


# --- through the door


async def test_the_whole_conversation_runs_on_one_connection_and_is_recorded():
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        door, login = await post(simulator, call_envelope("getServerTimestamp"), LOGIN)
        session = call_envelope("getUserInfo", session_id=login.text("sessionId"))
        (info,) = await post(simulator, session)

    assert [door.status, login.status, info.status] == [500, 200, 200]
    record = simulator.record
    assert record.operations() == ["getServerTimestamp", "login", "getUserInfo"]
    assert [call.credentials for call in record] == [False, True, False]
    assert [call.session for call in record] == [False, False, True]
    assert [call.username for call in record] == [None, USERNAME, None]
    assert [call.status for call in record] == [500, 200, 200]
    assert (record.logins, record.session_endings, record.credentials_seen) == (1, 0, True)
    assert len(record.connections) == 2
    assert len(record) == 3


async def test_a_logout_is_recorded():
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        (login,) = await post(simulator, LOGIN)
        await post(simulator, call_envelope("logout", session_id=login.text("sessionId")))

    assert simulator.record.session_endings == 1


async def test_no_secret_is_kept_in_the_record():
    async with Simulator(SCENARIOS["healthy"], pki(), password="canary-4711") as simulator:
        (login,) = await post(simulator, login_envelope(USERNAME, Secret("canary-4711")))

    assert login.status == 200
    assert "canary" not in repr(simulator.record) + repr(simulator) + repr(simulator.service)
    assert login.text("sessionId") not in repr(simulator.record)


async def test_a_password_in_a_request_that_is_no_soap_is_seen_all_the_same():
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        await post(simulator, b"<urn:login><urn:password>x</urn:password>")

    assert simulator.record.credentials_seen
    assert simulator.record.logins == 0


FAULT_SCENARIOS = {
    name: scenario
    for name, scenario in SCENARIOS.items()
    if any(isinstance(answer, Fault) for answer in scenario.answers.values())
}


@pytest.mark.parametrize("name", FAULT_SCENARIOS)
async def test_a_scenario_with_a_fault_answers_that_fault_where_it_says_and_nowhere_else(name):
    scenario = FAULT_SCENARIOS[name]
    async with Simulator(scenario, pki()) as simulator:
        door, login = await post(simulator, call_envelope("getServerTimestamp"), LOGIN)
        session = call_envelope("getUserInfo", session_id=login.text("sessionId") or "x")
        (info,) = await post(simulator, session)

    for asked, answer in zip(Asked, (door, login, info), strict=True):
        fault = scenario.answers.get(asked)
        if isinstance(fault, Fault):
            assert (answer.status, answer.text("exceptionCode")) == (500, fault.code)
            assert answer.text("exceptionMessage") == fault.message
            prefix = "sf:" if fault.prefixed else ""
            assert answer.text("faultcode") == prefix + fault.code
        elif asked is Asked.DOOR:
            assert answer.text("exceptionCode") == "INVALID_SESSION_ID"
        elif asked is Asked.LOGIN:
            assert answer.text("sessionId")


async def test_a_certificate_that_is_not_uploaded_fails_on_the_session_call_only():
    async with Simulator(SCENARIOS["mutual_auth_failed"], pki()) as simulator:
        (login,) = await post(simulator, LOGIN)
        session = call_envelope("getUserInfo", session_id=login.text("sessionId"))
        (info,) = await post(simulator, session)

    assert (login.status, info.text("exceptionCode")) == (200, "MUTUAL_AUTHENTICATION_FAILED")


@pytest.mark.parametrize(("name", "status"), [("enforcement_on", 500), ("enforcement_off", 200)])
async def test_the_plain_port_takes_the_session_only_where_nothing_is_enforced(name, status):
    async with Simulator(SCENARIOS[name], pki()) as simulator:
        (login,) = await post(simulator, LOGIN)
        session = call_envelope("getUserInfo", session_id=login.text("sessionId"))
        (plain,) = await post(
            simulator, session, port=simulator.plain_port, defect=ClientCertificate.NONE
        )

    assert plain.status == status
    if status == 500:
        assert plain.text("exceptionCode") == "MUTUAL_AUTHENTICATION_FAILED"


@pytest.mark.parametrize(
    ("name", "hours"), [("healthy", 0), ("clock_ahead", 1), ("clock_behind", -1)]
)
async def test_the_date_header_tells_the_far_side_s_clock(name, hours):
    async with Simulator(SCENARIOS[name], pki()) as simulator:
        (answer,) = await post(simulator, LOGIN)

    theirs = parsedate_to_datetime(answer.headers["Date"])
    assert abs(theirs - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=1)
