"""What systemd is told: READY, RELOADING, STOPPING, STATUS and WATCHDOG (sd_notify(3)).

Nothing here may stop the agent: without systemd, or when its socket is gone, a notification is
simply not delivered.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends datagrams to the service manager; each method tells whether one was handed over.

    `address` is the value of $NOTIFY_SOCKET: an absolute path, or "@" and a name in the abstract
    namespace; None when the agent was not started by a service manager.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address or None

    def ready(self) -> bool:
        """Say that start-up, or a reload, is finished."""
        return self._send("READY=1")

    def reloading(self) -> bool:
        """Say that the configuration is being read again; `ready` must follow."""
        # Type=notify-reload wants the moment too (systemd.service(5)), on the monotonic clock.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> bool:
        """Say that the agent is on its way out."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """Show one line of text in `systemctl status`."""
        return self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> bool:
        """Say that the agent is still alive."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> bool:
        if self._address is None:
            return False
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        message = "\n".join(assignments).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue must not make the event loop wait.
                sender.settimeout(0)
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
