"""Where secrets come from, and that nothing but reveal() shows them."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import credentials
from agent.credentials import CredentialError, Protection, Secret
from agent.org import FromCredential, FromFile, FromVariable

CANARY = "hunter2-canary"


@pytest.fixture
def file(tmp_path):
    def write(content: bytes) -> FromFile:
        path = tmp_path / "secret"
        path.write_bytes(content)
        return FromFile(str(path))

    return write


def shortened(value: bytes | str) -> str:
    return repr(value)[:30]


def refusal(source, environ=None) -> str:
    with pytest.raises(CredentialError) as caught:
        credentials.read(source, environ=environ or {})
    return str(caught.value)


def test_a_secret_shows_its_content_to_nobody_who_does_not_ask():
    secret = Secret(CANARY)
    record = logging.LogRecord("n", 20, "p", 1, "%s %r", (secret, secret), None)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", record.getMessage()]

    assert not any(CANARY in text for text in shown)
    assert secret.reveal() == CANARY


@pytest.mark.parametrize("store", [pickle.dumps, copy.deepcopy, json.dumps])
def test_a_secret_is_not_stored(store):
    with pytest.raises(TypeError, match=r"not stored|not JSON serializable"):
        store(Secret(CANARY))


def test_secrets_compare_by_content_and_are_no_keys():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert (bool(Secret("")), bool(Secret("a"))) == (False, True)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret("a"))


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"pass", "pass"),
        (b"pass\n", "pass"),
        (b"pass\r\n", "pass"),
        (b"pass\n\n", "pass\n"),
        (b" pass \n", " pass "),
        (b"p\xc3\xa4ss & <word> ]]>\n", "päss & <word> ]]>"),
        (b"x" * 65536, "x" * 65536),
    ],
    ids=shortened,
)
def test_a_file_holds_the_secret_and_at_most_one_line_end(content, secret, file):
    assert credentials.read(file(content), environ={}).reveal() == secret


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\r\n", "is empty"),
        (b"caf\xe9" + CANARY.encode(), "is not UTF-8 text"),
        (b"\xef\xbb\xbf" + CANARY.encode(), "byte order mark"),
        (CANARY.encode() + b"\x00", "control characters"),
        (CANARY.encode() + b"\x1b[0m", "control characters"),
        (CANARY.encode() + b"\xef\xbf\xbe", "control characters"),
        (CANARY.encode() * 5000, "is longer than 64 KiB"),
    ],
    ids=shortened,
)
def test_what_cannot_be_sent_is_refused_by_source_and_without_content(content, message, file):
    source = file(content)

    said = refusal(source)

    assert said.startswith(f"{source} ")
    assert message in said
    assert CANARY not in said


def test_a_file_that_is_none_is_refused_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    assert refusal(FromFile(str(tmp_path / "none"))).endswith(
        "cannot be read: No such file or directory"
    )
    assert refusal(FromFile(str(tmp_path))).endswith("is not a regular file")
    assert refusal(FromFile(str(tmp_path / "pipe"))).endswith("is not a regular file")
    assert refusal(FromFile("nul\0")) == "a path with a NUL character cannot be read"


def test_a_variable_holds_the_secret():
    source = FromVariable("TOKEN")

    assert credentials.read(source, environ={"TOKEN": "abc\n"}).reveal() == "abc"
    assert refusal(source) == "environment variable TOKEN is not set"
    assert refusal(source, {"TOKEN": ""}) == "environment variable TOKEN is empty"
    assert refusal(source, {"TOKEN": "a\udce9"}) == "environment variable TOKEN is not UTF-8 text"
    assert "longer than 64 KiB" in refusal(source, {"TOKEN": "x" * 65537})


def test_a_systemd_credential_is_a_file_in_its_directory(tmp_path):
    (tmp_path / "emea").write_text("abc\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert credentials.read(FromCredential("emea"), environ=environ).reveal() == "abc"
    assert credentials.read_bytes(FromCredential("emea"), environ=environ) == b"abc\n"
    assert refusal(FromCredential("apac"), environ).startswith("systemd credential apac cannot be")
    assert "$CREDENTIALS_DIRECTORY is not set" in refusal(FromCredential("emea"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../shadow", "/etc/shadow", "a\0", "a\n", "a" * 256]
)
def test_a_credential_cannot_lead_out_of_its_directory(name, tmp_path):
    said = refusal(FromCredential(name), {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert said == "a systemd credential's name is a plain file name, without a slash"


def test_key_material_is_read_as_it_is_up_to_a_megabyte(file):
    assert credentials.read_bytes(file(b"\x00\xff\r\n"), environ={}) == b"\x00\xff\r\n"
    assert len(credentials.read_bytes(file(b"x" * 2**20), environ={})) == 2**20
    with pytest.raises(CredentialError, match="is longer than 1024 KiB"):
        credentials.read_bytes(file(b"x" * (2**20 + 1)), environ={})


def test_a_secret_that_every_user_may_read_is_exposed(file, tmp_path):
    source, path = file(b"abc"), tmp_path / "secret"

    path.chmod(0o604)
    assert credentials.is_exposed(source, {})
    assert credentials.is_exposed(
        FromCredential("secret"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    )
    path.chmod(0o640)
    assert not credentials.is_exposed(source, {})


def test_what_is_not_there_is_not_exposed(tmp_path):
    assert not credentials.is_exposed(FromFile(str(tmp_path / "none")), {})
    assert not credentials.is_exposed(FromVariable("TOKEN"), {"TOKEN": "x"})
    assert not credentials.is_exposed(FromCredential("x"), {})


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o644])
def test_how_a_file_is_protected_is_told_by_its_mode_and_owner(file, tmp_path, mode):
    source = file(b"abc")
    (tmp_path / "secret").chmod(mode)
    link = tmp_path / "link"
    link.symlink_to("secret")

    assert credentials.protection(source) == Protection(mode, owned=True)
    assert credentials.protection(FromFile(str(link))) == Protection(mode, owned=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    ("asking", "owner", "owned"),
    [(65534, 65534, True), (65534, 0, True), (65534, 65533, False), (0, 65533, True)],
)
def test_a_file_is_ours_when_it_is_this_users_or_roots_and_root_cannot_know(asking, owner, owned):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "secret"
        path.touch()
        os.chown(path, owner, -1)
        os.seteuid(asking)
        try:
            found = credentials.protection(FromFile(str(path)))
        finally:
            os.seteuid(0)

    assert found is not None
    assert found.owned is owned


def test_nothing_is_told_of_what_is_not_there_or_in_systemds_care(tmp_path):
    assert credentials.protection(FromFile(str(tmp_path / "none"))) is None
    assert credentials.protection(FromFile("nul\0")) is None
    assert credentials.protection(FromCredential("secret")) is None


def test_an_open_file_is_closed_again_whatever_it_was(file, tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    credentials.read(file(b"abc"), environ={})
    refusal(FromFile(str(tmp_path)))
    refusal(file(b""))

    assert set(Path("/proc/self/fd").iterdir()) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=40)
    | st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace"))
)
def test_whatever_is_in_the_file_what_is_read_can_stand_in_xml(content, file):
    try:
        secret = credentials.read(file(content), environ={}).reveal()
    except CredentialError as error:
        said = re.sub(r".*/secret", "", str(error))
        assert said in {
            " is empty",
            " is not UTF-8 text",
            " begins with a byte order mark; save it without one",
            " holds control characters, which XML cannot carry",
        }
    else:
        assert content.decode().rstrip("\r\n") == secret.rstrip("\r\n")
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", secret)
