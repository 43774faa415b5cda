"""What a configuration means, and what is said about one that means nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import at, make

from agent import config
from agent.config import AgentSettings, ConfigError, Settings, WebSettings, load
from agent.org import (
    Endpoint,
    Enforcement,
    FromCredential,
    FromFile,
    FromVariable,
    IpFamily,
    Org,
    PasswordCredentials,
    Policy,
    Proxy,
    RevocationCheck,
    Session,
    SessionCall,
    Suppression,
    Timeouts,
    TlsVersion,
    TrustAnchors,
)
from agent.policy import CATALOGUE
from agent.policy.tables import shipped_tables

ROOT = Path(__file__).parent.parent
CONFIGS = Path(__file__).parent / "configs"
EXAMPLE = ROOT / "config.example.toml"
CANARY = "hunter2-canary"

ORG = '[orgs.emea]\nhost = "emea.my.salesforce.com"\ncertificate = "emea.pem"\n'
LOGIN = 'username = "ada@example.com"\npassword = { env = "EMEA_PASSWORD" }\n'
ALL_KEYS = config.keys()
PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> tuple[config.Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return caught.value.problems


@pytest.fixture
def loaded(tmp_path):
    def load_text(text: str, **environ: str) -> Settings:
        return load(write(tmp_path / "config.toml", text), environ)

    return load_text


@pytest.fixture
def org(loaded):
    def load_org(more: str = "", before: str = "") -> Org:
        return loaded(before + ORG + more).orgs["emea"]

    return load_org


# --- every wrong file in configs/, and its twin: `#!` ends the defect and begins what is right


def matches(problem: config.Problem, expected: str) -> bool:
    key, _, fragment = expected.partition(": ")
    return problem.key == key.removesuffix(":") and fragment in problem.message


BAD = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def test_every_file_of_the_folder_belongs_to_a_case():
    assert len(BAD) > 50
    claimed = {name for stem in BAD for name in (f"{stem}.toml", f"{stem}.expect.txt")}

    assert {path.name for path in CONFIGS.iterdir()} == claimed


@pytest.mark.parametrize("name", BAD)
def test_a_bad_configuration_is_refused_for_exactly_these_reasons(name):
    expected = (CONFIGS / f"{name}.expect.txt").read_text(encoding="utf-8").splitlines()

    found = problems(CONFIGS / f"{name}.toml")

    unmatched = [line for line in expected if not any(matches(p, line) for p in found)]
    unexpected = [str(p) for p in found if not any(matches(p, line) for line in expected)]
    assert (unmatched, unexpected) == ([], [])
    assert len(found) == len(expected)
    assert CANARY not in str(found)


@pytest.mark.parametrize("name", BAD)
def test_its_twin_without_the_defects_loads(name, tmp_path):
    text = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
    twin = re.sub(r"^.*#! ?(.*)$", r"\1", text, flags=re.MULTILINE)
    assert twin != text

    assert load(write(tmp_path / f"{name}.toml", twin), {}).orgs


# --- what a problem looks like


def test_a_problem_is_one_line_with_file_line_key_and_the_nearest_known_key(tmp_path):
    path = write(tmp_path / "config.toml", ORG + "prot = 1\n")

    with pytest.raises(ConfigError) as caught:
        load(path, {})

    assert str(caught.value) == f"{path}:4: orgs.emea.prot: no such key (did you mean port?)"


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path):
    path = write(
        tmp_path / "c.toml", '[agent]\nx = 1\n[web]\nlisten = 1\n[orgs.emea]\nport = "x"\n'
    )

    assert [(p.line, p.key) for p in problems(path)] == [
        (2, "agent.x"),
        (4, "web.listen"),
        (5, "orgs.emea.host"),
        (5, "orgs.emea.certificate"),
        (6, "orgs.emea.port"),
    ]


def test_lines_are_right_after_texts_of_several_lines_and_for_dotted_and_quoted_keys(tmp_path):
    text = (
        '[orgs."e.u"]\r\nhost = "x"\r\ncertificate = "c"\r\nsoql = """\r\nport = 1\r\n"""\r\n'
        'session_call = "query"\r\nport = 0\r\ntimeouts . "dns" = 0\r\nproxy = { ulr = "x" }\r\n'
    )

    found = problems(write(tmp_path / "c.toml", text))

    assert [(p.line, p.key) for p in found] == [
        (8, 'orgs."e.u".port'),
        (9, 'orgs."e.u".timeouts.dns'),
        (10, 'orgs."e.u".proxy.ulr'),
    ]


def test_a_place_in_a_list_belongs_to_the_key_and_has_the_line_in_which_it_begins(tmp_path):
    text = """include = [
  "[a] = {", "b",

  7, # [b]
]
[[orgs.emea.policy.suppress]]
rule = "eku_any"
reason = "x"
[[orgs.emea.policy.suppress]] # the second
ruel = 1
[orgs.apac]
policy.suppress = [{ rule = "eku_any", until = 2027-01-01, reason = "x" }, { }, # [{
  { rule = "eku_dual", until = 2027-01-01 }]
"""

    found = problems(write(tmp_path / "c.toml", text))

    assert [(p.line, p.key) for p in found if not p.key.endswith((".host", ".certificate"))] == [
        (4, "include[2]"),
        (6, "orgs.emea.policy.suppress[0].until"),
        (9, "orgs.emea.policy.suppress[1].rule"),
        (9, "orgs.emea.policy.suppress[1].until"),
        (9, "orgs.emea.policy.suppress[1].reason"),
        (10, "orgs.emea.policy.suppress[1].ruel"),
        (12, "orgs.apac.policy.suppress[1].rule"),
        (12, "orgs.apac.policy.suppress[1].until"),
        (12, "orgs.apac.policy.suppress[1].reason"),
        (13, "orgs.apac.policy.suppress[2].reason"),
    ]
    # A table without a header stands where it is first mentioned.
    assert [p.line for p in found if p.key == "orgs.emea.host"] == [6]


HEADERS = ["[[orgs.emea.policy.suppress]]", "[[ orgs . \"emea\" . policy.'suppress' ]] # ]]"]
REASONS = [
    "'''\n[[orgs.emea.policy.suppress]]\nuntil = 1\n''''",
    '"""[{\\"""\n""""',
    '"[[\\""',
    "['''\n''', [\n# ]\n], {}]",
    "{ until = [\n1\n] }",
]
NOTES = st.lists(st.sampled_from(["", "# [x]", "  # '''", '#"', "# a = ["]), max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.lists(
        st.tuples(NOTES, st.sampled_from(HEADERS), st.sampled_from(REASONS), NOTES),
        min_size=1,
        max_size=4,
    )
)
def test_lines_are_right_whatever_stands_around_the_key(tables, tmp_path):
    text, expected = ORG, []
    for place, (above, header, reason, between) in enumerate(tables):
        text += "\n".join([*above, header, f"reason = {reason}", *between, ""])
        expected.append((text.count("\n") + 1, f"orgs.emea.policy.suppress[{place}].until"))
        text += "until = 1\n"

    found = problems(write(tmp_path / "c.toml", text))

    assert [(p.line, p.key) for p in found if "must be a date" in p.message] == expected


def test_a_syntax_error_has_line_and_column(tmp_path):
    (problem,) = problems(write(tmp_path / "c.toml", "[agent]\ninterval = 60s\n"))

    assert (problem.line, problem.key) == (2, "")
    assert problem.message.startswith("is not TOML at column 14: ")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a = 1\na = 2\n", "a second time"),
        ("a = {b = 1, b = 2}\n", "twice in these braces"),
        ("a = {}\n[a.b]\n", "a second time"),
        ("a = 'x\n", "escaped|closing quote"),
        ('a = "\\q"\n', "backslash"),
        ('a = """x', "no closing quote"),
        ("a = [1", "closing bracket"),
        ("a = {b = 1", "braces"),
        ("a = 1 b = 2\n", "line should end"),
        ("a 1\n", "needs = and a value"),
        ("[a\n", "closing bracket"),
        ("[=]\n", "cannot begin like this"),
        ("a = no\n", "needs quotes"),
        ("!\n", "neither a key nor a table"),
        ("a = 2026-02-30\n", "not a date"),
        ("a = " + "1" * 5000 + "\n", "a number is too long"),
        ("a = " + "[" * 5000 + "\n", "nested too deeply"),
        ("a = [{}]\n[[a]]\n", "in braces or brackets"),
        ("a = 1\r\rb = 1\n", "does not belong here|line should end"),
    ],
)
def test_a_syntax_error_is_told_in_plain_words(text, meaning, tmp_path):
    (problem,) = problems(write(tmp_path / "c.toml", text))

    assert re.search(meaning, problem.message), problem.message


def test_a_key_of_thousands_of_parts_is_an_unknown_key_like_others(tmp_path):
    (problem,) = problems(write(tmp_path / "c.toml", f"{'a.' * 5000}a = 1\n{ORG}"))

    assert (problem.line, problem.key, problem.message) == (1, "a", "no such key")


def test_an_empty_missing_or_unreadable_file_is_one_problem_without_a_key(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    expected = {
        write(tmp_path / "empty.toml", "\n"): "is empty",
        tmp_path / "none.toml": "there is no such file",
        tmp_path: "is a directory",
        tmp_path / "latin.toml": "is not UTF-8 text",
        Path("nul\0.toml"): "is not the name of a file",
        write(tmp_path / "file", "x") / "c.toml": "cannot be read",
    }
    for path, message in expected.items():
        (problem,) = problems(path)
        assert (problem.key, problem.line) == ("", None)
        assert message in problem.message


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ORG.encode())

    assert list(load(path, {}).orgs) == ["emea"]


# --- what a good configuration means


def test_the_least_configuration_has_the_documented_defaults(loaded, tmp_path):
    found = loaded(ORG)

    certificate = FromFile(str(tmp_path / "emea.pem"))
    assert found.agent == AgentSettings()
    assert found.agent.state_directory == Path("/var/lib/sfmtls-agent")
    assert (found.agent.interval, found.agent.login_interval) == (60.0, 300.0)
    assert found.web == WebSettings("127.0.0.1", 10843, lifecycle=False)
    emea = found.orgs["emea"]
    assert emea.endpoint == Endpoint("emea.my.salesforce.com")
    assert (emea.identity.certificate, emea.identity.private_key) == (certificate, certificate)
    assert emea.trust == TrustAnchors(system=True)
    assert (emea.login, emea.enforcement, emea.refusal_interval) == (None, None, 3600.0)
    assert emea.timeouts == Timeouts()


def test_every_org_key_arrives_where_it_belongs(org, tmp_path):
    write(tmp_path / "roots.pem", PEM)
    found = org(f"""{LOGIN}
port = 9443
api_version = "55.0"
private_key = {{ credential = "key" }}
private_key_passphrase = {{ file = "pass" }}
trust = {{ system = true, file = "roots.pem" }}
server_name = "SNI.example"
connect_to = "[2001:db8::1]:443"
ip_family = "ipv6"
proxy = {{ url = "http://proxy:3128", username = "p", password = {{ credential = "pp" }} }}
tls_min = "1.3"
security_token = {{ credential = "token" }}
organization_id = "00D000000000001AAA"
session_call = "query"
soql = "SELECT Id FROM User"
labels = {{ team = "crm" }}
refusal = false
enforcement = true
enforcement_port = 444
enforcement_interval = "12h"
interval = "2m"
login_interval = 120
timeouts.tls = "1s"
""")  # noqa: S608 - it is SOQL in a test

    assert found.endpoint == Endpoint(
        host="emea.my.salesforce.com",
        port=9443,
        server_name="sni.example",
        connect_to=("2001:db8::1", 443),
        proxy=Proxy("proxy", 3128, "p", FromCredential("pp")),
        ip_family=IpFamily.IPV6,
        tls_min=TlsVersion.TLS_1_3,
    )
    assert found.identity.private_key == FromCredential("key")
    assert found.identity.private_key_passphrase == FromFile(str(tmp_path / "pass"))
    assert found.trust == TrustAnchors(system=True, file=str(tmp_path / "roots.pem"))
    assert found.login == PasswordCredentials(
        "ada@example.com", FromVariable("EMEA_PASSWORD"), FromCredential("token")
    )
    assert found.session == Session(SessionCall.QUERY, "SELECT Id FROM User")
    assert found.enforcement == Enforcement(444, 43200.0)
    assert (found.interval, found.login_interval, found.refusal_interval) == (120.0, 120.0, None)
    assert (found.api_version, found.organization_id) == ("55.0", "00D000000000001AAA")
    assert found.timeouts == Timeouts(tls=1.0)
    assert found.labels == {"team": "crm"}


def test_the_secrets_of_an_org_are_listed_with_their_keys(org):
    found = org(
        LOGIN + 'proxy = { url = "http://p:1", username = "p", password = { env = "PP" } }\n'
    )

    assert config.secrets_of(found) == (
        ("orgs.emea.proxy.password", FromVariable("PP")),
        ("orgs.emea.password", FromVariable("EMEA_PASSWORD")),
    )


def test_trust_that_names_a_file_alone_trusts_that_file_alone(org, tmp_path):
    write(tmp_path / "roots.pem", PEM)

    assert org('trust.file = "roots.pem"\n').trust == TrustAnchors(
        system=False, file=str(tmp_path / "roots.pem")
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60),
        ("90.5", 90.5),
        ('"60s"', 60),
        ('"5m"', 300),
        ('"1h30m"', 5400),
        ('"1500ms"', 1.5),
    ],
)
def test_a_duration_is_seconds_or_a_text_with_units(text, seconds, org):
    assert org(f"refusal_interval = {text}\n").refusal_interval == seconds


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:2", "::1", 2),
        (":0", "", 0),
        ("localhost:3", "localhost", 3),
    ],
)
def test_listen_is_host_and_port(listen, host, port, loaded):
    assert loaded(f'[web]\nlisten = "{listen}"\n{ORG}').web == WebSettings(host, port)


def test_the_web_config_file_is_beside_the_file_that_names_it(loaded, tmp_path):
    web = loaded(f'[web]\nconfig_file = "tls/web-config.yml"\n{ORG}').web

    assert web == WebSettings(config_file=tmp_path / "tls" / "web-config.yml")


@pytest.mark.parametrize(
    ("value", "message"),
    [("7", "must be a text in quotes"), ('""', "must be the path of a file")],
)
def test_the_web_config_file_is_a_path(value, message, tmp_path):
    (problem,) = problems(write(tmp_path / "c.toml", f"[web]\nconfig_file = {value}\n{ORG}"))

    assert (problem.line, problem.key, problem.message) == (2, "web.config_file", message)


def test_connect_to_without_a_port_dials_the_port_of_the_door(org):
    assert org('port = 9443\nconnect_to = "192.0.2.1"\n').endpoint.connect_to == ("192.0.2.1", 9443)


def test_an_org_says_more_than_the_defaults_and_they_say_more_than_the_agent(loaded):
    found = loaded(
        '[agent]\ninterval = "2m"\ntimeouts = { dns = 1, tcp = 1, tls = 1 }\n'
        '[defaults]\nport = 1\ninterval = "3m"\ntimeouts = { tcp = 2, tls = 2 }\n'
        'labels = { team = "a", tier = "1" }\n'
        + ORG
        + 'port = 2\ntimeouts.tls = 3\nlabels.team = "b"\n'
        '[orgs.apac]\nhost = "x"\ncertificate = "c"\n'
    )

    emea, apac = found.orgs["emea"], found.orgs["apac"]
    assert (emea.endpoint.port, apac.endpoint.port) == (2, 1)
    assert (emea.interval, found.agent.interval) == (180.0, 120.0)
    assert emea.timeouts == Timeouts(dns=1, tcp=2, tls=3)
    assert (emea.labels, apac.labels) == ({"team": "b", "tier": "1"}, {"team": "a", "tier": "1"})
    assert found.agent.timeouts == Timeouts(dns=1, tcp=1, tls=1)


def test_limits_that_nobody_set_fit_themselves_into_a_short_interval(org):
    assert org("interval = 8\n").timeouts == Timeouts(
        dns=5, proxy=6, tcp=6, tls=6, client_auth=0.25, http=6, cycle=6
    )


def test_a_door_only_org_may_use_a_version_that_has_no_login(org):
    assert org('api_version = "66.0"\n').api_version == "66.0"


def test_a_proxy_in_the_environment_is_ignored(loaded):
    found = loaded(ORG, HTTPS_PROXY="http://proxy:3128", https_proxy="http://proxy:3128")

    assert found.orgs["emea"].endpoint.proxy is None


def test_systemd_says_where_the_state_is_unless_the_configuration_does(loaded, tmp_path):
    systemd = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}

    assert loaded(ORG, **systemd).agent.state_directory == Path("/var/lib/a")
    own = loaded('[agent]\nstate_directory = "state"\n' + ORG, **systemd)
    assert own.agent.state_directory == tmp_path / "state"


def test_the_same_file_gives_equal_settings_so_that_a_reload_sees_no_change(loaded, tmp_path):
    write(tmp_path / "accepted.pem", PEM)
    text = '[defaults]\nlabels = { a = "b" }\n' + ORG + LOGIN

    assert loaded(text) == loaded(text)
    assert loaded(text) != loaded(text + "port = 1\n")
    assert loaded(text + POLICY) == loaded(text + POLICY)
    assert loaded(text) != loaded(text + 'policy.expiry_warning = "30d"\n')


# --- how what was seen is judged


POLICY = """
[orgs.emea.policy]
profile = "chrome-1.8"
expiry_warning = "30d"
expiry_critical = "14d"
accepted_roots = "accepted.pem"
revocation = "crl+ocsp"
[[orgs.emea.policy.suppress]]
rule = "eku_dual"
until = 2027-01-01
reason = "known"
[[orgs.emea.policy.suppress]]
rule = "eku_dual"
until = 2027-01-01T01:00:00+02:00
reason = "Zurück im März"
fingerprint = "9F64A747E1B97F131FABB6B447296C9B6F0201E79FB3C5356E6C77E89B6A806A"
"""
FINGERPRINT = "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"


def in_octets(fingerprint: str) -> str:
    return bytes.fromhex(fingerprint).hex(":").upper()


def test_every_policy_key_arrives_where_it_belongs(org, tmp_path):
    write(tmp_path / "accepted.pem", PEM)

    assert org(POLICY).policy == Policy(
        profile="chrome-1.8",
        expiry_warning=30 * 86400.0,
        expiry_critical=14 * 86400.0,
        accepted_roots=str(tmp_path / "accepted.pem"),
        revocation=RevocationCheck.CRL_AND_OCSP,
        suppressions=(
            Suppression("eku_dual", at("2027-01-01"), "known"),
            Suppression("eku_dual", at("2026-12-31 23:00"), "Zurück im März", FINGERPRINT),
        ),
    )


def test_what_a_policy_does_not_say_is_as_if_there_were_none(org):
    assert org("[orgs.emea.policy]\n").policy == org().policy == Policy()


@pytest.mark.parametrize("spelling", [str, str.upper, in_octets])
def test_a_fingerprint_in_any_spelling_means_the_certificate_that_has_it(org, spelling):
    meant, other = (make(name).facts.fingerprint_sha256 for name in ("meant", "other"))

    (known,) = org(
        '[[orgs.emea.policy.suppress]]\nrule = "eku_dual"\nuntil = 2027-01-01\nreason = "known"\n'
        f'fingerprint = "{spelling(meant)}"\n'
    ).policy.suppressions

    now = at("2026-12-31")
    assert known.covers("eku_dual", meant, now)
    assert not known.covers("eku_dual", other, now)


def test_a_policy_says_more_than_the_defaults_and_suppressions_add_up(loaded):
    known = '{{ rule = "{}", until = 2027-01-01, reason = "known" }}'.format
    found = loaded(
        f'[defaults.policy]\nprofile = "chrome-1.8"\nrevocation = "crl"\n'
        f'expiry_warning = "30d"\nsuppress = [{known("eku_any")}]\n'
        f"{ORG}[orgs.emea.policy]\nexpiry_warning = '60d'\nrevocation = 'off'\n"
        f"suppress = [{known('eku_dual')}, {known('eku_any')}]\n"
        f'[orgs.apac]\nhost = "x"\ncertificate = "c"\n'
    )

    emea, apac = found.orgs["emea"].policy, found.orgs["apac"].policy
    assert (emea.profile, apac.profile) == ("chrome-1.8", "chrome-1.8")
    assert (emea.revocation, apac.revocation) == (RevocationCheck.OFF, RevocationCheck.CRL)
    assert (emea.expiry_warning, apac.expiry_warning) == (60 * 86400.0, 30 * 86400.0)
    assert [known.rule for known in emea.suppressions] == ["eku_any", "eku_dual", "eku_any"]
    assert [known.rule for known in apac.suppressions] == ["eku_any"]


def test_every_rule_but_internal_can_be_suppressed_and_every_profile_chosen(org):
    suppressed = sorted(CATALOGUE.keys() - {"internal"})
    known = "".join(
        f'[[orgs.emea.policy.suppress]]\nrule = "{rule}"\nuntil = 2020-01-01\nreason = "x"\n'
        for rule in suppressed
    )

    # That 2020 is over is no error: the suppression has only stopped to work.
    assert [known.rule for known in org(known).policy.suppressions] == suppressed
    for profile in shipped_tables().profiles:
        assert org(f'policy.profile = "{profile}"\n').policy.profile == profile


def test_a_configuration_that_names_no_rule_does_not_wait_for_the_policy(tmp_path):
    path = write(tmp_path / "c.toml", ORG + 'policy.expiry_warning = "30d"\n')
    program = (
        "import pathlib, sys\n"
        "from agent.config import load\n"
        "load(pathlib.Path(sys.argv[1]), {})\n"
        "print('agent.policy' in sys.modules)\n"
    )
    path_with_a_rule = write(tmp_path / "d.toml", ORG + 'policy.profile = "salesforce"\n')

    loaded = [
        subprocess.run(
            [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
        ).stdout
        for file in (path, path_with_a_rule)
    ]

    assert loaded == ["False\n", "True\n"]


# --- more files


def test_included_files_are_read_in_order_and_paths_in_them_are_theirs(tmp_path):
    main = write(tmp_path / "c.toml", 'include = ["*.toml", "orgs.d/*.toml", "none/*.toml"]\n')
    main.write_text(main.read_text() + '[defaults]\nprivate_key = "key.pem"\n')
    for name in ("b", "a"):
        write(
            tmp_path / f"orgs.d/{name}.toml",
            f'[orgs.{name}]\nhost = "{name}"\ncertificate = "c.pem"\n',
        )

    found = load(main, {})

    assert list(found.orgs) == ["a", "b"]
    assert found.orgs["a"].identity.certificate == FromFile(str(tmp_path / "orgs.d/c.pem"))
    assert found.orgs["a"].identity.private_key == FromFile(str(tmp_path / "key.pem"))


def test_one_org_in_two_files_is_an_error_that_names_both(tmp_path):
    main = write(tmp_path / "c.toml", 'include = ["more.toml"]\n' + ORG)
    more = write(tmp_path / "more.toml", "\n" + ORG)

    (problem,) = problems(main)

    assert (problem.file, problem.line, problem.key) == (str(more), 2, "orgs.emea")
    assert str(main) in problem.message


def test_an_included_file_may_hold_orgs_only(tmp_path):
    main = write(tmp_path / "c.toml", 'include = ["more.toml"]\n' + ORG)
    more = write(tmp_path / "more.toml", "[agent]\ninterval = 60\n")

    (problem,) = problems(main)

    assert (problem.file, problem.key) == (str(more), "agent")
    assert "only [orgs.NAME] may stand in an included file" in problem.message


@pytest.mark.parametrize("pattern", ["orgs.d/*.toml", "orgs.d/loop.toml"])
def test_a_link_to_itself_among_the_included_files_is_a_problem_like_others(tmp_path, pattern):
    (tmp_path / "orgs.d").mkdir()
    (tmp_path / "orgs.d" / "loop.toml").symlink_to("loop.toml")
    main = write(tmp_path / "c.toml", f'include = ["{pattern}"]\n' + ORG)

    (problem,) = problems(main)

    assert problem.file == str(tmp_path / "orgs.d" / "loop.toml")
    assert problem.message == "cannot be read"


def test_an_included_file_that_is_not_toml_is_named(tmp_path):
    main = write(tmp_path / "c.toml", 'include = ["more.toml"]\n')
    more = write(tmp_path / "more.toml", "?")

    (problem,) = problems(main)

    assert problem.file == str(more)


# --- the example, the list of keys


def example_with_every_setting_made(tmp_path: Path) -> Path:
    text = re.sub(r"^#(?=[a-z[])", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    write(tmp_path / "server-roots.pem", PEM)
    write(tmp_path / "accepted-roots.pem", PEM)
    write(tmp_path / "uploaded.pem", PEM)
    return write(tmp_path / "config.toml", text)


def test_the_example_loads():
    assert list(load(EXAMPLE, {}).orgs) == ["emea", "door-only", "apac"]


def test_the_example_loads_with_every_setting_made_and_shows_the_defaults(tmp_path):
    full = load(example_with_every_setting_made(tmp_path), {})

    assert full.agent == AgentSettings()
    assert full.web == WebSettings(config_file=tmp_path / "web-config.yml")
    plain, emea = load(EXAMPLE, {}).orgs["emea"], full.orgs["emea"]
    differing = {f.name for f in fields(Org) if getattr(plain, f.name) != getattr(emea, f.name)}
    # What has no default is shown by an invented value, and paths are beside the file.
    assert differing == {
        "identity",
        "login",
        "trust",
        "organization_id",
        "policy",
        "maintenance",
    }
    assert emea.policy == Policy(
        profile=plain.policy.profile,
        expiry_warning=30 * 86400.0,
        expiry_critical=14 * 86400.0,
        accepted_roots=str(tmp_path / "accepted-roots.pem"),
        uploaded=str(tmp_path / "uploaded.pem"),
        revocation=plain.policy.revocation,
        suppressions=emea.policy.suppressions,
    )
    assert [known.rule for known in emea.policy.suppressions] == ["eku_dual"]


def test_the_example_mentions_every_key():
    settings_made = re.findall(r"^#?([a-z_.]+) = (.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    mentioned = {part for key, _ in settings_made for part in key.split(".")}
    mentioned |= {key for _, value in settings_made for key in re.findall(r"([a-z_]+) =", value)}
    mentioned |= set(
        re.findall(
            r"[a-z]+", " ".join(re.findall(r"^#?\[(.*)\]", EXAMPLE.read_text(), re.MULTILINE))
        )
    )

    assert {key.name for key in ALL_KEYS} - mentioned == set()


def test_every_key_is_described_in_one_sentence():
    for key in ALL_KEYS:
        assert re.fullmatch(r"[A-Z].*\.", key.description), key


def test_the_list_of_keys_has_tables_and_names():
    listed = {f"{key.table}.{key.name}" for key in ALL_KEYS}

    assert {
        ".include",
        "agent.interval",
        "agent.timeouts.cycle",
        "web.listen",
        "defaults.port",
        "orgs.NAME.password.credential",
        "orgs.NAME.proxy.password.env",
        "defaults.policy.suppress.until",
    } <= listed


# --- whatever is in the file, the answer is Settings or ConfigError


def toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return quoted(value)
        case _:
            return str(value)


def quoted(text: str) -> str:
    escaped = "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


NAMES = sorted({key.name for key in ALL_KEYS})
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["1.2", "query", "64.0", "5m", "x:1", ":0", "http://x:1", "x", "[::1]:1", "eku_dual", "crl"]
    ),
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(0, 99999),
    st.floats(),
    TEXTS,
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
)
KEYS = st.one_of(st.sampled_from(NAMES), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
TABLES = st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=8)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shared=st.fixed_dictionaries({"agent": TABLES | VALUES, "web": TABLES, "defaults": TABLES}),
    orgs=st.dictionaries(TEXTS, TABLES, max_size=2) | VALUES,
    more=TABLES,
)
def test_whatever_the_tables_hold_there_are_settings_or_problems_in_our_words(
    shared, orgs, more, tmp_path
):
    document = {**more, **shared, "orgs": orgs}
    document.pop("include", None)
    text = "\n".join(f"{quoted(key)} = {toml(value)}" for key, value in document.items())
    path = write(tmp_path / "c.toml", text)
    try:
        found = load(path, {})
    except ConfigError:
        assert problems(path)
        for problem in problems(path):
            assert not re.search("not accepted here|not understood|[Ii]nput|pydantic", str(problem))
    else:
        assert isinstance(found, Settings)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text('[]{}="\n.# abx1', max_size=60).map(str.encode))
def test_whatever_the_bytes_there_are_settings_or_problems(content, tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError):
        load(path, {})
