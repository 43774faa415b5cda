"""The kinds of door: how the far side behaves below HTTP, above all to a client certificate."""

from __future__ import annotations

from enum import StrEnum

from agent.org import TlsVersion


class Door(StrEnum):
    """How the port with mutual TLS behaves."""

    TLS12_REQUIRED = "tls12_required"
    TLS13_REQUIRED = "tls13_required"
    TLS13_REQUIRED_NO_TICKETS = "tls13_required_no_tickets"
    SOFT = "soft"  # TLS accepts anything; a page tells what is wrong
    OPTIONAL = "optional"  # a certificate is checked, but none is as good
    NOT_ASKING = "not_asking"
    CLOSING_WITHOUT_ALERT = "closing_without_alert"  # refuses by closing, like Node and Java
    CLOSING_WITH_NOTIFY = "closing_with_notify"  # refuses by close_notify, like nginx's stream
    PLAIN_HTTP = "plain_http"
    GARBAGE = "garbage"
    ACCEPT_AND_CLOSE = "accept_and_close"
    ACCEPT_AND_HANG = "accept_and_hang"
    RESET_AFTER_ACCEPT = "reset_after_accept"
    RESET_AFTER_CLIENT_HELLO = "reset_after_client_hello"
    UNRECOGNIZED_NAME = "unrecognized_name"
    PROTOCOL_VERSION = "protocol_version"  # refuses our versions by alert
    OLD_TLS_ONLY = "old_tls_only"  # answers in TLS 1.1
    NO_COMMON_CIPHER = "no_common_cipher"

    def tls_versions(self, wanted: tuple[TlsVersion, TlsVersion]) -> tuple[TlsVersion, TlsVersion]:
        """Return the lowest and highest version spoken, when `wanted` is asked of the door."""
        match self:
            case Door.TLS12_REQUIRED | Door.NO_COMMON_CIPHER:
                return TlsVersion.TLS_1_2, TlsVersion.TLS_1_2
            case Door.TLS13_REQUIRED | Door.TLS13_REQUIRED_NO_TICKETS:
                return TlsVersion.TLS_1_3, TlsVersion.TLS_1_3
            case _:
                return wanted


class RefusalPage(StrEnum):
    """What a soft door says to a client whose certificate it does not like."""

    SALESFORCE = "salesforce"  # "Client certificate error: …"
    NGINX = "nginx"  # 400 by ngx_http_ssl_module
    FORBIDDEN = "forbidden"  # a bare 403, as HAProxy rules make it
