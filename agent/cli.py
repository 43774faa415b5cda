"""The commands: each parses, calls, and sets the exit code. The help texts are the documentation.

Imports are made where they are needed, so that `--help` does not wait for libraries that it does
not use.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

import agent

if TYPE_CHECKING:
    from datetime import datetime

    from agent.config import Kept, Settings
    from agent.org import Org

_Answer = TypeVar("_Answer")
_Command = TypeVar("_Command", bound=Callable[..., Any])

EX_FAILED: Final = 1
EX_CONFIG: Final = 78  # sysexits.h; the systemd unit does not restart after it

_FILE: Final = click.Path(path_type=Path)
_config: Final = click.option(
    "-c",
    "--config",
    type=_FILE,
    metavar="FILE",
    envvar="SFMTLS_CONFIG",
    show_envvar=True,
    default=Path("/etc/sfmtls-agent/config.toml"),
    show_default=True,
    help="The configuration file.",
)
_every: Final = click.option("--all", "every", is_flag=True, help="All orgs, later ones included.")
_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _orgs(help_text: str) -> Callable[[_Command], _Command]:
    return click.argument("orgs", nargs=-1, metavar="[ORG]...", help=help_text)


def main() -> None:
    """Run the command that the arguments name."""
    _app(prog_name="sfmtls-agent")


class _InOrder(click.Group):
    """Lists its commands in the order of this file: the daily ones first."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(
    cls=_InOrder,
    help="Proves that Salesforce's mutual-TLS door opens for the right key and stays shut without "
    "it, and says weeks ahead when it will stop.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(agent.__version__, prog_name="sfmtls-agent", message="%(prog)s %(version)s")
def _app() -> None:
    pass


@_app.command()
@_config
def run(config: Path) -> None:
    """Watch all orgs and serve metrics.

    Runs until SIGTERM or SIGINT. SIGHUP reads the configuration again; a bad one changes nothing.
    """
    import asyncio

    from agent import logs, systemd
    from agent.config import ConfigError, Kept, load
    from agent.daemon import Daemon, DaemonError
    from agent.org import authority
    from agent.web import ListenError

    kept = Kept()
    settings = _settings(config, kept)
    logs.configure(settings.agent.log_level.value, settings.agent.log_format.value)
    # A scrape is rendered in a thread; with CPython's 5 ms every wake-up of the event loop would
    # wait that long for its turn, and the probes would measure it.
    sys.setswitchinterval(0.0005)
    # What the watchdog ends with SIGABRT, or a library crashes, leaves in the log where it was.
    faulthandler.enable()

    async def watch() -> None:
        sockets = systemd.listen_sockets(os.environ)
        await Daemon(settings, lambda: load(config, kept=kept), os.environ, sockets).run()

    try:
        asyncio.run(watch())
    except (ConfigError, systemd.SocketError) as error:
        _fail(str(error), EX_CONFIG)
    except ListenError as error:
        where = authority(settings.web.listen_host, settings.web.listen_port)
        _fail(f"cannot listen on {where}: {error.strerror}", EX_FAILED)
    except DaemonError as error:
        _fail(str(error), EX_FAILED)


@_app.command()
@_config
def check(config: Path) -> None:
    """Check configuration, secrets, certificates and endpoint.

    No network is used. Exits 78 when something cannot be used. What the policy says of each
    certificate is shown too, but does not change the exit code.
    """
    from agent import terminal
    from agent.inspection import inspect_all
    from agent.web import examine

    settings = _settings(config)
    problems, warnings = examine(settings.web)
    inspections = inspect_all(list(settings.orgs.values()), os.environ)
    terminal.print_inspections(inspections)
    terminal.print_endpoint([str(problem) for problem in problems], warnings)
    if problems or any(inspection.problems for inspection in inspections):
        sys.exit(EX_CONFIG)


@_app.command()
@_orgs("The orgs to probe; all when none is named.")
@_config
@_json
@click.option(
    "--login/--no-login",
    default=True,
    show_default=True,
    help="Log in too, if the breaker and the budget allow it.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Show findings that are only information too."
)
def probe(
    orgs: tuple[str, ...], *, config: Path, as_json: bool, login: bool, everything: bool
) -> None:
    """Run one cycle of each org now.

    Exits 0 when all is well, 1 when an org failed, 78 when the configuration cannot be used. A
    running daemon is not disturbed; logins count in the budget that both share.
    """
    import asyncio

    from agent import logs, once, report, terminal

    settings = _settings(config)
    logs.configure("error", settings.agent.log_format.value)
    chosen = _chosen(settings, orgs)
    with terminal.progress(len(chosen), shown=not as_json) as advance:
        seen = asyncio.run(once.probe(settings, chosen, login=login, advance=advance))
    if as_json:
        cycles = [report.cycle(result, judgement) for result, judgement in seen]
        click.echo(json.dumps(cycles, indent=2, ensure_ascii=False))
    else:
        terminal.print_cycles(seen, everything=everything)
    if not all(result.healthy for result, _ in seen):
        sys.exit(EX_FAILED)


@_app.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=_FILE,
    help="A chain in PEM or DER, with or without its private key.",
)
@click.option("--at", metavar="DATE", help="Judge as of this date, such as 2027-03-15.")
@click.option(
    "--profile",
    metavar="NAME",
    default="salesforce",
    show_default=True,
    help="Whose policy: salesforce or chrome-1.8.",
)
@click.option("--host", metavar="HOST", help="The file is the chain of this server.")
@click.option(
    "--roots", metavar="FILE", type=_FILE, help="Private roots in PEM that count as known too."
)
@click.option(
    "--chrome-roots",
    metavar="FILE",
    type=_FILE,
    help="Chrome's root list, if not the one that is shipped: Chromium's root_store.md or "
    "root_store.textproto.",
)
@_json
def inspect(
    files: tuple[Path, ...],
    *,
    at: str | None,
    profile: str,
    host: str | None,
    roots: Path | None,
    chrome_roots: Path | None,
    as_json: bool,
) -> None:
    """Audit certificate files.

    Draws each chain and where it leads, and says what is wrong and what to do. No network and no
    configuration are used. Exits 0 when nothing is worse than a note, 1 when something is, 2 when a
    file cannot be read.
    """
    from datetime import UTC, datetime

    from agent import offline

    now = datetime.now(UTC)
    sys.exit(
        offline.inspect(
            files,
            at=at,
            profile=profile,
            host=host,
            roots=roots,
            chrome_roots=chrome_roots,
            as_json=as_json,
            now=now,
        )
    )


@_app.command()
@click.argument("org", metavar="ORG", help="The org whose certificate is renewed.")
@_config
@click.option(
    "--certificate",
    required=True,
    type=_FILE,
    metavar="FILE",
    help="The renewed certificate in PEM, its intermediates after it.",
)
@click.option(
    "--private-key",
    type=_FILE,
    metavar="FILE",
    help="Its private key in PEM; by default it is looked for in the certificate's file.",
)
@click.option("--passphrase-file", type=_FILE, metavar="FILE", help="What opens the private key.")
@click.option("--login", is_flag=True, help="Log in with it once, if breaker and budget allow it.")
@_json
def rehearse(
    org: str,
    *,
    config: Path,
    certificate: Path,
    private_key: Path | None,
    passphrase_file: Path | None,
    login: bool,
    as_json: bool,
) -> None:
    """Try a renewed certificate before it is deployed.

    It is judged and knocks at the door beside the one in use, and what it changes is shown. A
    running daemon is not disturbed; a login counts in the budget that both share. Exits 0 when the
    new one is at least as good, 1 when it is not or that could not be found out.
    """
    import asyncio

    from agent import logs, rehearsal, rehearser, terminal_rehearsal
    from agent.org import ClientIdentity, FromFile

    settings = _settings(config)
    logs.configure("error", settings.agent.log_format.value)
    (chosen,) = _chosen(settings, [org])
    candidate = ClientIdentity(
        FromFile(str(certificate)),
        FromFile(str(private_key or certificate)),
        FromFile(str(passphrase_file)) if passphrase_file else None,
    )
    found = asyncio.run(rehearser.rehearse(settings, chosen, candidate, login=login))
    if as_json:
        click.echo(json.dumps(rehearsal.as_json(found), indent=2, ensure_ascii=True))
    else:
        terminal_rehearsal.print_rehearsal(found)
    if found.worse:
        sys.exit(EX_FAILED)


@_app.command()
@_config
@click.option(
    "--months",
    type=click.IntRange(1, 1200),
    metavar="N",
    default=12,
    show_default=True,
    help="How far to look ahead.",
)
@_json
@click.option("--ics", metavar="FILE", type=_FILE, help="Write a calendar file instead.")
def forecast(config: Path, *, months: int, as_json: bool, ics: Path | None) -> None:
    """Show what will stop, and when.

    The calendar of all orgs: certificates that expire, renewals that are due, dates on which a
    policy turns against the certificates of today, and what Salesforce retires. Servers'
    certificates are those that the daemon saw last. Exits 1 when an org's files cannot be read.
    """
    from datetime import UTC, datetime

    from agent import offline
    from agent.known import known, last_server_chains
    from agent.policy.tables import shipped_tables

    if as_json and ics is not None:
        raise click.UsageError("--json and --ics exclude each other")
    settings = _settings(config)
    chains = last_server_chains(settings.agent)
    if isinstance(chains, str):
        click.echo(f"servers' certificates are left out: {chains}", err=True)
        chains = {}
    found, problems = known(settings.orgs.values(), chains, shipped_tables(), os.environ)
    now = datetime.now(UTC)
    sys.exit(
        offline.show_forecast(found, problems, months=months, as_json=as_json, ics=ics, now=now)
    )


@_app.command()
@click.argument(
    "rule", required=False, metavar="[RULE]", help="The rule to explain; all when none is named."
)
@_json
def rules(rule: str | None, *, as_json: bool) -> None:
    """Explain what the policy looks for.

    Each rule comes with its meaning, what to do about its findings, and where it is written.
    """
    from agent import offline

    sys.exit(offline.rules(rule, as_json=as_json))


@_app.command()
@click.argument(
    "reason",
    required=False,
    metavar="[REASON]",
    help="The reason to explain; all when none is named.",
)
@_json
def reasons(reason: str | None, *, as_json: bool) -> None:
    """Explain why a probe can fail.

    Each reason comes with its meaning and what to do about it.
    """
    from agent import terminal
    from agent.reason import Reason

    chosen = [member for member in Reason if reason in {None, member.value}]
    if not chosen:
        _fail(f"there is no reason {reason!r}; `sfmtls-agent reasons` lists them", EX_FAILED)
    if as_json:
        rows = [
            {
                "reason": member.value,
                "meaning": member.meaning,
                "remedy": member.remedy,
                "opens_breaker": member.opens_breaker,
            }
            for member in chosen
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        terminal.print_reasons(chosen)


@_app.group()
def breaker() -> None:
    """Show or reset the login breaker.

    It stops all logins of a user after a refused one.
    """


@breaker.command("show")
@_orgs("The orgs to show; all when none is named.")
@_config
def breaker_show(orgs: tuple[str, ...], config: Path) -> None:
    """Show whether logins are stopped.

    For each org: why, until when, and how many logins are left in this hour.
    """
    from agent import once, terminal

    settings = _settings(config)
    terminal.print_breakers(_store_answer(once.breakers, settings, _chosen(settings, orgs)))


@breaker.command("reset")
@click.argument("org", metavar="ORG", help="The org whose user may log in again.")
@_config
def breaker_reset(org: str, config: Path) -> None:
    """Allow one more login.

    The org's user may try once; a running daemon does so when a login is next due.
    """
    from agent import once

    settings = _settings(config)
    (chosen,) = _chosen(settings, [org])
    if chosen.login is None:
        _fail(f"org {org} has no login configured", EX_FAILED)
    _store_answer(once.reset_breaker, settings, chosen)
    click.echo(f"{org}: one login may be tried; if it is refused, the breaker opens again")


@_app.group()
def maintenance() -> None:
    """Start, stop or list maintenance.

    While it lasts nobody logs in to the org, and handshakes go on; the metric sfmtls_maintenance
    keeps its alerts back. Windows that come again stand in the configuration.
    """


@maintenance.command("start")
@_orgs("The orgs that go into maintenance.")
@_config
@_every
@click.option("--for", "duration", metavar="TIME", help="How long, such as 2h.")
@click.option("--until", metavar="MOMENT", help="Until when, such as 2026-12-01T06:00:00Z.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever reads it later.")
def maintenance_start(
    orgs: tuple[str, ...],
    *,
    config: Path,
    every: bool,
    duration: str | None,
    until: str | None,
    reason: str,
) -> None:
    """Let nobody log in for a while.

    It ends by itself, and counts in place of what was started before for the same orgs. A running
    daemon knows it in its next cycle of the org.
    """
    from datetime import UTC, datetime

    from agent import downtime, terminal_maintenance

    now = datetime.now(UTC)
    ends, why = _end(duration, until, now), _one_line(reason)
    settings = _settings(config)
    names = _maintained(settings, orgs, every=every)
    _store_answer(downtime.start, settings, names, now, ends, why)
    terminal_maintenance.print_started(names, ends)


@maintenance.command("stop")
@_orgs("The orgs whose maintenance ends.")
@_config
@_every
def maintenance_stop(orgs: tuple[str, ...], *, config: Path, every: bool) -> None:
    """End what was started.

    With --all that is everything that was started. What the configuration says goes on.
    """
    from datetime import UTC, datetime

    from agent import downtime, terminal_maintenance

    settings = _settings(config)
    names = _maintained(settings, orgs, every=every)
    stopped = _store_answer(downtime.stop, settings, names, datetime.now(UTC))
    terminal_maintenance.print_stopped(names, stopped)


@maintenance.command("list")
@_config
@_json
def maintenance_list(*, config: Path, as_json: bool) -> None:
    """Show what is under way and what comes next.

    Both what was started by command and what the configuration says.
    """
    from datetime import UTC, datetime

    from agent import downtime, terminal_maintenance

    now = datetime.now(UTC)
    found = _store_answer(downtime.listed, _settings(config), now)
    if as_json:
        rows = terminal_maintenance.as_json(found, now)
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        terminal_maintenance.print_listed(found, now)


@_app.command()
@click.option(
    "--scenario",
    metavar="NAME",
    default="healthy",
    show_default=True,
    help="What the far side does.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Where; port 0 takes a free one.",
)
@click.option(
    "--directory",
    metavar="DIR",
    type=_FILE,
    help="Write here what a client needs: fullcert.pem (chain and key), server-root.pem, login.txt "
    "(the login envelope) and a config.toml for the agent.",
)
@click.option("--list", "list_all", is_flag=True, help="List the scenarios and end.")
def simulate(scenario: str, *, listen: str, directory: Path | None, list_all: bool) -> None:
    """Play the far side alone.

    It is a Salesforce org behind its mutual-TLS door, healthy or not. The first line on standard
    output is "listening on HOST:PORT".
    """
    import asyncio

    from agent import terminal
    from agent.simulator.scenario import SCENARIOS
    from agent.simulator.serve import serve

    if list_all:
        terminal.print_scenarios(SCENARIOS.values())
        return
    if scenario not in SCENARIOS:
        _fail(f"there is no scenario {scenario!r}; `simulate --list` lists them", EX_FAILED)
    host, port = _listen(listen)
    try:
        asyncio.run(serve(scenario, host, port, directory, _announce))
    except KeyboardInterrupt:
        return
    except OSError as error:
        _fail(f"cannot simulate: {error}", EX_FAILED)


@_app.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:10843",
    show_default=True,
    help="Where the endpoint listens.",
)
@click.option(
    "--for", "duration", metavar="TIME", help="End by itself after this time, such as 30s."
)
def demo(listen: str, duration: str | None) -> None:
    """Show it all without Salesforce.

    Starts simulated orgs in good and bad health, the agent that watches them, and its endpoint.
    """
    import asyncio

    from agent import demo as demonstration
    from agent import logs

    host, port = _listen(listen)
    logs.configure("info")
    try:
        asyncio.run(demonstration.run(host, port, _seconds(duration), _announce))
    except KeyboardInterrupt:
        return
    except OSError as error:
        _fail(f"cannot run the demo: {error}", EX_FAILED)


def _settings(config: Path, kept: Kept | None = None) -> Settings:
    from agent.config import ConfigError, load

    try:
        return load(config, kept=kept)
    except ConfigError as error:
        _fail(str(error), EX_CONFIG)


def _chosen(settings: Settings, names: Sequence[str]) -> list[Org]:
    if not names:
        return list(settings.orgs.values())
    unknown = [name for name in names if name not in settings.orgs]
    if unknown:
        known = ", ".join(settings.orgs)
        _fail(f"no org named {', '.join(unknown)} is configured; there are: {known}", EX_CONFIG)
    return [settings.orgs[name] for name in dict.fromkeys(names)]


def _maintained(settings: Settings, orgs: Sequence[str], *, every: bool) -> list[str]:
    from agent.maintenance import EVERY_ORG

    if bool(orgs) == every:
        raise click.UsageError("name the orgs, or say --all")
    return [EVERY_ORG] if every else [org.name for org in _chosen(settings, orgs)]


def _end(duration: str | None, until: str | None, now: datetime) -> datetime:
    """Return the moment at which maintenance ends, from the two options that can say it."""
    from datetime import datetime, timedelta

    from agent.config import moment

    if (duration is None) == (until is None):
        raise click.UsageError("say how long: --for TIME or --until MOMENT")
    if until is None:
        return now + timedelta(seconds=_seconds(duration) or 0)
    try:
        ends = datetime.fromisoformat(until)
    except ValueError:
        raise click.UsageError("--until must look like 2026-12-01T06:00:00Z") from None
    try:
        ends = moment(ends)
    except ValueError as error:
        raise click.UsageError(f"--until {error}") from error
    if ends <= now:
        raise click.UsageError("--until is over already")
    if ends > now + timedelta(days=366):
        raise click.UsageError("--until is more than a year away")
    return ends


def _one_line(reason: str) -> str:
    from agent.config import one_line

    try:
        return one_line(reason) if reason else ""
    except ValueError as error:
        raise click.UsageError(f"--reason {error}") from error


def _store_answer(question: Callable[..., _Answer], *arguments: object) -> _Answer:
    from agent.store import StoreError

    try:
        return question(*arguments)
    except StoreError as error:
        _fail(str(error), EX_FAILED)


def _listen(text: str) -> tuple[str, int]:
    from agent.config import listen_address

    try:
        return listen_address(text)
    except ValueError as error:
        raise click.UsageError(f"--listen {error}") from error


def _seconds(text: str | None) -> float | None:
    from agent.config import duration

    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise click.UsageError(f"--for {error}") from error


def _announce(line: str) -> None:
    # Whoever started us may be reading through a pipe and wait for this line.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
