"""The TLS handshake without a socket: bytes in, bytes out, a HandshakeOutcome at the end.

A server can refuse a client certificate in three places, and this module sees the first two: inside
the handshake (TLS 1.2), and *after* our side thinks the handshake is done (TLS 1.3). The third, a
web page, needs a request (see `agent.probe`). So an outcome of ACCEPTED here means that the TLS
layer has let us in, no more. Nor is NOT_REQUESTED the last word: a server may ask once it has read
a request, by renegotiation (TLS 1.2) or post-handshake authentication (TLS 1.3); see `seen`.

It must never know sockets, clocks or event loops: whoever carries the bytes does.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from agent import chain
from agent.certificate import Certificate
from agent.probe import messages
from agent.reason import Reason
from agent.result import ClientAuth, Failure, HandshakeOutcome

_READ_SIZE: Final = 16384

# What a fatal alert means once the server has our answer to its certificate request. The same
# cause has other alerts on other stacks, so this is the server's word, not yet the cause.
_REFUSALS: Final[Mapping[str, Reason]] = {
    "certificate_required": Reason.CLIENT_CERT_REQUIRED,
    "no_certificate": Reason.CLIENT_CERT_REQUIRED,
    "unknown_ca": Reason.CLIENT_CERT_UNKNOWN_CA,
    "bad_certificate": Reason.CLIENT_CERT_BAD,
    "certificate_expired": Reason.CLIENT_CERT_EXPIRED,
    "certificate_revoked": Reason.CLIENT_CERT_REVOKED,
    "unsupported_certificate": Reason.CLIENT_CERT_UNSUPPORTED,
    "certificate_unknown": Reason.CLIENT_CERT_UNKNOWN,
    "access_denied": Reason.CLIENT_ACCESS_DENIED,
    # RFC 8446 §4.4.3: the proof that we hold the certificate's key did not convince the server.
    "decrypt_error": Reason.CLIENT_CERT_BAD,
}
# Alerts by which servers complain of no certificate when TLS 1.2 has no better word (Java and NSS:
# bad_certificate, OpenSSL: handshake_failure, GnuTLS: decode_error).
_ALSO_WITHOUT_CERTIFICATE: Final = frozenset(
    {"handshake_failure", "bad_certificate", "decode_error", "certificate_unknown"}
)
_ALERTS_BEFORE: Final[Mapping[str, Reason]] = {
    "protocol_version": Reason.TLS_VERSION,
    "inappropriate_fallback": Reason.TLS_VERSION,
    "unrecognized_name": Reason.TLS_UNRECOGNIZED_NAME,
}
# OpenSSL's own complaints, by `SSLError.reason`: the text changes between versions, this does not.
_COMPLAINTS: Final[Mapping[str, Reason]] = {
    "WRONG_VERSION_NUMBER": Reason.NOT_TLS,
    "HTTP_REQUEST": Reason.NOT_TLS,
    "UNSUPPORTED_PROTOCOL": Reason.TLS_VERSION,
    "NO_PROTOCOLS_AVAILABLE": Reason.TLS_VERSION,
    "VERSION_TOO_LOW": Reason.TLS_VERSION,
}
# X509_V_ERR_* of OpenSSL's x509_vfy.h; whatever is not here leaves the server untrusted.
_VERIFICATION: Final[Mapping[int, Reason]] = {
    9: Reason.SERVER_NOT_YET_VALID,
    10: Reason.SERVER_EXPIRED,
    26: Reason.SERVER_EKU,
    62: Reason.SERVER_HOSTNAME,
    64: Reason.SERVER_HOSTNAME,
}


def verdict_of(alert: str | None) -> ClientAuth:
    """Return what a fatal alert says of our certificate, once the server has our answer.

    A server in trouble of its own says so (internal_error and its kin): that is no verdict.
    """
    refused = alert is not None and alert in _REFUSALS.keys() | _ALSO_WITHOUT_CERTIFICATE
    return ClientAuth.REJECTED if refused else ClientAuth.UNCONFIRMED


class ObservedTls(ssl.SSLObject):
    """An SSLObject that remembers the messages which carry the facts we report."""

    chain_message: tuple[bytes, int] | None = None
    request_message: tuple[bytes, int] | None = None
    answered_request: bool = False
    certificate_sent: bool = False
    session_ticket: bool = False
    alert: str | None = None

    def saw(self, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
        """Keep what matters of one message; called by OpenSSL for every one of them."""
        if content == messages.HANDSHAKE:
            if direction == "write":
                if kind == messages.CERTIFICATE:
                    self.answered_request = True
                    self.certificate_sent = messages.has_certificates(data, version)
            elif kind == messages.CERTIFICATE:
                self.chain_message = (data, version)
            elif kind == messages.CERTIFICATE_REQUEST:
                self.request_message = (data, version)
            elif kind == messages.NEW_SESSION_TICKET:
                self.session_ticket = True
        elif content == messages.ALERT and direction == "read":
            self.alert = messages.alert_name(data, version) or self.alert


def observe(context: ssl.SSLContext) -> None:
    """Make every handshake of `context` tell what it sees.

    `SSLContext._msg_callback` is CPython's door to OpenSSL's documented SSL_CTX_set_msg_callback;
    it has been there since 3.8 and has no public name. Its setter in `ssl` wraps every message in
    three enums, which costs more than all else here, so the setter below it is used.
    """
    context.sslobject_class = ObservedTls
    base = ssl.SSLContext.__mro__[1]
    vars(base)["_msg_callback"].__set__(context, ObservedTls.saw)


class Handshake:
    """Drives one client handshake and the data after it; the caller carries the bytes.

    `context` must have been given to `observe`. `outcome` is None until there is a verdict.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        if not isinstance(tls, ObservedTls):
            raise TypeError("the context is not observed")
        self._tls = tls
        self._version: str | None = None
        self._cipher_suite: str | None = None
        self._first = True
        self._early = b""
        self.outcome: HandshakeOutcome | None = None

    @property
    def established(self) -> bool:
        """Our side of the handshake is done; in TLS 1.3 the server may still refuse us."""
        return self._version is not None

    def receive(self, data: bytes) -> None:
        """Take bytes from the network; empty means that the peer closed."""
        if not data:
            self._incoming.write_eof()
        elif self._first and not _looks_like_tls(data):
            self.outcome = self._failed(Failure(Reason.NOT_TLS, _beginning(data)))
            return
        else:
            self._incoming.write(data)
        self._first = False
        if self.outcome is None:
            self._advance()

    def to_send(self) -> bytes:
        """Give the bytes that must go out now."""
        if not self.established and self.outcome is None:
            self._advance()
        return self._outgoing.read()

    def broken(self, failure: Failure) -> None:
        """Take note that the connection broke, which is never a verdict."""
        if self.outcome is None:
            answered = self._tls.answered_request
            verdict = ClientAuth.UNCONFIRMED if answered else ClientAuth.NOT_REACHED
            self.outcome = self._outcome(verdict, failure)

    def give_up_waiting(self) -> HandshakeOutcome:
        """Return the outcome; without a verdict in time, say so rather than guess."""
        if self.outcome is None:
            self.outcome = self._outcome(ClientAuth.UNCONFIRMED)
        return self.outcome

    def seen(self) -> HandshakeOutcome:
        """Return the outcome with what came after it: an alert, a late request for a certificate.

        A verdict on what a late request brought is an alert, or stands in the application's answer.
        """
        outcome = self.give_up_waiting()
        asked_late = self._tls.request_message is not None and not outcome.certificate_requested
        verdict = verdict_of(self.alert) if asked_late else outcome.client_auth
        return self._outcome(verdict, outcome.failure)

    @property
    def has_to_send(self) -> bool:
        """Bytes wait to go out."""
        return self._outgoing.pending > 0

    def write(self, plaintext: bytes) -> None:
        """Encrypt application data; `to_send` then has it. A dead connection drops it."""
        try:
            self._tls.write(plaintext)
        except ssl.SSLError:
            # What killed the connection is told by the read that follows.
            return

    def read(self) -> bytes | Failure | None:
        """Return application data, b"" after a clean close, None if more bytes are needed.

        A Failure is an alert (`alert` then has its name) or a connection that was cut.
        """
        if self._early:
            data, self._early = self._early, b""
            return data
        try:
            return self._tls.read(_READ_SIZE)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError:
            return Failure(Reason.TLS_EOF, "the connection was cut without close_notify")
        except ssl.SSLError as error:
            return self._refusal() if self._tls.alert else _complaint(error)

    @property
    def alert(self) -> str | None:
        """The last fatal alert that the server sent."""
        return self._tls.alert

    def _advance(self) -> None:
        # TLS 1.3 ends on our side before the server has judged our certificate
        # (RFC 8446 §4.4.2.4): the verdict is an alert or a ticket, seen only by reading.
        try:
            if not self.established:
                self._tls.do_handshake()
                # Read them now: a fatal alert makes OpenSSL forget them.
                self._version = self._tls.version()
                cipher = self._tls.cipher()
                self._cipher_suite = cipher[0] if cipher else None
            if self._tls.request_message is None:
                self.outcome = self._outcome(ClientAuth.NOT_REQUESTED)
            elif self._version != "TLSv1.3":
                # RFC 5246 §7.4.9: the server's Finished came after it had judged us.
                self.outcome = self._outcome(ClientAuth.ACCEPTED)
            else:
                self._early = self._tls.read(_READ_SIZE)
                if self._early:
                    self.outcome = self._outcome(ClientAuth.ACCEPTED)
                else:
                    self._ended("closed")
        except ssl.SSLWantReadError:
            if self.established and self._tls.session_ticket:
                self.outcome = self._outcome(ClientAuth.ACCEPTED)
        except ssl.SSLCertVerificationError as error:
            self.outcome = self._failed(self._untrusted(error))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            self._ended("cut" if isinstance(error, ssl.SSLEOFError) else "closed")
        except ssl.SSLError as error:
            self.outcome = self._alerted() if self._tls.alert else self._failed(_complaint(error))

    def _ended(self, how: str) -> None:
        # Some servers refuse like this (Node and Java's HttpsServer cut, nginx's stream module
        # closes), but nobody said so.
        when = "right after" if self._tls.answered_request else "before"
        self.broken(Failure(Reason.TLS_EOF, f"{how} {when} our answer about a certificate"))

    def _alerted(self) -> HandshakeOutcome:
        if self._tls.answered_request:
            return self._outcome(verdict_of(self._tls.alert), self._refusal())
        reason = _ALERTS_BEFORE.get(self._tls.alert or "", Reason.TLS_HANDSHAKE_FAILURE)
        return self._failed(Failure(reason, f"alert {self._tls.alert}"))

    def _refusal(self) -> Failure:
        alert = self._tls.alert or ""
        if not self._tls.certificate_sent and (
            alert in _ALSO_WITHOUT_CERTIFICATE or alert in _REFUSALS
        ):
            return Failure(Reason.CLIENT_CERT_REQUIRED, f"alert {alert}, we sent no certificate")
        return Failure(_REFUSALS.get(alert, Reason.TLS_HANDSHAKE_FAILURE), f"alert {alert}")

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> Failure:
        server_chain = self._server_chain()
        reason = _VERIFICATION.get(error.verify_code, Reason.SERVER_UNTRUSTED)
        if reason is not Reason.SERVER_UNTRUSTED:
            return Failure(reason, error.verify_message)
        if missing := chain.missing_intermediate(server_chain):
            return Failure(Reason.SERVER_INCOMPLETE_CHAIN, f"missing issuer: {missing}")
        path = chain.path_from_leaf(server_chain)
        issuer = f", last issuer: {path[-1].issuer}" if path else ""
        return Failure(reason, error.verify_message + issuer)

    def _failed(self, failure: Failure) -> HandshakeOutcome:
        return self._outcome(ClientAuth.NOT_REACHED, failure)

    def _server_chain(self) -> tuple[Certificate, ...]:
        message = self._tls.chain_message
        return messages.server_chain(*message) if message else ()

    def _negotiated(self) -> str | None:
        # SSL_version() says nothing before the handshake is done; the messages do.
        message = self._tls.chain_message
        return messages.VERSION_NAMES.get(message[1]) if message else None

    def _outcome(self, verdict: ClientAuth, failure: Failure | None = None) -> HandshakeOutcome:
        request = self._tls.request_message
        return HandshakeOutcome(
            client_auth=verdict,
            tls_version=self._version or self._negotiated(),
            cipher_suite=self._cipher_suite,
            server_chain=self._server_chain(),
            certificate_requested=request is not None,
            certificate_sent=self._tls.certificate_sent,
            acceptable_issuers=messages.acceptable_issuers(*request) if request else (),
            session_ticket=self._tls.session_ticket,
            alert=self._tls.alert,
            failure=failure,
        )


def _looks_like_tls(data: bytes) -> bool:
    """Tell whether bytes can begin a TLS record (RFC 8446 §5.1): a content type, then 3.x."""
    alert, handshake = messages.ALERT, messages.HANDSHAKE
    return data[0] in {alert, handshake} and (len(data) == 1 or data[1] == 0x03)  # noqa: PLR2004


def _beginning(data: bytes) -> str:
    # A status line tells most; anything else could be an echo of what a proxy was sent.
    shown = data[:12].decode("ascii", "replace") if data.startswith(b"HTTP/") else data[:3].hex(" ")
    return f"it began with {shown}"


def _complaint(error: ssl.SSLError) -> Failure:
    word = error.reason or type(error).__name__
    return Failure(_COMPLAINTS.get(word, Reason.TLS_HANDSHAKE_FAILURE), word.lower())
