"""The commands as an operator runs them: processes, exit codes, what they print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from endpoint import hashed
from fleet import Fleet

from agent import config
from agent.reason import Reason
from agent.simulator.http import Delivery
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD
from agent.simulator.soap import Asked
from agent.store import FILE_NAME, Store

COMMAND = [sys.executable, "-m", "agent"]
# Help is laid out for the terminal at hand; a fixed one makes it comparable.
PLAIN = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


async def command(*arguments, seconds=30):
    """Run a command to its end; return exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=PLAIN,
    )
    async with asyncio.timeout(seconds):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def started(*arguments):
    """Run a command for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=PLAIN,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def logged(process, event, seconds=20):
    """Read the log until an event is told; return its fields."""
    async with asyncio.timeout(seconds):
        while line := await process.stderr.readline():
            entry = json.loads(line)
            if entry["event"] == event:
                return entry
    pytest.fail(f"the process ended without {event!r}")


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


# --- probe


async def test_probe_of_a_healthy_org_says_all_well_and_exits_0(fleet):
    await fleet.add("emea")

    code, out, err = await command("probe", "--config", fleet.file)

    assert (code, err) == (0, "")
    assert "accepted" in out
    assert "1 org: all well" in out


async def test_probe_of_a_failing_org_says_why_and_what_to_do_and_exits_1(fleet):
    await fleet.add("emea")
    await fleet.add("apac", "server_expired")

    code, out, _ = await command("probe", "--config", fleet.file)

    assert code == 1
    assert "server_expired" in out
    assert Reason.SERVER_EXPIRED.remedy in out
    assert "likely: server_certificate_expired" in out
    assert out.index("likely: server_certificate_expired") < out.index("possible: clock_wrong")
    assert "2 orgs: 1 failed" in out


async def test_probe_of_one_named_org_leaves_the_others_alone(fleet):
    await fleet.add("emea")
    await fleet.add("apac")

    code, out, _ = await command("probe", "emea", "--config", fleet.file)

    assert code == 0
    assert "apac" not in out
    assert fleet.simulators["apac"].record.connections == []


async def test_probe_of_an_unknown_org_is_told_with_those_there_are(fleet):
    await fleet.add("emea")

    code, _, err = await command("probe", "emae", "--config", fleet.file)

    assert code == 78
    assert "emae" in err
    assert "emea" in err


async def test_probe_without_login_sends_no_password(fleet):
    simulator = await fleet.add("emea")

    code, _, _ = await command("probe", "--no-login", "--config", fleet.file)

    assert code == 0
    assert not simulator.record.credentials_seen


async def test_the_json_of_probe_has_the_promised_shape(fleet):
    await fleet.add("emea")
    await fleet.add("apac", "tls13_required_expired")
    fleet.deploy(SCENARIOS["tls13_required_expired"].client_certificate, "expired.pem")
    fleet.configure("apac", certificate="expired.pem")

    code, out, _ = await command("probe", "--json", "--config", fleet.file)
    emea, apac = json.loads(out)

    assert code == 1
    assert list(emea) == [
        "org",
        "healthy",
        "client_auth",
        "alert",
        "tls_version",
        "cipher_suite",
        "address",
        "stages",
        "probes",
        "causes",
        "certificates",
        "violations",
        "suppressed",
    ]
    assert (emea["org"], emea["healthy"], emea["client_auth"]) == ("emea", True, "accepted")
    assert emea["tls_version"] == "TLSv1.3"
    assert emea["address"] == f"127.0.0.1:{fleet.simulators['emea'].port}"
    assert list(emea["stages"]) == ["dns", "tcp", "tls", "client_auth", "door", "login", "session"]
    assert emea["probes"]["login"] == {"success": True, "reason": None, "detail": ""}
    leaf, intermediate = emea["certificates"]["server"]
    assert (leaf["role"], intermediate["role"]) == ("leaf", "intermediate")
    assert set(leaf) == {
        "subject",
        "issuer",
        "serial_number",
        "not_before",
        "not_after",
        "fingerprint_sha256",
        "role",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", leaf["not_after"])
    assert (apac["healthy"], apac["client_auth"]) == (False, "rejected")
    assert apac["alert"] == "certificate_expired"
    assert apac["probes"]["handshake"]["success"] is False
    assert apac["probes"]["handshake"]["reason"] == "client_cert_expired"
    assert apac["probes"]["login"]["success"] is None
    assert emea["causes"] == []
    (cause,) = apac["causes"]
    assert list(cause) == ["cause", "confidence", "sentence", "remedy"]
    assert (cause["cause"], cause["confidence"]) == ("client_certificate_expired", "certain")
    assert "alert certificate_expired" in cause["sentence"]
    assert cause["remedy"]
    assert len(apac["certificates"]["server"]) == 2, "seen although we were refused"
    assert "expired" in {found["rule"] for found in apac["violations"]}


# --- configuration


async def test_every_command_that_reads_a_bad_configuration_names_all_problems_and_exits_78(
    tmp_path,
):
    file = tmp_path / "config.toml"
    file.write_text('[orgs.a]\nhost = "login.salesforce.com"\nprot = 8443\n')

    for name in ("run", "check", "probe"):
        code, out, err = await command(name, "--config", file)

        assert (code, out) == (78, "")
        assert "orgs.a.host" in err
        assert "orgs.a.prot" in err
        assert "did you mean port?" in err
        assert "Traceback" not in err


async def test_y145_a_config_path_that_cannot_be_read_is_told_and_exits_78(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "empty.toml"):
        code, _, err = await command("check", "--config", path)

        assert code == 78
        assert str(path) in err


async def test_check_finds_what_is_wrong_with_files_and_touches_no_network(fleet):
    simulator = await fleet.add("emea")
    good = await command("check", "--config", fleet.file)
    (fleet.folder / "password.txt").unlink()
    (fleet.folder / "good.pem").write_text("garbage")
    bad = await command("check", "--config", fleet.file)

    assert good[0] == 0
    assert "good" in good[1]
    assert bad[0] == 78
    assert "password.txt" in bad[1]
    assert "good.pem" in bad[1]
    assert simulator.record.connections == []


async def test_check_shows_what_the_policy_says_without_failing(fleet):
    await fleet.add("emea")
    fleet.deploy(SCENARIOS["tls13_required_expired"].client_certificate, "good.pem")

    code, out, _ = await command("check", "--config", fleet.file)

    assert code == 0
    assert "critical: expired" in out


def protect(fleet, text):
    """Give the endpoint a web-config file; return its path."""
    path = fleet.folder / "web-config.yml"
    path.write_text(text)
    path.chmod(0o600)
    listening = 'listen = "127.0.0.1:0"'
    fleet.file.write_text(
        fleet.file.read_text().replace(listening, f'{listening}\nconfig_file = "{path}"')
    )
    return path


async def test_a_bad_web_config_file_is_told_by_check_and_run_which_exit_78(fleet):
    await fleet.add("emea")
    path = protect(fleet, "basic_auth_users:\n  ada: not-a-hash\n")

    for name in ("check", "run"):
        code, out, err = await command(name, "--config", fleet.file)

        assert code == 78
        told = " ".join((out + err).split())
        assert "bcrypt hash" in told
        assert path.name in told
        assert "not-a-hash" not in told
        assert "Traceback" not in told


async def test_check_is_content_with_a_good_web_config_file(fleet):
    await fleet.add("emea")
    protect(fleet, f"basic_auth_users:\n  ada: {hashed('x')}\n")

    assert (await command("check", "--config", fleet.file))[0] == 0


# --- the table of reasons and the breaker


async def test_reasons_lists_every_reason_with_meaning_and_remedy():
    code, out, _ = await command("reasons", "--json")
    rows = {row["reason"]: row for row in json.loads(out)}
    one = await command("reasons", "invalid_login")
    none = await command("reasons", "no_such_reason")

    assert code == 0
    assert set(rows) == {reason.value for reason in Reason}
    assert all(row["meaning"] and row["remedy"] for row in rows.values())
    assert Reason.INVALID_LOGIN.remedy in one[1]
    assert none[0] == 1


async def test_the_breaker_is_shown_and_reset_and_then_one_login_is_tried(fleet):
    simulator = await fleet.add("emea", "invalid_login")
    await command("probe", "--config", fleet.file)
    skipped = await command("probe", "--config", fleet.file)
    shown = await command("breaker", "show", "--config", fleet.file)
    reset = await command("breaker", "reset", "emea", "--config", fleet.file)
    again = await command("probe", "--config", fleet.file)

    assert simulator.record.logins == 2
    assert "breaker_open" in skipped[1]
    assert skipped[0] == 1, "a login that may not be tried is not all well"
    assert "invalid_login" in shown[1]
    assert reset[0] == 0
    assert "invalid_login" in again[1]


# --- maintenance


async def test_maintenance_is_started_listed_and_stopped_without_a_daemon(fleet):
    simulator = await fleet.add("emea")
    other = await fleet.add("apac")
    config_file = ("--config", fleet.file)
    why = ("--for", "2h", "--reason", "an [bold]upgrade[/bold]")
    begun = await command("maintenance", "start", "emea", *why, *config_file)
    listed = await command("maintenance", "list", *config_file)
    inside = await command("probe", *config_file)
    as_json = await command("maintenance", "list", "--json", *config_file)
    ended = await command("maintenance", "stop", "emea", *config_file)
    again = await command("maintenance", "stop", "emea", *config_file)
    none = await command("maintenance", "list", *config_file)

    assert begun[0] == 0
    assert "emea: nobody logs in until" in begun[1]
    assert re.search(r"emea +now .* command +an \[bold\]upgrade\[/bold\]", listed[1])
    assert inside[0] == 0, "an org in maintenance is no failing one"
    assert "login: not tried, maintenance" in inside[1]
    assert (simulator.record.logins, other.record.logins) == (0, 1)
    assert simulator.record.connections, "handshakes go on"
    (row,) = json.loads(as_json[1])
    assert (row["orgs"], row["all"], row["active"]) == (["emea"], False, True)
    assert (row["by"], row["cron"], row["reason"]) == ("command", None, why[-1])
    assert ended[:2] == (0, "emea: maintenance is over\n")
    assert again[:2] == (0, "emea: no maintenance was started\n")
    assert none[:2] == (0, "no maintenance is under way or planned\n")


async def test_maintenance_of_all_orgs_goes_on_for_one_whose_own_is_stopped(fleet):
    await fleet.add("emea")
    await fleet.add("apac")
    config_file = ("--config", fleet.file)
    await command("maintenance", "start", "--all", "--for", "1h", *config_file)
    one = await command("maintenance", "stop", "emea", *config_file)
    listed = await command("maintenance", "list", *config_file)
    every = await command("maintenance", "stop", "--all", *config_file)

    assert one[1].startswith("emea: no maintenance was started\nemea: still in maintenance until ")
    assert "all orgs" in listed[1]
    assert every[1] == "all orgs: maintenance is over\n"


async def test_what_the_configuration_says_is_listed_and_not_stopped_by_command(fleet):
    simulator = await fleet.add("emea")
    fleet.write(
        '[[defaults.maintenance]]\ncron = "0 2 29 2 *"\nduration = "4h"\n'
        'timezone = "Europe/Berlin"\n[[orgs.emea.maintenance]]\nuntil = 2999-01-01\n'
    )
    as_json = await command("maintenance", "list", "--json", "--config", fleet.file)
    stopped = await command("maintenance", "stop", "--all", "--config", fleet.file)
    inside = await command("probe", "--config", fleet.file)

    now, later = json.loads(as_json[1])
    assert (now["until"], now["from"], now["active"]) == ("2999-01-01T00:00:00Z", None, True)
    assert (later["cron"], later["timezone"]) == ("0 2 29 2 *", "Europe/Berlin")
    assert re.fullmatch(r"20\d\d-02-29T01:00:00Z", later["from"])
    assert not later["active"]
    assert stopped[1].startswith("all orgs: no maintenance was started\nemea: still in maintenance")
    assert "login: not tried, maintenance" in inside[1]
    assert simulator.record.logins == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "--for", "1h"], "name the orgs, or say --all"),
        (["start", "--all", "emea", "--for", "1h"], "name the orgs, or say --all"),
        (["stop"], "name the orgs, or say --all"),
        (["start", "emea"], "say how long"),
        (["start", "emea", "--for", "1h", "--until", "2999-01-01T00:00Z"], "say how long"),
        (["start", "emea", "--for", "soon"], "--for must be seconds"),
        (["start", "emea", "--until", "soon"], "--until must look like"),
        (["start", "emea", "--until", "2999-01-01T00:00"], "--until needs an offset"),
        (["start", "emea", "--until", "2999-01-01T00:00Z"], "more than a year away"),
        (["start", "emea", "--until", "2020-01-01T00:00Z"], "is over already"),
        (["start", "emea", "--for", "1h", "--reason", "a\nb"], "--reason must be one line"),
        (["start", "nowhere", "--for", "1h"], "no org named nowhere is configured"),
    ],
)
async def test_maintenance_that_is_asked_for_wrongly_is_refused_and_nothing_is_started(
    fleet, arguments, said
):
    await fleet.add("emea")
    code, _, err = await command("maintenance", *arguments, "--config", fleet.file)
    listed = await command("maintenance", "list", "--config", fleet.file)

    assert said in " ".join(err.split())
    assert code == (78 if "nowhere" in arguments else 2)
    assert listed[1] == "no maintenance is under way or planned\n"


# --- simulate, demo


async def test_simulate_announces_its_address_first_and_gives_a_client_all_it_needs(tmp_path):
    async with started("simulate", "--directory", tmp_path / "client") as process:
        first = (await process.stdout.readline()).decode().strip()
        code, out, _ = await command("probe", "--config", tmp_path / "client" / "config.toml")

    assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+", first)
    assert {file.name for file in (tmp_path / "client").iterdir()} >= {
        "fullcert.pem",
        "server-root.pem",
        "login.txt",
        "config.toml",
    }
    assert code == 0, out


async def test_simulate_lists_every_scenario_and_refuses_an_unknown_one():
    code, out, _ = await command("simulate", "--list")
    unknown = await command("simulate", "--scenario", "nonsense")

    assert code == 0
    assert all(name in out for name in SCENARIOS)
    assert unknown[0] == 1
    assert "nonsense" in unknown[2]


async def test_the_demo_says_what_to_look_at_and_ends_by_itself():
    code, out, _ = await command("demo", "--listen", "127.0.0.1:0", "--for", "3s", seconds=60)

    assert code == 0
    assert re.search(r"http://127\.0\.0\.1:\d+/metrics", out)
    assert out.count("\n  ") >= 8


# --- the daemon


async def test_run_stops_cleanly_on_sigterm_and_reloads_on_sighup(fleet):
    await fleet.add("emea")
    async with started("run", "--config", fleet.file) as process:
        await logged(process, "handshake success")
        await fleet.add("apac")
        process.send_signal(signal.SIGHUP)
        reloaded = await logged(process, "configuration reloaded")
        process.send_signal(signal.SIGTERM)
        await logged(process, "stopped")
        code = await process.wait()

    assert (reloaded["added"], reloaded["removed"]) == (1, 0)
    assert code == 0


async def test_run_tells_a_taken_port_without_a_traceback(fleet):
    await fleet.add("emea")
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    fleet.file.write_text(fleet.file.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))

    code, _, err = await command("run", "--config", fleet.file)
    taken.close()

    assert code == 1
    assert f"127.0.0.1:{port}" in err
    assert "Traceback" not in err


def store_state(fleet, org="emea"):
    settings = config.load(fleet.file)
    store = Store.open(settings.agent.state_directory / FILE_NAME)
    try:
        return store.login_state(settings.orgs[org].login.username)
    finally:
        store.close()


async def killed_during_a_login(fleet, simulator, logins):
    """Run the agent, wait until the far side has the login but has not answered, and kill it."""
    async with started("run", "--config", fleet.file) as process:
        async with asyncio.timeout(20):
            while simulator.record.logins < logins:  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()


async def test_a_kill_in_the_middle_of_a_login_loses_no_attempt(fleet):
    simulator = await fleet.add("emea")
    well = simulator.scenario
    simulator.scenario = replace(well, deliveries={Asked.LOGIN: Delivery(delay=20)})
    await killed_during_a_login(fleet, simulator, 1)
    after_kill = store_state(fleet)

    simulator.scenario = well
    async with started("run", "--config", fleet.file) as process:
        await logged(process, "login success")
        process.send_signal(signal.SIGTERM)
        await process.wait()
    after_restart = store_state(fleet)

    assert (len(after_kill.attempts), len(after_kill.unfinished)) == (1, 1)
    assert after_kill.refusal is None, "one login of unknown end is no refusal"
    assert len(after_restart.attempts) == simulator.record.logins == 2
    assert after_restart.unfinished == ()


async def test_two_kills_in_a_row_open_the_breaker_since_both_may_have_been_refusals(fleet):
    simulator = await fleet.add("emea")
    simulator.scenario = replace(simulator.scenario, deliveries={Asked.LOGIN: Delivery(delay=20)})
    for logins in (1, 2):
        await killed_during_a_login(fleet, simulator, logins)
    state = store_state(fleet)
    _, shown, _ = await command("breaker", "show", "--config", fleet.file)
    await command("probe", "--config", fleet.file)

    assert state.opened_by is Reason.UNDETERMINED
    assert "undetermined" in shown
    assert simulator.record.logins == 2, "no third try"


# --- what needs no network


async def test_inspect_of_a_clean_identity_exits_0_and_of_a_renewal_without_its_purpose_1(fleet):
    good = fleet.folder / "good.pem"
    good.chmod(0o600)
    fleet.deploy(ClientCertificate.SERVER_AUTH_ONLY, "renewed.pem")
    (fleet.folder / "renewed.pem").chmod(0o600)

    clean = await command("inspect", good)
    wrong = await command("inspect", fleet.folder / "renewed.pem")

    assert (clean[0], clean[2]) == (0, "")
    assert wrong[0] == 1
    assert "critical: eku_no_client_auth" in wrong[1]
    assert "eku_no_client_auth" not in clean[1]


async def test_inspect_asked_at_a_later_date_finds_what_is_expired_by_then(fleet):
    today = await command("inspect", fleet.folder / "good.pem", "--json")
    then = await command("inspect", fleet.folder / "good.pem", "--json", "--at", "2999-01-01")

    rules = [{v["rule"] for v in json.loads(out)[0]["violations"]} for _, out, _ in (today, then)]
    assert ["expired" in found for found in rules] == [False, True]


async def test_inspect_of_what_is_no_certificate_says_so_and_exits_2(fleet):
    code, out, _ = await command("inspect", fleet.folder / "password.txt")

    assert code == 2
    assert "neither PEM nor DER" in out
    assert PASSWORD.reveal() not in out


async def test_inspect_without_a_file_is_wrong_usage():
    code, _, err = await command("inspect")

    assert code == 2
    assert "Missing argument 'FILE...'" in err


async def test_forecast_tells_the_end_of_each_certificate_and_writes_a_calendar(fleet):
    await fleet.add("emea")
    ics = fleet.folder / "forecast.ics"

    shown = await command("forecast", "--config", fleet.file, "--json")
    written = await command("forecast", "--config", fleet.file, "--ics", ics)

    left_out = f"servers' certificates are left out: {fleet.folder}/state/{FILE_NAME} is not there"
    assert shown[0] == 0
    assert shown[2].startswith(left_out)
    assert ("expired", ["emea"]) in [(e["name"], e["orgs"]) for e in json.loads(shown[1])]
    assert written[:2] == (0, "")
    assert ics.read_bytes().startswith(b"BEGIN:VCALENDAR\r\n")


async def test_forecast_knows_the_servers_certificates_that_a_daemon_saw(fleet):
    await fleet.add("emea")
    async with started("run", "--config", fleet.file) as process:
        await logged(process, "handshake success")
        process.send_signal(signal.SIGTERM)
        await logged(process, "stopped")

    code, out, err = await command("forecast", "--config", fleet.file, "--json")

    assert (code, err) == (0, "")
    assert {(e["side"], e["name"]) for e in json.loads(out)} >= {
        ("client", "expired"),
        ("server", "expired"),
    }


async def test_forecast_of_an_org_whose_certificate_is_gone_names_it_and_exits_1(fleet):
    await fleet.add("emea", certificate="absent.pem")

    code, out, err = await command("forecast", "--config", fleet.file)

    assert code == 1
    assert "emea: " in err
    assert "absent.pem cannot be read" in err
    assert "soap_login_retirement" in out


async def test_rules_explains_one_rule_and_knows_no_other_name():
    one = await command("rules", "eku_dual")
    none = await command("rules", "eku_daul")

    assert (one[0], one[2]) == (0, "")
    assert one[1].startswith("eku_dual  critical  client")
    assert none == (1, "", "there is no rule 'eku_daul'; `sfmtls-agent rules` lists them\n")


# --- what can drift


def usage(*words):
    done = subprocess.run(
        [*COMMAND, *words, "--help"], capture_output=True, text=True, env=PLAIN, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("run",),
        ("check",),
        ("probe",),
        ("inspect",),
        ("rehearse",),
        ("forecast",),
        ("rules",),
        ("reasons",),
        ("breaker",),
        ("breaker", "show"),
        ("breaker", "reset"),
        ("maintenance",),
        ("maintenance", "start"),
        ("maintenance", "stop"),
        ("maintenance", "list"),
        ("simulate",),
        ("demo",),
    ],
)
def test_the_readme_shows_the_real_help(words):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    shown = "\n".join(line.rstrip() for line in usage(*words).splitlines())

    assert shown in readme, f"paste this into README.md:\n{shown}"
