"""The configuration of many orgs, each with a host, a user, a certificate and a key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, count, islice
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from target import Target, free_port, pem

from agent.simulator.server import PASSWORD

_EXPONENT: Final = 65537


@dataclass(frozen=True)
class Configured:
    """The configuration file, and the port on loopback where the agent will listen."""

    file: Path
    port: int


def configure(
    folder: Path,
    door: Target,
    orgs: int,
    *,
    interval: int = 60,
    silent: int = 0,
    silent_port: int = 0,
) -> Configured:
    """Write into `folder` all that the agent needs to watch so many orgs every `interval` seconds.

    They are org-0, org-1, ... at the door. So many of them are silent-0, silent-1, ... instead:
    their far side is at `silent_port`. What is not said here is as the agent has it by default.
    """
    _write_secret(folder / "password", PASSWORD.reveal().encode())
    port = free_port()
    text = (
        f'[agent]\ninterval = "{interval}s"\nstate_directory = "state"\nlog_format = "json"\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\n'
        f'[defaults]\nconnect_to = "127.0.0.1:{door.port}"\npassword = {{ file = "password" }}\n'
        f'trust = {{ system = false, file = "{door.root}" }}\n'
    )
    for number, key in enumerate(_keys(orgs)):
        name = f"silent-{number}" if number < silent else f"org-{number - silent}"
        (folder / f"{name}.pem").write_bytes(door.issue(f"{name}.bench.example", key))
        _write_secret(folder / f"{name}.key", pem(key))
        text += (
            f'[orgs.{name}]\nhost = "{name}.my.salesforce.com"\n'
            f'certificate = "{name}.pem"\nprivate_key = "{name}.key"\n'
            f'username = "{name}@bench.example"\n'
        )
        if number < silent:
            text += f'connect_to = "127.0.0.1:{silent_port}"\n'
    file = folder / "config.toml"
    file.write_text(text)
    return Configured(file, port)


def _write_secret(file: Path, content: bytes) -> None:
    # What everybody may read is a finding, and each finding a series more.
    file.touch(0o600)
    file.write_bytes(content)


def _keys(wanted: int) -> Iterator[rsa.RSAPrivateKey]:
    """Yield so many different RSA-2048 keys.

    To generate thousands takes many minutes. Of n generated ones the 2n primes make n(2n-1) pairs,
    and each pair is a key. Such keys are worth nothing but here: two that share a prime give each
    other away.
    """
    generated = next(n for n in count(1) if n * (2 * n - 1) >= wanted)
    primes: list[int] = []
    for _ in range(generated):
        numbers = rsa.generate_private_key(_EXPONENT, 2048).private_numbers()
        primes += (numbers.p, numbers.q)
    for p, q in islice(combinations(primes, 2), wanted):
        yield _key(p, q)


def _key(p: int, q: int) -> rsa.RSAPrivateKey:
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, p * q),
    ).private_key(unsafe_skip_rsa_key_validation=True)
