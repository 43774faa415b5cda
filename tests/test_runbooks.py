"""The runbooks: a page for each alert and reason, and nothing in them that is not so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import subprocess
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest
from conftest import require_program
from simulator_client import pki

from agent import cli
from agent.component import Component
from agent.metrics.catalogue import CATALOGUE as METRICS
from agent.policy import CATALOGUE as RULES
from agent.policy.deadline import DEADLINES
from agent.policy.rule import Severity, Side
from agent.reason import Reason
from agent.result import ClientAuth, Probe, SkipCause, Stage
from agent.simulator import directory
from agent.simulator.directory import host_name
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator

ROOT = Path(__file__).parent.parent
BOOKS = ROOT / "docs" / "runbooks"
INDEX = BOOKS / "README.md"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"

_OF_A_REASON = ("Confirm", "Likely causes", "Remedy", "Do not")
_OF_AN_ALERT = ("What it means", *_OF_A_REASON)
_MOST_LINES = 90
_SHORT = 40
_DELAY = 0.1


# --- what the pages are made from


def alerts() -> dict[str, list[str]]:
    """Return each alert's severities, in the order of the rules, with how long it must be true."""
    found: dict[str, list[str]] = {}
    rules = (ROOT / "prometheus/rules/alerts.yml").read_text()
    for block in re.split(r"^ *- alert: ", rules, flags=re.MULTILINE)[1:]:
        name = block.split("\n", 1)[0].strip()
        severity = re.search(r'^ +severity: "?(.+?)"?$', block, re.MULTILINE)[1]
        after = re.search(r"^ +for: (\S+)$", block, re.MULTILINE)
        shown = "as the finding's" if severity.startswith("{{") else f"**{severity}**"
        found.setdefault(name, []).append(shown + (f", once true for {after[1]}" if after else ""))
    return found


def pages(kind: str) -> dict[str, str]:
    return {page.stem: page.read_text() for page in sorted((BOOKS / kind).iterdir())}


def every_page() -> dict[str, str]:
    return {str(page.relative_to(BOOKS)): page.read_text() for page in sorted(BOOKS.rglob("*.md"))}


def parted(page: str) -> tuple[str, str]:
    """Return the head, which is made, and the sections, which are written."""
    head, rule, sections = page.partition("\n## ")
    return head.rstrip() + "\n", (rule + sections).lstrip()


def section(page: str, name: str) -> str:
    return page.partition(f"\n## {name}\n")[2].partition("\n## ")[0].strip()


def head_of_a_reason(reason: Reason) -> str:
    breaker = "It opens the [login breaker](../alerts/SfmtlsLoginBreakerOpen.md). "
    return (
        f"# {reason.value}\n\n{reason.meaning}\n\n> {reason.remedy}\n\n"
        f"{breaker if reason.opens_breaker else ''}[All reasons](../README.md#reasons)\n"
    )


def head_of_an_alert(name: str, severities: list[str]) -> str:
    return (
        f"# {name}\n\nSeverity: {'; then '.join(severities)}. [All alerts](../README.md#alerts)\n"
    )


def index_of_alerts() -> str:
    rows = (
        f"| [{name}](alerts/{name}.md) | {'; then '.join(severities)} | {first_sentence(name)} |"
        for name, severities in alerts().items()
    )
    return "\n".join(["| alert | severity | what it means |", "|---|---|---|", *rows])


def first_sentence(alert: str) -> str:
    meaning = section((BOOKS / "alerts" / f"{alert}.md").read_text(), "What it means")
    sentence = re.match(r".+?[.;:](?=\s)", " ".join(meaning.split()) + " ")[0]
    # A link in it is relative to the page, not to the index.
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", sentence).rstrip(";:.") + "."


def index_of_reasons() -> str:
    rows = (
        f"| [{reason.value}](reasons/{reason.value}.md) | {reason.meaning} "
        f"| {'stops' if reason.opens_breaker else ''} |"
        for reason in Reason
    )
    return "\n".join(["| reason | what it means | logins |", "|---|---|---|", *rows])


def with_indexes(page: str) -> str:
    for kind, made in (("alerts", index_of_alerts()), ("reasons", index_of_reasons())):
        page = re.sub(
            rf"<!-- {kind} -->\n.*?<!-- end -->",
            lambda _, kind=kind, made=made: f"<!-- {kind} -->\n{made}\n<!-- end -->",
            page,
            flags=re.DOTALL,
        )
    return page


# --- every page, and only those


def test_there_is_a_page_for_every_reason_and_none_besides():
    assert sorted(pages("reasons")) == sorted(reason.value for reason in Reason)


def test_there_is_a_page_for_every_alert_and_none_besides():
    assert sorted(pages("alerts")) == sorted(alerts())


def test_every_alert_names_its_own_page():
    rules = (ROOT / "prometheus/rules/alerts.yml").read_text()
    named = re.findall(r"alert: (\w+)\n.*?runbook_url: \S+/docs/runbooks/(\S+)", rules, re.DOTALL)

    assert [page for _, page in named] == [f"alerts/{name}.md" for name, _ in named]
    assert {name for name, _ in named} == set(alerts())


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_the_head_of_a_reasons_page_says_what_the_table_says(reason):
    file = BOOKS / "reasons" / f"{reason.value}.md"
    head, sections = parted(file.read_text())
    if UPDATE:
        head = head_of_a_reason(reason)
        file.write_text(f"{head}\n{sections}")

    assert head == head_of_a_reason(reason)


@pytest.mark.parametrize("name", alerts())
def test_the_head_of_an_alerts_page_says_what_the_rule_says(name):
    file = BOOKS / "alerts" / f"{name}.md"
    head, sections = parted(file.read_text())
    if UPDATE:
        head = head_of_an_alert(name, alerts()[name])
        file.write_text(f"{head}\n{sections}")

    assert head == head_of_an_alert(name, alerts()[name])


def test_the_indexes_lead_to_every_page():
    if UPDATE:
        INDEX.write_text(with_indexes(INDEX.read_text()))
    page = INDEX.read_text()

    assert page == with_indexes(page)
    linked = set(re.findall(r"\]\(((?:alerts|reasons)/\w+\.md)\)", page))
    assert linked == set(every_page()) - {"README.md"}


def test_every_reason_is_behind_an_alert():
    behind = {
        reason
        for page in pages("alerts").values()
        for reason in re.findall(r"\(\.\./reasons/(\w+)\.md\)", section(page, "Likely causes"))
    }

    assert behind == {reason.value for reason in Reason}


# --- how a page is made


@pytest.mark.parametrize(("kind", "wanted"), [("reasons", _OF_A_REASON), ("alerts", _OF_AN_ALERT)])
def test_every_page_has_its_sections_in_order_and_something_in_each(kind, wanted):
    for name, page in pages(kind).items():
        assert tuple(re.findall(r"^## (.+)$", page, re.MULTILINE)) == wanted, name
        assert all(len(section(page, title)) > 20 for title in wanted), name


def test_a_page_fits_two_screens():
    lengths = {name: len(page.splitlines()) for name, page in every_page().items()}

    assert {n: length for n, length in lengths.items() if length > _MOST_LINES} == {
        "README.md": lengths["README.md"]
    }


def test_nothing_is_said_twice():
    """A sentence that stands on two pages is said in one place and linked to from the other."""
    said: Counter[str] = Counter()
    for page in every_page().values():
        prose = re.sub(r"```.*?```", "", parted(page)[1], flags=re.DOTALL)
        # Names, linked or in code, are no sentences.
        prose = re.sub(r"\[[^]]+\]\([^)]*\)|`[^`]*`", "", prose)
        lines = (line for line in prose.splitlines() if not line.startswith(("|", "<!--")))
        sentences = re.split(r"(?<=[.:;])\s+", " ".join(line.strip() for line in lines))
        said.update({sentence for sentence in sentences if len(sentence) > _SHORT})

    assert [sentence for sentence, times in said.items() if times > 1] == []


# --- links


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    prose = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(file: Path, text: str) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        if not linked.is_file() or (anchor and anchor not in anchors(linked)):
            found.append(target)
    return found


def test_every_link_leads_to_a_page_and_a_heading():
    assert {n: b for n, page in every_page().items() if (b := broken_links(BOOKS / n, page))} == {}


def test_a_link_to_nowhere_would_be_noticed():
    text = "[a](README.md) [b](READ.md) [c](#alerts) [d](#alarms) [e](../rules.md#expired)"

    assert broken_links(INDEX, text) == ["READ.md", "#alarms"]


# --- commands


def code(page: str) -> list[str]:
    """Return what stands in code: the lines of fenced blocks, continued ones joined, and spans."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)
    return [*lines, *re.findall(r"`([^`\n]+)`", " ".join(prose.split()))]


def commands(line: str) -> list[list[str]]:
    """Return the arguments of each call of sfmtls-agent in a line; a unit's name is none."""
    try:
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
    except ValueError:  # prose, such as a text with an apostrophe
        return []
    starts = [
        at
        for at, word in enumerate(words)
        if word == "sfmtls-agent"
        and (at == 0 or "=" in words[at - 1] or words[at - 1] in {"|", "&&", ";"})
    ]
    ends = [at for at, word in enumerate(words) if word in {"|", "&&", ";", ">", "<"}]
    return [
        words[start + 1 : min([end for end in ends if end > start], default=len(words))]
        for start in starts
    ]


def run_nothing(arguments: list[str]) -> None:
    """Read a command line as the real program would; a click.UsageError says what is wrong."""
    command: click.Command = cli._app
    rest = list(arguments)
    while isinstance(command, click.Group):
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            raise click.UsageError(f"no such command: {name}")
        command = command.commands[name]
    command.make_context(command.name, rest).close()


def test_every_command_of_ours_is_one_that_exists():
    found = [
        (name, arguments)
        for name, page in every_page().items()
        for line in code(page)
        for arguments in commands(line)
        if arguments
    ]
    wrong = {}
    for name, arguments in found:
        try:
            run_nothing(arguments)
        except click.UsageError as error:
            wrong[f"{name}: {' '.join(arguments)}"] = error.format_message()

    assert wrong == {}
    used = {arguments[0] for _, arguments in found}
    assert used >= {"probe", "check", "inspect", "rehearse", "forecast", "breaker", "rules"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("sfmtls-agent prob ORG", "no such command: prob"),
        ("sfmtls-agent breaker", "no such command: "),
        ("sfmtls-agent probe ORG --no-logins", "No such option"),
        ("X=1 sfmtls-agent rehearse ORG --private-key KEY", "Missing option '--certificate'"),
        ("sfmtls-agent breaker reset", "Missing argument 'ORG'"),
        ("sfmtls-agent check ORG", "unexpected extra argument"),
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(line, why):
    (arguments,) = commands(line)

    with pytest.raises(click.UsageError) as caught:
        run_nothing(arguments)

    assert why in caught.value.format_message()


@pytest.mark.parametrize(
    "line", ["systemctl restart sfmtls-agent", "journalctl -u sfmtls-agent | grep 'a | b'"]
)
def test_the_units_name_is_not_taken_for_a_command(line):
    assert commands(line) == []


@pytest.mark.component
def test_every_option_of_openssl_is_one_that_it_has():
    openssl = require_program("openssl")
    used: dict[str, set[str]] = {}
    for page in every_page().values():
        for line in code(page):
            for name, rest in re.findall(r"\bopenssl (\w+)((?: [^|;&<>`)]+)?)", line):
                used.setdefault(name, set()).update(re.findall(r"(?<=\s)-(\w+)", rest))
    unknown = {}
    for name, options in used.items():
        told = subprocess.run([openssl, name, "-help"], capture_output=True, text=True, check=True)
        known = set(re.findall(r"^ -(\w+)", told.stdout + told.stderr, re.MULTILINE))
        if missing := options - known:
            unknown[name] = missing

    assert unknown == {}
    assert {"s_client", "x509"} <= set(used)


# --- metrics


def queries() -> list[tuple[str, str]]:
    """Return every expression with the page it is on: one to a line."""
    return [
        (name, line.strip())
        for name, page in every_page().items()
        for block in re.findall(r"^ *```promql\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.strip()
    ]


def known_series() -> set[str]:
    recorded = re.findall(
        r"^ *- record: (\S+)$", (ROOT / "prometheus/rules/recording.yml").read_text(), re.MULTILINE
    )
    histograms = {
        f"{family.name}_{suffix}"
        for family in METRICS.values()
        if family.kind == "histogram"
        for suffix in ("bucket", "sum", "count")
    }
    return set(METRICS) | histograms | set(recorded)


def test_every_metric_that_is_named_is_exported_or_recorded():
    named = {
        metric: name
        for name, page in every_page().items()
        for metric in re.findall(r"\b(?:\w+:)?sfmtls_\w+(?::\w+)?|\bsfmtls:\w+:\w+", page)
    }

    assert {m: name for m, name in named.items() if m not in known_series()} == {}
    assert len(named) > 25


def test_a_metric_that_does_not_exist_would_be_noticed():
    assert "sfmtls_probe_failing" in known_series()
    assert "sfmtls_probe_fails" not in known_series()
    assert "sfmtls_scheduler_lag_seconds_bucket" in known_series()


_CLOSED = {
    "probe": set(Probe),
    "state": set(ClientAuth),
    "stage": set(Stage),
    "cause": set(SkipCause),
    "side": set(Side),
    "severity": set(Severity),
    "component": set(Component),
    "reason": {reason.value for reason in Reason},
    "rule": set(RULES),
    "deadline": set(DEADLINES),
}


@pytest.mark.parametrize("label", _CLOSED)
def test_every_value_of_a_label_is_one_that_it_can_have(label):
    for name, query in queries():
        for operator, value in re.findall(rf'\b{label}(=~|=)"([^"]*)"', query):
            allowed = {str(member) for member in _CLOSED[label]}
            if operator == "=":
                assert value in allowed, name
            else:
                # Each alternative must fit something.
                for part in value.split("|"):
                    assert any(re.fullmatch(part, member) for member in allowed), (name, part)


@pytest.mark.component
def test_prometheus_can_read_every_expression(tmp_path):
    promtool = require_program("promtool")
    rules = ["groups: [{name: runbooks, rules: ["]
    for number, (_, query) in enumerate(queries()):
        rules.append(f"  {{record: 'runbook:{number}', expr: '{query}'}},")
    file = tmp_path / "rules.yml"
    file.write_text("\n".join([*rules, "]}]"]))

    told = subprocess.run(
        [promtool, "check", "rules", file], check=False, capture_output=True, text=True
    )

    assert told.returncode == 0, told.stderr
    assert f"{len(queries())} rules found" in told.stdout


# --- the commands by hand do what their page says


def by_hand(program: str, port: int, host: str) -> str:
    """Return the page's command for this simulator: other host, port and files, and less sleep."""
    page = section(INDEX.read_text(), "Knock by hand")
    (command,) = [
        block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if program in block
    ]
    here = f"127.0.0.1:{port}"
    command = command.replace("curl ", f"curl --connect-to ::{here} ").replace("sleep 2", "sleep 1")
    command = command.replace("-connect HOST:8443", f"-connect {here}").replace("HOST", host)
    return command.replace("FILE", "fullcert.pem").replace("KEY", "fullcert.pem")


async def shell(command: str, folder: Path) -> str:
    root = str(folder / "server-root.pem")
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=folder,
        env={**os.environ, "SSL_CERT_FILE": root, "CURL_CA_BUNDLE": root},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


@asynccontextmanager
async def far_away(port: int) -> AsyncIterator[int]:
    """Give a port that leads to the same door, with a network's delay on what comes back."""
    under_way: set[asyncio.Task[None]] = set()

    async def carry(reader: StreamReader, writer: StreamWriter, delay: float) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        under_way.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back, 0), carry(there, writer, _DELAY))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait(under_way)


async def knocked(scenario: str, program: str, folder: Path, *edits: tuple[str, str]) -> str:
    async with (
        Simulator(SCENARIOS[scenario], pki()) as simulator,
        far_away(simulator.port) as port,
    ):
        directory.write(folder, simulator, pki(), PASSWORD)
        command = by_hand(program, port, host_name(simulator.scenario))
        for old, new in edits:
            assert old in command
            command = command.replace(old, new)
        return await shell(command, folder)


@pytest.mark.component
@pytest.mark.parametrize(
    ("scenario", "alert"),
    [
        ("healthy", None),
        ("tls13_required_intermediate_missing", "alert unknown ca"),
        ("tls12_required_server_auth_only", "alert unsupported certificate"),
    ],
)
async def test_openssl_as_on_the_page_sees_what_the_door_says(scenario, alert, tmp_path):
    require_program("openssl")

    told = await knocked(scenario, "openssl", tmp_path)

    # That is about the server, and stands beside a refusal where TLS 1.3 refuses late.
    assert ("Verification: OK" in told) == (not scenario.startswith("tls12"))
    assert ("DONE" in told) == (alert is None), told
    assert (alert or "DONE") in told


@pytest.mark.component
async def test_openssl_that_does_not_wait_takes_a_refusal_for_a_success(tmp_path):
    require_program("openssl")

    told = await knocked(
        "tls13_required_intermediate_missing",
        "openssl",
        tmp_path,
        ("sleep 1 |", ""),
        ("-brief", "-brief </dev/null"),
    )

    assert "DONE" in told
    assert "alert" not in told


@pytest.mark.component
async def test_openssl_without_the_chain_is_refused_where_the_chain_gets_in(tmp_path):
    require_program("openssl")

    told = await knocked("healthy", "openssl", tmp_path, ("-cert_chain fullcert.pem", ""))

    assert "alert unknown ca" in told


@pytest.mark.component
@pytest.mark.parametrize(
    ("scenario", "answer"),
    [
        ("healthy", "INVALID_SESSION_ID"),
        ("soft_tls13_intermediate_missing", "Client certificate error:"),
    ],
)
async def test_curl_as_on_the_page_tells_an_open_door_from_a_page(scenario, answer, tmp_path):
    require_program("curl")

    assert answer in await knocked(scenario, "curl", tmp_path)
