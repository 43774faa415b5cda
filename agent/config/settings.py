"""What a checked configuration says about the agent as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from agent.org import ClientIdentity, Endpoint, FromFile, Org, Timeouts

_STATE_DIRECTORY: Final = "/var/lib/sfmtls-agent"
LISTEN: Final = ("127.0.0.1", 10843)


class LogLevel(StrEnum):
    """From which severity on the log speaks."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a log line looks; `auto` is console on a terminal and logfmt elsewhere."""

    AUTO = "auto"
    JSON = "json"
    LOGFMT = "logfmt"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What concerns the agent as a whole. Durations are seconds."""

    interval: float = 60.0
    login_interval: float = 300.0
    timeouts: Timeouts = field(default_factory=Timeouts)
    # What hangs for a whole time limit must not keep the others waiting: 5 % of 10,000 orgs are 83.
    max_in_flight: int = 300
    state_directory: Path = Path(_STATE_DIRECTORY)
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    resolver_threads: int = 32
    breaker_hold: float = 3600.0
    breaker_hold_max: float = 86400.0


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where the endpoint listens; an empty `listen_host` means every interface.

    `config_file` says who may come in; None lets in everybody who reaches it.
    """

    listen_host: str = LISTEN[0]
    listen_port: int = LISTEN[1]
    lifecycle: bool = False
    config_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, checked."""

    agent: AgentSettings
    web: WebSettings
    orgs: Mapping[str, Org]
    path: Path


# What applies where nothing is said; the values themselves stand in `org` and above.
AGENT: Final = AgentSettings()
ORG: Final = Org(
    name="",
    endpoint=Endpoint(host=""),
    identity=ClientIdentity(certificate=FromFile(""), private_key=FromFile("")),
)
