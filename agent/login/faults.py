"""One table: what Salesforce's exception codes mean to an operator.

The codes are those of the partner WSDL's ExceptionCode that a login or a session call can meet. A
WSDL lists only the codes of features that are on, so unknown codes are normal: they are
`fault_other`. Source: developer.salesforce.com, SOAP API Developer Guide, "Core Data Types Used in
API Calls".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.reason import Reason


class _Row(NamedTuple):
    """A code ("*" at its end stands for anything), a text in lower case, and what both mean."""

    code: str
    text: str
    reason: Reason


_TABLE: Final = (
    # More than 3,600 logins an hour are blocked, but the WSDL has no code for it: the name is a
    # status of the Login History (help.salesforce.com, 000381578). So any code will do.
    _Row("LOGIN_RATE_EXCEEDED", "", Reason.LOGIN_RATE),
    _Row("*", "login rate", Reason.LOGIN_RATE),
    _Row("*", "login_rate_exceeded", Reason.LOGIN_RATE),
    _Row("*", "too many login", Reason.LOGIN_RATE),
    # --- the user and the secret
    _Row("INVALID_LOGIN", "", Reason.INVALID_LOGIN),
    _Row("INACTIVE_OWNER_OR_USER", "", Reason.INVALID_LOGIN),
    _Row("PASSWORD_LOCKOUT", "", Reason.USER_LOCKED),
    _Row("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", "", Reason.PASSWORD_EXPIRED),
    _Row("LOGIN_MUST_USE_SECURITY_TOKEN", "", Reason.LOGIN_CHALLENGE),
    _Row("LOGIN_CHALLENGE_ISSUED", "", Reason.LOGIN_CHALLENGE),
    _Row("LOGIN_CHALLENGE_PENDING", "", Reason.LOGIN_CHALLENGE),
    _Row("TXN_SECURITY_TWO_FA_REQUIRED", "", Reason.LOGIN_CHALLENGE),
    _Row("LOGIN_DURING_RESTRICTED_DOMAIN", "", Reason.LOGIN_RESTRICTED),
    _Row("LOGIN_DURING_RESTRICTED_TIME", "", Reason.LOGIN_RESTRICTED),
    # --- login() itself
    # "SOAP API login() is disabled by default in this org." (orgs made since Winter '26)
    _Row("INVALID_OPERATION", "disabled", Reason.LOGIN_DISABLED),
    _Row("INVALID_OPERATION", "login()", Reason.LOGIN_DISABLED),
    # The text is: SOAP API login() requires the Use Any API Auth user permission.
    _Row("INSUFFICIENT_ACCESS", "use any api auth", Reason.LOGIN_DISABLED),
    _Row("UNSUPPORTED_API_VERSION", "", Reason.API_VERSION),
    _Row("MISMATCHING_VERSIONS", "", Reason.API_VERSION),
    # --- the API
    _Row("INSUFFICIENT_ACCESS", "", Reason.API_DISABLED),
    _Row("API_DISABLED_FOR_ORG", "", Reason.API_DISABLED),
    _Row("API_CURRENTLY_DISABLED", "", Reason.API_DISABLED),
    _Row("FUNCTIONALITY_NOT_ENABLED", "", Reason.API_DISABLED),
    _Row("UNSUPPORTED_CLIENT", "", Reason.API_DISABLED),
    _Row("INVALID_CLIENT", "", Reason.API_DISABLED),
    _Row("CLIENT_NOT_ACCESSIBLE_FOR_USER", "", Reason.API_DISABLED),
    _Row("CLIENT_REQUIRE_UPDATE_FOR_USER", "", Reason.API_DISABLED),
    _Row("INACTIVE_PORTAL", "", Reason.API_DISABLED),
    _Row("PORTAL_NO_ACCESS", "", Reason.API_DISABLED),
    # A transaction security policy of the org blocked the login: trying again is pointless.
    _Row("TXN_SECURITY_*", "", Reason.API_DISABLED),
    _Row("REQUEST_LIMIT_EXCEEDED", "", Reason.API_LIMIT),
    _Row("LIMIT_EXCEEDED", "", Reason.API_LIMIT),
    _Row("EXCEEDED_QUOTA", "", Reason.API_LIMIT),
    _Row("TOO_MANY_APEX_REQUESTS", "", Reason.API_LIMIT),
    # --- the certificate and the session
    _Row("MUTUAL_AUTHENTICATION_FAILED", "", Reason.MUTUAL_AUTH_FAILED),
    _Row("INVALID_SESSION_ID", "", Reason.SESSION_INVALID),
    # --- the org and Salesforce
    _Row("ORG_IN_MAINTENANCE", "", Reason.MAINTENANCE),
    _Row("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "", Reason.MAINTENANCE),
    _Row("ORG_LOCKED", "", Reason.ORG_UNAVAILABLE),
    _Row("TRIAL_EXPIRED", "", Reason.ORG_UNAVAILABLE),
    _Row("ORG_IS_SIGNING_UP", "", Reason.ORG_UNAVAILABLE),
    _Row("ORG_IS_DOT_ORG", "", Reason.ORG_UNAVAILABLE),
    _Row("ORG_NOT_OWNED_BY_INSTANCE", "", Reason.ORG_UNAVAILABLE),
    _Row("SERVER_UNAVAILABLE", "", Reason.SERVER_ERROR),
    _Row("FUNCTIONALITY_TEMPORARILY_UNAVAILABLE", "", Reason.SERVER_ERROR),
    _Row("SSO_SERVICE_DOWN", "", Reason.SERVER_ERROR),
    _Row("REQUEST_RUNNING_TOO_LONG", "", Reason.SERVER_ERROR),
    _Row("QUERY_TIMEOUT", "", Reason.SERVER_ERROR),
    _Row("UNABLE_TO_LOCK_ROW", "", Reason.SERVER_ERROR),
    _Row("UNKNOWN_EXCEPTION", "", Reason.SERVER_ERROR),
)

KNOWN_CODES: Final = frozenset(row.code for row in _TABLE if not row.code.endswith("*"))

# Texts that Salesforce sends to everyone: they may be shown even when the secret happens to share
# a word with them. To withhold them would say that it does.
PUBLIC_TEXTS: Final = frozenset(
    {
        "Invalid username, password, security token; or user locked out.",
        "SOAP API login() requires the Use Any API Auth user permission.",
        (
            "SOAP API login() is disabled by default in this org. Contact the org administrator "
            "to enable SOAP API login()."
        ),
        "This session could not be mutually authenticated for use with the API",
        "Invalid Session ID found in SessionHeader: Illegal Session",
        "Invalid Session ID found in SessionHeader",
        "This session is not valid for use with the API",
    }
)


def reason_of(code: str, message: str) -> Reason:
    """Return what a fault means; the code decides, and the text where one code has two meanings."""
    text = message.lower()
    for row in _TABLE:
        if row.text in text and (
            code.startswith(row.code[:-1]) if row.code.endswith("*") else code == row.code
        ):
            return row.reason
    return Reason.FAULT_OTHER
