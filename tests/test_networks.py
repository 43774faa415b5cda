"""Real networks that fail: what the agent makes of packets, routes, names and rates.

The agent is a process in a namespace of its own, the simulated door is in another. Where a
situation makes it wait, its own limit must end that, within 10 %; the process as a whole has no
more time than that and its start. Nothing may be left, neither of it nor of the networks.
"""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import network
import pytest
from network import DOOR, FAR, FAR_6, SLOW_FAR, Code, Network

from agent.simulator.directory import host_name
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, USERNAME

pytestmark = [pytest.mark.component, pytest.mark.slow]

# What a stage may take, in seconds; long enough for 10 % of it to be more than a busy machine needs
# to come back to a timer.
LIMIT = 2.0
IMPATIENT = f"nameserver {FAR}\noptions timeout:1 attempts:1\nsearch .\n"
PATIENT = f"nameserver {FAR}\noptions timeout:5 attempts:2\nsearch .\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A situation of one org: what is in the way, and what must be seen of it.

    Rules of nft and `known`, what its name stands for, are filled in with an address of the org's
    own. `reason` is None where the door opens all the same; the last stage is `stage`.
    """

    reason: str | None
    stage: str
    known: tuple[str, ...] | Code | bytes | None = ("{}",)
    near_output: str = ""
    near_input: str = ""
    far_input: str = ""
    route: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""


def dns(known, reason="dns_error", detail="", **what):
    return Case(reason=reason, stage="dns", known=known, detail=detail, **what)


def opens(**what):
    return Case(reason=None, stage="door", **what)


def tcp(reason, detail="", **what):
    return Case(reason=reason, stage="tcp", detail=detail, **what)


TO_IT = f"ip daddr {{}} tcp dport {DOOR}"
# A SYN has at most 60 bytes, a ClientHello some hundreds, and the server's answer over a thousand.
DATA_TO_IT = f"{TO_IT} ip length > 100"
# Of several addresses the system tries those first that are like its own (RFC 6724 §5, rule 9).
FIRST = "192.0.2.4"
SILENT = "192.0.2.5"
LONG = {"timeouts": '{{ dns = "10s" }}'}
ANSWERED = {
    "nothing-in-the-way": opens(),
    # --- firewalls and closed ports
    "reset": tcp("tcp_refused", "Connection refused", far_input=f"{TO_IT} reject with tcp reset"),
    "port-unreachable": tcp("tcp_refused", far_input=f"{TO_IT} reject"),
    "admin-prohibited": tcp(
        "tcp_unreachable",
        "No route to host",
        far_input=f"{TO_IT} reject with icmp admin-prohibited",
    ),
    "host-unreachable": tcp(
        "tcp_unreachable", far_input=f"{TO_IT} reject with icmp host-unreachable"
    ),
    "net-unreachable": tcp(
        "tcp_unreachable", far_input=f"{TO_IT} reject with icmp net-unreachable"
    ),
    "own-firewall": tcp(
        "tcp_unreachable", near_output=f"{TO_IT} reject with icmp admin-prohibited"
    ),
    "reset-in-use": Case(
        reason="tcp_reset",
        stage="tls",
        far_input=f"{DATA_TO_IT} reject with tcp reset",
        detail="Connection reset by peer",
    ),
    # --- routes
    "route-unreachable": tcp("tcp_unreachable", route="unreachable"),
    "route-prohibit": tcp("tcp_unreachable", "Permission denied", route="prohibit"),
    "route-blackhole": tcp("tcp_unreachable", "Invalid argument", route="blackhole"),
    "no-route": tcp("tcp_unreachable", "Network is unreachable", known=("203.0.113.1",)),
    # --- names
    "name-unknown": dns(Code.NXDOMAIN, "dns_not_found", "Name or service not known"),
    "name-servfail": dns(Code.SERVFAIL),
    "name-refused": dns(Code.REFUSED),
    "name-without-addresses": dns((), detail="No address associated with hostname"),
    # --- and what takes its time to be answered
    "name-garbage": dns(b"\xff" * 30, keys=LONG),
    "resolver-gives-up": dns(None, detail="Temporary failure in name resolution", keys=LONG),
    # --- addresses
    "first-of-two-refuses": opens(
        known=(FIRST, "{}"), far_input=f"ip daddr {FIRST} reject with tcp reset"
    ),
    "both-refuse": tcp(
        "tcp_refused",
        f"{FIRST}:{DOOR} Connection refused; ",
        known=(FIRST, "{}"),
        far_input=f"{TO_IT} reject with tcp reset",
    ),
    "v6-only": opens(known=(FAR_6,)),
    "v6-only-v4-wanted": Case(
        reason="dns_error",
        stage="dns",
        known=(FAR_6,),
        keys={"ip_family": '"ipv4"'},
        detail="IPv6 addresses only, but ip_family wants IPv4",
    ),
    "v6-only-no-route": tcp("tcp_unreachable", known=("2001:db8:1::2",)),
}
# What makes the agent wait for its own limit: LIMIT for every stage, and more for the cycle.
HANGING = {
    "dropped": tcp("tcp_timeout", "no answer in 2.0 s", far_input=f"{TO_IT} drop"),
    "dropped-at-home": tcp("tcp_timeout", near_output=f"{TO_IT} drop"),
    "data-dropped": Case(
        reason="tls_timeout",
        stage="tls",
        detail="no end in 2.0 s",
        far_input=f"{DATA_TO_IT} drop",
    ),
    # A router that cannot carry large packets, and whose word of it is filtered (RFC 2923 §2.1).
    "large-dropped": Case(
        reason="tls_timeout",
        stage="tls",
        near_input=f"ip saddr {{}} tcp sport {DOOR} ip length > 1000 drop",
    ),
    "resolver-silent": dns(None, "dns_timeout"),
    "proxy-dropped": Case(
        reason="proxy_timeout",
        stage="proxy",
        far_input=f"{TO_IT} drop",
        keys={"proxy": '{{ url = "http://{}:8443" }}'},
    ),
    # Half of the time for an address that does not answer, the other half for the handshake.
    "cycle-over": Case(
        reason="tls_timeout",
        stage="tls",
        detail="no end in 1.0 s",
        known=(SILENT, "{}"),
        near_output=f"ip daddr {SILENT} drop",
        far_input=f"{DATA_TO_IT} drop",
        keys={"timeouts": "{{ cycle = 2 }}"},
    ),
}


class Machine:
    """The agent's machine: its network, its files, and what it is told to watch."""

    def __init__(self, net: Network, folder: Path, pki: Pki) -> None:
        self.net, self.folder, self.pki = net, folder, pki
        (folder / "root.pem").write_bytes(pki.servers.root_pem())
        (folder / "password").write_text(PASSWORD.reveal())
        for defect in (ClientCertificate.GOOD, ClientCertificate.UNKNOWN_CA):
            issued = pki.client(defect)
            (folder / f"{defect.value}.pem").write_bytes(issued.chain_pem() + issued.key_pem())

    def configure(self, orgs: Mapping[str, Mapping[str, str]], **agent: str) -> None:
        """Write the configuration; values are in TOML's words."""
        limits = ", ".join(f"{name} = {LIMIT}" for name in ("dns", "proxy", "tcp", "tls", "http"))
        tables = {
            "agent": {
                "state_directory": '"state"',
                "timeouts": f"{{ {limits}, cycle = 20 }}",
                **agent,
            },
            "web": {"listen": '"127.0.0.1:10843"'},
            "defaults": {
                "trust": '{ system = false, file = "root.pem" }',
                "certificate": f'"{ClientCertificate.GOOD.value}.pem"',
                "refusal": "false",
            },
            **{f"orgs.{name}": {"host": f'"{_host(name)}"', **keys} for name, keys in orgs.items()},
        }
        text = "".join(
            f"[{table}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for table, keys in tables.items()
        )
        (self.folder / "config.toml").write_text(text)

    def probed(self, orgs: Mapping[str, Mapping[str, str]], *options: str) -> tuple[dict, float]:
        """Run one cycle of each org; return {org: what was seen} and the seconds it all took."""
        self.configure(orgs)
        ran = self.net.ran("probe", "--json", "-c", self.folder / "config.toml", *options)
        assert ran.errors == "", "also: all was given back"
        seen = {cycle["org"]: cycle for cycle in json.loads(ran.output)}
        assert ran.code == (not all(cycle["healthy"] for cycle in seen.values()))
        return seen, ran.seconds

    def probed_in(self, cases: Mapping[str, Case]) -> tuple[dict, float]:
        """Run one cycle of each case, all at once, with what is in its way."""
        rules: dict[str, list[str]] = {"near output": [], "near input": [], "far input": []}
        orgs = {}
        with ExitStack() as stack:
            for number, (name, case) in enumerate(cases.items(), start=130):
                address = f"192.0.2.{number}"
                self.knows(name, _filled_in(case.known, address))
                orgs[name] = {key: value.format(address) for key, value in case.keys.items()}
                for hook, rule in (
                    ("near output", case.near_output),
                    ("near input", case.near_input),
                    ("far input", case.far_input),
                ):
                    rules[hook] += [rule.format(address)] if rule else []
                if case.route:
                    stack.enter_context(self.net.near.routing(case.route, address))
            for hook, wanted in rules.items():
                side, _, at = hook.partition(" ")
                namespace = self.net.near if side == "near" else self.net.far.namespace
                stack.enter_context(namespace.filtering(at, *wanted))
            return self.probed(orgs)

    def knows(self, name: str, known: tuple[str, ...] | Code | bytes | None) -> None:
        """Let the org's host stand for this."""
        self.net.far.names.known[_host(name)] = known


def _host(name: str) -> str:
    return f"{name}.my.salesforce.com"


def _filled_in(known, address):
    return tuple(one.format(address) for one in known) if isinstance(known, tuple) else known


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    network.require_namespaces()
    pki = Pki.create(datetime.now(UTC))
    with (
        network.joined() as net,
        net.far.playing("healthy", pki),
        net.far.playing("healthy", pki, host="::"),
    ):
        net.resolving(IMPATIENT)
        yield Machine(net, tmp_path_factory.mktemp("machine"), pki)


@pytest.fixture(scope="module")
def answered(machine) -> dict:
    """Return the cycles of all that is told at once, run side by side."""
    seen, _ = machine.probed_in(ANSWERED)
    return seen


@pytest.fixture(scope="module")
def hanging(machine) -> tuple[dict, float]:
    """Return the cycles of all that must be waited for, and how long the process took for them."""
    machine.net.resolving(PATIENT)
    try:
        return machine.probed_in(HANGING)
    finally:
        machine.net.resolving(IMPATIENT)


@pytest.fixture(scope="module")
def start(machine) -> float:
    """Return how long a process takes that finds the door open."""
    machine.knows("start", (FAR,))
    seen, seconds = machine.probed({"start": {}})
    assert seen["start"]["client_auth"] == "accepted"
    return seconds


def must_be(case: Case, cycle) -> None:
    handshake = cycle["probes"]["handshake"]
    assert handshake["reason"] == case.reason, handshake
    assert list(cycle["stages"])[-1] == case.stage
    assert case.detail in handshake["detail"]
    assert cycle["client_auth"] == ("accepted" if case.reason is None else "not_reached")
    # Whoever is woken is given a cause, too.
    assert bool(cycle["causes"]) is (case.reason is not None)


@pytest.mark.parametrize("name", ANSWERED)
def test_what_the_network_says_is_told_with_its_reason_and_stage(name, answered):
    must_be(ANSWERED[name], answered[name])
    if ANSWERED[name].keys is not LONG:
        assert sum(answered[name]["stages"].values()) < LIMIT, "nobody waited for a limit"


@pytest.mark.parametrize("name", HANGING)
def test_what_the_network_does_not_say_is_told_when_the_limit_is_over(name, hanging):
    case, cycle = HANGING[name], hanging[0][name]

    must_be(case, cycle)
    took = sum(cycle["stages"].values()) if name == "cycle-over" else cycle["stages"][case.stage]
    assert LIMIT * 0.9 <= took <= LIMIT * 1.1


def test_a_process_ends_with_its_limit_although_a_resolver_still_hangs(hanging, start):
    _, seconds = hanging

    # Its start is that of a busy machine with several orgs.
    assert seconds <= LIMIT * 1.1 + 3 * start


def test_with_one_of_two_addresses_dead_the_other_is_used_within_the_same_limit(machine):
    second = "192.0.2.130"
    machine.knows("half-dead", (second, FIRST))
    with machine.net.far.namespace.filtering("input", f"ip daddr {FIRST} drop"):
        seen, _ = machine.probed({"half-dead": {}})

    assert seen["half-dead"]["address"] == f"{second}:{DOOR}"
    assert seen["half-dead"]["client_auth"] == "accepted"
    assert LIMIT * 0.45 <= seen["half-dead"]["stages"]["tcp"] <= LIMIT * 0.55


# --- far away


@pytest.mark.parametrize("round_trip", [0.03, 0.3], ids=["30-ms", "300-ms"])
def test_the_verdict_is_right_however_long_it_is_under_way(round_trip, machine):
    machine.net.shuttle.delay = round_trip / 2
    refused = f'"{ClientCertificate.UNKNOWN_CA.value}.pem"'
    orgs = {"good": {}, "refused": {"certificate": refused}}
    for name in orgs:
        machine.knows(name, (SLOW_FAR,))

    seen, _ = machine.probed(orgs)

    assert seen["good"]["client_auth"] == "accepted"
    assert seen["refused"]["client_auth"] == "rejected"
    assert seen["refused"]["alert"] == "unknown_ca"
    assert seen["refused"]["probes"]["handshake"]["reason"] == "client_cert_unknown_ca"
    for cycle in seen.values():
        assert list(cycle["stages"])[:4] == ["dns", "tcp", "tls", "client_auth"]
        assert cycle["stages"]["tcp"] >= round_trip
        assert cycle["stages"]["tls"] >= round_trip


# --- loss and rates


def test_when_every_other_packet_is_lost_the_door_is_found_open_all_the_same(machine):
    machine.knows("lossy", (FAR,))
    # SYNs are counted by themselves: a last packet of an earlier connection may be on its way.
    every_other = [
        f"tcp dport {DOOR} tcp flags & syn {which} syn numgen inc mod 2 == 0 drop"
        for which in ("==", "!=")
    ]
    with machine.net.far.namespace.filtering("input", *every_other):
        seen, _ = machine.probed({"lossy": {"timeouts": "{ tcp = 10, tls = 10 }"}})

    assert seen["lossy"]["client_auth"] == "accepted"
    # The kernel sends a SYN again after a second (RFC 6298 §2.1).
    assert seen["lossy"]["stages"]["tcp"] >= 1


def test_when_half_of_the_packets_are_lost_a_failure_is_one_of_time_and_in_time(machine):
    orgs = {f"unlucky-{number}": {} for number in range(6)}
    for name in orgs:
        machine.knows(name, (FAR,))
    half = f"tcp dport {DOOR} numgen random mod 100 < 50 drop"
    with machine.net.far.namespace.filtering("input", half):
        seen, _ = machine.probed(orgs)

    for cycle in seen.values():
        # Chance decides how far it gets; never does it look like a refusal.
        if cycle["client_auth"] != "accepted":
            reason = cycle["probes"]["handshake"]["reason"]
            assert reason in {"tcp_timeout", "tls_timeout", "http_timeout"}
            assert reason == "http_timeout" or cycle["client_auth"] == "not_reached"
        assert max(cycle["stages"].values()) <= LIMIT * 1.1


# What the kernel lets through at once decides whether a line of 1 kbit/s carries a handshake.
STOPS = {("tls_timeout", "tls"), ("http_timeout", "door")}


@pytest.mark.parametrize(
    ("rate", "ends"), [("1kbit", STOPS), ("200kbit", {(None, "door")})], ids=["1kbit", "200kbit"]
)
def test_a_line_that_is_too_slow_is_a_timeout_of_the_stage_that_it_stops(rate, ends, machine):
    machine.knows("slow-line", (FAR,))
    with machine.net.far.namespace.limiting("fast", rate):
        # By its address: a look-up would wait on the same line.
        seen, _ = machine.probed({"slow-line": {"connect_to": f'"{FAR}:{DOOR}"'}})

    stages = seen["slow-line"]["stages"]
    assert (seen["slow-line"]["probes"]["handshake"]["reason"], list(stages)[-1]) in ends
    assert max(stages.values()) <= LIMIT * 1.1


# --- cut off in the middle


@pytest.mark.parametrize(
    ("cut", "reason"), [(True, "tcp_reset"), (False, "http_timeout")], ids=["cut", "left-alone"]
)
def test_a_connection_that_is_killed_while_the_login_waits_is_a_reset_of_the_login(
    cut, reason, machine
):
    scenario = SCENARIOS["login_slow_body"]
    name, port = host_name(scenario).partition(".")[0], DOOR + 1
    machine.knows(name, (FAR,))
    login = {
        "port": str(port),
        "username": f'"{USERNAME}"',
        "password": '{ file = "password" }',
    }
    machine.configure({name: login}, state_directory=f'"state-{reason}"')
    with machine.net.far.playing(scenario.name, machine.pki, port=port) as simulator:
        process = machine.net.started("probe", "--json", "-c", machine.folder / "config.toml")
        try:
            until(lambda: simulator.record.logins == 1)
            if cut:
                machine.net.near.ran("ss", "--kill", "dst", FAR, "dport", "=", str(port))
            output, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        (cycle,) = json.loads(output)

        assert errors == ""
        assert cycle["probes"]["login"]["reason"] == reason
        assert list(cycle["stages"])[-1] == "login"
        assert cycle["client_auth"] == "accepted", "the door had opened"
        assert simulator.record.logins == 1, "a login whose end is unknown is not tried again"


def until(happened, seconds=10.0):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


# --- the agent's own network


def test_a_daemon_that_reaches_no_org_suspects_its_own_network_until_it_reaches_one(machine):
    orgs = {"emea": {}, "apac": {}}
    for name in orgs:
        machine.knows(name, (FAR,))
    machine.configure(orgs, interval="1", timeouts="{ cycle = 0.9, tcp = 0.3 }")
    process = machine.net.started("run", "-c", machine.folder / "config.toml")
    try:
        until(lambda: suspect(machine) == 0.0)
        with machine.net.near.filtering("output", f"tcp dport {DOOR} drop"):
            until(lambda: suspect(machine) == 1.0)
        until(lambda: suspect(machine) == 0.0)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0
    begun, ended = [json.loads(line) for line in errors.splitlines() if "own network" in line]
    assert (begun["level"], begun["orgs"]) == ("warning", 2)
    assert (ended["level"], ended["lasted"][:5]) == ("info", "0:00:")
    assert "ResourceWarning" not in errors
    assert machine.net.near.processes() == []


def suspect(machine) -> float | None:
    """Return what the daemon says of its network, None while it does not answer."""

    def scrape() -> str:
        with urllib.request.urlopen("http://127.0.0.1:10843/metrics", timeout=5) as answer:
            return answer.read().decode()

    try:
        text = machine.net.near.made_inside(scrape)
    except OSError:
        return None
    found = re.search(r"^sfmtls_agent_network_suspect (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


# --- what is left


def test_nothing_is_left_of_the_networks():
    network.require_namespaces()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with network.joined() as net:
        names = {net.near.name, net.far.namespace.name}
        assert names <= set(network.ip("netns").split())

    assert not names & set(network.ip("netns").split())
    assert not any((Path("/etc/netns") / name).exists() for name in names)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
