"""The web-config file: what it means, and what is refused."""

import re
import ssl
import subprocess
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType

import bcrypt
import pytest
from conftest import require_program
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from endpoint import MUTUAL, TLS, hashed, pki, users, write_client, write_material
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import make, rsa_key

from agent.config import ConfigError, WebSettings
from agent.web import examine, webconfig
from agent.web.headers import HEADERS
from agent.web.tls import CLIENT_AUTH_TYPES, CURVES, VERSIONS
from agent.web.webconfig import Protection, RateLimit, read

HASH = hashed("ada's")
EXAMPLE = (Path(__file__).parent.parent / "web-config.example.yml").read_text()


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web-config")
    server = write_material(folder)
    write_client(folder, "stranger", pki().strangers)
    (folder / "encrypted.key").write_bytes(
        server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    (folder / "empty.pem").write_bytes(b"")
    (folder / "damaged.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    )
    return folder


@pytest.fixture
def load(material):
    def load(text):
        (material / "web.yml").write_text(text)
        return read(material / "web.yml")

    return load


@pytest.fixture
def problems(load, material):
    """Return a reader of a bad file that gives its problems: line, key, message."""

    def problems(text):
        with pytest.raises(ConfigError) as refused:
            load(text)
        assert {found.file for found in refused.value.problems} == {str(material / "web.yml")}
        return [(found.line, found.key, found.message) for found in refused.value.problems]

    return problems


def test_without_a_file_everybody_may_come_in_and_every_answer_has_its_headers():
    assert Protection() == Protection(None, None, frozenset(), {}, None, HEADERS)


def test_passwords_alone_are_a_good_file(load):
    found = load(users(ada="ada's"))

    assert list(found.users) == ["ada"]
    assert found.context is None
    assert HASH not in repr(found)
    assert HASH not in f"{found.users}"


def test_a_whole_file_arrives_where_it_belongs(load, material):
    found = load(
        f"""{MUTUAL}  client_allowed_sans:
    - prometheus.example
    - 2001:0db8::0001
    - 10.0.0.1
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP384]
http_server_config:
  http2: no
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: sameorigin
rate_limit: {{ interval: 500ms, burst: 20 }}
basic_auth_users:
  ada: {HASH}
  "1": {HASH}
"""
    )

    server = found.server
    assert server.files == tuple(
        str(material / name) for name in ("server.pem", "server.key", "clients.pem")
    )
    assert server.client_auth is ssl.CERT_REQUIRED
    assert (server.min_version, server.max_version) == (ssl.TLSVersion.TLSv1_2,) * 2
    assert server.cipher_suites == ("ECDHE-ECDSA-AES128-GCM-SHA256",)
    assert (server.prefer_server_cipher_suites, server.curve) == (False, "secp384r1")
    assert found.allowed_sans == {"prometheus.example", "2001:db8::1", "10.0.0.1"}
    assert found.rate_limit == RateLimit(0.5, 20)
    assert list(found.users) == ["ada", "1"]
    assert found.headers == HEADERS | {
        "strict-transport-security": "max-age=31536000",
        "x-frame-options": "sameorigin",
    }
    assert isinstance(found.headers, MappingProxyType)


def test_tls_alone_has_the_format_s_defaults(load):
    found = load(TLS)

    assert found.context is not None
    assert found.context.verify_mode is ssl.CERT_NONE
    assert found.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert found.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert found.context.options & ssl.OP_NO_RENEGOTIATION
    assert found.context.num_tickets == 0


def test_a_key_that_openssl_finds_too_small_is_refused(problems, material):
    key = rsa_key(1024)
    short = make("short.example", key=key)
    (material / "short.pem").write_bytes(
        short.pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    ((line, key, message),) = problems(
        "tls_server_config:\n  cert_file: short.pem\n  key_file: short.pem\n"
    )

    assert (line, key) == (2, "tls_server_config.cert_file")
    assert message == "OpenSSL refuses the pair: EE_KEY_TOO_SMALL"


HTTP = "http_server_config:\n"
RATE = "rate_limit:\n"

# A line that is good after what stands before it, the same line with a bad value, its key, and why.
VALUES = [
    ("tls_server_config:\n  key_file: server.key\n", "  cert_file: ", "server.pem", "none.pem",
     "tls_server_config.cert_file", "none.pem cannot be read: No such file"),
    ("tls_server_config:\n  key_file: server.key\n", "  cert_file: ", "server.pem", "",
     "tls_server_config.cert_file", "must not be empty"),
    ("tls_server_config:\n  key_file: server.key\n", "  cert_file: ", "server.pem", "empty.pem",
     "tls_server_config.cert_file", "is empty"),
    ("tls_server_config:\n  cert_file: server.pem\n", "  key_file: ", "server.key", "none.key",
     "tls_server_config.key_file", "none.key cannot be read: No such file"),
    ("tls_server_config:\n  cert_file: server.pem\n", "  key_file: ", "server.key", "[a, b]",
     "tls_server_config.key_file", "must be a text"),
    ("tls_server_config:\n  cert_file: server.pem\n", "  key_file: ", "server.key", "stranger.pem",
     "tls_server_config.key_file", "does not belong to any of the 2 certificates"),
    ("tls_server_config:\n  cert_file: server.pem\n", "  key_file: ", "server.key", "encrypted.key",
     "tls_server_config.key_file", "is encrypted, and the format has no place for"),
    (f"{TLS}  client_ca_file: clients.pem\n", "  client_auth_type: ", "VerifyClientCertIfGiven",
     "RequestClientCert", "tls_server_config.client_auth_type", "RequestClientCert is not supp"),
    (f"{TLS}  client_ca_file: clients.pem\n", "  client_auth_type: ", "RequireAndVerifyClientCert",
     "RequireAnyClientCert", "tls_server_config.client_auth_type", "nobody would check"),
    (TLS, "  client_auth_type: ", "NoClientCert", "Verify",
     "tls_server_config.client_auth_type", "must be one of NoClientCert, Verify"),
    (f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n", "  client_ca_file: ", "clients.pem",
     "none.pem", "tls_server_config.client_ca_file", "none.pem cannot be read"),
    (f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n", "  client_ca_file: ", "clients.pem",
     "empty.pem", "tls_server_config.client_ca_file", "has no certificate in PEM format"),
    (f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n", "  client_ca_file: ", "clients.pem",
     "damaged.pem", "tls_server_config.client_ca_file", "or a damaged one"),
    (MUTUAL, "  client_allowed_sans: ", "[a.example, 10.0.0.1]", "a.example",
     "tls_server_config.client_allowed_sans", "must be a list"),
    (MUTUAL, "  client_allowed_sans: ", "[a.example]", "[]",
     "tls_server_config.client_allowed_sans", "is an empty list"),
    (MUTUAL, "  client_allowed_sans: ", "[a.example]", "[a.example, '']",
     "tls_server_config.client_allowed_sans[1]", "must not be empty"),
    (TLS, "  min_version: ", "TLS13", "TLS14",
     "tls_server_config.min_version", "must be one of TLS12, TLS13"),
    (TLS, "  min_version: ", "TLS12", "TLS10",
     "tls_server_config.min_version", "TLS10 is not supported: it is deprecated"),
    (f"{TLS}  max_version: TLS12\n", "  min_version: ", "TLS12", "TLS13",
     "tls_server_config.min_version", "is higher than max_version"),
    (TLS, "  max_version: ", "TLS12", "1.2",
     "tls_server_config.max_version", "must be one of TLS12, TLS13"),
    (TLS, "  max_version: ", "TLS13", "TLS11",
     "tls_server_config.max_version", "TLS11 is not supported"),
    (TLS, "  cipher_suites: ", "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
     "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA255]",
     "tls_server_config.cipher_suites[0]", "did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?"),
    (TLS, "  cipher_suites: ", "[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]",
     "[TLS_AES_128_GCM_SHA256]",
     "tls_server_config.cipher_suites[0]", "those of TLS 1.3 cannot be chosen"),
    (TLS, "  prefer_server_cipher_suites: ", "true", "maybe",
     "tls_server_config.prefer_server_cipher_suites", "must be true or false"),
    (TLS, "  curve_preferences: ", "[X25519]", "[CurveP255]",
     "tls_server_config.curve_preferences[0]", "(did you mean CurveP256?)"),
    (TLS, "  curve_preferences: ", "[CurveP521]", "[CurveP521, X25519]",
     "tls_server_config.curve_preferences", "more than one cannot be set"),
    (HTTP, "  http2: ", "false", "true", "http_server_config.http2", "speaks HTTP/1.1"),
    (HTTP, "  http2: ", "off", "1", "http_server_config.http2", "must be true or false"),
    (HTTP, "  headers: ", "{ X-Frame-Options: deny }", "{ X-Frame-Options: DENY }",
     "http_server_config.headers.X-Frame-Options", "must be one of deny, sameorigin"),
    (HTTP, "  headers: ", "{ X-Content-Type-Options: nosniff }", "{ X-Content-Type-Options: no }",
     "http_server_config.headers.X-Content-Type-Options", "must be one of nosniff"),
    (HTTP, "  headers: ", "{ X-XSS-Protection: '1; mode=block' }", '{ X-XSS-Protection: "\\n" }',
     "http_server_config.headers.X-XSS-Protection", "must not be empty"),
    (HTTP, "  headers: ", "{ Strict-Transport-Security: max-age=1 }",
     '{ Strict-Transport-Security: "max-age=1\\r\\nSet-Cookie: a" }',
     "http_server_config.headers.Strict-Transport-Security", "one line of printable"),
    (HTTP, "  headers: ", "{ Content-Security-Policy: default-src 'self' }",
     "{ Content-Security-Policy: default-src 'sélf' }",
     "http_server_config.headers.Content-Security-Policy", "must be ASCII"),
    (HTTP, "  headers: ", "{ X-Frame-Options: deny }", "{ Server: none }",
     "http_server_config.headers.Server", "no such key"),
    (f"{RATE}  burst: 1\n", "  interval: ", "1m30s", "soon",
     "rate_limit.interval", "must be seconds (60) or a duration"),
    (f"{RATE}  burst: 1\n", "  interval: ", "0", "1", "rate_limit.interval", "needs a unit"),
    (f"{RATE}  interval: 1s\n", "  burst: ", "5", "0",
     "rate_limit.burst", "must be a whole number from 1 on"),
    (f"{RATE}  interval: 1s\n", "  burst: ", "5", "many",
     "rate_limit.burst", "must be a whole number from 1 on"),
    ("basic_auth_users:\n", "  ada: ", HASH, "secret", "basic_auth_users", "must be a bcrypt hash"),
    ("basic_auth_users:\n", "  ada: ", HASH, HASH[:-1], "basic_auth_users", "must be a bcrypt"),
    ("basic_auth_users:\n", "  ada: ", HASH, HASH.replace("$04$", "$18$"),
     "basic_auth_users", "has a cost that is not between 4 and 14"),
    ("basic_auth_users:\n", "  ada: ", HASH, HASH.replace("$04$", "$03$"),
     "basic_auth_users", "has a cost that is not between 4 and 14"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "key", "good", "bad", "path", "why"), VALUES)
def test_a_value_is_good_or_is_refused_at_its_line_with_the_reason(  # noqa: PLR0917 - pytest's way
    before, key, good, bad, path, why, load, problems
):
    load(before + key + good + "\n")

    ((line, at, message),) = problems(before + key + bad + "\n")
    assert (line, at) == (before.count("\n") + 1, path)
    assert why in message


OPTIONAL = f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: clients.pem\n"
SECTIONS = [
    ("tls_server_config:\n  cert_file: server.pem\n", 1, "tls_server_config.key_file",
     "is needed; without it"),
    ("tls_server_config:\n  key_file: server.key\n", 1, "tls_server_config.cert_file",
     "is needed; without it"),
    (f"{TLS}  client_ca_file: clients.pem\n", 4, "tls_server_config.client_ca_file",
     "no client would be asked"),
    (f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n", 1,
     "tls_server_config.client_ca_file", "is needed: who issues"),
    (f"{TLS}  client_allowed_sans: [a]\n", 4, "tls_server_config.client_allowed_sans",
     "needs client_auth_type: RequireAndVerifyClientCert"),
    (f"{OPTIONAL}  client_allowed_sans: [a]\n", 6, "tls_server_config.client_allowed_sans",
     "a client may else show none"),
    (f"{TLS}  cert: x\n", 4, "tls_server_config.cert", "is not supported: name a file in cert_f"),
    (f"{TLS}  key: x\n", 4, "tls_server_config.key", "is not supported: name a file in key_file"),
    (f"{TLS}  client_ca: x\n", 4, "tls_server_config.client_ca", "is not supported: name a file"),
    (f"{TLS}  min_versoin: TLS12\n", 4, "tls_server_config.min_versoin",
     "no such key (did you mean min_version?)"),
    (f"{TLS}  cert_file: server.pem\n", 4, "tls_server_config.cert_file", "a second time"),
    ("tls_server_config:\n", 1, "tls_server_config", "has no keys in it; leave it out instead"),
    ("tls_server_config: on\n", 1, "tls_server_config", "must be keys"),
    ("basic_auth_users:\n", 1, "basic_auth_users", "has no users in it; leave it out instead"),
    ("basic_auth_users: {}\n", 1, "basic_auth_users", "has no users in it"),
    ("basic_auth_users: [ada]\n", 1, "basic_auth_users", "must be users"),
    (f"basic_auth_users:\n  'a:b': {HASH}\n", 2, "basic_auth_users", "a text without colons"),
    (f"basic_auth_users:\n  '': {HASH}\n", 2, "basic_auth_users", "a text without colons"),
    ("rate_limit:\n  burst: 1\n", 1, "rate_limit.interval", "is needed"),
    ("rate_limit:\n  interval: 1s\n", 1, "rate_limit.burst", "is needed"),
    ("rate_limit:\n  interval: 1s\n  burst: 1\n  per: ip\n", 4, "rate_limit.per", "no such key"),
    ("http_server_config:\n  headers:\n", 2, "http_server_config.headers", "has no keys in it"),
    ("http_server_config:\n  ip_tos: 1\n", 2, "http_server_config.ip_tos", "no such key"),
    (f"{users(ada='x')}auth_excluded_paths: [/-/healthy]\n", 3, "auth_excluded_paths",
     "no such key"),
    (f"{users(ada='x')}basic_auth_user: {{}}\n", 3, "basic_auth_user",
     "(did you mean basic_auth_users?)"),
    (f"{users(ada='x')}[a, b]: c\n", 3, "", "a key must be a text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "why"), SECTIONS)
def test_what_is_missing_unknown_or_would_protect_nothing_is_refused_by_name(
    text, line, key, why, problems
):
    ((at, path, message),) = problems(text)

    assert (at, path) == (line, key)
    assert why in message


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file(problems):
    found = problems(
        "tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n"
        "  client_auth_type: Any\n  client_allowed_sans: [a]\n"
        "basic_auth_users:\n  ada: x\nrate_limit:\n  burst: 0\n"
    )

    # What a wrong client_auth_type was to mean is not guessed at.
    assert [(line, key) for line, key, _ in found] == [
        (4, "tls_server_config.client_auth_type"),
        (7, "basic_auth_users"),
        (8, "rate_limit.interval"),
        (9, "rate_limit.burst"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", None, "is empty"),
        ("# nothing\n--- ~\n", 2, "must be keys with their values"),
        ("- a\n", 1, "must be keys with their values"),
        ("a: b: c\n", 1, "a colon that does not belong here"),
        ("a: 1\n\tb: 2\n", 2, "a tab where only spaces may stand"),
        ("a: 1\nb\nc: 1\n", 3, "a key needs a colon"),
        ("a: %x\n", 1, "needs quotes"),
        ("a: 'x\n", 2, "no closing quote"),
        ('a: "\\q"\n', 1, "a backslash that escapes nothing"),
        ("a: *b\n", 1, "an alias of something that is not there"),
        ("a: [1\n", 2, "is not closed"),
        ("a:\n  b: 1\n c: 2\n", 3, "the indentation does not fit"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: \0\n", None, "a character that must not stand in it"),
        ("a: " + "[" * 5000 + "\n", None, "nested too deeply"),
        ("#" * 70000, None, "longer than 64 KiB"),
    ],
)
def test_what_is_not_yaml_is_told_in_plain_words_without_a_key(text, line, why, problems):
    ((at, key, message),) = problems(text)

    assert (at, key) == (line, "")
    assert why in message


def test_a_missing_file_or_a_directory_is_a_problem_of_its_own(tmp_path):
    (tmp_path / "latin.yml").write_bytes(b"# caf\xe9\n")
    for path, why in (
        (tmp_path / "none.yml", "cannot be read: No such file or directory"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "latin.yml", "is not UTF-8 text"),
    ):
        with pytest.raises(ConfigError) as refused:
            read(path)
        (problem,) = refused.value.problems
        assert (problem.file, problem.key, problem.message) == (str(path), "", why)


@pytest.mark.parametrize(
    "text",
    [
        f"basic_auth_users:\n  {HASH}: ada\n",
        f"basic_auth_users:\n  ada: {HASH}x\n",
        f"basic_auth_users: {HASH}\n",
        f"{HASH}: ada\n",
        f"basic_auth_users:\n  ada: {HASH}\n  ada: {HASH}\n",
        f"tls_server_config:\n  {HASH}: x\n  cert_file: [{HASH}]\n",
        f"rate_limit:\n  interval: '{HASH}'\n  burst: '{HASH}'\n",
        f"basic_auth_users:\n  ada: '{HASH}\n",
        f"basic_auth_users:\n  ada: &{HASH[1:4]} *{HASH[7:20].replace('/', 'a')}\n",
        f"tls_server_config:\n  client_auth_type: '{HASH}'\n",
    ],
)
def test_no_hash_is_in_a_message_wherever_it_stands(text, load):
    with pytest.raises(ConfigError) as refused:
        load(text)

    for shown in (str(refused.value), repr(refused.value)):
        for begin in range(7, len(HASH) - 6):
            assert HASH[begin : begin + 6] not in shown


def test_anchors_that_multiply_are_not_multiplied(problems):
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 30):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n"

    assert {message for _, _, message in problems(text)} == {"no such key"}


WORDS = st.sampled_from(
    ["cert_file", "key_file", "server.pem", "server.key", "TLS12", "true", "null", "1s", "7", HASH]
)
NODES = st.recursive(
    WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
FILES = st.dictionaries(
    st.sampled_from(
        ["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit", "x"]
    ),
    NODES,
    max_size=4,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=FILES.map(lambda tree: repr(tree).encode()) | st.binary(max_size=60))
def test_whatever_is_in_the_file_there_is_protection_or_problems_in_our_words(content, material):
    path = material / "any.yml"
    path.write_bytes(content)
    try:
        found = read(path)
    except ConfigError as error:
        found = error.problems
    assert found
    assert not re.search("while|expected|yaml.org", str(found))


# --- the example


def test_the_example_is_good_with_and_without_every_setting_made(tmp_path):
    (tmp_path / "endpoint").mkdir()
    write_material(tmp_path / "endpoint")
    for name, there in (("fullchain.pem", "server.pem"), ("key.pem", "server.key")):
        (tmp_path / "endpoint" / there).rename(tmp_path / "endpoint" / name)
    path = tmp_path / "web.yml"
    path.write_text(EXAMPLE)
    plain = read(path)
    every = re.sub(r"^( *)#(?=( {2})?[A-Za-z])", r"\1", EXAMPLE, flags=re.MULTILINE)
    # A client that is asked for nothing has no authority and no name.
    path.write_text(every.replace("NoClientCert", "RequireAndVerifyClientCert"))
    full = read(path)

    assert list(plain.users) == list(full.users) == ["prometheus"]
    assert bcrypt.checkpw(b"change me", plain.users["prometheus"].reveal().encode())
    # What has a default is shown with it.
    differing = {f.name for f in fields(plain.server) if differ(plain.server, full.server, f.name)}
    assert differing == {"client_auth", "client_ca_file", "cipher_suites", "curve"}
    assert plain.server.client_auth is ssl.CERT_NONE
    assert full.rate_limit == RateLimit(1.0, 20)
    assert full.allowed_sans == {"prometheus.example.com"}


def differ(one, other, name):
    return getattr(one, name) != getattr(other, name)


def test_the_example_mentions_every_key_and_every_header():
    for name in (*webconfig._SECTIONS, *webconfig._TLS_KEYS, "http2", "headers"):
        assert re.search(rf"^ *#? *{name}: ?", EXAMPLE, re.MULTILINE), name
    for name in (*webconfig._HEADER_VALUES, *CLIENT_AUTH_TYPES, *VERSIONS, *CURVES):
        assert name in EXAMPLE


# --- what an independent reader of the format says


# Debian's promtool is older than these.
NEW = ("rate_limit", "client_allowed_sans")


@pytest.mark.component
@pytest.mark.parametrize(
    ("text", "good"),
    [
        *(
            (before + key + good + "\n", True)
            for before, key, good, *_ in VALUES
            if not any(word in before + key for word in NEW)
        ),
        (users(ada="x"), True),
        ("tls_server_config:\n  cert_file: server.pem\n", False),
        ("tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n", False),
        (f"{TLS}  client_auth_type: Any\n", False),
        (f"{TLS}  client_ca_file: clients.pem\n", False),
        (f"{TLS}  min_version: TLS14\n", False),
        (f"{TLS}  cipher_suites: [NONE]\n", False),
        (f"{TLS}  curve_preferences: [NONE]\n", False),
        (f"{TLS}  min_versoin: TLS12\n", False),
        ("http_server_config:\n  headers: { X-Frame-Options: DENY }\n", False),
        ("http_server_config:\n  headers: { Server: none }\n", False),
        ("basic_auth_users:\n  ada: secret\n", False),
        ("a: b: c\n", False),
    ],
)
def test_prometheus_own_reader_takes_what_we_take_and_refuses_what_it_must(
    text, good, load, material
):
    promtool = require_program("promtool")
    (material / "web.yml").write_text(text)
    try:
        load(text)
    except ConfigError:
        assert not good
    else:
        assert good

    ran = subprocess.run(
        [promtool, "check", "web-config", material / "web.yml"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ran.returncode == 0) is good, ran.stderr


# --- what `check` asks


def test_check_is_told_of_problems_and_of_what_is_unwise(material, load):
    load(users(ada="x"))
    path = material / "web.yml"
    path.chmod(0o600)
    clear = f"{path}: without tls_server_config passwords travel in the clear"

    assert examine(WebSettings()) == ((), ())
    assert examine(WebSettings("127.0.0.1", 1, config_file=path)) == ((), ())
    assert examine(WebSettings("localhost", 1, config_file=path)) == ((), ())
    assert examine(WebSettings("", 1, config_file=path)) == ((), (clear,))
    path.chmod(0o644)
    (material / "server.key").chmod(0o644)
    load(TLS + users(ada="x"))
    exposed = "can be read by every user of this machine"
    assert examine(WebSettings("", 1, config_file=path)) == (
        (),
        (f"{path} {exposed}", f"{material / 'server.key'} {exposed}"),
    )
    (material / "server.key").chmod(0o600)
    path.write_text("basic_auth_users:\n  ada: x\n")
    (problem,), warnings = examine(WebSettings("", 1, config_file=path))
    assert (str(problem), warnings) == (
        f"{path}:2: basic_auth_users: must be a bcrypt hash: `htpasswd -nBC 10 USER` makes one",
        (),
    )
