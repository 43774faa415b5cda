import os
import socket
import time
import uuid
from contextlib import contextmanager

import pytest

from agent.systemd import Notifier, watchdog_interval


@contextmanager
def manager(address):
    """Listen as the service manager does; give a function that returns the next datagram."""
    bound = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(bound)
        receiver.settimeout(5)
        yield lambda: receiver.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def address(request, tmp_path):
    return str(tmp_path / "n") if request.param == "path" else f"@sfmtls-{uuid.uuid4()}"


def test_every_notification_arrives_as_systemd_spells_it(address):
    with manager(address) as received:
        notifier = Notifier(address)

        assert notifier.ready()
        assert received() == "READY=1"
        assert notifier.stopping()
        assert received() == "STOPPING=1"
        assert notifier.watchdog()
        assert received() == "WATCHDOG=1"
        assert notifier.status("8 orgs, 2 failing")
        assert received() == "STATUS=8 orgs, 2 failing"


def test_reloading_carries_the_moment_on_the_monotonic_clock(address):
    with manager(address) as received:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert Notifier(address).reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        state, moment = received().split("\n")

    assert state == "RELOADING=1"
    name, _, microseconds = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= after


def test_a_status_cannot_smuggle_in_another_assignment(address):
    with manager(address) as received:
        assert Notifier(address).status("fine\nSTOPPING=1\tnow \udcff")
        assert received() == "STATUS=fine STOPPING=1 now ?"


@pytest.mark.parametrize("missing", [None, ""])
def test_without_a_service_manager_nothing_is_sent(missing):
    notifier = Notifier(missing)

    assert not notifier.ready()
    assert not notifier.reloading()
    assert not notifier.watchdog()


@pytest.mark.parametrize("broken", ["/nonexistent/notify", "x" * 300, "/a\0b"])
def test_a_socket_that_cannot_be_reached_is_told_and_not_raised(broken):
    assert Notifier(broken).ready() is False


def test_a_full_queue_does_not_make_the_agent_wait(address):
    with manager(address) as received:
        notifier = Notifier(address)
        sent = 0
        before = time.monotonic()
        while notifier.watchdog():
            sent += 1
            before = time.monotonic()
        assert sent > 0
        assert time.monotonic() - before < 1

        assert received() == "WATCHDOG=1"
        assert notifier.watchdog()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "me"}, None),
    ],
)
def test_the_watchdog_s_interval_is_read_only_when_it_is_meant_for_this_process(
    environment, expected
):
    assert watchdog_interval(environment) == expected
