import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import require_program

from agent.systemd import Notifier, watchdog_interval

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "systemd"


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


# --- sockets that systemd listens on

# What systemd hands over is from descriptor 3 on.
SERVICE = """
import json, os, sys
from agent.systemd import SocketError, listen_sockets

process, names, *descriptors = sys.argv[1:]
for number, descriptor in enumerate(map(int, descriptors), start=3):
    os.dup2(descriptor, number)
environ = {
    "LISTEN_PID": process or str(os.getpid()),
    "LISTEN_FDS": str(len(descriptors)),
    "LISTEN_FDNAMES": names,
    "LANG": "C",
}
try:
    found = [[one.getsockname()[1], one.get_inheritable()] for one in listen_sockets(environ)]
except SocketError as error:
    found = str(error)
print(json.dumps([found, environ]))
"""


def handed_over(*files, names="web", process=""):
    """Return the sockets' ports, and whether a child would have them, or what is said instead."""
    with ExitStack() as ours:
        numbers = [fcntl.fcntl(file, fcntl.F_DUPFD, 100) for file in files]
        for number in numbers:
            ours.callback(os.close, number)
        ended = subprocess.run(
            [sys.executable, "-c", SERVICE, process, names, *map(str, numbers)],
            check=True,
            capture_output=True,
            cwd=ROOT,
            pass_fds=numbers,
        )
    found, environ = json.loads(ended.stdout)
    assert environ == {"LANG": "C"}, "a child must not take them for its own"
    return found


def test_every_socket_that_systemd_hands_over_is_taken_and_left_to_no_child():
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as second,
    ):
        ports = [each.getsockname()[1] for each in (first, second)]

        assert handed_over(first, second, names="web:web") == [[port, False] for port in ports]


def test_a_socket_for_another_process_is_not_taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert handed_over(listening, process="1") == []
        assert handed_over() == []


def unix():
    one = socket.socket(socket.AF_UNIX)
    one.bind(f"\0{uuid.uuid4()}")
    one.listen()
    return one


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (unix, "is not for TCP (ListenStream=)"),
        (lambda: socket.socket(type=socket.SOCK_DGRAM), "is not for TCP (ListenStream=)"),
        (socket.socket, "does not listen (Accept=no is needed)"),
        (Path(__file__).open, "is none: Socket operation on non-socket"),
    ],
)
def test_what_cannot_be_served_on_is_named(make, why):
    with make() as useless, socket.create_server(("127.0.0.1", 0)) as good:
        assert handed_over(good, useless, names="web:other") == f"socket other of systemd {why}"


# --- units


def analyzed(*command):
    """Return what systemd-analyze says, on both streams."""
    ended = subprocess.run(
        [require_program("systemd-analyze"), *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.component
def test_the_service_is_exposed_to_no_more_than_its_work_needs():
    code, report = analyzed(
        "security", "--offline=true", "--threshold=15", UNITS / "sfmtls-agent.service"
    )
    found = set(re.findall(r"^✗ (\S+)", report, re.MULTILINE))

    assert code == 0, report
    assert found == {
        "DeviceAllow=",  # char-rtc, which ProtectClock= lets be read
        "IPAddressDeny=",  # only the operator knows whom it may speak with: network.conf.example
        "PrivateMounts=",  # systemd counts it, although each Protect…= gives mounts of its own
        "PrivateNetwork=",
        "ProcSubset=",
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "RestrictAddressFamilies=~AF_UNIX",
        "RootDirectory=/RootImage=",
    }


def installed(folder, change=lambda text: text):
    """Write the units to a folder, so changed, with a program that is there."""
    units = [folder / name for name in ("sfmtls-agent.service", "sfmtls-agent.socket")]
    for unit in units:
        text = (UNITS / unit.name).read_text()
        unit.write_text(change(text.replace("ExecStart=sfmtls-agent ", "ExecStart=/bin/true ")))
    return units


@pytest.mark.component
def test_systemd_has_nothing_to_say_against_the_units(tmp_path):
    good = analyzed("verify", "--man=no", *installed(tmp_path))
    bad = analyzed(
        "verify",
        "--man=no",
        *installed(tmp_path, lambda text: text.replace("NoNewPrivileges=", "NoNewPrivilege=")),
    )

    assert good == (0, "")
    assert "Unknown key 'NoNewPrivilege' in section [Service]" in bad[1]


@pytest.mark.component
@pytest.mark.parametrize("name", ["credentials", "network"])
def test_an_example_of_a_drop_in_says_only_what_systemd_knows(tmp_path, name):
    text = (UNITS / "sfmtls-agent.service.d" / f"{name}.conf.example").read_text()
    folder = tmp_path / "sfmtls-agent.service.d"
    folder.mkdir()
    units = installed(tmp_path)
    drop_in = folder / f"{name}.conf"

    drop_in.write_text(text)
    as_it_is = analyzed("verify", "--man=no", *units)
    drop_in.write_text(re.sub(r"^#(?=[A-Z]\w+=)", "", text, flags=re.MULTILINE))
    all_made = analyzed("verify", "--man=no", *units)
    drop_in.write_text(text + "Nonsense=1\n")
    spoiled = analyzed("verify", "--man=no", *units)

    assert as_it_is == all_made == (0, "")
    assert "Unknown key 'Nonsense'" in spoiled[1], "it was read"
