"""A server that asks for a client certificate and accepts any, but remembers OpenSSL's verdict.

Web servers with a "soft" door do this (nginx's `ssl_verify_client on` for one): the handshake
succeeds whatever the client presents and a page tells what was wrong. Python's ssl cannot: with
CERT_OPTIONAL a certificate that does not verify ends the handshake. So the verify callback that
OpenSSL documents for this purpose, SSL_CTX_set_verify(3), is set through ctypes, here and nowhere
else.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
from typing import Final

_VERIFY_PEER: Final = 0x01  # SSL_VERIFY_PEER, openssl/ssl.h
_SET_SESSION_CACHE_MODE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE, openssl/ssl.h
_SESSION_CACHE_OFF: Final = 0x0000  # SSL_SESS_CACHE_OFF, openssl/ssl.h

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

# The extension module's own handle also finds the symbols of the libssl it is linked with; where
# it is built into the interpreter, the interpreter's does.
_openssl: Final = ctypes.CDLL(getattr(_ssl, "__file__", None))
_openssl.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, _Callback]
_openssl.SSL_CTX_set_verify.restype = None
_openssl.SSL_CTX_ctrl.argtypes = [
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_long,
    ctypes.c_void_p,
]
_openssl.SSL_CTX_ctrl.restype = ctypes.c_long
_openssl.X509_STORE_CTX_get_error.argtypes = [ctypes.c_void_p]
_openssl.X509_STORE_CTX_get_error.restype = ctypes.c_int
_openssl.X509_verify_cert_error_string.argtypes = [ctypes.c_long]
_openssl.X509_verify_cert_error_string.restype = ctypes.c_char_p


class Verdicts:
    """Makes one server context accept any client certificate; keeps what OpenSSL found wrong.

    Call `take()` right after the handshake step that returned or raised: it gives the errors of
    that handshake, first error first, in OpenSSL's words. One context belongs to one thread.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._errors: list[str] = []
        # OpenSSL keeps a bare pointer to the callback: the object must live as long as the context.
        self._callback = _Callback(self._note)
        pointer = _native(context)
        _openssl.SSL_CTX_set_verify(pointer, _VERIFY_PEER, self._callback)
        # A resumed handshake shows no certificates, so there would be nothing to judge: tickets
        # are sent, as such servers do, but lead to a session that nobody kept.
        context.options |= ssl.OP_NO_TICKET
        _openssl.SSL_CTX_ctrl(pointer, _SET_SESSION_CACHE_MODE, _SESSION_CACHE_OFF, None)

    def take(self) -> tuple[str, ...]:
        """Return the errors found since the last call, and forget them."""
        errors = tuple(self._errors)
        self._errors.clear()
        return errors

    def _note(self, verified: int, store_context: int) -> int:
        if not verified:
            code = _openssl.X509_STORE_CTX_get_error(store_context)
            self._errors.append(_openssl.X509_verify_cert_error_string(code).decode())
        return 1


def _native(context: ssl.SSLContext) -> ctypes.c_void_p:
    # CPython's PySSLContext is the object header followed by SSL_CTX *ctx (Modules/_ssl.c).
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
