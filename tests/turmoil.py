"""An agent as a process, whose far sides, files and configuration change at random, by one seed.

What it goes through is what happens to an agent in a year: certificates renewed well and badly,
passwords changed, orgs added and removed, bad configurations, servers that refuse, hang and answer
nonsense, a state directory that goes away and comes back. `calm` puts everything right again; what
the agent then holds must be what it held in the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from fleet import Fleet
from prometheus_client.parser import text_string_to_metric_families

from agent.simulator.directory import host_name
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator

ROOT = Path(__file__).parent.parent
DEFECTS = sorted(set(ClientCertificate) - {ClientCertificate.NONE})
# Series that come and go with what happened, and say nothing about what is held.
EVER_SINCE = ("_total", "_created", "_bucket", "_sum", "_count")
# A server under another authority is told for two weeks.
NEWS = {"server_issuer_changed", "server_root_changed"}


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    resident_kib: int
    descriptors: int
    threads: int
    children: int


class Turmoil:
    """`async with` starts the agent; then `go`, `calm`, and look at `held` and `series`.

    `records` has what each org's far sides saw, in order: (scenario, record). Each locks its user
    after so many refused logins in a row, if that is given.
    """

    def __init__(
        self,
        folder,
        seed,
        *,
        orgs=6,
        acts=(),
        breaker='breaker_hold = "2s"\nbreaker_hold_max = "4s"',
        logins_per_hour=3600,
        lockout_after=None,
    ):
        self.fleet = Fleet(
            folder,
            agent=f'log_format = "json"\n{breaker}',
            web=f'config_file = "{folder}/web.yml"',
        )
        self.names = [f"org-{number}" for number in range(orgs)]
        self.there = set()
        self.records = {}
        self.acts = {}
        self._wanted_acts = acts or ACTS
        self._logins_per_hour = logins_per_hour
        self._lockout_after = lockout_after
        self._chance = random.Random(seed)
        self._protection = folder / "web.yml"
        self._protection.write_text("rate_limit:\n  interval: 0s\n  burst: 1\n")
        self._log = folder / "agent.log"
        self.process = None
        self.url = ""

    async def __aenter__(self):
        for name in self.names:
            await self._join(name)
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, ROOT / "tests" / "hurried_agent.py", self.fleet.file),
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        try:
            await self._until(lambda: "listening" in self.log(), 20)
            self.url = "http://" + re.search(r"127\.0\.0\.1:\d+", self.log()).group()
            await self._healthy()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error):
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        await self.fleet.stop()

    async def go(self, seconds, *, sampled=None):
        """Let things happen for so long, several a second; append to `sampled` every 5 s."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while (gone := loop.time() - begin) < seconds:
            act = self._chance.choice(self._wanted_acts)
            self.acts[act.__name__] = self.acts.get(act.__name__, 0) + 1
            await act(self)
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))
            if sampled is not None and gone >= 5 * len(sampled):
                sampled.append(self.sample())
            if self.process.returncode is not None:
                raise AssertionError(f"the agent ended by itself: {self.log()[-4000:]}")

    async def calm(self, *, logins=True):
        """Put everything right, and return when the agent has seen it, the logins too if wanted."""
        self._state_back()
        for name in self.names:
            self._own(name, ClientCertificate.GOOD)
            self._password(name, PASSWORD.reveal())
            if name not in self.there:
                await self._join(name)
            await self._switch(name, "healthy")
        self.fleet.write()
        reloaded = '"configuration reloaded"'
        before = self.log().count(reloaded)
        self._reload()
        await self._until(lambda: self.log().count(reloaded) > before, 20)
        if logins:
            for name in self.names:
                await self._command("breaker", "reset", name)
            await self._healthy()
        else:
            await self._healthy(("handshake",))

    def sample(self):
        """Return what the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        task = Path(f"/proc/{self.process.pid}/task")
        return Sample(
            resident_kib=int(re.search(r"VmRSS:\s+(\d+)", status)[1]),
            descriptors=len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
            threads=int(re.search(r"Threads:\s+(\d+)", status)[1]),
            children=sum(_children(one) for one in task.iterdir()),
        )

    async def held(self):
        """Return what the process holds between cycles: the least of each of ten samples."""
        seen = []
        for _ in range(10):
            seen.append(self.sample())
            await asyncio.sleep(0.1)
        return Sample(
            *(
                min(getattr(sample, field.name) for sample in seen)
                for field in dataclasses.fields(Sample)
            )
        )

    async def series(self):
        """Return the series of each org that tell its present state, without their values."""
        found = {}
        for sample in await self.samples():
            org = sample.labels.get("org")
            if org is None or sample.name.endswith(EVER_SINCE):
                continue
            if sample.labels.get("rule") in NEWS:
                continue
            # A renewed certificate has another serial number, but there is one as before.
            rest = {k: v for k, v in sample.labels.items() if k not in CHANGING}
            found.setdefault(org, []).append((sample.name, tuple(sorted(rest.items()))))
        return {org: sorted(series) for org, series in found.items()}

    async def samples(self):
        """Return all that /metrics says."""
        text = await asyncio.to_thread(self._get, "/metrics")
        return [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    async def internal_errors(self):
        """Return how many bugs were caught."""
        return sum(
            sample.value
            for sample in await self.samples()
            if sample.name == "sfmtls_internal_errors_total"
        )

    def log(self):
        """Return what the agent wrote so far."""
        return self._log.read_text()

    def entries(self, event):
        """Return the log's entries of this event."""
        lines = (json.loads(line) for line in self.log().splitlines())
        return [line for line in lines if line["event"] == event]

    # --- what happens

    async def weather(self):
        """Another far side answers for one org."""
        name = self._any()
        await self._switch(name, self._chance.choice(list(SCENARIOS)))

    async def clear_up(self):
        """One org's far side gets well."""
        await self._switch(self._any(), "healthy")

    async def renew(self):
        """One org gets a good certificate."""
        self._own(self._any(), ClientCertificate.GOOD)

    async def renew_badly(self):
        """One org gets a certificate with a defect."""
        self._own(self._any(), self._chance.choice(DEFECTS))

    async def write_half(self):
        """Somebody is in the middle of writing a certificate."""
        path = self.fleet.folder / f"{self._any()}.pem"
        content = path.read_bytes()
        path.write_bytes(content[: self._chance.randrange(len(content))])

    async def change_password(self):
        """A password is changed, for better or worse."""
        right = self._chance.random() < 0.7
        self._password(self._any(), PASSWORD.reveal() if right else "wrong-one")

    async def join_or_leave(self):
        """An org is added, or one removed."""
        name = self._chance.choice(self.names)
        if name not in self.there:
            await self._join(name)
        elif len(self.there) > 1:
            self.there.discard(name)
            self.fleet.drop(name)
        self._reload()

    async def spoil_configuration(self):
        """The configuration is bad for a moment, and read in that moment."""
        self.fleet.write(tail="\nnonsense = = 1\n")
        self._reload()
        await asyncio.sleep(0.3)
        self.fleet.write()
        self._reload()

    async def change_protection(self):
        """The endpoint's web-config file changes, sometimes to one that cannot be used."""
        burst = self._chance.choice(["1", "2", "nonsense"])
        self._protection.write_text(f"rate_limit:\n  interval: 0s\n  burst: {burst}\n")

    async def scrape(self):
        """Prometheus comes."""
        await self.samples()

    async def half_a_request(self):
        """Somebody connects, begins to ask, and goes."""
        host, port = self.url.removeprefix("http://").split(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metr")
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def lose_the_state(self):
        """The state directory goes away, or comes back."""
        state, away = self.fleet.folder / "state", self.fleet.folder / "away"
        if away.exists():
            self._state_back()
        elif state.exists():
            state.rename(away)

    # --- the parts

    def _any(self):
        return self._chance.choice(sorted(self.there))

    def _state_back(self):
        state, away = self.fleet.folder / "state", self.fleet.folder / "away"
        if away.exists():
            shutil.rmtree(state, ignore_errors=True)
            away.rename(state)

    async def _join(self, name):
        keys = {
            # It is the same org, whatever answers in its place.
            "host": host_name(SCENARIOS["healthy"]),
            "certificate": f"{name}.pem",
            "password": {"file": f"{name}.txt"},
            "logins_per_hour": self._logins_per_hour,
        }
        self._own(name, ClientCertificate.GOOD)
        self._password(name, PASSWORD.reveal())
        if name in self.fleet.simulators:
            self.fleet.configure(name, **keys)
        else:
            simulator = await self.fleet.add(name, **keys)
            simulator.service.lockout_after = self._lockout_after
            self.records[name] = [(simulator.scenario, simulator.record)]
        self.there.add(name)

    async def _switch(self, name, scenario):
        """Let another far side answer at the same address; what this one saw is kept."""
        old = self.fleet.simulators[name]
        if old.scenario.name == scenario:
            return
        # Not in the middle of a conversation, of which both sides would tell another story.
        with contextlib.suppress(TimeoutError):  # a far side that hangs has none
            await self._until(lambda: not old._tasks, 5)
        await old.stop()
        fresh = Simulator(
            SCENARIOS[scenario],
            self.fleet.pki,
            port=old.port,
            plain_port=old.plain_port,
            username=old.service.username,
        )
        # The user is the same, and so is what was held against him.
        fresh.service.failures = old.service.failures
        fresh.service.lockout_after = self._lockout_after
        await fresh.start()
        self.fleet.simulators[name] = fresh
        self.records[name].append((fresh.scenario, fresh.record))

    def _own(self, name, defect):
        self.fleet.deploy(defect, f"{name}.pem")

    def _password(self, name, text):
        new = self.fleet.folder / f".{name}.txt"
        new.write_text(text)
        new.rename(self.fleet.folder / f"{name}.txt")

    def _reload(self):
        self.process.send_signal(signal.SIGHUP)

    async def _command(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", *arguments, "--config", str(self.fleet.file)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        out, _ = await process.communicate()
        if process.returncode:
            raise AssertionError(f"{arguments}: {out.decode()}")

    async def _healthy(self, probes=("handshake", "login")):
        """Return when these probes of every org succeeded when they ran last."""
        wanted = {(name, probe) for name in self.names for probe in probes}

        async def well():
            good = {
                (sample.labels["org"], sample.labels["probe"])
                for sample in await self.samples()
                if sample.name == "sfmtls_probe_success" and sample.value == 1
            }
            return wanted <= good

        await self._until(well, 40)

    async def _until(self, condition, seconds):
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.1)

    def _get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.read().decode()


def _children(task):
    try:
        return len((task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return 0  # the thread has ended meanwhile


CHANGING = {"serial_number", "fingerprint_sha256", "subject"}
ACTS = (
    *(Turmoil.weather,) * 4,
    *(Turmoil.clear_up,) * 2,
    *(Turmoil.renew,) * 2,
    Turmoil.renew_badly,
    Turmoil.write_half,
    Turmoil.change_password,
    Turmoil.join_or_leave,
    Turmoil.spoil_configuration,
    Turmoil.change_protection,
    *(Turmoil.scrape,) * 2,
    Turmoil.half_a_request,
    Turmoil.lose_the_state,
)
