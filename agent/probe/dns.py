"""Name → addresses, in a bounded pool of threads of its own.

The event loop's default pool has six threads on two cores, so six dead resolvers would stall every
org. A look-up that hangs keeps its thread until the resolver gives up; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent.org import IpFamily
from agent.probe.tcp import Address
from agent.reason import Reason
from agent.result import Failure

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


class Resolver:
    """Looks names up; `threads` is how many look-ups can be under way at once.

    `look_up` asks the system: (host, port) → addresses, raising what getaddrinfo raises.
    """

    def __init__(self, threads: int = 32, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or ask_system
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int, family: IpFamily, seconds: float
    ) -> tuple[Address, ...] | Failure:
        """Return the addresses of a host, in the resolver's order, or why there is none."""
        if literal := _literal(host, port):
            return (literal,)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                found = await loop.run_in_executor(self._pool, self._look_up, host, port)
        except TimeoutError:
            return Failure(Reason.DNS_TIMEOUT, f"no answer for {host} in {seconds:.1f} s")
        except socket.gaierror as error:
            reason = _REASONS.get(error.errno or 0, Reason.DNS_ERROR)
            return Failure(reason, f"{host}: {error.strerror}")
        except (OSError, UnicodeError) as error:
            return Failure(Reason.DNS_ERROR, f"{host}: {error}")
        return _of_family(found, host, family)

    def close(self) -> None:
        """Let go of the threads; one that still waits for a resolver ends when that gives up."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
