"""Scenarios in which Salesforce answers with a SOAP fault, or with a login that is no good."""

# ruff: noqa: D401 - a scenario's docstring says what is so, not what to do

from __future__ import annotations

from dataclasses import replace

from agent.reason import Reason
from agent.result import ClientAuth, Probe
from agent.simulator import soap
from agent.simulator.scenario import (
    Scenario,
    also,
    door_fails,
    login_fails,
    scenario,
    session_fails,
)
from agent.simulator.soap import Asked, Fault, LoginAnswer


def _login(base: Scenario, reason: Reason, code: str, message: str) -> Scenario:
    fault = Fault(code, message, "LoginFault")
    return login_fails(replace(base, answers={Asked.LOGIN: fault}), reason)


def _session(base: Scenario, reason: Reason, fault: Fault) -> Scenario:
    return session_fails(replace(base, answers={Asked.SESSION: fault}), reason)


@scenario
def invalid_login(healthy: Scenario) -> Scenario:
    """Login: user name, password or token is wrong, or the user is locked."""
    case = replace(healthy, answers={Asked.LOGIN: soap.INVALID_LOGIN})
    return login_fails(case, Reason.INVALID_LOGIN)


@scenario
def invalid_login_unprefixed(healthy: Scenario) -> Scenario:
    """Login: the same fault, its faultcode without the prefix sf:."""
    fault = replace(soap.INVALID_LOGIN, prefixed=False)
    return login_fails(replace(healthy, answers={Asked.LOGIN: fault}), Reason.INVALID_LOGIN)


@scenario
def user_locked_after_failures(healthy: Scenario) -> Scenario:
    """Login: three wrong passwords lock the user; the right one, as configured, still works."""
    return replace(healthy, lockout_after=3)


@scenario
def must_use_security_token(healthy: Scenario) -> Scenario:
    """Login: the security token is needed from this address."""
    return _login(
        healthy,
        Reason.LOGIN_CHALLENGE,
        "LOGIN_MUST_USE_SECURITY_TOKEN",
        "Invalid username, password, security token; or user locked out. Are you at a new "
        "location? When accessing Salesforce--either via a desktop client or the API--from "
        "outside of your company's trusted networks, you must add a security token to your "
        "password to log in.",
    )


@scenario
def restricted_domain(healthy: Scenario) -> Scenario:
    """Login: not from this address."""
    return _login(
        healthy,
        Reason.LOGIN_RESTRICTED,
        "LOGIN_DURING_RESTRICTED_DOMAIN",
        "cannot log in from current domain",
    )


@scenario
def restricted_time(healthy: Scenario) -> Scenario:
    """Login: not at this hour."""
    return _login(
        healthy,
        Reason.LOGIN_RESTRICTED,
        "LOGIN_DURING_RESTRICTED_TIME",
        "cannot log in during restricted time",
    )


@scenario
def insufficient_access(healthy: Scenario) -> Scenario:
    """Login: the user lacks the permission that SOAP login() needs."""
    return _login(
        healthy,
        Reason.LOGIN_DISABLED,
        "INSUFFICIENT_ACCESS",
        "SOAP API login() requires the Use Any API Auth user permission.",
    )


@scenario
def login_disabled(healthy: Scenario) -> Scenario:
    """Login: SOAP login() is off in this org."""
    return _login(
        healthy,
        Reason.LOGIN_DISABLED,
        "INVALID_OPERATION",
        "SOAP API login() is disabled by default in this org. Contact the org administrator to "
        "enable SOAP API login().",
    )


@scenario
def unsupported_api_version(healthy: Scenario) -> Scenario:
    """Every call: the API version is retired. The door has opened all the same."""
    case = replace(healthy, answers=dict.fromkeys(Asked, soap.UNSUPPORTED_VERSION))
    return login_fails(case, Reason.API_VERSION)


@scenario
def mutual_auth_failed(healthy: Scenario) -> Scenario:
    """Session: the certificate is good but not uploaded to this org."""
    return session_fails(replace(healthy, uploaded=False), Reason.MUTUAL_AUTH_FAILED)


@scenario
def mutual_auth_failed_on_login(healthy: Scenario) -> Scenario:
    """Login: refused for want of mutual authentication, as Login History knows it."""
    case = replace(healthy, answers={Asked.LOGIN: soap.NOT_MUTUALLY_AUTHENTICATED})
    return login_fails(case, Reason.MUTUAL_AUTH_FAILED)


@scenario
def door_mutual_auth_failed(healthy: Scenario) -> Scenario:
    """Door: the application itself says that mutual authentication failed."""
    case = replace(healthy, answers={Asked.DOOR: soap.NOT_MUTUALLY_AUTHENTICATED})
    return door_fails(case, Reason.MUTUAL_AUTH_FAILED, ClientAuth.SOFT_REJECTED)


@scenario
def password_expired(healthy: Scenario) -> Scenario:
    """Login: succeeds with passwordExpired, so the session can do nothing."""
    case = replace(healthy, login_answer=LoginAnswer(password_expired=True))
    return login_fails(case, Reason.PASSWORD_EXPIRED)


@scenario
def password_expired_fault_on_login(healthy: Scenario) -> Scenario:
    """Login: the fault of an expired password."""
    case = replace(healthy, answers={Asked.LOGIN: soap.EXPIRED_PASSWORD})
    return login_fails(case, Reason.PASSWORD_EXPIRED)


@scenario
def password_expired_fault_on_session(healthy: Scenario) -> Scenario:
    """Session: the fault of an expired password, although the login did not say so."""
    return _session(healthy, Reason.PASSWORD_EXPIRED, soap.EXPIRED_PASSWORD)


@scenario
def password_lockout(healthy: Scenario) -> Scenario:
    """Login: the user is locked out."""
    return _login(healthy, Reason.USER_LOCKED, "PASSWORD_LOCKOUT", "user is locked out")


@scenario
def login_challenge_issued(healthy: Scenario) -> Scenario:
    """Login: the computer must be activated."""
    return _login(
        healthy,
        Reason.LOGIN_CHALLENGE,
        "LOGIN_CHALLENGE_ISSUED",
        "Failed: Computer activation required",
    )


@scenario
def login_challenge_pending(healthy: Scenario) -> Scenario:
    """Login: the activation of the computer is pending."""
    return _login(
        healthy,
        Reason.LOGIN_CHALLENGE,
        "LOGIN_CHALLENGE_PENDING",
        "Failed: Computer activation pending",
    )


@scenario
def api_disabled_for_org(healthy: Scenario) -> Scenario:
    """Login: the org's edition has no API."""
    return _login(
        healthy,
        Reason.API_DISABLED,
        "API_DISABLED_FOR_ORG",
        "API is not enabled for this Organization or Partner",
    )


@scenario
def api_currently_disabled(healthy: Scenario) -> Scenario:
    """Login: the API is off for this user."""
    return _login(
        healthy, Reason.API_DISABLED, "API_CURRENTLY_DISABLED", "API is disabled for this User"
    )


@scenario
def org_locked(healthy: Scenario) -> Scenario:
    """Login: the org is locked."""
    return _login(healthy, Reason.ORG_UNAVAILABLE, "ORG_LOCKED", "org is locked")


@scenario
def trial_expired(healthy: Scenario) -> Scenario:
    """Login: the org's trial is over."""
    return _login(healthy, Reason.ORG_UNAVAILABLE, "TRIAL_EXPIRED", "trial has expired")


@scenario
def org_not_owned_by_instance(healthy: Scenario) -> Scenario:
    """Login: the org has moved to another instance."""
    return _login(
        healthy,
        Reason.ORG_UNAVAILABLE,
        "ORG_NOT_OWNED_BY_INSTANCE",
        "org is not owned by this instance",
    )


@scenario
def org_in_maintenance(healthy: Scenario) -> Scenario:
    """Login: the fault of an org in maintenance."""
    return _login(
        healthy, Reason.MAINTENANCE, "ORG_IN_MAINTENANCE", "organization is in maintenance"
    )


@scenario
def server_unavailable(healthy: Scenario) -> Scenario:
    """Login: the fault of a server that is not available."""
    return _login(healthy, Reason.SERVER_ERROR, "SERVER_UNAVAILABLE", "server unavailable")


@scenario
def functionality_temporarily_unavailable(healthy: Scenario) -> Scenario:
    """Session: what was called is temporarily unavailable."""
    fault = Fault("FUNCTIONALITY_TEMPORARILY_UNAVAILABLE", "Please try again later")
    return _session(healthy, Reason.SERVER_ERROR, fault)


@scenario
def unknown_exception(healthy: Scenario) -> Scenario:
    """Login: an error of Salesforce's own."""
    return _login(
        healthy,
        Reason.SERVER_ERROR,
        "UNKNOWN_EXCEPTION",
        "An unexpected error occurred. Please include this ErrorId if you contact support: "
        "1234567890-12345 (12345678)",
    )


@scenario
def request_limit_exceeded(healthy: Scenario) -> Scenario:
    """Session: the org has used up its API requests, while the login works."""
    fault = Fault("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    return _session(healthy, Reason.API_LIMIT, fault)


@scenario
def session_lost_once(healthy: Scenario) -> Scenario:
    """Session: another client's logout ended it; after one more login all is well."""
    return replace(healthy, sessions_lost=1)


@scenario
def session_lost_always(healthy: Scenario) -> Scenario:
    """Session: every session is ended by another client as soon as it is given."""
    return session_fails(replace(healthy, sessions_lost=1_000_000), Reason.SESSION_INVALID)


@scenario
def unsupported_client(healthy: Scenario) -> Scenario:
    """Login: the client is not supported."""
    return _login(healthy, Reason.API_DISABLED, "UNSUPPORTED_CLIENT", "HTTPS Required")


@scenario
def client_not_accessible(healthy: Scenario) -> Scenario:
    """Login: the user may not use this client."""
    return _login(
        healthy,
        Reason.API_DISABLED,
        "CLIENT_NOT_ACCESSIBLE_FOR_USER",
        "user is not admin approved to access this app",
    )


@scenario
def transaction_security_no_access(healthy: Scenario) -> Scenario:
    """Login: a transaction-security policy forbids it."""
    return _login(
        healthy,
        Reason.API_DISABLED,
        "TXN_SECURITY_NO_ACCESS",
        "The operation you requested was blocked by a security policy.",
    )


@scenario
def transaction_security_two_factors(healthy: Scenario) -> Scenario:
    """Login: a transaction-security policy wants a second factor."""
    return _login(
        healthy,
        Reason.LOGIN_CHALLENGE,
        "TXN_SECURITY_TWO_FA_REQUIRED",
        "Two-factor authentication required",
    )


@scenario
def login_rate(healthy: Scenario) -> Scenario:
    """Login: this user logs in too often."""
    # The status is Login History's; which code comes over SOAP is not public.
    return _login(
        healthy, Reason.LOGIN_RATE, "LOGIN_RATE_EXCEEDED", "Login rate exceeded, try again later"
    )


@scenario
def unknown_code(healthy: Scenario) -> Scenario:
    """Login: a fault with a code that no WSDL has."""
    return _login(healthy, Reason.FAULT_OTHER, "NEVER_HEARD_OF", "something new")


@scenario
def wrong_organization(healthy: Scenario) -> Scenario:
    """Login: works, but in another org than configured."""
    answer = LoginAnswer(organization_id=soap.OTHER_ORGANIZATION_ID)
    return login_fails(replace(healthy, login_answer=answer), Reason.WRONG_ORG)


@scenario
def session_id_is_nil(healthy: Scenario) -> Scenario:
    """Login: answers well but with a nil sessionId, which the schema allows."""
    answer = LoginAnswer(session_id_is_nil=True)
    return login_fails(replace(healthy, login_answer=answer), Reason.SOAP_MALFORMED)


@scenario
def server_url_elsewhere(healthy: Scenario) -> Scenario:
    """Login: serverUrl would send the session to a host outside Salesforce."""
    answer = LoginAnswer(server_host="salesforce.example")
    return login_fails(replace(healthy, login_answer=answer), Reason.HOST_POLICY)


@scenario
def server_url_lookalike(healthy: Scenario) -> Scenario:
    """Login: serverUrl's host ends like Salesforce's but is not under it."""
    answer = LoginAnswer(server_host="notsalesforce.com")
    return login_fails(replace(healthy, login_answer=answer), Reason.HOST_POLICY)


@scenario
def server_url_on_instance(healthy: Scenario) -> Scenario:
    """Login: serverUrl names another host of Salesforce; the configured one is still used."""
    return replace(healthy, login_answer=LoginAnswer(server_host="eu44.salesforce.com"))


@scenario
def server_url_with_port(healthy: Scenario) -> Scenario:
    """Login: serverUrl has the port, which real ones lack; no difference."""
    return replace(healthy, login_answer=LoginAnswer(server_port=True))


@scenario
def enforcement_on(healthy: Scenario) -> Scenario:
    """The session does not work on the ordinary port without the certificate."""
    return also(healthy, Probe.ENFORCEMENT, None)


@scenario
def enforcement_off(healthy: Scenario) -> Scenario:
    """The session works on the ordinary port without the certificate."""
    case = replace(healthy, enforced=False)
    return also(case, Probe.ENFORCEMENT, Reason.ENFORCEMENT_OFF)
