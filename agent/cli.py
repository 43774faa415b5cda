"""The commands: each parses, calls, and sets the exit code. The help texts are the documentation.

Imports are made where they are needed, so that `--help` does not wait for libraries that it does
not use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, TypeVar

import typer

import agent

if TYPE_CHECKING:
    from agent.config import Settings
    from agent.org import Org

_Answer = TypeVar("_Answer")

EX_FAILED: Final = 1
EX_CONFIG: Final = 78  # sysexits.h; the systemd unit does not restart after it

_app = typer.Typer(
    name="sfmtls-agent",
    help="Proves that Salesforce's mutual-TLS door opens for the right key and stays shut without "
    "it, and says weeks ahead when it will stop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: it reads well in a README and a man page too, and appears at once.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_breaker = typer.Typer(
    help="Show or reset the login breaker.\n\nIt stops all logins of a user after a refused one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_app.add_typer(_breaker, name="breaker")

_Config = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="SFMTLS_CONFIG",
        metavar="FILE",
        help="The configuration file.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_DEFAULT_CONFIG: Final = Path("/etc/sfmtls-agent/config.toml")


def main() -> None:
    """Run the command that the arguments name."""
    _app(prog_name="sfmtls-agent")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfmtls-agent {agent.__version__}")
        raise typer.Exit


@_app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@_app.command()
def run(config: _Config = _DEFAULT_CONFIG) -> None:
    """Watch all orgs and serve metrics.

    Runs until SIGTERM or SIGINT. SIGHUP reads the configuration again; a bad one changes nothing.
    """
    from agent import logs
    from agent.config import load
    from agent.daemon import Daemon, DaemonError
    from agent.org import authority
    from agent.web import ListenError

    settings = _settings(config)
    logs.configure(settings.agent.log_level.value, settings.agent.log_format.value)
    # A scrape is rendered in a thread; with CPython's 5 ms every wake-up of the event loop would
    # wait that long for its turn, and the probes would measure it.
    sys.setswitchinterval(0.0005)

    async def watch() -> None:
        await Daemon(settings, lambda: load(config), os.environ).run()

    try:
        asyncio.run(watch())
    except ListenError as error:
        where = authority(settings.web.listen_host, settings.web.listen_port)
        _fail(f"cannot listen on {where}: {error.strerror}", EX_FAILED)
    except DaemonError as error:
        _fail(str(error), EX_FAILED)


@_app.command()
def check(config: _Config = _DEFAULT_CONFIG) -> None:
    """Check configuration, secrets and certificates.

    No network is used. Exits 78 when something cannot be used. What the policy says of each
    certificate is shown too, but does not change the exit code.
    """
    from agent import terminal
    from agent.inspection import inspect

    settings = _settings(config)
    inspections = [inspect(org, os.environ) for org in settings.orgs.values()]
    terminal.print_inspections(inspections)
    if any(inspection.problems for inspection in inspections):
        raise typer.Exit(EX_CONFIG)


@_app.command()
def probe(
    orgs: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORG", help="The orgs to probe; all when none is named."),
    ] = None,
    config: _Config = _DEFAULT_CONFIG,
    as_json: _Json = False,
    login: Annotated[
        bool,
        typer.Option(
            "--login/--no-login",
            help="Log in too, if the breaker and the budget allow it.",
        ),
    ] = True,
    everything: Annotated[
        bool, typer.Option("--all", help="Show findings that are only information too.")
    ] = False,
) -> None:
    """Run one cycle of each org now.

    Exits 0 when all is well, 1 when an org failed, 78 when the configuration cannot be used. A
    running daemon is not disturbed; logins count in the budget that both share.
    """
    from agent import logs, once, report, terminal

    settings = _settings(config)
    logs.configure("error", settings.agent.log_format.value)
    chosen = _chosen(settings, orgs)
    with terminal.progress(len(chosen), shown=not as_json) as advance:
        seen = asyncio.run(once.probe(settings, chosen, login=login, advance=advance))
    if as_json:
        cycles = [report.cycle(result, violations) for result, violations in seen]
        typer.echo(json.dumps(cycles, indent=2, ensure_ascii=False))
    else:
        terminal.print_cycles(seen, everything=everything)
    if not all(result.healthy for result, _ in seen):
        raise typer.Exit(EX_FAILED)


@_app.command()
def reasons(
    reason: Annotated[
        str | None,
        typer.Argument(metavar="REASON", help="The reason to explain; all when none is named."),
    ] = None,
    as_json: _Json = False,
) -> None:
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
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        terminal.print_reasons(chosen)


@_breaker.command("show")
def breaker_show(
    orgs: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORG", help="The orgs to show; all when none is named."),
    ] = None,
    config: _Config = _DEFAULT_CONFIG,
) -> None:
    """Show whether logins are stopped.

    For each org: why, until when, and how many logins are left in this hour.
    """
    from agent import once, terminal

    settings = _settings(config)
    terminal.print_breakers(_store_answer(once.breakers, settings, _chosen(settings, orgs)))


@_breaker.command("reset")
def breaker_reset(
    org: Annotated[str, typer.Argument(metavar="ORG", help="The org whose user may log in again.")],
    config: _Config = _DEFAULT_CONFIG,
) -> None:
    """Allow one more login.

    The org's user may try once; a running daemon does so when a login is next due.
    """
    from agent import once

    settings = _settings(config)
    (chosen,) = _chosen(settings, [org])
    if chosen.login is None:
        _fail(f"org {org} has no login configured", EX_FAILED)
    _store_answer(once.reset_breaker, settings, chosen)
    typer.echo(f"{org}: one login may be tried; if it is refused, the breaker opens again")


@_app.command()
def simulate(
    scenario: Annotated[
        str, typer.Option("--scenario", metavar="NAME", help="What the far side does.")
    ] = "healthy",
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            metavar="DIR",
            help="Write here what a client needs: fullcert.pem (chain and key), server-root.pem, "
            "login.txt (the login envelope) and a config.toml for the agent.",
        ),
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the scenarios and end.")] = False,
) -> None:
    """Play the far side alone.

    It is a Salesforce org behind its mutual-TLS door, healthy or not. The first line on standard
    output is "listening on HOST:PORT".
    """
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
def demo(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where the endpoint listens.")
    ] = "127.0.0.1:10843",
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End by itself after this time, such as 30s."),
    ] = None,
) -> None:
    """Show it all without Salesforce.

    Starts simulated orgs in good and bad health, the agent that watches them, and its endpoint.
    """
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


def _settings(config: Path) -> Settings:
    from agent.config import ConfigError, load

    try:
        return load(config)
    except ConfigError as error:
        _fail(str(error), EX_CONFIG)


def _chosen(settings: Settings, names: list[str] | None) -> list[Org]:
    if not names:
        return list(settings.orgs.values())
    unknown = [name for name in names if name not in settings.orgs]
    if unknown:
        known = ", ".join(settings.orgs)
        _fail(f"no org named {', '.join(unknown)} is configured; there are: {known}", EX_CONFIG)
    return [settings.orgs[name] for name in dict.fromkeys(names)]


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
        raise typer.BadParameter(f"--listen {error}") from error


def _seconds(text: str | None) -> float | None:
    from agent.config import duration

    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--for {error}") from error


def _announce(line: str) -> None:
    # Whoever started us may be reading through a pipe and wait for this line.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
