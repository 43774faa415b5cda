"""Any answer to a login and to a session: an outcome, which never shows a secret.

The first byte chooses the status and the content type, the rest is the body.
"""

from collections.abc import Iterator

from agent.credentials import Secret
from agent.login.answer import door_verdict
from agent.login.flow import Response
from agent.login.password import PasswordLogin
from agent.login.session import enforcement_outcome, read_session

PASSWORD, TOKEN, SESSION = "canary-password-8443", "canary-token-8443", "00D!canary-session"
STATUSES = (200, 302, 403, 404, 500, 503)
TYPES = ("text/xml", "text/html; charset=utf-8", "")
LOGIN = PasswordLogin(
    "ada@example.com",
    Secret(PASSWORD),
    Secret(TOKEN),
    "/services/Soap/u/64.0",
    "example.my.salesforce.com",
    "00D000000000001",
)
NAMESPACE = "http://schemas.xmlsoap.org/soap/envelope/"


def one_input(data: bytes) -> None:
    kind, body = data[:1] or b"\0", data[1:]
    response = Response(
        STATUSES[kind[0] % len(STATUSES)],
        {"content-type": TYPES[kind[0] // len(STATUSES) % len(TYPES)]},
        body,
    )
    # Nothing secret was sent for this one, so there is nothing that it could hide.
    door_verdict(response)
    shown = [
        repr(read_session(response, Secret(SESSION))),
        repr(enforcement_outcome(response, Secret(SESSION))),
    ]
    flow = LOGIN.flow()
    next(flow)
    try:
        flow.send(response)
    except StopIteration as end:
        shown.append(repr(end.value))
    for secret in (PASSWORD, TOKEN):
        assert secret not in shown[-1], secret
    assert SESSION not in "".join(shown[:-1])


def envelope(content: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="{NAMESPACE}" '
        f'xmlns="urn:partner.soap.sforce.com"><s:Body>{content}</s:Body></s:Envelope>'
    ).encode()


def fault(code: str, text: str) -> bytes:
    said = f"<faultcode>{code}</faultcode><faultstring>{code}: {text}</faultstring>"
    return envelope(f"<s:Fault>{said}</s:Fault>")


def seeds() -> Iterator[bytes]:
    user = "<organizationId>00D000000000001</organizationId><sessionSecondsValid>7200"
    result = (
        "<serverUrl>https://example.my.salesforce.com/services/Soap/u/64.0</serverUrl>"
        f"<sessionId>{SESSION}</sessionId><userId>005000000000001AAA</userId>"
        f"<userInfo>{user}</sessionSecondsValid></userInfo>"
        "<passwordExpired>false</passwordExpired><sandbox>false</sandbox>"
    )
    timestamp = "<result><timestamp>2026-11-24T00:00:00.000Z</timestamp></result>"
    yield b"\0" + envelope(f"<loginResponse><result>{result}</result></loginResponse>")
    yield b"\0" + envelope(f"<getServerTimestampResponse>{timestamp}</getServerTimestampResponse>")
    for code in ("INVALID_LOGIN", "sf:LOGIN_MUST_USE_SECURITY_TOKEN", "INVALID_SESSION_ID", "x"):
        yield b"\x04" + fault(code, f"Invalid {PASSWORD} and {TOKEN} or {SESSION} &amp; more")
    yield b"\x06<html><title>Error</title><p>Client certificate error: no certificate</p></html>"
    yield b"\x07<!DOCTYPE x [<!ENTITY y 'z'>]><x>&y;</x>"
