"""A Debian machine with a real systemd as PID 1, in which a test may do as root what it likes.

    with booted("--bind-ro=/some/folder:/srv/packages") as machine:
        await machine.run("dpkg", "--install", "/srv/packages/sfmtls-agent.deb")
        (machine.root / "etc/sfmtls-agent/config.toml").write_text("…")
        await machine.run("systemctl", "start", "sfmtls-agent")
        assert (await machine.shown("sfmtls-agent"))["ActiveState"] == "active"
        with machine.network():  # sockets made in here are the machine's
            ...

It is a container of systemd-nspawn that boots in less than a second and ends in less than two. It
has loopback and no other network. What is written in it is gone with it; only the folder that it
boots from stays, in the user's cache, so that the next machine need not be installed. Any number
may run at once. It needs root, namespaces, and Debian's packages systemd-container and mmdebstrap;
`prepared` skips the test where they are not to be had, and fails it when CI=true.

Not in force in it, because nspawn does not pass them on: MemoryMax=, MemorySwapMax=, TasksMax=.
Options must not bind anything into /tmp, where the machine mounts its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import pytest

SUITE: Final = "bookworm"
# What a machine has beside what is essential in Debian; no test can install anything from outside.
PACKAGES: Final = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "procps",
    "python3-venv",
    "systemd",
    "systemd-sysv",
)

_SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_ENVIRONMENT: Final = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
_CLONE_NEWNET: Final = 0x40000000  # sched.h
# systemd(1): PID 1 takes it as `systemctl halt`.
_HALT: Final = signal.SIGRTMIN + 3
_BOOT_SECONDS: Final = 60.0
_HALT_SECONDS: Final = 30.0


class MachineError(Exception):
    """The machine did not do what it was told to; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended, and what it wrote, both streams as they came."""

    code: int
    text: str


class Machine:
    """A machine that runs; `pid` is its PID 1 as seen from here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def root(self) -> Path:
        """Its file system; absolute symbolic links in it lead out of it."""
        return Path(f"/proc/{self.pid}/root")

    async def attempt(self, *command: str | Path, seconds: float = 60.0) -> Answer:
        """Run a command as root and return how it ended; MachineError when it does not end."""
        process = await asyncio.create_subprocess_exec(
            *_entering(self.pid),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_ENVIRONMENT,
        )
        try:
            async with asyncio.timeout(seconds):
                written, _ = await process.communicate()
        except BaseException as error:
            # What it started in the machine ends with the machine.
            process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise MachineError(f"{command}: no end after {seconds} s") from None
            raise
        return Answer(process.returncode or 0, written.decode(errors="replace"))

    async def run(self, *command: str | Path, seconds: float = 60.0) -> str:
        """Run a command as root and return what it wrote; MachineError when it fails."""
        answer = await self.attempt(*command, seconds=seconds)
        if answer.code:
            raise MachineError(f"{command} ended with {answer.code}: {answer.text}")
        return answer.text

    async def shown(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit as `systemctl show` prints them."""
        text = await self.run("systemctl", "show", "--all", unit)
        return dict(line.partition("=")[::2] for line in text.splitlines())

    async def journal(self, unit: str) -> str:
        """Return what a unit logged, and what systemd says about it, of the whole boot."""
        await self.run("journalctl", "--sync")
        return await self.run("journalctl", "--output=cat", f"--unit={unit}")

    @contextmanager
    def network(self) -> Iterator[None]:
        """Let the sockets that this thread makes meanwhile be in the machine's network."""
        with _opened("/proc/thread-self/ns/net") as own, _opened(self._network) as theirs:
            _enter(theirs)
            try:
                yield
            finally:
                _enter(own)

    @property
    def _network(self) -> str:
        return f"/proc/{self.pid}/ns/net"


@contextmanager
def booted(*options: str) -> Iterator[Machine]:
    """Boot a machine with these options of systemd-nspawn, and give it until it is halted."""
    root = prepared()
    environment = {
        **os.environ,
        # Without the unified hierarchy and BPF (below), IPAddressDeny= is silently not in force.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        # Several machines may share a folder that none writes to.
        "SYSTEMD_NSPAWN_LOCK": "0",
    }
    # A host name, which a temporary folder's name need not be.
    name = f"sfmtls-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder, _control_group(name) as group:
        log = Path(folder) / "console.log"
        with log.open("wb") as console:
            container = subprocess.Popen(
                [
                    *group,
                    "systemd-nspawn",
                    "--quiet",
                    "--register=no",
                    "--keep-unit",
                    f"--machine={name}",
                    "--volatile=overlay",
                    "--private-network",
                    "--resolv-conf=off",
                    "--link-journal=no",
                    "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN",
                    "--system-call-filter=bpf",
                    *options,
                    f"--directory={root}",
                    "--boot",
                    # Else it waits for somebody to answer its questions.
                    "systemd.firstboot=no",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
            )
        try:
            yield _booted(container, log)
        finally:
            _halt(container)


@contextmanager
def _control_group(name: str) -> Iterator[list[str]]:
    """Give the words before a command that let it run in a control group of its own.

    Else the systemds of two machines would take each other's services for their own.
    """
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    top = next((mount[1] for mount in mounts if mount[2] == "cgroup2"), None)
    own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    if top is None or own is None:
        yield []
        return
    group = Path(f"{top}{own[1]}") / name
    group.mkdir()
    try:
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{group}/cgroup.procs"]
    finally:
        # Its machine has ended; the groups that it made are empty.
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _entering(pid: int) -> list[str]:
    spaces = ("mount", "uts", "ipc", "net", "pid", "cgroup")
    return ["nsenter", f"--target={pid}", *(f"--{space}" for space in spaces), "--"]


def _booted(container: subprocess.Popen[bytes], log: Path) -> Machine:
    """Return the machine as soon as all that it starts by itself is started."""
    answer = "nothing yet"
    end = time.monotonic() + _BOOT_SECONDS
    while container.poll() is None and time.monotonic() < end:
        pid = _first_process(container.pid)
        if pid is not None:
            asked = subprocess.run(
                [*_entering(pid), "systemctl", "is-system-running", "--wait"],
                capture_output=True,
                check=False,
                env=_ENVIRONMENT,
                text=True,
                timeout=_BOOT_SECONDS,
            )
            answer = asked.stdout.strip() or asked.stderr.strip()
            if answer == "running":
                return Machine(pid)
            if answer == "degraded":
                break
        time.sleep(0.05)
    raise MachineError(f"the machine did not boot: {answer}\n{log.read_text(errors='replace')}")


def _first_process(container: int) -> int | None:
    """Return the container's PID 1 as seen from here, once there is one."""
    with suppress(OSError):  # nspawn's helpers come and go
        for child in Path(f"/proc/{container}/task/{container}/children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE):
                return int(child)
    return None


def _halt(container: subprocess.Popen[bytes]) -> None:
    pid = _first_process(container.pid)
    if pid is not None:
        os.kill(pid, _HALT)
    try:
        container.wait(_HALT_SECONDS)
    except subprocess.TimeoutExpired:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # all that runs in it ends with it
        container.kill()
        container.wait()
        raise


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(network: int) -> None:
    # Python has os.setns only since 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


# --- what it boots from


def cache() -> Path:
    """Return the folder for what takes long to get and does not change."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "sfmtls-agent"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keep other processes waiting meanwhile; tell whether the folder has to be made."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not folder.exists()


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it when CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def prepared() -> Path:
    """Return the folder that machines boot from, which is made when there is none yet."""
    if os.geteuid():
        unavailable("only root may boot a machine")
    for program in ("mmdebstrap", "nsenter", "systemd-nspawn", "unshare"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed; .ci/run installs what component tests need")
    spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc")
    made = subprocess.run(["unshare", *spaces, "true"], check=False, capture_output=True, text=True)
    if made.returncode:
        unavailable(f"no namespaces may be made here: {made.stderr.strip()}")
    wanted = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    folder = cache() / f"{SUITE}-{wanted}"
    with alone(folder) as missing:
        if missing:
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    sources = _SOURCES.read_text() if _SOURCES.exists() else ""
    mirror = re.search(r"^URIs: *(\S+)", sources, re.MULTILINE)
    # A third of debootstrap's time. What a broken disk would lose is made again.
    made = subprocess.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            new,
            *([mirror[1]] if mirror else []),
        ],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        shutil.rmtree(new, ignore_errors=True)
        unavailable(f"Debian could not be installed into a folder: {made.stdout[-2000:]}")
    new.rename(folder)
