"""What systemd is told, and what it hands over: sd_notify(3), sd_listen_fds(3).

No notification may stop the agent: without systemd, or when its socket is gone, it is simply not
delivered.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

_MICROSECONDS: Final = 1_000_000

# How long systemd is waited for when its queue is full, with what it must not miss: it kills a
# service that never told that it is ready.
_PATIENCE_SECONDS: Final = 1.0

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Notifier:
    """Sends datagrams to the service manager; each method tells whether one was handed over.

    `address` is the value of $NOTIFY_SOCKET: an absolute path, or "@" and a name in the abstract
    namespace; None when the agent was not started by a service manager.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address or None

    def ready(self) -> bool:
        """Say that start-up, or a reload, is finished."""
        return self._send("READY=1", patience=_PATIENCE_SECONDS)

    def reloading(self) -> bool:
        """Say that the configuration is being read again; `ready` must follow."""
        # Type=notify-reload wants the moment too (systemd.service(5)), on the monotonic clock.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}", patience=_PATIENCE_SECONDS)

    def stopping(self) -> bool:
        """Say that the agent is on its way out."""
        return self._send("STOPPING=1", patience=_PATIENCE_SECONDS)

    def status(self, text: str) -> bool:
        """Show one line of text in `systemctl status`."""
        return self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> bool:
        """Say that the agent is still alive."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str, patience: float = 0.0) -> bool:
        if self._address is None:
            return False
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        message = "\n".join(assignments).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # Without patience a full queue does not make the event loop wait.
                sender.settimeout(patience)
                sender.connect(address)
                sender.send(message)
        except (OSError, ValueError):
            return False
        return True


def watchdog_interval(environment: Mapping[str, str]) -> float | None:
    """Return the seconds within which `watchdog` must be called again, or None when nobody waits.

    systemd recommends to call at half that time (sd_watchdog_enabled(3)). $WATCHDOG_PID names the
    process that is meant; a child that inherited the variables is not.
    """
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        process = int(environment.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    if microseconds <= 0 or process != os.getpid():
        return None
    return microseconds / _MICROSECONDS


class SocketError(Exception):
    """What systemd handed over cannot be served on; the message says which socket and why."""


def listen_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the TCP sockets that systemd listens on for this process, or none; else SocketError.

    The variables that tell of them are taken out of `environ`: they are not for a child's eyes.
    """
    count, process = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    found: list[socket.socket] = []
    try:
        for number in range(int(count)):
            name = names[number] if number < len(names) else ""
            found.append(_listening(_FIRST_DESCRIPTOR + number, name))
    except SocketError:
        for one in found:
            one.close()
        raise
    return found


def _listening(descriptor: int, name: str) -> socket.socket:
    which = f"socket {name or descriptor} of systemd"
    try:
        one = socket.socket(fileno=descriptor)
    except OSError as error:
        raise SocketError(f"{which} is none: {error.strerror}") from None
    one.set_inheritable(False)
    # Who is let in without a password depends on the address, and AF_UNIX has none.
    tcp = one.family in _FAMILIES and one.type is socket.SOCK_STREAM
    if tcp and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return one
    one.close()
    why = "does not listen (Accept=no is needed)" if tcp else "is not for TCP (ListenStream=)"
    raise SocketError(f"{which} {why}")
