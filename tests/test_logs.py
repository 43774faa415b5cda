import io
import json
import logging
import os
import re

import pytest
import structlog

from agent import logs
from agent.credentials import Secret

CANARY = "canary-s3cr3t"
FORMATS = ("json", "logfmt", "console")
each_format = pytest.mark.parametrize("rendering", FORMATS)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("agent")
    levels = root.level, ours.level
    yield
    for handler in [h for h in root.handlers if isinstance(h, logs._Handler)]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def logged(rendering, act, level="info"):
    """Return what `act` writes to the log when it is given a logger of ours."""
    stream = io.StringIO()
    logs.configure(level, rendering, stream)
    act(structlog.get_logger("agent.test"))
    return stream.getvalue()


def test_json_is_one_object_a_line_with_the_moment_in_utc_first():
    text = logged("json", lambda log: log.info("probe failed", org="emea", seconds=0.5, well=True))
    entry = json.loads(text)

    assert list(entry) == ["timestamp", "level", "logger", "event", "org", "seconds", "well"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry.pop("timestamp"))
    assert entry == {
        "level": "info",
        "logger": "agent.test",
        "event": "probe failed",
        "org": "emea",
        "seconds": 0.5,
        "well": True,
    }


def test_logfmt_is_one_line_of_pairs():
    text = logged("logfmt", lambda log: log.info("probe failed", org="emea", well=True, none=None))

    _, rest = text.split(" ", 1)
    assert rest == ('level=info logger=agent.test event="probe failed" org=emea well=true none=\n')


def test_console_is_readable_and_without_colours_when_it_is_no_terminal():
    text = logged("console", lambda log: log.info("probe failed", org="emea"))

    assert re.search(r"Z \[info +\] probe failed +\[agent.test\] org=emea\n$", text)
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, "console"),
        (Terminal(), {"INVOCATION_ID": "7"}, "console"),
        (io.StringIO(), {"INVOCATION_ID": "7"}, "logfmt"),
        (io.StringIO(), {"JOURNAL_STREAM": "8:1"}, "logfmt"),
        (io.StringIO(), {}, "json"),
    ],
)
def test_auto_is_console_on_a_terminal_logfmt_under_systemd_else_json(
    stream, environment, expected
):
    assert logs._chosen(stream, environment) == expected


def test_auto_writes_to_stderr_by_default(capsys, monkeypatch):
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure("info")
    structlog.get_logger("agent.test").info("hello")

    captured = capsys.readouterr()
    assert json.loads(captured.err)["event"] == "hello"
    assert captured.out == ""


@each_format
def test_a_secret_is_never_expanded_however_deep_it_sits(rendering):
    secret = Secret(CANARY)
    text = logged(
        rendering,
        lambda log: log.info(
            "login", password=secret, nested={"all": [secret, (secret,)]}, text=f"{secret}"
        ),
    )

    assert CANARY not in text
    assert text.count("Secret(…)") == 4


def test_no_renderer_is_ever_handed_a_secret():
    secret = Secret(CANARY)
    event = {"event": "x", "a": secret, "b": {"c": [secret]}, "d": (secret, 1), "e": {2}}

    assert logs._redact(None, "info", event) == {
        "event": "x",
        "a": "Secret(…)",
        "b": {"c": ["Secret(…)"]},
        "d": ["Secret(…)", 1],
        "e": [2],
    }


@each_format
def test_a_traceback_is_there_without_the_values_of_local_variables(rendering):
    def act(log):
        password = CANARY[::-1]
        try:
            len(password) / 0
        except ZeroDivisionError:
            log.exception("cycle failed", org="emea")

    text = logged(rendering, act)

    assert "ZeroDivisionError: division by zero" in text
    assert "Traceback (most recent call last)" in text
    assert CANARY[::-1] not in text


FORGED = "a\n2026-01-01T00:00:00Z [error] forged\r\x1b[2K\u2028\x85x"


def fail(message):
    raise ValueError(message)


@pytest.mark.parametrize("rendering", ["json", "logfmt"])
def test_no_value_and_no_exception_can_end_its_line(rendering):
    def act(log):
        try:
            fail(FORGED)
        except ValueError:
            log.exception(FORGED, value=FORGED, nested={"deep": FORGED}, **{"odd key\n": 1})

    text = logged(rendering, act)

    assert text.endswith("\n")
    body = text[:-1]
    assert "\n" not in body
    assert "\r" not in body
    assert "\x1b" not in body


def test_on_a_console_only_a_traceback_takes_further_lines_and_they_are_indented():
    def act(log):
        try:
            fail(FORGED)
        except ValueError:
            log.exception(FORGED, value=FORGED, nested={"deep": FORGED})

    first, *rest = logged("console", act).removesuffix("\n").split("\n")

    assert r"a\n2026-01-01" in first
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert not {"\r", "\x1b", "\u2028", "\x85"} & set(first + "".join(rest))


@each_format
def test_libraries_are_heard_from_warning_on_through_the_same_chain(rendering):
    def act(_log):
        loud = logging.getLogger("httpx")
        loud.setLevel(logging.DEBUG)
        try:
            loud.debug("library-debug")
            loud.info("library-info %s", CANARY)
            loud.warning("library-%s", "warning")
            logging.getLogger("apscheduler").error("library-error")
        finally:
            loud.setLevel(logging.NOTSET)

    lines = logged(rendering, act, level="debug").splitlines()

    assert ["library-warning" in lines[0], "library-error" in lines[1]] == [True, True]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["d", "i", "w"]), ("INFO", ["i", "w"]), ("warning", ["w"]), ("error", [])],
)
def test_our_lines_are_written_from_the_level_on(level, expected):
    def act(log):
        log.debug("d")
        log.info("i")
        log.warning("w")

    events = [json.loads(line)["event"] for line in logged("json", act, level).splitlines()]

    assert events == expected


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no such log level: loud"):
        logs.configure("loud", "json", io.StringIO())


def test_configuring_again_replaces_stream_level_and_format():
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    log = structlog.get_logger("agent.test")
    log.info("one")
    logs.configure("debug", "logfmt", second)
    log.debug("two")
    logs.configure("debug", "logfmt", second)
    log.debug("three")

    assert first.getvalue().count("\n") == 1
    assert [line.split("event=")[1] for line in second.getvalue().splitlines()] == ["two", "three"]


def test_bound_context_is_on_every_line():
    def act(log):
        structlog.contextvars.bind_contextvars(org="emea")
        log.info("one")

    assert json.loads(logged("json", act))["org"] == "emea"


@pytest.mark.parametrize("rendering", ["json", "logfmt"])
def test_the_journal_is_told_the_level_of_each_line_and_a_file_is_not(
    rendering, tmp_path, monkeypatch
):
    def written(name):
        with (tmp_path / name).open("w+") as stream:
            seen = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino + (name == 'file')}")
            logs.configure("debug", rendering, stream)
            log = structlog.get_logger("agent.test")
            for level in ("debug", "info", "warning", "error", "critical"):
                log.log(logging.getLevelNamesMapping()[level.upper()], "told")
            stream.seek(0)
            return stream.read().splitlines()

    assert [line[:3] for line in written("journal")] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert not any(line.startswith("<") for line in written("file"))
