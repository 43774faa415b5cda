"""Networks of a test's own: two namespaces, what lies between them, and names to look up.

The near one is the agent's: processes run in it, with a resolv.conf of its own. In the far one an
event loop runs in a thread of this process, so that simulators and name servers of the test are
reached over the network and can be asked what they saw. Two links join them: a veth pair, for
firewalls, routes and rates, and a pair of TUN devices with a shuttle that carries each packet after
a while, since not every kernel has netem. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest
from conftest import require_program

from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator

# Addresses for documentation (RFC 5737, RFC 3849): nobody has them.
NEAR, FAR = "192.0.2.1", "192.0.2.2"
NEAR_6, FAR_6 = "2001:db8::1", "2001:db8::2"
FAR_TOO = ("192.0.2.4/30", "192.0.2.128/25")
SLOW_NEAR, SLOW_FAR = "198.51.100.1", "198.51.100.2"
EVERY: Final = "0.0.0.0"  # noqa: S104 - of a namespace that only the test can reach
DOOR: Final = 8443

_NETNS: Final = Path("/run/netns")
_ETC: Final = Path("/etc/netns")
_CLONE_NEWNET: Final = 0x40000000  # sched.h
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h, as the next two
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_START_SECONDS: Final = 10.0
# More than any test lets a process run; one that takes it has hung.
_RUN_SECONDS: Final = 60.0

_numbers: Final = itertools.count()
_Made = TypeVar("_Made")


# --- namespaces


def ip(*arguments: str) -> str:
    """Run ip and return what it says."""
    return _ran("ip", *arguments)


def _ran(*command: str, told: str | None = None) -> str:
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, by its name."""

    name: str

    def ran(self, *command: str, told: str | None = None) -> str:
        """Run a command in it to its end and return its output; OSError when it fails."""
        return _ran("ip", "netns", "exec", self.name, *command, told=told)

    def started(self, *command: str, environ: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a command in it, on pipes."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def enter(self) -> None:
        """Move this thread, for the rest of its life, into it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (_NETNS / self.name).open() as opened:
            if libc.setns(opened.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def made_inside(self, make: Callable[[], _Made]) -> _Made:
        """Return what `make` returns in it: a socket stays in the namespace it was made in."""
        made: list[_Made] = []
        failed: list[OSError] = []

        def run() -> None:
            try:
                self.enter()
                made.append(make())
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def processes(self) -> list[str]:
        """Return the numbers of the processes in it."""
        return ip("netns", "pids", self.name).split()

    @contextmanager
    def filtering(self, hook: str, *rules: str) -> Iterator[None]:
        """Let its packets at the hook, input or output, go through these rules of nft."""
        chain = "\n".join((f"type filter hook {hook} priority 0", *rules))
        self.ran("nft", "-f", "-", told=f"table inet {hook} {{\nchain test {{\n{chain}\n}}\n}}\n")
        try:
            yield
        finally:
            self.ran("nft", "delete", "table", "inet", hook)

    @contextmanager
    def routing(self, *route: str) -> Iterator[None]:
        """Have a route, such as `unreachable 192.0.2.2`."""
        self.ran("ip", "route", "add", *route)
        try:
            yield
        finally:
            self.ran("ip", "route", "del", *route)

    @contextmanager
    def limiting(self, device: str, rate: str) -> Iterator[None]:
        """Send no faster than this over a device."""
        limits = ("rate", rate, "burst", "1600", "latency", "10s")
        self.ran("tc", "qdisc", "add", "dev", device, "root", "tbf", *limits)
        try:
            yield
        finally:
            self.ran("tc", "qdisc", "del", "dev", device, "root")


# --- a link that takes its time


class Shuttle(threading.Thread):
    """Carries packets between two TUN devices; `delay` is the seconds that each takes, one way."""

    def __init__(self, near: Namespace, far: Namespace) -> None:
        super().__init__(name="shuttle")
        self.delay = 0.0
        self._ends = (near.made_inside(_tun), far.made_inside(_tun))
        self._woken, self._wake = os.pipe()

    def run(self) -> None:
        """Carry until `stop`."""
        there, back = self._ends
        across = {there: back, back: there}
        under_way: list[tuple[float, int, int, bytes]] = []
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            ready, _, _ = select.select([*self._ends, self._woken], [], [], wait)
            if self._woken in ready:
                return
            for end in ready:
                due = time.monotonic() + self.delay
                packet = os.read(end, 65536)
                heapq.heappush(under_way, (due, next(_numbers), across[end], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(under_way)
                # The other end may be down by now.
                with suppress(OSError):
                    os.write(end, packet)

    def stop(self) -> None:
        """End it; the devices go with it."""
        os.write(self._wake, b"x")
        self.join()
        for end in (*self._ends, self._woken, self._wake):
            os.close(end)


def _tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"slow", _IFF_TUN | _IFF_NO_PI))
    return device


# --- names


class Code(IntEnum):
    """What a name server says of a question (RFC 1035 §4.1.1)."""

    NOERROR = 0
    SERVFAIL = 2
    NXDOMAIN = 3
    REFUSED = 5


_TYPES: Final = {1: socket.AF_INET, 28: socket.AF_INET6}  # A, AAAA (RFC 3596)


class Names(asyncio.DatagramProtocol):
    """A name server that knows what `known` says: addresses, a code, bytes, or None for silence."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...] | Code | bytes | None] = {}
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question."""
        end = data.index(b"\0", 12) + 5
        name, (kind,) = _name(data[12 : end - 4]), struct.unpack("!H", data[end - 4 : end - 2])
        self.asked.append(name)
        known = self.known.get(name, Code.NXDOMAIN)
        if known is None:
            return
        if isinstance(known, bytes):
            self._transport.sendto(data[:2] + known, addr)
            return
        code, addresses = (known, ()) if isinstance(known, Code) else (Code.NOERROR, known)
        records = [
            # The question's name, which stands at 12; one class, no time to live.
            struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed
            for address in addresses
            if (packed := _packed(kind, address))
        ]
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        self._transport.sendto(head + data[12:end] + b"".join(records), addr)


def _name(labels: bytes) -> str:
    parts = []
    while length := labels[0]:
        parts.append(labels[1 : 1 + length].decode())
        labels = labels[1 + length :]
    return ".".join(parts)


def _packed(kind: int, address: str) -> bytes | None:
    if kind not in _TYPES or (":" in address) is not (_TYPES[kind] is socket.AF_INET6):
        return None
    return socket.inet_pton(_TYPES[kind], address)


# --- both ends


class Far:
    """The far side: an event loop in the far namespace, and what runs in it."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.names = Names()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="far side")
        self._thread.start()
        where = (FAR, 53)
        self._server, _ = self.call(
            self._loop.create_datagram_endpoint(lambda: self.names, local_addr=where)
        )

    def _run(self) -> None:
        self.namespace.enter()
        self._loop.run_forever()

    def call(self, coroutine: Coroutine[Any, Any, _Made]) -> _Made:
        """Run a coroutine there to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START_SECONDS)

    @contextmanager
    def playing(
        self, scenario: str, pki: Pki, host: str = EVERY, port: int = DOOR
    ) -> Iterator[Simulator]:
        """Have a simulated door."""

        async def start() -> Simulator:
            simulator = Simulator(SCENARIOS[scenario], pki, host=host, port=port)
            await simulator.start()
            return simulator

        simulator = self.call(start())
        try:
            yield simulator
        finally:
            self.call(simulator.stop())

    def stop(self) -> None:
        """End all of it."""

        async def close() -> None:
            self._server.close()
            # Its callbacks have their turn first.
            await asyncio.sleep(0)

        self.call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that has ended: what it printed and how long it took, in seconds."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def cycle(self) -> dict[str, Any]:
        """The one cycle that `probe --json` printed."""
        assert self.errors == ""
        (cycle,) = json.loads(self.output)
        return cycle


@dataclass(frozen=True, slots=True)
class Network:
    """The near namespace and the far side, joined."""

    near: Namespace
    far: Far
    shuttle: Shuttle
    _environ: dict[str, str] = field(
        # What is not given back is told on standard error.
        default_factory=lambda: os.environ | {"PYTHONWARNINGS": "always::ResourceWarning"}
    )

    def started(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the agent in the near namespace."""
        command = (sys.executable, "-m", "agent", *map(str, arguments))
        return self.near.started(*command, environ=self._environ)

    def ran(self, *arguments: str | Path) -> Ran:
        """Run the agent in the near namespace to its end; nothing of it may be left."""
        began = time.monotonic()
        process = self.started(*arguments)
        try:
            output, errors = process.communicate(timeout=_RUN_SECONDS)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
        assert self.near.processes() == []
        return Ran(process.returncode, output, errors, seconds)

    def resolving(self, text: str) -> None:
        """Let what is started from now on have this resolv.conf."""
        (_ETC / self.near.name / "resolv.conf").write_text(text)


def require_namespaces() -> None:
    """Skip the test where networks cannot be made; with CI=true no program may be missing."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "nft", "tc", "ss"):
        require_program(program)
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    name = f"sfmtls-try-{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except OSError as error:
        pytest.skip(f"no network namespace can be made: {error}")


@contextmanager
def joined() -> Iterator[Network]:
    """Make both namespaces and their links; nothing is left of them afterwards."""
    number = f"{os.getpid()}-{next(_numbers)}"
    near, far = (Namespace(f"sfmtls-{side}-{number}") for side in ("near", "far"))
    with ExitStack() as stack:
        for namespace in (near, far):
            ip("netns", "add", namespace.name)
            stack.callback(ip, "netns", "del", namespace.name)
            namespace.ran("ip", "link", "set", "lo", "up")
        stack.enter_context(_resolv_conf(near))
        peer = ("peer", "fast", "netns", far.name)
        ip("link", "add", "fast", "netns", near.name, "type", "veth", *peer)
        shuttle = Shuttle(near, far)
        shuttle.start()
        stack.callback(shuttle.stop)
        # Each situation can have an address of its own.
        for addresses in FAR_TOO:
            far.ran("ip", "route", "add", "local", addresses, "dev", "lo")
        ends = ((near, NEAR, NEAR_6, SLOW_NEAR), (far, FAR, FAR_6, SLOW_FAR))
        for namespace, fast, fast_6, slow in ends:
            namespace.ran("ip", "address", "add", f"{fast}/24", "dev", "fast")
            # nodad: the address is there at once (RFC 4862 §5.4 would have it wait).
            namespace.ran("ip", "address", "add", f"{fast_6}/64", "dev", "fast", "nodad")
            namespace.ran("ip", "address", "add", f"{slow}/30", "dev", "slow")
            for device in ("fast", "slow"):
                namespace.ran("ip", "link", "set", device, "up")
        served = Far(far)
        stack.callback(served.stop)
        yield Network(near, served, shuttle)


@contextmanager
def _resolv_conf(near: Namespace) -> Iterator[None]:
    # `ip netns exec` mounts what is here over /etc (ip-netns(8)).
    folder = _ETC / near.name
    was_there = _ETC.exists()
    folder.mkdir(parents=True)
    (folder / "resolv.conf").touch()
    try:
        yield
    finally:
        (folder / "resolv.conf").unlink()
        folder.rmdir()
        if not was_there:
            # Somebody else may have come meanwhile.
            with suppress(OSError):
                _ETC.rmdir()
