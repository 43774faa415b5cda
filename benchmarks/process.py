"""The agent as an operator runs it: a process of its own, looked at from outside."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from orgs import Configured

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# A stop lets the cycles under way end, which takes the agent 50 s at most.
_STOP_SECONDS: Final = 60


@dataclass(frozen=True)
class Daemon:
    """One that runs: `begun` is when it was started, in Unix time."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    begun: float

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def entries(self, offset: int = 0) -> Iterator[tuple[float, dict[str, Any]]]:
        """Yield what the log has behind `offset`: the moment in Unix time and the entry."""
        with self.log.open("rb") as log:
            log.seek(offset)
            # A line without its end is still being written.
            lines = log.read().split(b"\n")[:-1]
        for line in lines:
            entry = json.loads(line)
            yield datetime.fromisoformat(entry["timestamp"]).timestamp(), entry

    def answers(self, path: str) -> bool:
        """Tell whether its endpoint answers 200 there; SystemExit when it has ended."""
        if self.process.poll() is not None:
            raise SystemExit(f"the agent ended by itself: {self.log.read_text()[-2000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except ConnectionRefusedError:
            return False
        finally:
            connection.close()

    def wait_for(self, path: str, limit: float, every: float) -> float:
        """Wait until it answers there; return the seconds since it was started."""
        while not self.answers(path):
            if time.time() > self.begun + limit:
                raise SystemExit(f"the agent's {path} is not 200 after {limit:g} s")
            time.sleep(every)
        return time.time() - self.begun


@contextmanager
def running(configured: Configured) -> Iterator[Daemon]:
    """Run the agent for as long as the block lasts; its log is beside the configuration."""
    log = configured.file.with_name("log")
    command = [sys.executable, "-m", "agent", "run", "--config", str(configured.file)]
    with log.open("wb") as written:
        begun = time.time()
        process = subprocess.Popen(command, stderr=written)
    try:
        yield Daemon(process, configured.port, log, begun)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, user and system, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True)
class Memory:
    """What of a process is in memory, in bytes: now, and the most there ever was."""

    resident: int
    peak: int


def memory(pid: int) -> Memory:
    """Return what a process holds (VmRSS and VmHWM of proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return Memory(1024 * int(kib["VmRSS"]), 1024 * int(kib["VmHWM"]))


def descriptors(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
