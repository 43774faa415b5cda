"""Causes of a login or a session that is refused: the user, the password, the org and its API.

Salesforce has one code for many causes; which it was is only in the user's Login History. So where
the code does not tell, the possibilities stand in the order in which Salesforce's own text names
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.diagnosis.cause import Case, Confidence, Row, Suspicion, cause, rows
from agent.policy.rule import Severity, Violation
from agent.reason import Reason

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE

_CODES: Final = "SOAP API Developer Guide, Core Data Types Used in API Calls (ExceptionCode)"
_HISTORY: Final = "Look at the user's Login History for the true cause; do not try it by hand."


def _code(*codes: str) -> Callable[[Case], bool]:
    """Return the condition that Salesforce's own word is one of these; "…_*" is any such."""
    exact = frozenset(codes)
    beginnings = tuple(code.removesuffix("*") for code in codes if code.endswith("*"))
    return lambda case: (
        case.code in exact or (bool(beginnings) and case.code.startswith(beginnings))
    )


def _other_than(*codes: str) -> Callable[[Case], bool]:
    """Return the condition that Salesforce's own word is none of these."""
    named = _code(*codes)
    return lambda case: not named(case)


_inactive = _code("INACTIVE_OWNER_OR_USER")
_blocked = _code("TXN_SECURITY_*")
_of_the_client = _code("UNSUPPORTED_CLIENT", "INVALID_CLIENT", "CLIENT_*")
_of_the_edition = _code("API_DISABLED_FOR_ORG", "FUNCTIONALITY_NOT_ENABLED")


def _is_of_the_user(case: Case) -> bool:
    return not (_blocked(case) or _of_the_client(case) or _of_the_edition(case))


rows(
    __name__,
    Row(
        name="password_wrong",
        reasons=(Reason.INVALID_LOGIN,),
        confidence=POSSIBLE,
        meaning="User name or password is wrong, or a security token in it is an old one.",
        remedy=f"{_HISTORY} Then give the agent the right password.",
        when=lambda case: not _inactive(case),
        basis=_CODES,
    ),
    Row(
        name="user_of_another_org",
        reasons=(Reason.INVALID_LOGIN,),
        confidence=POSSIBLE,
        meaning="The user is of another org: production and sandbox may be mixed up.",
        remedy="Check `host` and `username`: a sandbox's user names end with its name.",
        when=lambda case: not _inactive(case),
    ),
)


@cause(remedy=Reason.USER_LOCKED.remedy, basis=_CODES)
def user_locked_out(case: Case) -> Suspicion | None:
    """The user is locked out after wrong passwords."""
    if case.reason is Reason.USER_LOCKED:
        return Suspicion(CERTAIN)
    mixed = case.reason is Reason.INVALID_LOGIN and not _inactive(case)
    return Suspicion(POSSIBLE) if mixed else None


@cause(remedy="Activate or unfreeze the user in Setup, then `breaker reset ORG`.", basis=_CODES)
def user_inactive(case: Case) -> Suspicion | None:
    """The user is inactive or frozen."""
    if case.reason is not Reason.INVALID_LOGIN:
        return None
    return Suspicion(CERTAIN if _inactive(case) else POSSIBLE)


# Two people found that a new password ended MUTUAL_AUTHENTICATION_FAILED
# (github.com/jsforce/jsforce issue 27).
@cause(
    remedy=Reason.PASSWORD_EXPIRED.remedy, basis="SOAP API Developer Guide, LoginResult; jsforce 27"
)
def password_expired(case: Case) -> Suspicion | None:
    """The user's password has expired."""
    if case.reason is Reason.PASSWORD_EXPIRED:
        return Suspicion(CERTAIN)
    if case.reason is Reason.MUTUAL_AUTH_FAILED and case.certificate_sent:
        return Suspicion(POSSIBLE, "That was once reported as a failed mutual authentication.")
    return None


@cause(
    remedy="Move the integration to OAuth: login() does not come back.",
    basis="https://help.salesforce.com/s/articleView?id=005132110",
)
def soap_login_retired(case: Case) -> Suspicion | None:
    """SOAP login() has been retired."""
    found = _over(case, "soap_login_retiring")
    if found is None or case.reason not in {Reason.LOGIN_DISABLED, Reason.API_VERSION}:
        return None
    return Suspicion(LIKELY, found.message)


@cause(
    remedy=Reason.API_VERSION.remedy, basis="https://help.salesforce.com/s/articleView?id=005321531"
)
def api_version_removed(case: Case) -> Suspicion | None:
    """The configured API version has been removed."""
    found = _over(case, "api_version_retiring")
    if found is None or case.reason is not Reason.API_VERSION:
        return None
    return Suspicion(CERTAIN, found.message, found.remedy)


def _over(case: Case, rule: str) -> Violation | None:
    """Return what the policy says of something that has ended; before that it is milder."""
    found = case.finding(rule)
    return found if found and found.severity is Severity.CRITICAL else None


rows(
    __name__,
    Row(
        name="security_token_missing",
        reasons=(Reason.LOGIN_CHALLENGE,),
        confidence=LIKELY,
        meaning="Salesforce does not trust this address, and the security token is not given or "
        "is an old one: a new password brings a new token.",
        when=_code("LOGIN_MUST_USE_SECURITY_TOKEN"),
        basis=_CODES,
    ),
    Row(
        name="second_factor_wanted",
        reasons=(Reason.LOGIN_CHALLENGE,),
        confidence=CERTAIN,
        meaning="A security policy of the org wants a second factor of this user.",
        remedy="Except the agent's user from the policy.",
        when=_code("TXN_SECURITY_TWO_FA_REQUIRED"),
        basis=_CODES,
    ),
    Row(
        name="device_not_activated",
        reasons=(Reason.LOGIN_CHALLENGE,),
        confidence=LIKELY,
        meaning="Salesforce wants this machine to be activated, since it does not trust its "
        "address.",
        remedy="Add this machine's outgoing address to the trusted IP ranges.",
        when=_other_than("LOGIN_MUST_USE_SECURITY_TOKEN", "TXN_SECURITY_TWO_FA_REQUIRED"),
        basis=_CODES,
    ),
    Row(
        name="outside_login_ip_ranges",
        reasons=(Reason.LOGIN_RESTRICTED,),
        confidence=CERTAIN,
        meaning="This machine's outgoing address is outside the Login IP Ranges of the profile.",
        remedy="Add the address to the profile's Login IP Ranges, or send from one that is there.",
        when=_code("LOGIN_DURING_RESTRICTED_DOMAIN"),
        basis=_CODES,
    ),
    Row(
        name="outside_login_hours",
        reasons=(Reason.LOGIN_RESTRICTED,),
        confidence=CERTAIN,
        meaning="The profile does not let the user log in at this hour.",
        remedy="Correct the profile's Login Hours: the agent logs in around the clock.",
        when=_code("LOGIN_DURING_RESTRICTED_TIME"),
        basis=_CODES,
    ),
    Row(
        name="login_limits_of_profile",
        reasons=(Reason.LOGIN_RESTRICTED,),
        confidence=LIKELY,
        meaning="The profile limits from where, or at which hours, the user may log in.",
        when=_other_than("LOGIN_DURING_RESTRICTED_*"),
    ),
    Row(
        name="user_shared_with_busy_client",
        reasons=(Reason.LOGIN_RATE,),
        confidence=LIKELY,
        meaning="Another client logs in as this user, so that 3,600 logins an hour are exceeded.",
        basis="https://help.salesforce.com/s/articleView?id=000381578",
    ),
    Row(
        name="soap_login_off",
        reasons=(Reason.LOGIN_DISABLED,),
        confidence=CERTAIN,
        meaning="SOAP login() is switched off in this org, as it is in all that are new.",
        remedy="Enable SOAP API login() in Setup; plan for OAuth.",
        when=_code("INVALID_OPERATION"),
        basis=_CODES,
    ),
    Row(
        name="any_api_auth_missing",
        reasons=(Reason.LOGIN_DISABLED,),
        confidence=CERTAIN,
        meaning="The user lacks the permission 'Use Any API Auth', which login() needs.",
        remedy="Assign the permission to the user; plan for OAuth.",
        when=_code("INSUFFICIENT_ACCESS"),
        basis=_CODES,
    ),
    Row(
        name="soap_login_not_allowed",
        reasons=(Reason.LOGIN_DISABLED,),
        confidence=LIKELY,
        meaning="SOAP login() is not allowed to this user.",
        when=_other_than("INVALID_OPERATION", "INSUFFICIENT_ACCESS"),
    ),
    Row(
        name="api_version_not_served",
        reasons=(Reason.API_VERSION,),
        confidence=LIKELY,
        meaning="The configured API version is retired, or so new that the org has not got it yet.",
        when=lambda case: _over(case, "api_version_retiring") is None,
        basis=_CODES,
    ),
    Row(
        name="edition_without_api",
        reasons=(Reason.API_DISABLED,),
        confidence=CERTAIN,
        meaning="The edition of the org has no API.",
        remedy="Have the API enabled for the org (Salesforce Support).",
        when=_of_the_edition,
        basis=_CODES,
    ),
    Row(
        name="security_policy_blocks",
        reasons=(Reason.API_DISABLED,),
        confidence=CERTAIN,
        meaning="A transaction security policy of the org blocks the login.",
        remedy="Except the agent's user from the policy.",
        when=_blocked,
        basis=_CODES,
    ),
    Row(
        name="client_blocked",
        reasons=(Reason.API_DISABLED,),
        confidence=CERTAIN,
        meaning="The org does not let this client in.",
        remedy="Allow the client in the org's API access control and connected apps.",
        when=_of_the_client,
        basis=_CODES,
    ),
    Row(
        name="api_permission_missing",
        reasons=(Reason.API_DISABLED,),
        confidence=LIKELY,
        meaning="The user may not use the API.",
        remedy="Give the profile the permission 'API Enabled'.",
        when=_is_of_the_user,
        basis=_CODES,
    ),
    Row(
        name="api_requests_used_up",
        reasons=(Reason.API_LIMIT,),
        confidence=CERTAIN,
        meaning="The org's API requests of the last 24 hours are used up.",
    ),
    Row(
        name="trial_over",
        reasons=(Reason.ORG_UNAVAILABLE,),
        confidence=CERTAIN,
        meaning="The org's trial is over.",
        remedy="Renew it with Salesforce, or take the org out of the configuration.",
        when=_code("TRIAL_EXPIRED"),
        basis=_CODES,
    ),
    Row(
        name="org_moved",
        reasons=(Reason.ORG_UNAVAILABLE,),
        confidence=CERTAIN,
        meaning="The org has moved to another instance, and this one still answers for it.",
        remedy="Wait until DNS leads to the new instance; `host` must be the My Domain.",
        when=_code("ORG_NOT_OWNED_BY_INSTANCE"),
        basis=_CODES,
    ),
    Row(
        name="org_suspended",
        reasons=(Reason.ORG_UNAVAILABLE,),
        confidence=LIKELY,
        meaning="The org is locked, or not ready yet.",
        when=_other_than("TRIAL_EXPIRED", "ORG_NOT_OWNED_BY_INSTANCE"),
        basis=_CODES,
    ),
    Row(
        name="session_ended_by_another",
        reasons=(Reason.SESSION_INVALID,),
        confidence=LIKELY,
        meaning="Another client of this user logged out, which ends the session for all of them.",
    ),
    Row(
        name="mutual_auth_not_assigned",
        reasons=(Reason.ENFORCEMENT_OFF,),
        confidence=CERTAIN,
        meaning="The user lacks 'Enforce SSL/TLS Mutual Authentication', so nothing is enforced.",
    ),
    Row(
        name="another_org_answers",
        reasons=(Reason.WRONG_ORG,),
        confidence=CERTAIN,
        meaning="Host and user belong to another org than `organization_id`.",
    ),
)
