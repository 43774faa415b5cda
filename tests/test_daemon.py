"""The whole agent: starts, probes, serves, reloads, drains; against simulators on loopback."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from fleet import Fleet
from prometheus_client.parser import text_string_to_metric_families

from agent import config, downtime
from agent.daemon import Daemon, DaemonError, changes
from agent.maintenance import EVERY_ORG
from agent.reason import Reason
from agent.result import Failure, Probe, SkipCause, Success
from agent.schedule import Missed, phase
from agent.simulator.pki import ClientCertificate


async def until(condition, seconds=15.0):
    """Wait until something is so; the time is a bound, not a measure."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the daemon tells nobody when a cycle ends
            await asyncio.sleep(0.01)


class Running:
    """A started daemon and what a test asks of it."""

    def __init__(self, fleet, load=None):
        self.fleet = fleet
        load = load or (lambda: config.load(fleet.file))
        self.daemon = Daemon(config.load(fleet.file), load, os.environ)

    async def __aenter__(self):
        host, port = await self.daemon.start()
        self.client = httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False)
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()
        await self.daemon.stop()
        await self.fleet.stop()

    def cycles(self, org):
        snapshot = self.daemon.board.get(org)
        return snapshot.cycles if snapshot else 0

    async def cycled(self, org, times=1):
        """Wait for some more cycles of an org."""
        target = self.cycles(org) + times
        await until(lambda: self.cycles(org) >= target)

    async def samples(self):
        """Scrape, and return every sample by name and labels."""
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    async def value(self, name, **labels):
        return (await self.samples()).get((name, frozenset(labels.items())))


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


async def test_a_healthy_org_is_all_there_after_its_first_cycle(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        not_ready = await running.client.get("/-/ready")
        await running.cycled("emea")
        ready = await running.client.get("/-/ready")
        samples = await running.samples()

    assert (not_ready.status_code, ready.status_code) == (503, 200)
    org = ("org", "emea")
    for probe in ("handshake", "login", "session", "refusal"):
        assert samples["sfmtls_probe_success", frozenset({org, ("probe", probe)})] == 1
    assert samples["sfmtls_client_auth", frozenset({org, ("state", "accepted")})] == 1
    days = samples["sfmtls_certificate_expiry_days", frozenset({org, ("side", "client")})]
    assert 89 < days < 91
    assert samples["sfmtls_api_requests_limit", frozenset({org})] > 0
    assert samples["sfmtls_login_breaker_open", frozenset({org})] == 0
    assert samples["sfmtls_login_budget_remaining", frozenset({org})] == 29
    assert samples["process_cpu_seconds_total", frozenset()] > 0


async def test_the_lines_of_an_org_are_made_by_its_cycle_and_not_by_the_scrape(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        made = running.daemon._exposition._rendered
        await running.cycled("emea")
        await until(lambda: "emea" in made)

        assert made["emea"].lines
        assert await running.value("sfmtls_client_auth", org="emea", state="accepted") == 1


async def test_only_the_first_of_many_cycles_logs_in_and_no_session_is_ever_ended(fleet):
    simulator = await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea", 3)

    assert simulator.record.logins == 1
    assert simulator.record.session_endings == 0
    assert simulator.record.count("getServerTimestamp") >= 3, "the door is knocked at every time"


async def test_y092_one_orgs_missing_file_does_not_touch_the_others(fleet):
    await fleet.add("good")
    await fleet.add("broken", certificate="absent.pem")
    async with Running(fleet) as running:
        await running.cycled("good")
        await running.cycled("broken")
        good, broken = (running.daemon.board.get(name) for name in ("good", "broken"))

    assert isinstance(good.probes[Probe.HANDSHAKE].last, Success)
    assert broken.probes[Probe.HANDSHAKE].last.reason is Reason.CLIENT_MATERIAL_UNREADABLE
    assert fleet.simulators["broken"].record.connections == []


async def test_a_refused_password_opens_the_breaker_and_handshakes_go_on(fleet):
    simulator = await fleet.add("emea", "invalid_login")
    async with Running(fleet) as running:
        await running.cycled("emea", 3)
        open_now = await running.value("sfmtls_login_breaker_open", org="emea")
        failing = await running.value(
            "sfmtls_probe_failing", org="emea", probe="login", reason="invalid_login"
        )
        door = await running.value("sfmtls_probe_success", org="emea", probe="handshake")

    assert (open_now, failing, door) == (1, 1, 1)
    assert simulator.record.logins == 1


async def test_y116_the_breaker_is_still_open_after_a_restart(fleet):
    simulator = await fleet.add("emea", "invalid_login")
    async with Running(fleet) as running:
        await running.cycled("emea")
    await simulator.start()
    fleet.configure("emea")
    async with Running(fleet) as running:
        await running.cycled("emea", 2)
        skipped = running.daemon.board.get("emea").probes[Probe.LOGIN].skipped

    assert simulator.record.logins == 1
    assert skipped[SkipCause.BREAKER_OPEN] >= 1


async def test_a_corrected_password_is_tried_at_once_after_a_restart(fleet):
    simulator = await fleet.add("emea")
    right = (fleet.folder / "password.txt").read_text()
    (fleet.folder / "password.txt").write_text("wrong")
    async with Running(fleet) as running:
        await running.cycled("emea")
        first = running.daemon.board.get("emea").probes[Probe.LOGIN].last
    (fleet.folder / "password.txt").write_text(right)
    await simulator.start()
    fleet.configure("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        second = running.daemon.board.get("emea").probes[Probe.LOGIN].last

    assert isinstance(first, Failure)
    assert first.reason is Reason.INVALID_LOGIN
    assert isinstance(second, Success)


async def test_two_orgs_of_one_user_never_log_in_at_once_and_share_the_budget(fleet):
    await fleet.add("one", username="shared@corp.example")
    await fleet.add("two", username="shared@corp.example")
    for simulator in fleet.simulators.values():
        simulator.service.username = "shared@corp.example"
    async with Running(fleet) as running:
        await running.cycled("one", 2)
        await running.cycled("two", 2)
        logins = sum(s.record.logins for s in fleet.simulators.values())
        states = [running.daemon.board.get(name) for name in ("one", "two")]

    assert logins == 2
    assert min(state.budget_remaining for state in states) == 28


async def started_by_command(fleet, *orgs, lasts=timedelta(hours=1)):
    """Do what the command `maintenance start` does, in another process than the daemon."""
    settings = config.load(fleet.file)
    begins = datetime.now(UTC)
    await asyncio.to_thread(downtime.start, settings, orgs, begins, begins + lasts, "an upgrade")


async def test_maintenance_that_is_started_stops_logins_and_no_handshakes_and_survives_a_restart(
    fleet,
):
    simulator = await fleet.add("emea")
    twin = await fleet.add("apac")
    await started_by_command(fleet, "emea")
    async with Running(fleet) as running:
        await running.cycled("emea", 2)
        await running.cycled("apac")
        first = await running.samples()
    for each in (simulator, twin):
        await each.start()
    fleet.configure("emea")
    fleet.configure("apac")
    async with Running(fleet) as running:
        await running.cycled("emea", 2)
        still = await running.value("sfmtls_maintenance", org="emea")
        window = running.daemon.board.get("emea").maintenance

    emea = ("org", "emea")
    assert first["sfmtls_maintenance", frozenset({emea})] == 1
    assert first["sfmtls_maintenance", frozenset({("org", "apac")})] == 0
    assert first["sfmtls_probe_success", frozenset({emea, ("probe", "handshake")})] == 1
    skipped = frozenset({emea, ("probe", "login"), ("cause", "maintenance")})
    assert first["sfmtls_probe_skipped_total", skipped] >= 2
    assert (still, window.reason) == (1, "an upgrade")
    assert (simulator.record.logins, twin.record.logins >= 1) == (0, True)


async def test_a_running_daemon_takes_a_window_in_and_logs_in_again_when_it_is_over(fleet):
    simulator = await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        before = await running.value("sfmtls_maintenance", org="emea")
        await started_by_command(fleet, EVERY_ORG, lasts=timedelta(seconds=3.5))
        await until(lambda: running.daemon.board.get("emea").maintenance is not None, 4)
        inside = await running.value("sfmtls_maintenance", org="emea")
        # A login is due at once after it.
        running.daemon._runners["emea"].tried.pop(Probe.LOGIN)
        await running.cycled("emea")
        held = simulator.record.logins
        await until(lambda: running.daemon.board.get("emea").maintenance is None, 8)
        await until(lambda: simulator.record.logins == 2)
        after = await running.value("sfmtls_maintenance", org="emea")

    assert (before, inside, after) == (0, 1, 0)
    assert held == 1


async def test_a_reload_puts_a_window_into_force_and_out_of_it(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        fleet.write("[[defaults.maintenance]]\nuntil = 2999-01-01\n")
        assert await running.daemon.reload()
        await running.cycled("emea", 2)
        inside = await running.value("sfmtls_maintenance", org="emea")
        fleet.write()
        assert await running.daemon.reload()
        await running.cycled("emea", 2)
        after = await running.value("sfmtls_maintenance", org="emea")

    assert (inside, after) == (1, 0)


async def test_without_a_state_directory_handshakes_go_on_and_no_login_is_sent(fleet):
    simulator = await fleet.add("emea")
    (fleet.folder / "state").write_text("a file where the directory should be")
    async with Running(fleet) as running:
        await running.cycled("emea")
        snapshot = running.daemon.board.get("emea")

    assert isinstance(snapshot.probes[Probe.HANDSHAKE].last, Success)
    assert snapshot.probes[Probe.LOGIN].skipped == {SkipCause.STATE_UNAVAILABLE: 1}
    assert simulator.record.logins == 0


# --- rotation


async def test_y093_a_rotated_certificate_is_presented_in_the_next_cycle(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        before = running.daemon.board.get("emea").chains["client"].certificates[0]
        fleet.deploy(ClientCertificate.GOOD, "good.pem")
        await running.cycled("emea", 2)
        after = running.daemon.board.get("emea").chains["client"].certificates[0]
        infos = [
            dict(labels)["fingerprint_sha256"]
            for name, labels in await running.samples()
            if name == "sfmtls_certificate_info" and dict(labels)["side"] == "client"
        ]

    assert before.fingerprint_sha256 != after.fingerprint_sha256
    assert after.fingerprint_sha256 in infos
    assert before.fingerprint_sha256 not in infos, "the series of the old one vanish"


async def test_y094_a_symlink_swap_is_noticed(fleet):
    versions = {}
    for version in ("v1", "v2"):
        (fleet.folder / version).mkdir()
        versions[version] = fleet.deploy(ClientCertificate.GOOD, f"{version}.pem")
        (fleet.folder / f"{version}.pem").rename(fleet.folder / version / "client.pem")
    (fleet.folder / "live").symlink_to("v1")
    await fleet.add("emea", certificate="live/client.pem")
    async with Running(fleet) as running:
        await running.cycled("emea")
        (fleet.folder / "next").symlink_to("v2")
        (fleet.folder / "next").rename(fleet.folder / "live")
        await running.cycled("emea", 2)
        now = running.daemon.board.get("emea").chains["client"].certificates[0]

    assert int(now.serial_number, 16) == versions["v2"].leaf.serial_number


async def test_a_half_written_pair_keeps_the_old_one_counts_and_heals(fleet):
    await fleet.add("emea")
    good = (fleet.folder / "good.pem").read_bytes()
    async with Running(fleet) as running:
        await running.cycled("emea")
        (fleet.folder / "good.pem").write_bytes(good[: len(good) // 2])
        await running.cycled("emea", 3)
        failures = await running.value("sfmtls_identity_reload_failures_total", org="emea")
        during = running.daemon.board.get("emea").probes[Probe.HANDSHAKE]
        (fleet.folder / "good.pem").write_bytes(good)
        await running.cycled("emea", 2)
        after = running.daemon.board.get("emea")

    assert failures == 1, "once for each content, not for each cycle"
    assert isinstance(during.last, Success)
    assert during.failures == 0
    assert after.identity_reload_failures == 1


# --- reload


async def test_y146_a_good_reload_adds_removes_and_leaves_the_rest_alone(fleet):
    for name in ("stays", "goes", "changes"):
        await fleet.add(name)
    async with Running(fleet) as running:
        for name in ("stays", "goes", "changes"):
            await running.cycled(name)
        cycles = running.cycles("stays")
        fleet.drop("goes")
        await fleet.add("comes")
        fleet.configure("changes", refusal=False)
        assert await running.daemon.reload()
        await running.cycled("comes")
        samples = await running.samples()
        orgs = {dict(labels).get("org") for _, labels in samples} - {None}
        attempts = await running.value(
            "sfmtls_probe_attempts_total", org="changes", probe="handshake"
        )

    assert orgs == {"stays", "changes", "comes"}
    assert running.cycles("stays") >= cycles, "counters of an untouched org go on"
    assert attempts >= 1, "and so do those of a changed one"
    refusal = frozenset({("org", "changes"), ("probe", "refusal")})
    assert ("sfmtls_probe_attempts_total", refusal) not in samples
    assert samples["sfmtls_config_last_reload_successful", frozenset()] == 1


async def test_y147_a_bad_file_changes_nothing_and_sets_the_gauge(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        loaded_at = await running.value("sfmtls_config_last_reload_success_timestamp_seconds")
        fleet.write(tail="\n[orgs.emea2]\nhost = 5\n")
        assert not await running.daemon.reload()
        bad = await running.value("sfmtls_config_last_reload_successful")
        same = await running.value("sfmtls_config_last_reload_success_timestamp_seconds")
        await running.cycled("emea")
        fleet.write()
        assert await running.daemon.reload()
        good = await running.value("sfmtls_config_last_reload_successful")

    assert (bad, good) == (0, 1)
    assert same == loaded_at


async def test_y148_reloads_in_quick_succession_during_a_cycle_make_no_double_job(fleet):
    simulator = await fleet.add("emea", "slow_but_well")
    async with Running(fleet) as running:
        await until(lambda: simulator.record.connections)
        await asyncio.gather(*(running.daemon.reload() for _ in range(3)))
        await running.cycled("emea", 2)
        cycles = running.cycles("emea")
        attempts = running.daemon.board.get("emea").probes[Probe.HANDSHAKE].attempts

    assert attempts == cycles
    assert simulator.record.logins == 1


async def test_a_changed_org_keeps_its_login_clock_and_its_counters(fleet):
    simulator = await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        fleet.configure("emea", username="probe@emea.example", refusal_interval="7m")
        assert await running.daemon.reload()
        await running.cycled("emea", 2)
        refusals = running.daemon.board.get("emea").probes[Probe.REFUSAL].attempts

    assert simulator.record.logins == 1
    assert refusals == 1


async def test_a_cycle_of_the_old_configuration_does_not_show_in_the_new_one(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        await running.cycled("emea")
        old = running.daemon._runners["emea"]
        fleet.configure("emea", connect_to="127.0.0.1:1", interval="1h")
        assert await running.daemon.reload()
        before = running.daemon.board.get("emea")
        await old.run()
        after = running.daemon.board.get("emea")

    assert before.client_auth is None
    assert after is before


async def test_a_bug_while_reloading_changes_nothing_is_counted_and_heals(fleet):
    await fleet.add("emea")
    cursed = []

    def load():
        settings = config.load(fleet.file)
        if not cursed:
            return settings
        other = replace(settings.orgs["emea"], name="apac", policy=None)
        return replace(settings, orgs={**settings.orgs, "apac": other})

    async with Running(fleet, load) as running:
        cursed.append("an org that no runner can be made of")
        assert not await running.daemon.reload()
        bad = await running.value("sfmtls_config_last_reload_successful")
        bugs = await running.value("sfmtls_internal_errors_total", component="reload")
        watched = [snapshot.org.name for snapshot in running.daemon.board.snapshots()]
        cursed.clear()
        await fleet.add("apac")
        assert await running.daemon.reload()
        await running.cycled("apac")
        good = await running.value("sfmtls_config_last_reload_successful")

    assert (bad, bugs, watched) == (0, 1, ["emea"])
    assert good == 1


async def test_an_unexpected_error_while_reading_the_configuration_is_no_end(fleet):
    await fleet.add("emea")

    def load():
        raise RuntimeError("Symlink loop")

    async with Running(fleet, load) as running:
        assert not await running.daemon.reload()
        assert await running.value("sfmtls_config_last_reload_successful") == 0
        await running.cycled("emea")


async def test_a_reload_sets_the_log_and_says_what_needs_a_restart_each_time(fleet):
    await fleet.add("emea")
    ours = logging.getLogger("agent")
    level, handlers = ours.level, list(logging.getLogger().handlers)
    before = structlog.get_config()
    head = fleet._head
    async with Running(fleet) as running:
        try:
            fleet._head = head.replace(
                "[agent]\n", '[agent]\nlog_level = "error"\nbreaker_hold = "5m"\n'
            )
            fleet.write()
            told = []
            for _ in range(2):
                with structlog.testing.capture_logs() as entries:
                    assert await running.daemon.reload()
                told.append([e["key"] for e in entries if "restart" in e["event"]])
            chosen = ours.level
        finally:
            ours.setLevel(level)
            logging.getLogger().handlers[:] = handlers
            structlog.configure(**before)

    assert chosen == logging.ERROR
    assert told == [["agent.breaker_hold"]] * 2


async def test_stopping_ends_a_reload_under_way(fleet):
    await fleet.add("emea")
    reading, release = threading.Event(), threading.Event()

    def load():
        reading.set()
        release.wait(10)
        return config.load(fleet.file)

    running = Running(fleet, load)
    await running.daemon.start()
    reload = asyncio.create_task(running.daemon.reload())
    await asyncio.to_thread(reading.wait, 10)
    await running.daemon.stop()
    release.set()

    assert await reload is False
    assert await running.daemon.reload() is False, "nor does another one begin"
    assert running.daemon._reloads == set()


async def test_reload_over_http_works_only_when_enabled(tmp_path):
    (tmp_path / "off").mkdir()
    (tmp_path / "on").mkdir()
    answers = {}
    for name, web in (("off", ""), ("on", "lifecycle = true")):
        fleet = Fleet(tmp_path / name, web=web)
        await fleet.add("emea")
        async with Running(fleet) as running:
            answers[name] = (await running.client.post("/-/reload")).status_code

    assert answers == {"off": 403, "on": 200}


def test_what_a_reload_must_do_is_computed_beforehand():
    running = {"a": 1, "b": 2, "c": 3}

    plan = changes(running, {"b": 2, "c": 4, "d": 5})

    assert (plan.removed, plan.added, plan.changed) == (("a",), (5,), (4,))


# --- trouble of our own


async def test_a_bug_in_one_orgs_cycle_is_counted_and_stops_no_other(fleet):
    await fleet.add("good")
    await fleet.add("cursed")
    async with Running(fleet) as running:

        async def bug(_late):
            raise ZeroDivisionError("a bug")

        running.daemon._runners["cursed"].cycle = bug
        await running.cycled("good", 2)
        await running.cycled("cursed", 2)
        errors = await running.value("sfmtls_internal_errors_total", component="cycle")
        snapshot = running.daemon.board.get("cursed")
        good = running.daemon.board.get("good").probes[Probe.HANDSHAKE]

    assert errors >= 2
    assert snapshot.probes[Probe.HANDSHAKE].last.reason is Reason.INTERNAL
    assert isinstance(good.last, Success)


async def test_missed_cycles_are_counted_and_a_series_is_one_line(fleet):
    await fleet.add("emea")
    async with Running(fleet) as running:
        with structlog.testing.capture_logs() as entries:
            running.daemon._missed(Missed("emea", 1, overlap=True, repeated=False))
            running.daemon._missed(Missed("emea", 3, overlap=False, repeated=True))
        skipped = await running.value(
            "sfmtls_probe_skipped_total", org="emea", probe="handshake", cause="overlap"
        )

    assert [entry["log_level"] for entry in entries if "skipped" in entry["event"]] == [
        "warning",
        "debug",
    ]
    assert skipped == 4


async def test_an_agent_whose_web_server_ended_stops_and_says_so(fleet):
    await fleet.add("emea")
    daemon = Running(fleet).daemon
    run = asyncio.create_task(daemon.run())
    await until(lambda: daemon._web._serving)
    daemon._web._serving[0].cancel()
    with pytest.raises(DaemonError, match="the web server ended by itself"):
        await run
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.remove_signal_handler(number)

    errors = {
        sample.labels["component"]: sample.value
        for family in daemon._instruments.families()
        for sample in family.samples
        if sample.name == "sfmtls_internal_errors_total"
    }
    assert errors["web"] == 1


async def test_stopping_waits_for_the_cycle_under_way_and_loses_no_login(fleet):
    simulator = await fleet.add("emea", "slow_but_well")
    running = Running(fleet)
    await running.daemon.start()
    await until(lambda: simulator.record.logins == 1)
    await running.daemon.stop()
    snapshot = running.daemon.board.get("emea")

    assert isinstance(snapshot.probes[Probe.LOGIN].last, Success), "its end was seen"


async def test_a_taken_port_is_told_before_anything_is_probed(fleet):
    simulator = await fleet.add("emea")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fleet._head = fleet._head.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    fleet.write()
    daemon = Running(fleet).daemon

    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        await daemon.start()
    server.close()

    assert simulator.record.connections == []


async def test_y159_starts_are_spread_over_the_interval_and_the_same_every_time():
    phases = [phase(f"org-{number}", 60.0) for number in range(100)]
    again = [phase(f"org-{number}", 60.0) for number in range(100)]
    by_ten_seconds = Counter(int(offset // 10) for offset in phases)

    assert phases == again
    assert len(by_ten_seconds) == 6
    assert max(by_ten_seconds.values()) < 35, "no tenth of a minute gets a third of the orgs"
