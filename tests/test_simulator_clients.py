"""Clients that know nothing of this project use the simulator as they use Salesforce."""

from __future__ import annotations

import asyncio
import html
import re
import stat
import tomllib
from pathlib import Path

import pytest
import requests
from conftest import require_program
from simple_salesforce import SalesforceLogin
from simple_salesforce.exceptions import SalesforceAuthenticationFailed
from simulator_client import pki

from agent.simulator import directory as files
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.serve import serve
from agent.simulator.server import PASSWORD, USERNAME, Simulator
from agent.simulator.soap import ORGANIZATION_ID


@pytest.fixture
def curl() -> str:
    return require_program("curl")


async def run(program: str, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def as_the_help_page_says(port: int, action: str, file: str, certificate: str) -> list[str]:
    """Salesforce Help, "Configure Your API Client to Use Mutual Authentication", steps 1 and 2.

    Host, port and files are replaced, nothing else.
    """
    command = [
        "-k",
        f"https://127.0.0.1:{port}/services/Soap/u/31.0",
        "-H",
        "Content-Type: text/xml; charset=UTF-8",
        "-H",
        f"SOAPAction: {action}",
        "-d",
        f"@{file}",
        "-v",
    ]
    return [*command, "-E", certificate] if certificate else command


QUERY = """<?xml version="1.0" encoding="utf-8"?>
<env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/">
<env:Header>
<SessionHeader xmlns="urn:partner.soap.sforce.com"><sessionId>{session}</sessionId></SessionHeader>
</env:Header>
<env:Body>
<query xmlns="urn:partner.soap.sforce.com">
<queryString>SELECT Id, Name FROM Account LIMIT 1</queryString>
</query>
</env:Body>
</env:Envelope>
"""


@pytest.mark.component
@pytest.mark.parametrize(
    "scenario", ["healthy", "tls12_required_good", "soft_tls12_good", "soft_tls13_good"]
)
async def test_the_two_curl_commands_of_the_help_page_work(scenario, curl, tmp_path):
    async with Simulator(SCENARIOS[scenario], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        login = as_the_help_page_says(simulator.port, "login", "login.txt", "fullcert.pem")
        code, out, err = await run(curl, *login, cwd=tmp_path)
        assert code == 0, err
        session = re.search(r"<sessionId>([^<]+)</sessionId>", out)
        assert session, out

        (tmp_path / "accountQuery.xml").write_text(QUERY.format(session=html.escape(session[1])))
        query = as_the_help_page_says(simulator.port, "example", "accountQuery.xml", "fullcert.pem")
        code, out, err = await run(curl, *query, cwd=tmp_path)

    assert code == 0, err
    assert "<queryResponse>" in out
    assert "<size>1</size>" in out
    assert simulator.record.operations() == ["login", "query"]


@pytest.mark.component
@pytest.mark.parametrize("version", ["tls12", "tls13"])
async def test_without_a_certificate_curl_gets_the_certificate_error_page(version, curl, tmp_path):
    async with Simulator(SCENARIOS[f"soft_{version}_none"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        login = as_the_help_page_says(simulator.port, "login", "login.txt", "")
        code, out, err = await run(curl, *login, cwd=tmp_path)

    assert code == 0, err
    assert "Client certificate error:<i>No client certificate provided.</i>" in out
    assert "sessionId" not in out


@pytest.mark.component
async def test_curl_may_wait_for_100_continue_before_it_sends_a_big_body(curl, tmp_path):
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        padded = (tmp_path / "login.txt").read_text() + "<!-- " + "x" * 900_000 + " -->"
        (tmp_path / "big.txt").write_text(padded)
        command = as_the_help_page_says(simulator.port, "login", "big.txt", "fullcert.pem")
        code, out, err = await run(
            curl, *command, "-H", "Expect: 100-continue", "--expect100-timeout", "30", cwd=tmp_path
        )

    assert code == 0, err
    assert "HTTP/1.1 100" in err
    assert "<sessionId>" in out


def log_in_with_simple_salesforce(
    port: int, folder: Path, password: str, *, with_certificate: bool = True
) -> tuple[str, str]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(folder / "server-root.pem")
        if with_certificate:
            session.cert = str(folder / "fullcert.pem")
        return SalesforceLogin(
            username=USERNAME,
            password=password,
            security_token="",
            sf_version="64.0",
            session=session,
            scratch_url=f"https://127.0.0.1:{port}",
        )


async def test_simple_salesforce_logs_in(tmp_path):
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        session_id, instance = await asyncio.to_thread(
            log_in_with_simple_salesforce, simulator.port, tmp_path, PASSWORD.reveal()
        )

    assert session_id.startswith(ORGANIZATION_ID[:15] + "!")
    assert instance == "127.0.0.1"
    assert simulator.record.operations() == ["login"]
    assert simulator.record.calls[0].certificate_verified


async def test_simple_salesforce_is_told_of_a_wrong_password(tmp_path):
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        with pytest.raises(SalesforceAuthenticationFailed, match="INVALID_LOGIN"):
            await asyncio.to_thread(
                log_in_with_simple_salesforce, simulator.port, tmp_path, "wrong"
            )


async def test_simple_salesforce_without_the_certificate_does_not_get_in(tmp_path):
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        with pytest.raises(requests.exceptions.RequestException):
            await asyncio.to_thread(
                lambda: log_in_with_simple_salesforce(
                    simulator.port, tmp_path, PASSWORD.reveal(), with_certificate=False
                )
            )

    assert len(simulator.record) == 0
    assert simulator.record.refused


# --- the directory and the program


async def test_the_directory_holds_what_the_command_promises(tmp_path):
    folder = tmp_path / "new" / "folder"
    async with Simulator(SCENARIOS["enforcement_on"], pki()) as simulator:
        files.write(folder, simulator, pki(), PASSWORD)
        port, plain_port = simulator.port, simulator.plain_port

    assert {file.name for file in folder.iterdir()} == {
        "fullcert.pem",
        "server-root.pem",
        "login.txt",
        "password.txt",
        "config.toml",
    }
    fullcert = (folder / "fullcert.pem").read_text()
    assert fullcert.count("BEGIN CERTIFICATE") == 2
    assert fullcert.count("BEGIN PRIVATE KEY") == 1
    for secret in ("fullcert.pem", "login.txt", "password.txt"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    assert (folder / "password.txt").read_text() == PASSWORD.reveal()
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["orgs"] == {
        "enforcement_on": {
            "host": "enforcement-on.my.salesforce.com",
            "connect_to": f"127.0.0.1:{port}",
            "certificate": "fullcert.pem",
            "private_key": "fullcert.pem",
            "trust": {"system": False, "file": "server-root.pem"},
            "username": USERNAME,
            "password": {"file": "password.txt"},
            "organization_id": ORGANIZATION_ID,
            "enforcement": True,
            "enforcement_port": plain_port,
        }
    }


async def test_writing_again_replaces_the_files_and_their_rights(tmp_path):
    (tmp_path / "fullcert.pem").write_text("old")
    (tmp_path / "fullcert.pem").chmod(0o644)
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)

    assert "BEGIN CERTIFICATE" in (tmp_path / "fullcert.pem").read_text()
    assert stat.S_IMODE((tmp_path / "fullcert.pem").stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*"))


async def test_where_the_client_presents_nothing_the_directory_has_a_good_certificate(tmp_path):
    scenario = SCENARIOS["tls13_required_none"]
    assert scenario.client_certificate is ClientCertificate.NONE
    async with Simulator(scenario, pki()) as simulator:
        files.write(tmp_path, simulator, pki(), PASSWORD)
        session_id, _ = await asyncio.to_thread(
            log_in_with_simple_salesforce, simulator.port, tmp_path, PASSWORD.reveal()
        )

    assert session_id


async def test_serving_announces_where_it_listens_first_and_runs_until_cancelled(tmp_path):
    lines: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve("healthy", "127.0.0.1", 0, tmp_path, lines.put_nowait))
    async with asyncio.timeout(10):
        first = await lines.get()
    listening = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)", first)
    assert listening

    session_id, _ = await asyncio.to_thread(
        log_in_with_simple_salesforce, int(listening[1]), tmp_path, PASSWORD.reveal()
    )
    assert session_id

    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OSError, match=r"Connect call failed"):
        await asyncio.open_connection("127.0.0.1", int(listening[1]))


async def test_serving_an_unknown_scenario_is_a_key_error():
    with pytest.raises(KeyError, match="no_such"):
        await serve("no_such", "127.0.0.1", 0, None, print)


def test_an_ipv6_address_is_written_in_brackets():
    assert files.authority("::1", 8443) == "[::1]:8443"
    assert files.authority("127.0.0.1", 8443) == "127.0.0.1:8443"
