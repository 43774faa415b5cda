"""The Debian package in a machine whose PID 1 is systemd: what the unit promises is in force.

One machine serves the tests, each of which finds the service as a fresh package leaves it. The far
sides are simulators in this process whose sockets are in the machine's network.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import re
import shutil
import sys
import tarfile
import textwrap
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import test_packages
from cryptography.hazmat.primitives import serialization
from fleet import Fleet
from machine import booted, prepared
from prometheus_client.parser import text_string_to_metric_families

import agent
from agent.simulator.http import Delivery
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import Asked

if TYPE_CHECKING:
    from machine import Machine

# The first run installs a Debian, and builds the package.
pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
UNIT = "sfmtls-agent.service"
CONFIGURATION = "etc/sfmtls-agent"
DROP_INS = f"etc/systemd/system/{UNIT}.d"
PORT = 10843
# What takes long in the unit, so that tests need not wait for it.
SOON = "RestartSec=300ms"
# Runs the agent as its own launcher does, but waits while there is /srv/hold, stops the event loop
# at SIGUSR1, and only the schedule at SIGUSR2.
LAUNCHER = """\
import gc, os, signal, sys, time
sys.path.insert(0, "/usr/lib/sfmtls-agent")
from agent.cli import main
from apscheduler.schedulers.base import BaseScheduler

def stop_the_schedule(*_):
    # What the agent froze is not among the objects.
    gc.unfreeze()
    (scheduler,) = (each for each in gc.get_objects() if isinstance(each, BaseScheduler))
    scheduler.pause()

signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
signal.signal(signal.SIGUSR2, stop_the_schedule)
while os.path.exists("/srv/hold"):
    time.sleep(0.02)
main()
"""
LAUNCHED = """\
ExecStart=
ExecStart=/usr/bin/python3 -IS /srv/launcher.py run --config /etc/sfmtls-agent/config.toml"""


async def until(ask, wanted, seconds=15.0):
    """Return as soon as `ask()` gives what is wanted: this value, or one that it is true of."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        if wanted(answer) if callable(wanted) else answer == wanted:
            return
        assert time.monotonic() < end, f"after {seconds} s it is {answer!r}"
        await asyncio.sleep(0.1)


class Service:
    """The service in a machine, and the orgs that it watches."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.configuration = machine.root / CONFIGURATION
        self.fleet = Fleet(self.configuration)
        # systemd says where, and the port stays.
        self.fleet._head = self.fleet._head.replace('state_directory = "state"\n', "").replace(
            ":0", f":{PORT}"
        )
        self.fleet.write()

    async def add(self, name, scenario="healthy", **keys):
        with self.machine.network():
            return await self.fleet.add(name, scenario, **keys)

    async def drop_in(self, text, name="test.conf"):
        folder = self.machine.root / DROP_INS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"[Service]\n{text}\n")
        await self.systemctl("daemon-reload")

    async def systemctl(self, *words):
        return await self.machine.run("systemctl", *words)

    async def start(self):
        answer = await self.machine.attempt("systemctl", "start", UNIT)
        assert answer.code == 0, await self.journal()

    async def shown(self, key):
        return (await self.machine.shown(UNIT))[key]

    async def process(self):
        return int(await self.shown("MainPID"))

    async def restarts(self):
        return int(await self.shown("NRestarts"))

    async def journal(self):
        return await self.machine.journal(UNIT)

    async def ask(self, path="/metrics"):
        """Return what the endpoint answers, head and body."""
        reader, writer = await self.connect(path)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()

    async def connect(self, path="/metrics"):
        with self.machine.network():
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return reader, writer

    async def values(self, name, **labels):
        """Return the samples of a metric with these labels, by org."""
        text = await self.ask()
        return {
            sample.labels.get("org", ""): sample.value
            for family in text_string_to_metric_families(text.partition("\r\n\r\n")[2])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }

    async def seen(self, probe):
        """Return for each org whether the probe succeeds; nothing while the endpoint is away."""
        try:
            return await self.values("sfmtls_probe_success", probe=probe)
        except OSError:
            return {}

    async def well(self, *names, probe="handshake"):
        """Return when the agent watches these orgs, and the probe succeeds in all of them."""
        await until(partial(self.seen, probe), dict.fromkeys(names, 1.0))


# --- the machine


package = test_packages.package


@pytest.fixture(scope="session", autouse=True)
def bootable():
    """Skip before anything is built for nothing."""
    return prepared()


@contextmanager
def machine_with(**packages):
    """Boot a machine that finds these packages as /opt/NAME.deb."""
    bound = (f"--bind-ro={path}:/opt/{name}.deb" for name, path in packages.items())
    with booted(*bound) as machine:
        (machine.root / "srv/launcher.py").write_text(LAUNCHER)
        yield machine


async def install(machine, name):
    command = ("apt-get", "install", "--yes", "--allow-downgrades")
    return await machine.run(*command, f"/opt/{name}.deb")


def renumbered(deb, folder, version):
    """Return the package under another version, in an eighth of the time that building takes."""
    test_packages.output("dpkg-deb", "--raw-extract", deb, folder / "x")
    control = folder / "x/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    test_packages.output("dpkg-deb", "-z1", "--build", folder / "x", folder / "renumbered.deb")
    return folder / "renumbered.deb"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(package):
    deb, _ = package
    with machine_with(now=deb) as machine:
        await install(machine, "now")
        yield machine


@pytest.fixture
async def service(shared):
    machine = shared
    found = Service(machine)
    yield found
    await machine.run("rm", "-rf", "/srv/hold", f"/{DROP_INS}")
    await machine.run("systemctl", "daemon-reload")
    await machine.run("systemctl", "stop", "sfmtls-agent.socket", UNIT)
    await machine.attempt("systemctl", "reset-failed", UNIT, "sfmtls-agent.socket")
    await machine.run("systemctl", "clean", "--what=state", UNIT)
    await machine.run("find", f"/{CONFIGURATION}", "-mindepth", "1", "-delete")
    # The next test's journal begins here.
    await machine.run("journalctl", "--rotate")
    await machine.run("journalctl", "--vacuum-time=1us")
    await found.fleet.stop()


# --- start, reload, stop


async def test_it_is_active_only_once_it_serves(service):
    await service.add("emea")
    await service.drop_in(LAUNCHED)
    hold = service.machine.root / "srv/hold"
    hold.touch()

    starting = asyncio.create_task(service.start())
    await until(lambda: service.shown("ActiveState"), "activating")
    await asyncio.sleep(0.5)
    assert await service.shown("ActiveState") == "activating"
    assert not starting.done()
    hold.unlink()
    await starting
    answer = await service.ask("/-/healthy")

    assert answer.startswith("HTTP/1.1 200 ")
    assert await service.shown("ActiveState") == "active"
    assert await service.shown("StatusText") == "watching 1 org"
    await service.well("emea", probe="session")


async def test_a_reload_takes_a_good_configuration_and_leaves_a_bad_one(service):
    await service.add("emea")
    await service.start()
    process = await service.process()
    await service.add("apac")
    await service.systemctl("reload", UNIT)
    await service.well("emea", "apac")
    good = await service.shown("StatusText")

    service.fleet.write(tail="nonsense = 1\n")
    await service.systemctl("reload", UNIT)
    await until(lambda: service.values("sfmtls_config_last_reload_successful"), {"": 0.0})
    bad = await service.shown("StatusText")
    await service.well("emea", "apac")
    service.fleet.write()
    await service.systemctl("reload", UNIT)
    await until(lambda: service.shown("StatusText"), good)

    assert good == "watching 2 orgs"
    assert bad == "watching 2 orgs; the last reload was refused, the log says why"
    assert "nonsense" in await service.journal()
    grave = await service.machine.run(
        "journalctl", "--output=cat", "--priority=err", f"--unit={UNIT}"
    )
    assert [("nonsense" in line, "started" in line) for line in grave.splitlines()] == [
        (True, False)
    ]
    assert (await service.shown("ActiveState"), await service.process()) == ("active", process)


async def test_a_stop_lets_the_cycle_under_way_end_and_the_watchdog_lets_it(service):
    slow = dict.fromkeys(Asked, Delivery(delay=0.8))
    service.fleet._head = re.sub(
        r"timeouts = .*", "timeouts = { http = 1, cycle = 3.9 }", service.fleet._head
    ).replace('interval = "1s"', 'interval = "4s"')
    simulator = await service.add("emea")
    simulator.scenario = dataclasses.replace(simulator.scenario, deliveries=slow)
    # Shorter than what is left of the cycle.
    await service.drop_in("WatchdogSec=1")
    await service.start()
    await until(lambda: simulator.record.logins, 1)
    assert simulator.record.count("getUserInfo") == 0

    await service.systemctl("stop", UNIT)
    shown = await service.machine.shown(UNIT)
    journal = await service.journal()

    assert simulator.record.count("getUserInfo") == 1, "the cycle went on to its end"
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
    assert "event=stopping in_flight=1" in journal
    assert "event=stopped cancelled=0 never_began=0" in journal


# --- recovery


async def test_after_kill_it_is_back_and_its_breaker_is_as_it_was(service):
    simulator = await service.add("emea")
    (service.configuration / "password.txt").write_text("wrong")
    await service.drop_in(SOON)
    await service.start()
    await until(lambda: service.values("sfmtls_login_breaker_open"), {"emea": 1.0})
    assert simulator.record.logins == 1

    killed = await service.process()
    await service.machine.run("kill", "-KILL", str(killed))
    await until(service.restarts, 1)
    await until(lambda: service.shown("ActiveState"), "active")
    before = len(simulator.record.connections)
    await until(lambda: len(simulator.record.connections), lambda count: count > before + 3)

    assert await service.process() != killed
    assert await service.values("sfmtls_login_breaker_open") == {"emea": 1.0}
    assert simulator.record.logins == 1
    # But for the breaker it would have logged in.
    told = await service.machine.run("sfmtls-agent", "breaker", "reset", "emea")
    await service.systemctl("restart", UNIT)
    assert "one login may be tried" in told
    await until(lambda: simulator.record.logins, 2)


async def test_what_root_asks_of_the_state_does_not_take_it_from_the_service(service):
    await service.add("emea")
    await service.start()
    await service.well("emea", probe="login")
    await service.systemctl("stop", UNIT)
    shown = await service.machine.run("sfmtls-agent", "breaker", "show")
    simulator = service.fleet.simulators["emea"]
    simulator.record.calls.clear()

    await service.start()
    await service.well("emea")

    assert "emea" in shown
    state = service.machine.root / "var/lib/private/sfmtls-agent"
    owners = {path.stat().st_uid for path in (state, *state.iterdir())}
    assert owners == {int(await service.shown("UID"))}
    assert await service.values("sfmtls_probe_skipped_total", cause="state_unavailable") == {}


@pytest.mark.parametrize(("wedged", "answers"), [("USR1", False), ("USR2", True)])
async def test_the_watchdog_restarts_an_agent_whose_schedule_stands_still(service, wedged, answers):
    await service.add("emea")
    await service.drop_in(f"{LAUNCHED}\n{SOON}\nWatchdogSec=2")
    await service.start()
    first = await service.process()
    await asyncio.sleep(3)
    assert (await service.restarts(), await service.process()) == (0, first), "it is fed"

    await service.machine.run("kill", f"-{wedged}", str(first))
    try:
        async with asyncio.timeout(1):
            answered = (await service.ask("/-/healthy")).startswith("HTTP/1.1 200 ")
    except TimeoutError:
        answered = False
    await until(service.restarts, 1)
    await service.well("emea")

    # Whether the endpoint lives is not what counts.
    assert answered is answers
    assert await service.process() != first
    journal = await service.journal()
    assert "Watchdog timeout (limit 2s)!" in journal
    # Where it stood still; a process that was stopped has nobody to write that down.
    assert not answers or "Fatal Python error: Aborted" in journal


async def test_a_configuration_that_cannot_be_used_is_tried_once(service):
    service.fleet.write(tail="nonsense = 1\n")
    await service.drop_in(SOON)

    refused = await service.machine.attempt("systemctl", "start", UNIT)
    await asyncio.sleep(1.5)
    shown = await service.machine.shown(UNIT)

    assert refused.code == 1
    assert (shown["ActiveState"], shown["ExecMainStatus"]) == ("failed", "78")
    assert shown["NRestarts"] == "0"
    assert "nonsense" in await service.journal()


async def test_what_may_pass_is_tried_until_it_has_passed(service):
    with service.machine.network():
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", PORT)
    await service.add("emea")
    await service.drop_in(SOON)

    refused = await service.machine.attempt("systemctl", "start", UNIT)
    await until(service.restarts, lambda count: count > 1)
    taken.close()
    await service.well("emea")

    assert refused.code == 1
    assert f"cannot listen on 127.0.0.1:{PORT}: Address already in use" in await service.journal()


# --- secrets


def uncommented(name):
    """Return an example of a drop-in with all its settings made, and these."""
    text = (ROOT / "systemd" / f"{UNIT}.d" / name).read_text()
    text, made = re.subn(r"^#(?=[A-Z]\w+=)", "", text, flags=re.MULTILINE)
    assert made
    return text, re.findall(r"^([A-Z]\w+)=(.+)$", text, re.MULTILINE)


async def test_credentials_are_for_the_service_and_for_no_one_else(service):
    """Take the example at its word: all its lines, with files where it says."""
    text, settings = uncommented("credentials.conf.example")
    pki, token, passphrase = service.fleet.pki, "t0ken-c4nary", "p4ssphrase-canary"
    issued = pki.client(ClientCertificate.GOOD)
    key = serialization.load_pem_private_key(issued.key_pem(), None)
    secrets = {
        "emea-certificate": issued.chain_pem(),
        "emea-key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        ),
        "emea-passphrase": passphrase.encode(),
        "emea-password": PASSWORD.reveal().encode(),
        "emea-token": token.encode(),
    }
    machine = service.machine
    for setting, value in settings:
        name, _, path = value.partition(":")
        plain = machine.root / "run" / name if "Encrypted" in setting else machine.root / path[1:]
        await machine.run("mkdir", "-p", str(Path(path).parent))
        plain.parent.mkdir(mode=0o700, exist_ok=True)
        plain.touch(mode=0o600)
        plain.write_bytes(secrets[name])
        if "Encrypted" in setting:
            made = ("systemd-creds", "encrypt", f"--name={name}")
            await machine.run(*made, f"/run/{name}", path)
            plain.unlink()
            assert secrets[name] not in (machine.root / path[1:]).read_bytes()
    assert {value.partition(":")[0] for _, value in settings} == set(secrets)
    folder = machine.root / DROP_INS
    folder.mkdir(parents=True)
    (folder / "credentials.conf").write_text(text)
    await service.systemctl("daemon-reload")
    with machine.network():
        simulator = Simulator(SCENARIOS["healthy"], pki, security_token=token)
        await simulator.start()
    service.fleet.simulators["emea"] = simulator
    service.fleet.configure(
        "emea",
        certificate={"credential": "emea-certificate"},
        private_key={"credential": "emea-key"},
        private_key_passphrase={"credential": "emea-passphrase"},
        password={"credential": "emea-password"},
        security_token={"credential": "emea-token"},
    )

    await service.start()
    await service.well("emea", probe="session")
    process = await service.process()
    files = f"/run/credentials/{UNIT}"
    found = {name: (machine.root / files[1:] / name).read_bytes() for name in secrets}
    other = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--")
    refusals = [
        await machine.attempt(*other, *command)
        for command in (
            ("cat", f"{files}/emea-password"),
            ("ls", files),
            ("cat", f"/proc/{process}/environ"),
            ("ls", f"/proc/{process}/root/{files}"),
            ("cat", "/etc/sfmtls-agent/secrets/emea.key"),
        )
    ]
    inside = await machine.run("cat", f"/proc/{process}/environ", f"/proc/{process}/cmdline")
    told = inside + await service.ask() + await service.journal()

    assert found == secrets, "root sees them there"
    assert (await machine.run(*other, "cat", "/etc/os-release")).startswith("PRETTY_NAME")
    for refusal in refusals:
        assert refusal.code
        assert "Permission denied" in refusal.text
    assert f"CREDENTIALS_DIRECTORY={files}" in inside
    for secret in secrets.values():
        assert secret.decode() not in told


async def test_addresses_that_the_drop_in_does_not_name_are_out_of_reach(service):
    text, settings = uncommented("network.conf.example")
    machine = service.machine
    named = settings[-1][1]
    for address in (named, "192.0.2.77"):
        await machine.run("ip", "address", "replace", f"{address}/32", "dev", "lo")
    for name, address in (("named", named), ("other", "192.0.2.77")):
        with machine.network():
            simulator = Simulator(
                SCENARIOS["healthy"], service.fleet.pki, host=address, username=f"{name}@x.example"
            )
            await simulator.start()
        service.fleet.simulators[name] = simulator
        service.fleet.configure(name, connect_to=f"{address}:{simulator.port}")
    await service.start()
    await service.well("named", "other")

    folder = machine.root / DROP_INS
    folder.mkdir(parents=True)
    (folder / "network.conf").write_text(text)
    await service.systemctl("daemon-reload")
    await service.systemctl("restart", UNIT)

    await until(lambda: service.seen("handshake"), {"named": 1.0, "other": 0.0})


# --- the sandbox

# Prints what each attempt comes to: "done", or the name of the error.
ATTEMPTS = """\
import ctypes, errno, json, mmap, os, resource, shutil, socket, stat, subprocess, sys

state = os.environ.get("STATE_DIRECTORY", "/srv/state")
libc = ctypes.CDLL(None, use_errno=True)

def write(folder):
    with open(f"{folder}/attempt-{os.getuid()}", "w") as file:
        file.write("x")

def execute():
    program = shutil.copy("/bin/true", f"{state}/program")
    os.chmod(program, 0o700)
    subprocess.run([program], check=True)

def called(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "")

def suid():
    os.chmod(shutil.copy("/bin/true", f"{state}/suid"), 0o4700)

attempts = {
    **{f"write {folder}": lambda folder=folder: write(folder) for folder in sys.argv[1:]},
    "write state": lambda: write(state),
    "execute what was written": execute,
    "make a program that others run as us": suid,
    "map memory to write and execute": lambda: mmap.mmap(
        -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ),
    "make a file in memory": lambda: os.close(os.memfd_create("x")),
    "ask the kernel about routes": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "see other processes": lambda: os.stat("/proc/1"),
    "look at the own process": lambda: os.stat("/proc/self/stat"),
    "take less time than others": lambda: os.nice(1),
    "be another kind of machine": lambda: called(libc.personality(0x0008)),
    "have a core dump": lambda: called(-(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0)),
    "serve": lambda: socket.create_server(("127.0.0.1", 0)).close(),
}
found = {}
for name, attempt in attempts.items():
    try:
        attempt()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error.errno))
print("ATTEMPTS", json.dumps(found), flush=True)
"""


async def test_what_it_needs_not_do_it_cannot_do(service):
    machine = service.machine
    places = ("/etc", "/home", "/opt", "/run", "/srv", "/usr/local", "/var/lib", "/var/log")
    folders = (*(f"{place}/open" for place in places), "/dev/shm")  # noqa: S108 - meant
    for folder in (*folders, "/srv/state"):
        await machine.run("mkdir", "-p", "-m", "1777", folder)
    (machine.root / "srv/attempts.py").write_text(ATTEMPTS)
    attempts = ("/usr/bin/python3", "/srv/attempts.py", *folders)
    await service.add("emea")
    # With all of its sandbox, beside the agent.
    await service.drop_in(f"ExecStartPost={' '.join(attempts)}")
    await service.start()

    inside = found_in(await service.journal())
    other = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--")
    outside = found_in(await machine.run(*other, *attempts))

    assert set(outside.values()) == {"done"}, "all of it can be done"
    needed = {"write state", "make a file in memory", "look at the own process", "serve"}
    assert {name for name, end in inside.items() if end == "done"} == needed
    assert {name: end for name, end in inside.items() if name not in needed} == {
        **{f"write {folder}": "EROFS" for folder in folders},
        "write /home/open": "EACCES",
        "execute what was written": "EACCES",
        "make a program that others run as us": "EPERM",
        "map memory to write and execute": "EPERM",
        "ask the kernel about routes": "EAFNOSUPPORT",
        "see other processes": "ENOENT",
        "take less time than others": "EPERM",
        "be another kind of machine": "EPERM",
        "have a core dump": "EPERM",
    }


def found_in(text):
    return json.loads(re.search(r"ATTEMPTS (.+)", text)[1])


async def test_systemd_has_nothing_to_say_against_the_units_as_installed(service):
    machine = service.machine
    told = await machine.run("systemd-analyze", "verify", "--man=no", UNIT, "sfmtls-agent.socket")
    report = await machine.run("systemd-analyze", "security", "--no-pager", UNIT)

    assert told == ""
    exposure = float(re.search(r"Overall exposure level for .*: ([\d.]+)", report)[1])
    assert exposure <= 1.5


# --- the socket


async def test_a_connection_made_while_it_restarts_is_answered_later(service):
    await service.add("emea")
    await service.drop_in(f"{LAUNCHED}\n{SOON}")
    await service.systemctl("start", "sfmtls-agent.socket", UNIT)
    await service.well("emea")
    hold = service.machine.root / "srv/hold"

    for again in (("restart", "--no-block"), ("kill", "--signal=KILL")):
        process = await service.process()
        hold.touch()
        await service.systemctl(*again, UNIT)
        await until(service.process, lambda now, old=process: now not in (0, old))
        reader, writer = await service.connect("/-/healthy")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.5)
        hold.unlink()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_starts_it_and_a_bad_configuration_makes_no_loop(service):
    service.fleet.write(tail="nonsense = 1\n")
    await service.systemctl("start", "sfmtls-agent.socket")
    reader, writer = await service.connect("/-/healthy")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await until(lambda: service.shown("ActiveState"), "failed")
    await asyncio.sleep(1)
    tried = (await service.journal()).count("Starting sfmtls-agent.service")
    listening = (await service.machine.shown("sfmtls-agent.socket"))["SubState"]

    await service.add("emea")
    answer = await service.ask("/-/healthy")

    assert (tried, listening) == (1, "listening")
    assert answer.startswith("HTTP/1.1 200 ")


# --- the package


async def test_the_package_comes_is_renewed_and_goes_without_a_trace(package, tmp_path):
    deb, _ = package
    with machine_with(now=deb, later=renumbered(deb, tmp_path, "99.0-1")) as machine:
        before = await everything(machine)
        await install(machine, "now")
        fresh = [await state_of(machine)]
        await machine.run("systemctl", "start", UNIT)
        fresh.append(await state_of(machine))
        await machine.run("mkdir", "/srv/fleet")
        service = Service(machine)
        await service.add("emea")
        await service.drop_in("TimeoutStopSec=80")
        await service.start()
        await service.well("emea", probe="login")
        old = await machine.shown(UNIT)
        ours = {path: path.read_bytes() for path in service.configuration.iterdir()}

        await install(machine, "later")
        await service.well("emea", probe="login")
        new = await machine.shown(UNIT)
        budget = await service.values("sfmtls_login_budget_remaining")
        kept = {path: path.read_bytes() for path in service.configuration.iterdir()}
        version = await machine.run(
            "dpkg-query", "--show", "--showformat=${Version}", "sfmtls-agent"
        )

        await service.systemctl("stop", UNIT)
        await install(machine, "now")
        stopped = await state_of(machine)
        await service.start()
        await machine.run("dpkg", "--purge", "sfmtls-agent")
        gone = await machine.attempt("systemctl", "is-active", UNIT)
        for path in service.configuration.iterdir():
            assert path.name != "config.toml"
        await machine.run("rm", "-r", f"/{CONFIGURATION}", f"/{DROP_INS}", "/srv/fleet")
        after = await everything(machine)
        await service.fleet.stop()

    assert fresh == [("enabled", "inactive")] * 2, "without a configuration it waits"
    assert old["MainPID"] != new["MainPID"]
    assert (new["ActiveState"], new["TimeoutStopUSec"]) == ("active", "1min 20s")
    assert budget == {"emea": 28.0}, "the login before counts"
    assert (kept, version) == (ours, "99.0-1")
    assert stopped == ("enabled", "inactive"), "what was stopped stays so"
    assert gone.text.strip() == "inactive"
    assert after == before


async def state_of(machine):
    shown = await machine.shown(UNIT)
    return shown["UnitFileState"], shown["ActiveState"]


async def everything(machine):
    """Return the paths of the machine's files, but for logs and the package system's."""
    found = await machine.run("find", "/", "-xdev", "-not", "-path", "/var/log/*")
    own = re.compile(r"/var/(lib|cache|backups)/(dpkg|apt|systemd/(timers|catalog)).*")
    return {line for line in found.splitlines() if not own.fullmatch(line)}


# --- the guide


def told(heading):
    """Return the blocks of commands under a heading of the guide."""
    text = (ROOT / "docs" / "install.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    return [
        textwrap.dedent(block)
        for block in re.findall(r"^ *```sh\n(.*?)```", section, re.DOTALL | re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Return a folder with the source tree of a release, its wheel, and those that it needs."""
    folder = tmp_path_factory.mktemp("release")
    wheel, sdist = test_packages.build(ROOT, folder / "built")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("sfmtls_agent-*")
    (source / "dist").mkdir()
    shutil.copy(wheel, source / "dist")
    source.rename(folder / "source")
    pip = (sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--require-hashes")
    # The machine's Python, not this one.
    kind = ("--only-binary=:all:", "--python-version=3.11")
    names = ("--requirement", ROOT / "requirements.txt", "--dest", folder / "wheels")
    test_packages.output(*pip, *kind, *names)
    return folder


async def test_the_guide_s_commands_install_keep_and_remove_what_they_say(release):
    with booted(f"--bind-ro={release}:/opt/release") as machine:

        async def do(block, **variables):
            settings = {
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": "/opt/release/wheels",
                "VERSION": agent.__version__,
                **variables,
            }
            exported = (f"{name}={value}" for name, value in settings.items())
            shell = ("sh", "-euxc", f"cd /opt/release/source\n{block}")
            return await machine.run("env", *exported, *shell, seconds=100)

        before = await everything(machine)
        venv, _ = told("Virtual environment")
        await do(venv)
        *_, group = told("Secrets")
        await do(group)
        service = Service(machine)
        pair = service.configuration / "secrets" / "emea.pem"
        shutil.move(service.configuration / "good.pem", pair)
        await machine.run("chgrp", "sfmtls-secrets", f"/{CONFIGURATION}/secrets/emea.pem")
        pair.chmod(0o640)
        await service.add("emea", certificate="secrets/emea.pem")
        start, _, _ = told("Configure")
        started = await do(start)
        await service.well("emea", probe="login")
        process = await service.process()
        renewed = service.fleet.deploy(ClientCertificate.GOOD, "renewed.pem").leaf
        shutil.copyfile(service.configuration / "renewed.pem", pair)
        serial = f'{renewed.serial_number:x}"'
        await until(service.ask, lambda text: serial in text)
        assert await service.process() == process, "it needed no restart"

        backup, restore = told("Back up")
        await do(backup)
        await service.well("emea", probe="login")
        await do(restore)
        await service.well("emea", probe="login")
        budget = await service.values("sfmtls_login_budget_remaining")
        await machine.run("ln", "-sfn", "other", "/opt/sfmtls-agent/current")
        _, back = told("Roll back")
        await do(back, OLD_VERSION=agent.__version__)
        await service.well("emea")
        (reload,) = told("Reload")
        await do(reload)
        *_, remove = told("Uninstall")
        await do(remove)
        after = await everything(machine)
        await service.fleet.stop()

    assert "Active: active (running)" in started
    assert "event=started" in started
    assert budget == {"emea": 28.0}, "the login before the backup counts"
    left = {path for path in after - before if not path.startswith(f"/{CONFIGURATION}/")}
    assert left == {f"/{CONFIGURATION}", "/var/backups/sfmtls-agent.tar"}
