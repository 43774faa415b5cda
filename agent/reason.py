"""The closed list of reasons for which something can fail, each with its meaning and remedy.

A reason is a metric label and the key of a runbook, so a member is an interface: renaming one is a
breaking change. `sfmtls-agent reasons` and the documentation print this table; nothing repeats it.
To add a reason: one member here, and whatever border translates to it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Self

_OPENS_BREAKER: Final = True


class Reason(Enum):
    """Why a probe failed; `.value` is the label, the texts are for whoever was woken.

    `opens_breaker` marks the faults after which another login could lock the user out or is
    useless until somebody changes something: one of them stops all logins of that user.
    """

    meaning: str
    remedy: str
    opens_breaker: bool

    def __new__(
        cls,
        label: str,
        meaning: str,
        remedy: str,
        opens_breaker: bool = False,  # noqa: FBT001, FBT002 - a member is a row; it has no keywords
    ) -> Self:
        """Keep the texts beside the label."""
        member = object.__new__(cls)
        member._value_ = label
        member.meaning = meaning
        member.remedy = remedy
        member.opens_breaker = opens_breaker
        return member

    # --- finding the host
    DNS_NOT_FOUND = (
        "dns_not_found",
        "The host name does not exist in DNS.",
        "Check `host` against the org's My Domain name; a renamed My Domain changes it.",
    )
    DNS_TIMEOUT = (
        "dns_timeout",
        "The resolver did not answer in time.",
        "Check the resolver of this machine (`getent hosts HOST`).",
    )
    DNS_ERROR = (
        "dns_error",
        "The name was looked up but gave no usable address.",
        "Check the resolver and `ip_family`; the host may have addresses of the other family only.",
    )
    # --- reaching it
    TCP_REFUSED = (
        "tcp_refused",
        "The host refused the connection.",
        "Check host and port; login.salesforce.com does not listen on 8443, a My Domain host does.",
    )
    TCP_TIMEOUT = (
        "tcp_timeout",
        "Nothing answered the connection attempt in time.",
        "A firewall probably drops outgoing traffic to port 8443: allow it for this machine.",
    )
    TCP_RESET = (
        "tcp_reset",
        "The connection was cut while in use.",
        "Look at firewalls and load balancers in between; if every org fails, at this network.",
    )
    TCP_UNREACHABLE = (
        "tcp_unreachable",
        "There is no route to the host, or a firewall said so.",
        "Check routes and firewall rules of this machine, for the address family used too.",
    )
    PROXY_DNS = (
        "proxy_dns",
        "The proxy's own name could not be resolved.",
        "Check `proxy.url` and the resolver.",
    )
    PROXY_REFUSED = (
        "proxy_refused",
        "The proxy could not be connected to.",
        "Check `proxy.url` and that the proxy runs.",
    )
    PROXY_DENIED = (
        "proxy_denied",
        "The proxy answered CONNECT with a refusal.",
        "Allow CONNECT to the org's host and port on the proxy, or correct its credentials.",
    )
    PROXY_TIMEOUT = (
        "proxy_timeout",
        "The proxy did not finish CONNECT in time.",
        "Check the proxy; it may be unable to reach the org itself.",
    )
    # --- the TLS handshake
    TLS_TIMEOUT = (
        "tls_timeout",
        "The server accepted the connection but did not finish the handshake in time.",
        "Check whether a middlebox holds the connection; else the server is in trouble.",
    )
    TLS_EOF = (
        "tls_eof",
        "The server closed the connection without saying why.",
        (
            "Some servers refuse a client certificate like this: check your own certificate first "
            "(`sfmtls-agent check`), then load balancers in between."
        ),
    )
    NOT_TLS = (
        "not_tls",
        "Whatever answered does not speak TLS.",
        "Check host and port; a proxy or captive portal may answer instead.",
    )
    TLS_VERSION = (
        "tls_version",
        "Client and server have no TLS version in common.",
        "Check `tls_min` and `tls_max`; Salesforce speaks TLS 1.2 and 1.3.",
    )
    TLS_UNRECOGNIZED_NAME = (
        "tls_unrecognized_name",
        "The server does not know the name that we asked for (SNI).",
        "Check `host` and `server_name`: the server has no certificate for this name.",
    )
    TLS_HANDSHAKE_FAILURE = (
        "tls_handshake_failure",
        "The handshake failed for a reason that the server did not tell apart.",
        "Look at the alert; often no common cipher suite, sometimes a refused client certificate.",
    )
    # --- our verdict on the server's certificate
    SERVER_UNTRUSTED = (
        "server_untrusted",
        "The server's chain ends at a root that we do not trust.",
        "Check `trust`: Salesforce may change its root at any time; also look for TLS inspection.",
    )
    SERVER_INCOMPLETE_CHAIN = (
        "server_incomplete_chain",
        "The server did not send an intermediate certificate that is needed.",
        "Tell the server's owner; adding the missing intermediate to `trust.file` is a workaround.",
    )
    SERVER_EXPIRED = (
        "server_expired",
        "A certificate of the server's chain has expired.",
        "Tell the server's owner; check this machine's clock first.",
    )
    SERVER_NOT_YET_VALID = (
        "server_not_yet_valid",
        "A certificate of the server's chain is not valid yet.",
        "Check this machine's clock; then tell the server's owner.",
    )
    SERVER_HOSTNAME = (
        "server_hostname",
        "The server's certificate is not for this name.",
        "Check `host` and `server_name`; a wrong host or a proxy may be answering.",
    )
    SERVER_EKU = (
        "server_eku",
        "The server's certificate is not meant for servers.",
        "Tell the server's owner: the certificate lacks the serverAuth purpose.",
    )
    # --- the server's verdict on our certificate
    CLIENT_CERT_REQUIRED = (
        "client_cert_required",
        "The server wants a client certificate and got none.",
        (
            "Ours was not sent, probably since the server takes no key of its kind: ask whether it "
            "accepts RSA or EC keys, and have the certificate issued for one of these."
        ),
    )
    CLIENT_CERT_UNKNOWN_CA = (
        "client_cert_unknown_ca",
        "The server could not trace our certificate to a root that it trusts.",
        (
            "Put every intermediate into the certificate file, leaf first; then check that the "
            "root is one that Salesforce accepts."
        ),
    )
    CLIENT_CERT_BAD = (
        "client_cert_bad",
        "The server calls our certificate bad, without saying how.",
        "Check its dates, purpose and chain with `sfmtls-agent check`; it may be not yet valid.",
    )
    CLIENT_CERT_EXPIRED = (
        "client_cert_expired",
        "The server says that our certificate has expired.",
        "Renew the certificate, upload it to the org, then deploy it here.",
    )
    CLIENT_CERT_REVOKED = (
        "client_cert_revoked",
        "The server says that our certificate was revoked.",
        "Ask the certificate authority why; get a new certificate and upload it to the org.",
    )
    CLIENT_CERT_UNSUPPORTED = (
        "client_cert_unsupported",
        "The server does not accept this kind of certificate.",
        "The extended key usage probably lacks clientAuth: ask for a certificate that has it.",
    )
    CLIENT_CERT_UNKNOWN = (
        "client_cert_unknown",
        "The server refused our certificate for a reason it did not tell apart.",
        "Check dates, purpose and chain with `sfmtls-agent check`.",
    )
    CLIENT_ACCESS_DENIED = (
        "client_access_denied",
        "Our certificate was read, but access was denied.",
        "Check that this very certificate is uploaded to the org and not deleted there.",
    )
    CLIENT_CERT_PAGE = (
        "client_cert_page",
        "TLS succeeded, but a web page says that the client certificate is in error.",
        "Read the page's text in the log: usually a missing intermediate or no certificate.",
    )
    CLIENT_KEY_MISMATCH = (
        "client_key_mismatch",
        "The private key does not belong to the certificate.",
        "Deploy certificate and key of one and the same issuance.",
    )
    CLIENT_MATERIAL_UNREADABLE = (
        "client_material_unreadable",
        "The certificate or key file could not be read or understood.",
        "See the message for file and block; check permissions, format and passphrase.",
    )
    CLIENT_NOT_REQUESTED = (
        "client_not_requested",
        "The server never asked for a client certificate.",
        "Mutual TLS is off at this door: check port (8443) and host (My Domain).",
    )
    DOOR_OPEN_WITHOUT_CERTIFICATE = (
        "door_open_without_certificate",
        "The door let a client in that presented no certificate.",
        "Anyone can come in: have the server require client certificates; check port and host.",
    )
    UNDETERMINED = (
        "undetermined",
        "What was seen proves neither success nor failure.",
        "Look at the other probes of this org; the network may be at fault.",
    )
    # --- HTTP
    HTTP_STATUS = (
        "http_status",
        "The server answered with an unexpected HTTP status.",
        "See the status in the log; look at Salesforce's trust site for the instance.",
    )
    HTTP_TIMEOUT = (
        "http_timeout",
        "The answer did not arrive completely in time.",
        "Look at Salesforce's trust site; raise `timeouts` only if this org is always slow.",
    )
    HTTP_REDIRECT = (
        "http_redirect",
        "The server answered with a redirect, which is never followed.",
        "Check `host`: it may have moved to another My Domain name.",
    )
    HTTP_MALFORMED = (
        "http_malformed",
        "The answer is not HTTP.",
        "Check host and port; something else may answer here.",
    )
    HTML_UNEXPECTED = (
        "html_unexpected",
        "A web page came where a SOAP answer was expected.",
        "Read the page's text in the log; something in between may answer for Salesforce.",
    )
    MAINTENANCE = (
        "maintenance",
        "Salesforce says that it is down for maintenance.",
        "Wait; look at Salesforce's trust site for the instance.",
    )
    RESPONSE_TOO_LARGE = (
        "response_too_large",
        "The answer is larger than any sensible one.",
        "Something else may be answering; read its beginning in the log.",
    )
    SOAP_MALFORMED = (
        "soap_malformed",
        "The answer is not a SOAP message that we understand.",
        "Something else may be answering; read its beginning in the log.",
    )
    # --- the login and the session
    INVALID_LOGIN = (
        "invalid_login",
        "User name, password or token is wrong, or the user is locked, frozen or inactive.",
        "Look at the user's Login History for the true cause. Do not retry: it locks the user out.",
        _OPENS_BREAKER,
    )
    PASSWORD_EXPIRED = (
        "password_expired",
        "The login worked, but the password has expired: the session can do nothing.",
        "Set a new password and give it to the agent; give the user 'Password Never Expires'.",
        _OPENS_BREAKER,
    )
    USER_LOCKED = (
        "user_locked",
        "The user is locked out.",
        "Unlock the user in Setup, find who sent wrong passwords, then `breaker reset ORG`.",
        _OPENS_BREAKER,
    )
    LOGIN_CHALLENGE = (
        "login_challenge",
        "Salesforce wants a second proof of identity or the security token.",
        "Add this machine's address to the trusted ranges, or configure `security_token`.",
        _OPENS_BREAKER,
    )
    LOGIN_RESTRICTED = (
        "login_restricted",
        "The profile does not let this user log in from here or at this hour.",
        "Add this machine's outgoing address to the profile's Login IP Ranges; check Login Hours.",
    )
    LOGIN_RATE = (
        "login_rate",
        "Salesforce says that this user logs in too often.",
        "Find the other client that logs in as this user; give the agent a user of its own.",
        _OPENS_BREAKER,
    )
    LOGIN_DISABLED = (
        "login_disabled",
        "SOAP login() is switched off for this org or this user.",
        "Enable SOAP API login() in Setup, or assign 'Use Any API Auth'; plan for OAuth.",
        _OPENS_BREAKER,
    )
    API_VERSION = (
        "api_version",
        "The configured API version is retired, or too new for this org.",
        "Set `api_version` to one that has login(): 31.0 to 64.0.",
        _OPENS_BREAKER,
    )
    API_DISABLED = (
        "api_disabled",
        "The API is not available to this org, user or client.",
        "Check the edition, the profile's API permission and connected-app policies.",
        _OPENS_BREAKER,
    )
    API_LIMIT = (
        "api_limit",
        "The org has used up its API requests.",
        "Find the integration that uses them; the limit is over a rolling 24 hours.",
    )
    ORG_UNAVAILABLE = (
        "org_unavailable",
        "The org is locked, expired, moved or not ready.",
        "Look at the org's status with Salesforce Support.",
    )
    MUTUAL_AUTH_FAILED = (
        "mutual_auth_failed",
        "Salesforce could not match our certificate to one uploaded to this org.",
        (
            "Upload the certificate that the agent presents to the org's Mutual Authentication "
            "Certificates; an expired password was reported like this too."
        ),
    )
    ENFORCEMENT_OFF = (
        "enforcement_off",
        "The session also works without the client certificate.",
        "Assign 'Enforce SSL/TLS Mutual Authentication' to the user: nothing is enforced now.",
    )
    SESSION_INVALID = (
        "session_invalid",
        "The session that was just given is not accepted.",
        "Another client of the same user logged out: give the agent a user of its own.",
    )
    WRONG_ORG = (
        "wrong_org",
        "The login worked, but in another org than configured.",
        "Check `host`, `username` and `organization_id`: production and sandbox may be mixed up.",
    )
    HOST_POLICY = (
        "host_policy",
        "The answer would have sent the session to a host outside Salesforce.",
        "Do not trust this answer: find out who gave it.",
    )
    SERVER_ERROR = (
        "server_error",
        "Salesforce reports an error of its own.",
        "Wait; look at Salesforce's trust site for the instance.",
    )
    FAULT_OTHER = (
        "fault_other",
        "A SOAP fault that this table does not know.",
        "Read its code and text in the log.",
    )
    # --- ourselves
    CREDENTIALS_UNREADABLE = (
        "credentials_unreadable",
        "A secret could not be read.",
        "See the message for the key; check file, permissions, variable or systemd credential.",
    )
    STATE_LOST = (
        "state_lost",
        "The state was lost: nobody knows whether this secret was refused before.",
        "Wait for one hold, or see that the user is not locked, then `breaker reset ORG`.",
        _OPENS_BREAKER,
    )
    INTERNAL = (
        "internal",
        "A bug in the agent; other orgs are not affected.",
        "Report it with the traceback from the log.",
    )
