"""How the log looks: one chain for our own lines and for those of libraries, written to stderr.

A line is never more than one line, except for a traceback on a terminal, and that is indented: no
value can forge an entry. No local variable and no Secret is ever written.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.credentials import Secret

Format = Literal["auto", "json", "logfmt", "console"]
_Renderer = Literal["json", "logfmt", "console"]

_OURS: Final = "agent"
_ORDER: Final = ("timestamp", "level", "logger", "event")


# How the journal learns a line's level (sd-daemon(3)); syslog(3) has no level between.
_PRIORITIES: Final = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
    (logging.NOTSET, "<7>"),
)


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler of this module, so that a second `configure` finds and replaces it."""

    def __init__(self, stream: TextIO, *, to_journal: bool) -> None:
        super().__init__(stream)
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with its priority before it where the journal reads that."""
        line = super().format(record)
        if not self._to_journal:
            return line
        return next(mark for least, mark in _PRIORITIES if record.levelno >= least) + line


def configure(level: str, format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 - the operator's word for it
    """Send the log to `stream` (stderr), from `level` on; calling it again replaces what was.

    `level` is debug, info, warning, error or critical in any case; ValueError when it is another.
    "auto" is console on a terminal, logfmt under systemd, else json. Libraries are heard from
    warning on, whatever `level` says. The journal is told the level of each line.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    stream = sys.stderr if stream is None else stream
    chosen = _chosen(stream, os.environ) if format == "auto" else format
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = _Handler(stream, to_journal=_is_journal(stream, os.environ))
    handler.addFilter(_audible)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # The plain formatter: structlog's own choice for terminals prints local variables.
                structlog.processors.format_exc_info,
                _redact,
                *_rendering(chosen, colors=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(number)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # A cached logger would keep the chain of an earlier call.
        cache_logger_on_first_use=False,
    )


def _chosen(stream: TextIO, environment: Mapping[str, str]) -> _Renderer:
    if stream.isatty():
        return "console"
    if "JOURNAL_STREAM" in environment or "INVOCATION_ID" in environment:
        return "logfmt"
    return "json"


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether the stream is the journal's own (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        seen = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return environment.get("JOURNAL_STREAM") == f"{seen.st_dev}:{seen.st_ino}"


def _audible(record: logging.LogRecord) -> bool:
    """Tell whether the line is ours, or a library's of some weight, whatever level that has set."""
    ours = record.name == _OURS or record.name.startswith(_OURS + ".")
    return ours or record.levelno >= logging.WARNING


def _rendering(chosen: _Renderer, *, colors: bool) -> list[Processor]:
    match chosen:
        case "json":
            return [_in_order, structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)]
        case "logfmt":
            return [
                _escape_for_logfmt,
                structlog.processors.LogfmtRenderer(
                    key_order=_ORDER, drop_missing=True, bool_as_flag=False
                ),
            ]
        case "console":
            return [_escape_for_console, structlog.dev.ConsoleRenderer(colors=colors)]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in _ORDER if key in event}
    return {**first, **event}


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _without_secrets(value) for key, value in event.items()}


def _without_secrets(value: object) -> object:
    match value:
        case Secret():
            return repr(value)
        case Mapping():
            return {key: _without_secrets(inner) for key, inner in value.items()}
        case list() | tuple() | AbstractSet():
            return [_without_secrets(inner) for inner in value]
        case _:
            return value


def _escape_for_logfmt(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The renderer writes line feeds out itself, and nothing else; it refuses a blank in a key.
    return {_escaped(key).replace(" ", "_"): _flat(value, but="\n") for key, value in event.items()}


def _escape_for_console(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        _escaped(key): _indented(str(value)) if key in ("exception", "stack") else _flat(value)
        for key, value in event.items()
    }


def _indented(text: str) -> str:
    return "\n".join("    " + _escaped(line) for line in text.split("\n"))


def _flat(value: object, but: str = "") -> object:
    """Return a value whose text is one printable line, save for the characters in `but`."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return _escaped(value if isinstance(value, str) else repr(value), but)


def _escaped(text: str, but: str = "") -> str:
    """Return the text with everything that could move the cursor or end the line written out."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in but
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
