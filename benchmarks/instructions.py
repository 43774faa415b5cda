"""How many instructions a probe takes, beside OpenSSL in C: figures that no busy machine changes.

Usage: python benchmarks/instructions.py [--probes 50]    (needs valgrind)

The same probes as in cycle_cost.py, under valgrind's callgrind, which counts what a process does in
user space, and for whom. What the kernel does is not in it. Nor is time: instructions of Python
wait for memory more than those of RSA, so that a tenth of them is more than a tenth of the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import target
from cycle_cost import AGENT, AGENT_LOGIN, AGENT_TLS, S_TIME, S_TIME_TLS, Agent, s_time
from results import save

from agent import logs

_ORGS: Final = 10
# Of two runs of s_time, one this many times as long as the other: what both need to start cancels.
_SECONDS: Final = 3
_TIMES: Final = 4

HANDSHAKE: Final = "SSL_do_handshake"
# What a handshake consists of, by the exported functions of libssl and libcrypto.
PARTS: Final[Mapping[str, str]] = {
    HANDSHAKE: "OpenSSL's part of the handshake",
    "RSA_private_encrypt": "of it: our signature",
    "d2i_X509": "of it: reading the server's three certificates",
    "OSSL_DECODER_CTX_new_for_pkey": "of that: finding a decoder for their keys",
    "X509_verify_cert": "of it: verifying the server's chain",
}


@dataclass(frozen=True)
class Counted:
    """Instructions of one run: in all, and inside each function with what it calls."""

    total: int
    inside: Mapping[str, int]


def main() -> None:
    """Count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=50)
    parser.add_argument("--inside", choices=_RUNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logs.configure("info")
    if options.inside:
        asyncio.run(_probe(options.inside, options.probes))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counted"
        runs = {name: _ours(name, options.probes, file) for name in _RUNS}
        door_parts = {part: runs[AGENT].inside[part] / options.probes for part in PARTS}
        each = {name: counted.total / options.probes for name, counted in runs.items()}
        with target.serving() as door:
            each[S_TIME] = _of_s_time(door, ["-www", target.PATH], file)
            each[S_TIME_TLS] = _of_s_time(door, [], file)
    print(f"{'instructions, millions':48} {'':>6} {'x ' + S_TIME:>18}")
    for name, count in each.items():
        print(f"{name:48} {count / 1e6:6.2f} {count / each[S_TIME]:18.2f}")
    for part, count in door_parts.items():
        print(f"{PARTS[part]:48} {count / 1e6:6.2f} {count / each[S_TIME]:18.2f}")
    save("instructions", {"each": each, "parts": door_parts})


# --- in a process of its own, under valgrind

_RUNS: Final = {
    AGENT_TLS: Agent.shake_hands,
    AGENT: Agent.knock,
    AGENT_LOGIN: Agent.log_in,
}


async def _probe(name: str, probes: int) -> None:
    """Knock so often while it is counted, after everything has been done once."""
    with target.serving() as door, tempfile.TemporaryDirectory() as folder:
        agent = Agent(door, Path(folder), _ORGS)
        run = partial(_RUNS[name], agent)
        await agent.knock(_ORGS)
        # What each org presented for the first time is written once.
        await asyncio.sleep(3)
        await run(_ORGS)
        _count("on")
        await run(probes)
        _count("off")
        await agent.close()


def _count(switch: str) -> None:
    command = ["callgrind_control", "-i", switch, str(os.getpid())]
    subprocess.run(command, capture_output=True, check=True)


def _ours(name: str, probes: int, file: Path) -> Counted:
    own = [sys.executable, __file__, "--inside", name, "--probes", str(probes)]
    command = [*_callgrind(file), "--instr-atstart=no", *own]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} could not be counted: {done.stderr[-2000:]}")
    return _read(file)


# --- OpenSSL in C, and what callgrind writes


def _of_s_time(door: target.Target, asks: Sequence[str], file: Path) -> float:
    connections, instructions = [], []
    for seconds in (_SECONDS, _SECONDS * _TIMES):
        connections.append(s_time(door, seconds, asks, _callgrind(file)))
        instructions.append(_read(file).total)
    return (instructions[1] - instructions[0]) / (connections[1] - connections[0])


def _callgrind(file: Path) -> list[str]:
    return [target.program("valgrind"), "--tool=callgrind", f"--callgrind-out-file={file}"]


def _read(file: Path) -> Counted:
    """Read callgrind's format: what a line `calls=` is followed by is the cost of the callee."""
    names: dict[str, str] = {}
    inside: Counter[str] = Counter()
    total, callee = 0, ""
    for line in file.read_text().splitlines():
        key, _, value = line.partition("=")
        if key in {"fn", "cfn"}:
            # A name is spelled out once: "(12) SSL_read"; then it is "(12)".
            number, _, name = value.partition(" ")
            names.setdefault(number, name)
            callee = names[number] if key == "cfn" else ""
        elif callee and re.match(r"[+*\d-]", line):
            inside[callee] += int(line.split()[1])
            callee = ""
        elif line.startswith("totals:"):
            total = int(line.split()[1])
    return Counted(total, inside)


if __name__ == "__main__":
    main()
