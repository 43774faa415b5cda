"""Name → addresses, each look-up in a thread, so many at a time and no more.

The event loop's default pool has six threads on two cores, so six dead resolvers would stall every
org, and its threads would keep the process from ending. Here a name is looked up once at a time,
however many orgs ask, and a look-up that hangs is left to itself until the resolver gives up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Final

from agent.org import IpFamily
from agent.probe.tcp import Address
from agent.reason import Reason
from agent.result import Failure
from agent.threads import in_a_thread

_FAMILIES: Final[Mapping[IpFamily, socket.AddressFamily]] = {
    IpFamily.IPV4: socket.AF_INET,
    IpFamily.IPV6: socket.AF_INET6,
}
_FAMILY_NAMES: Final = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
# SERVFAIL, REFUSED and silence are all EAI_AGAIN; NXDOMAIN is EAI_NONAME (getaddrinfo(3)).
_REASONS: Final[Mapping[int, Reason]] = {
    socket.EAI_NONAME: Reason.DNS_NOT_FOUND,
    socket.EAI_AGAIN: Reason.DNS_ERROR,
}

LookUp = Callable[[str, int], tuple[Address, ...]]
_Found = tuple[Address, ...] | Exception


class Resolver:
    """Looks names up; `threads` is how many look-ups can be under way at once.

    `look_up` asks the system: (host, port) → addresses, raising what getaddrinfo raises.
    """

    def __init__(self, threads: int = 32, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or ask_system
        self._slots = asyncio.Semaphore(threads)
        self._under_way: dict[tuple[str, int], asyncio.Future[_Found]] = {}

    async def resolve(
        self, host: str, port: int, family: IpFamily, seconds: float
    ) -> tuple[Address, ...] | Failure:
        """Return the addresses of a host, in the resolver's order, or why there is none."""
        if literal := _literal(host, port):
            return (literal,)
        try:
            async with asyncio.timeout(seconds):
                found = await self._ask(host, port)
        except TimeoutError:
            if (host, port) in self._under_way:
                return Failure(Reason.DNS_TIMEOUT, f"no answer for {host} in {seconds:.1f} s")
            return Failure(
                Reason.DNS_ERROR, f"{host} was not looked up: too many look-ups wait for answers"
            )
        match found:
            case socket.gaierror():
                reason = _REASONS.get(found.errno or 0, Reason.DNS_ERROR)
                return Failure(reason, f"{host}: {found.strerror}")
            case OSError() | UnicodeError():
                return Failure(Reason.DNS_ERROR, f"{host}: {found}")
            case Exception():
                raise found
            case _:
                return _of_family(found, host, family)

    async def _ask(self, host: str, port: int) -> _Found:
        key = (host, port)
        if key not in self._under_way:
            await self._slots.acquire()
            if key in self._under_way:
                self._slots.release()
            else:
                self._start(key)
        # One who gives up must not end the look-up that others wait for.
        return await asyncio.shield(self._under_way[key])

    def _start(self, key: tuple[str, int]) -> None:
        def ask() -> _Found:
            try:
                return self._look_up(*key)
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                return error

        self._under_way[key] = found = in_a_thread(ask)
        found.add_done_callback(lambda _: self._settle(key))

    def _settle(self, key: tuple[str, int]) -> None:
        self._slots.release()
        del self._under_way[key]


def _literal(host: str, port: int) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    return family, (host, port)


def ask_system(host: str, port: int) -> tuple[Address, ...]:
    """Return the addresses that the system's resolver has, as `socket.getaddrinfo` gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(
        (family, (str(address[0]), port))
        for family, _, _, _, address in found
        if family in _FAMILY_NAMES
    )


def _of_family(
    found: tuple[Address, ...], host: str, family: IpFamily
) -> tuple[Address, ...] | Failure:
    if family is IpFamily.ANY:
        usable = found
    else:
        usable = tuple(address for address in found if address[0] is _FAMILIES[family])
    if usable:
        return usable
    others = ", ".join(sorted({_FAMILY_NAMES[address[0]] for address in found})) or "no"
    wanted = "any" if family is IpFamily.ANY else _FAMILY_NAMES[_FAMILIES[family]]
    return Failure(
        Reason.DNS_ERROR,
        f"{host} has {others} addresses only, but ip_family wants {wanted}",
    )
