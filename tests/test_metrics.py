import os
import subprocess
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from boards import (
    ALL_WELL,
    CLIENT_CHAIN,
    DEADLINES,
    ENFORCEMENT,
    HANDSHAKE,
    NOON,
    NOT_DUE,
    SERVER_CHAIN,
    board,
    cause,
    certificate,
    chain,
    failed,
    org,
    result,
    violation,
)
from conftest import require_program
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.diagnosis import CATALOGUE as CAUSES
from agent.diagnosis import Confidence, by_probe
from agent.maintenance import Window
from agent.metrics import (
    CATALOGUE,
    Component,
    Exposition,
    Instruments,
    Kind,
    org_families,
    reference,
)
from agent.metrics.fleet import board_families
from agent.metrics.org import INFO_VALUE_LENGTH, ORG_FAMILIES, OrgFamily, _register, _sentence
from agent.org import Endpoint, Suppression
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Severity, Side
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Probe,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
)

SUPPRESSED = Suppressed(
    violation("root_private", Severity.INFO),
    Suppression("root_private", NOON + timedelta(days=9), "our own authority"),
)
ROOT = Path(__file__).parent.parent
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
MINUTE = timedelta(minutes=1)
FORMATS = pytest.mark.parametrize("openmetrics", [False, True])


def exposition(made, registry=None):
    return Exposition(made, Instruments(registry or CollectorRegistry()))


def text_of(made, now=NOON, *, openmetrics=False):
    return exposition(made).render(now, openmetrics=openmetrics).decode()


def samples(made, name, now=NOON):
    """Return {label values without org: value} of one family of the only org on the board."""
    (snapshot,) = made.snapshots()
    return {
        tuple(value for label, value in sample.labels.items() if label != "org"): sample.value
        for metric in org_families(snapshot, now)
        for sample in metric.samples
        if sample.name == name
    }


class Whole:
    """What a registry would yield: each family once, with the samples of all orgs."""

    def __init__(self, instruments, made, now):
        self.instruments, self.made, self.now = instruments, made, now

    def collect(self) -> list[Metric]:
        merged = None
        for snapshot in self.made.snapshots():
            families = list(org_families(snapshot, self.now))
            if merged is None:
                merged = families
            else:
                for whole, part in zip(merged, families, strict=True):
                    whole.samples += part.samples
        agent = (*self.instruments.families(), *board_families(self.made))
        return [*agent, *(m for m in merged or [] if m.samples)]


def client_s_own(exposed, made, now, openmetrics):
    whole = Whole(exposed.instruments, made, now)
    if openmetrics:
        return openmetrics_format.generate_latest(whole)
    return generate_latest(whole)


# --- the boards of the golden files


def healthy():
    made = board(org())
    made.record(result(), deadlines=DEADLINES)
    made.record(result(at=NOON + MINUTE, outcomes=NOT_DUE))
    made.login_limits("emea", breaker_open=False, budget_remaining=29)
    return made


def never_run():
    return board(org())


def tls13_rejected():
    made = healthy()
    refused = HandshakeOutcome(
        client_auth=ClientAuth.REJECTED,
        tls_version="TLSv1.3",
        cipher_suite="TLS_AES_256_GCM_SHA384",
        server_chain=SERVER_CHAIN,
        certificate_requested=True,
        certificate_sent=True,
        alert="certificate_expired",
    )
    made.record(
        result(
            at=NOON + 2 * MINUTE,
            outcomes=failed(Reason.CLIENT_CERT_EXPIRED),
            stages={Stage.DNS: 0.002, Stage.TCP: 0.02, Stage.TLS: 0.05, Stage.CLIENT_AUTH: 0.01},
            handshake=refused,
            client_auth=ClientAuth.REJECTED,
            api_usage=None,
            clock_skew=None,
        ),
        violations=[violation("client_certificate_expired", Severity.CRITICAL)],
        causes={Probe.HANDSHAKE: (cause(),)},
    )
    return made


def server_expired():
    expired = chain("CN=*.my.salesforce.com,O=Salesforce", days=99)
    made = board(org())
    made.record(
        result(
            outcomes=failed(Reason.SERVER_EXPIRED),
            stages={Stage.DNS: 0.002, Stage.TCP: 0.02, Stage.TLS: 0.05},
            handshake=HandshakeOutcome(
                client_auth=ClientAuth.NOT_REACHED,
                server_chain=expired,
            ),
            client_auth=ClientAuth.NOT_REACHED,
            api_usage=None,
            clock_skew=None,
        ),
        violations=[
            violation("server_certificate_expired", Severity.CRITICAL, Side.SERVER),
        ],
        not_evaluated=["door_open_without_certificate"],
    )
    return made


def breaker_open():
    made = healthy()
    made.record(
        result(
            at=NOON + 2 * MINUTE,
            outcomes={**NOT_DUE, Probe.LOGIN: Failure(Reason.INVALID_LOGIN)},
        )
    )
    made.login_limits("emea", breaker_open=True, budget_remaining=28)
    made.record(
        result(
            at=NOON + 3 * MINUTE,
            outcomes={
                **NOT_DUE,
                Probe.LOGIN: Skipped(SkipCause.BREAKER_OPEN),
                Probe.SESSION: Skipped(SkipCause.BREAKER_OPEN),
            },
        )
    )
    return made


def rotated():
    made = healthy()
    made.identity_failed("emea")
    made.record(
        result(
            at=NOON + 2 * MINUTE,
            outcomes=NOT_DUE,
            client_chain=chain("CN=agent,O=Example", not_before=NOON, days=365),
        )
    )
    return made


BOARDS = (healthy, never_run, tls13_rejected, server_expired, breaker_open, rotated)
all_boards = pytest.mark.parametrize("make", BOARDS, ids=lambda make: make.__name__)


@all_boards
def test_the_exposition_of_a_known_board_is_the_golden_text(make):
    text = text_of(make(), NOON + 5 * MINUTE)
    text = text[text.index("# HELP sfmtls_org_info") :]
    golden = ROOT / "tests" / "golden" / f"{make.__name__}.prom"
    if UPDATE:
        golden.write_text(text, encoding="utf-8")

    assert text == golden.read_text(encoding="utf-8")


def test_the_reference_page_is_the_catalogue():
    page = ROOT / "docs" / "metrics.md"
    if UPDATE:
        page.write_text(reference(), encoding="utf-8")

    assert page.read_text(encoding="utf-8") == reference()


def test_the_reference_names_every_family_of_the_catalogue_once():
    for name in CATALOGUE:
        assert reference().count(f"| `{name}` |") == 1


@all_boards
@FORMATS
def test_every_exported_family_is_in_the_catalogue_with_its_type_and_labels(make, openmetrics):
    parse = parse_openmetrics if openmetrics else parse_text
    found = set()
    for metric in parse(text_of(make(), openmetrics=openmetrics)):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        family = CATALOGUE[name]
        assert metric.type == family.kind
        assert metric.documentation == family.help
        for sample in metric.samples:
            own = {"org"} if sample.labels.get("org") else set()
            le = {"le"} if sample.name.endswith("_bucket") else set()
            operator_s = {"team"} if family.open_labels else set()
            assert sample.labels.keys() == {*family.labels, *own, *le, *operator_s}
        found.add(name)
    assert {"sfmtls_org_info", "sfmtls_build_info", "sfmtls_probe_attempts_total"} <= found


def test_every_family_of_the_catalogue_is_exported_by_some_board():
    registry = CollectorRegistry()
    made = tls13_rejected()
    made.record(
        result(outcomes=failed(Reason.CLIENT_CERT_BAD), handshake=replace(HANDSHAKE, alert="x")),
        causes={Probe.HANDSHAKE: (cause(),)},
        violations=[violation()],
        suppressed=[SUPPRESSED],
        not_evaluated=["server_key_weak"],
    )
    made.add(org("apac"))
    exposed = exposition(made, registry)
    exposed.instruments.config_loaded(NOON)
    families = parse_text(exposed.render(NOON, openmetrics=False).decode())

    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in families}
    assert names == set(CATALOGUE)


# --- the same bytes as prometheus_client's

HOSTILE = (
    'quote"and\\back\\\\slash',
    "line\nfeed\r\n# HELP sfmtls_org_info forged",
    "x" * 10_240,
    "Zürich, 東京, \U0001f511, \u2028",
    "{}=,",
)


@FORMATS
def test_the_text_is_byte_for_byte_what_prometheus_client_gives(openmetrics):
    made = board(
        *(
            org(
                name,
                labels={f"label{number}": name, "team": name, "host": "not ours"},
                api_version=name,
                endpoint=Endpoint(name),
            )
            for number, name in enumerate(HOSTILE)
        ),
        org("plain", login=None, enforcement=ENFORCEMENT, labels={}),
    )
    for name in HOSTILE:
        made.record(
            result(
                name,
                client_chain=(certificate(name, name), *CLIENT_CHAIN[1:]),
                outcomes={**ALL_WELL, Probe.LOGIN: Failure(Reason.INVALID_LOGIN)},
                clock_skew=1e9,
            ),
            violations=[violation()],
            deadlines=DEADLINES,
        )
    exposed = exposition(made)
    exposed.instruments.stages_took({Stage.DNS: 0.003})
    exposed.instruments.config_loaded(NOON)

    for now in (NOON, NOON + timedelta(days=1, microseconds=1)):
        own = client_s_own(exposed, made, now, openmetrics)
        assert exposed.render(now, openmetrics=openmetrics) == own
    made.record(result(HOSTILE[0], outcomes=failed(Reason.DNS_ERROR)))
    made.remove(HOSTILE[1])
    later = NOON + timedelta(days=300)
    assert exposed.render(later, openmetrics=openmetrics) == client_s_own(
        exposed, made, later, openmetrics
    )


@FORMATS
def test_a_board_without_orgs_is_exposed_too(openmetrics):
    exposed = exposition(board())

    assert exposed.render(NOON, openmetrics=openmetrics) == client_s_own(
        exposed, board(), NOON, openmetrics
    )


def test_an_org_is_rendered_again_only_when_something_changed():
    made = board(org(), org("us"))
    exposed = exposition(made)
    exposed.render(NOON, openmetrics=False)
    before = dict(exposed._rendered)

    made.record(result("us"))
    exposed.render(NOON, openmetrics=True)
    after = exposed._rendered

    assert after["emea"] is before["emea"]
    assert after["us"] is not before["us"]


@FORMATS
def test_what_is_kept_of_the_text_before_is_what_would_be_made_anew(openmetrics):
    """Whatever changes on the boards of this file, in whatever order, shows at once."""
    made = board(org())
    exposed = exposition(made)
    for make in (*BOARDS, *reversed(BOARDS)):
        (snapshot,) = make().snapshots()
        for news in sorted({field.name for field in fields(snapshot)} - {"org", "version"}):
            made._put(made.get("emea"), **{news: getattr(snapshot, news)})

            own = client_s_own(exposed, made, NOON, openmetrics)
            assert exposed.render(NOON, openmetrics=openmetrics) == own, news


@FORMATS
def test_what_was_made_ready_is_shown_and_is_not_when_something_changed_since(openmetrics):
    made = board(org(), org("us"))
    exposed = exposition(made)
    made.record(result("us"))

    exposed.make_ready("us")
    ready = exposed._rendered["us"]
    assert exposed.render(NOON, openmetrics=openmetrics) == client_s_own(
        exposed, made, NOON, openmetrics
    )
    assert exposed._rendered["us"] is ready

    made.skipped("us", Probe.HANDSHAKE, SkipCause.OVERLAP, 1)
    assert exposed.render(NOON, openmetrics=openmetrics) == client_s_own(
        exposed, made, NOON, openmetrics
    )


def test_an_org_that_is_not_watched_any_more_is_not_made_ready():
    made = board(org(), org("us"))
    exposed = exposition(made)
    made.remove("us")

    exposed.make_ready("us")

    assert "us" not in exposed._rendered
    assert b'org="us"' not in exposed.render(NOON, openmetrics=False)


def test_a_removed_org_leaves_text_and_cache_in_both_formats():
    made = board(org(), org("us"))
    exposed = exposition(made)
    for openmetrics in (False, True):
        assert b'org="us"' in exposed.render(NOON, openmetrics=openmetrics)

    made.remove("us")

    assert b'org="us"' not in exposed.render(NOON, openmetrics=False)
    assert exposed._rendered.keys() == {"emea"}


def test_an_org_that_returns_under_its_old_name_is_not_shown_from_the_cache():
    made = healthy()
    exposed = exposition(made)
    assert b"sfmtls_client_auth{" in exposed.render(NOON, openmetrics=False)

    made.remove("emea")
    made.add(org())

    assert b"sfmtls_client_auth{" not in exposed.render(NOON, openmetrics=False)


# A name that people can read won over promtool's wish for base units; the exact moment of expiry
# is exported as a timestamp besides.
REMARKS = 'sfmtls_certificate_expiry_days use base unit "seconds" instead of "days"\n'


@pytest.mark.component
@all_boards
def test_promtool_remarks_on_nothing_but_the_unit_of_the_expiry_days(make):
    promtool = require_program("promtool")
    text = text_of(make())

    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )

    remarks = REMARKS if "sfmtls_certificate_expiry_days" in text else ""
    assert (checked.stdout, checked.stderr) == ("", remarks)
    # 3 is promtool's code for remarks, 1 for text that it cannot read.
    assert checked.returncode == (3 if remarks else 0)


# --- what the families say


def test_an_org_with_login_and_session_has_at_most_70_series_and_a_further_probe_adds_7():
    def series(watched, **last):
        made = board(watched)
        made.record(result(), deadlines=DEADLINES)
        made.record(result(outcomes=NOT_DUE))
        made.record(result(outcomes=last.get("outcomes", NOT_DUE)), causes=last.get("causes"))
        made.login_limits("emea", breaker_open=False, budget_remaining=29)
        return sum(len(m.samples) for m in org_families(made.get("emea"), NOON))

    assert len(CLIENT_CHAIN) == len(SERVER_CHAIN) == 3
    assert series(org(refusal_interval=None)) <= 70
    assert series(org()) - series(org(refusal_interval=None)) == 7
    # Reason, counter and cause of a failure: one of each, however many causes there may be.
    refused = {**NOT_DUE, Probe.LOGIN: Failure(Reason.INVALID_LOGIN)}
    causes = {Probe.LOGIN: (cause("password_wrong"), cause("user_locked_out"))}
    assert series(org(), outcomes=refused, causes=causes) - series(org()) == 3


def test_of_the_causes_of_a_failing_probe_the_best_alone_is_a_series_and_none_of_a_healthy_one():
    made = board(org())
    causes = {Probe.LOGIN: (cause("password_wrong"), cause("user_locked_out"))}
    outcomes = {**ALL_WELL, Probe.LOGIN: Failure(Reason.INVALID_LOGIN)}
    made.record(result(outcomes=outcomes), causes=causes)
    failing = samples(made, "sfmtls_probe_cause")
    made.record(result(outcomes=NOT_DUE))
    not_due = samples(made, "sfmtls_probe_cause")
    made.record(result())

    assert failing == {("login", "password_wrong", "likely"): 1}
    assert not_due == failing, "a run that was not due is no news"
    assert samples(made, "sfmtls_probe_cause") == {}


def test_a_failure_whose_cause_cannot_be_told_has_no_cause_and_is_failing_all_the_same():
    made = board(org())
    made.record(result(outcomes=failed(Reason.FAULT_OTHER)), causes={Probe.HANDSHAKE: ()})

    assert samples(made, "sfmtls_probe_cause") == {}
    assert samples(made, "sfmtls_probe_failing") == {("handshake", "fault_other"): 1}


def test_counters_of_configured_probes_are_there_before_the_first_cycle():
    made = never_run()
    probes = [("handshake",), ("login",), ("session",), ("refusal",)]

    assert samples(made, "sfmtls_probe_attempts_total") == dict.fromkeys(probes, 0)
    assert samples(made, "sfmtls_probe_failures_total") == dict.fromkeys(probes, 0)
    assert samples(made, "sfmtls_identity_reload_failures_total") == {(): 0}
    assert samples(made, "sfmtls_policy_violations") == {
        ("info",): 0,
        ("warning",): 0,
        ("critical",): 0,
    }


@pytest.mark.parametrize(
    "name",
    [
        "sfmtls_probe_success",
        "sfmtls_probe_last_run_timestamp_seconds",
        "sfmtls_client_auth",
        "sfmtls_clock_skew_seconds",
        "sfmtls_login_breaker_open",
        "sfmtls_login_budget_remaining",
        "sfmtls_api_requests_used",
        "sfmtls_certificate_expiry_days",
        "sfmtls_tls_info",
    ],
)
def test_what_was_not_observed_is_absent_and_what_was_is_there(name):
    assert samples(never_run(), name) == {}
    assert samples(healthy(), name) != {}


def test_success_is_absent_after_an_undetermined_run_and_there_after_a_determined_one():
    made = board(org())
    made.record(result(outcomes={**ALL_WELL, Probe.REFUSAL: Undetermined(Reason.TCP_TIMEOUT)}))

    assert ("refusal",) not in samples(made, "sfmtls_probe_success")
    assert samples(made, "sfmtls_probe_attempts_total")["refusal",] == 1

    made.record(result(outcomes={**ALL_WELL, Probe.REFUSAL: Failure(Reason.HTTP_STATUS)}))
    assert samples(made, "sfmtls_probe_success")["refusal",] == 0
    made.record(result())
    assert samples(made, "sfmtls_probe_success")["refusal",] == 1


def test_the_failing_series_shows_only_the_reason_of_the_last_run():
    made = board(org())
    made.record(result(outcomes=failed(Reason.TCP_REFUSED)))
    made.record(result(outcomes=failed(Reason.DNS_TIMEOUT)))

    assert samples(made, "sfmtls_probe_failing") == {("handshake", "dns_timeout"): 1}
    assert samples(made, "sfmtls_probe_failures_by_reason_total") == {
        ("handshake", "tcp_refused"): 1,
        ("handshake", "dns_timeout"): 1,
    }

    made.record(result())
    assert samples(made, "sfmtls_probe_failing") == {}
    assert len(samples(made, "sfmtls_probe_failures_by_reason_total")) == 2


def test_all_states_of_client_auth_are_there_and_exactly_one_is_1():
    states = samples(tls13_rejected(), "sfmtls_client_auth")

    assert set(states) == {(state.value,) for state in ClientAuth}
    assert [state for state, value in states.items() if value] == [("rejected",)]


def test_the_alert_is_there_only_while_the_handshake_fails():
    made = tls13_rejected()
    assert samples(made, "sfmtls_tls_alert_info") == {("certificate_expired",): 1}

    made.record(result())
    assert samples(made, "sfmtls_tls_alert_info") == {}


def test_certificate_series_stay_when_the_server_s_certificate_expires_and_days_go_negative():
    made = server_expired()

    assert samples(made, "sfmtls_certificate_expiry_days")["server",] == -1.0
    assert samples(made, "sfmtls_certificate_not_after_timestamp_seconds")["server", "0"] == (
        datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()
    )


def test_the_earliest_certificate_of_the_chain_counts_and_its_ratio_goes_from_1_to_below_0():
    leaf = certificate("CN=leaf", not_before=NOON, days=100)
    shorter = certificate("CN=Issuing CA", "CN=Root", not_before=NOON, days=50)
    made = board(org())
    made.record(result(client_chain=(leaf, shorter)))

    for days, left, ratio in ((0, 50.0, 1.0), (25, 25.0, 0.5), (50, 0.0, 0.0), (75, -25.0, -0.5)):
        now = NOON + timedelta(days=days)
        assert samples(made, "sfmtls_certificate_expiry_days", now)["client",] == left
        assert samples(made, "sfmtls_certificate_lifetime_remaining_ratio", now)["client",] == ratio


def test_a_certificate_that_ends_before_it_begins_has_days_but_no_ratio():
    made = board(org())
    made.record(result(client_chain=(certificate("CN=leaf", not_before=NOON, days=-1),)))

    assert samples(made, "sfmtls_certificate_expiry_days")["client",] == -1.0
    assert set(samples(made, "sfmtls_certificate_lifetime_remaining_ratio")) == {("server",)}
    assert 'remaining_ratio{org="emea",side="server"}' in text_of(made)


def test_a_rule_violated_at_two_positions_is_one_series_and_two_violations():
    made = board(org())
    made.record(result(), violations=[violation(position=0), violation(position=1)])

    assert samples(made, "sfmtls_policy_violation") == {
        ("client_certificate_expiring", "warning", "client"): 1
    }
    assert samples(made, "sfmtls_policy_violations")["warning",] == 2
    text_of(made)


def test_what_is_suppressed_is_one_series_as_long_as_it_is_and_no_violation():
    made = board(org())
    made.record(result(), suppressed=[SUPPRESSED, SUPPRESSED])

    assert samples(made, "sfmtls_policy_suppressed") == {("root_private", "info", "client"): 1}
    assert samples(made, "sfmtls_policy_violation") == {}
    assert set(samples(made, "sfmtls_policy_violations").values()) == {0}
    text_of(made)
    made.record(result())
    assert samples(made, "sfmtls_policy_suppressed") == {}


def test_intervals_are_the_configured_ones():
    watched = org(
        interval=30.0, login_interval=120.0, refusal_interval=900.0, enforcement=ENFORCEMENT
    )

    assert samples(board(watched), "sfmtls_probe_interval_seconds") == {
        ("handshake",): 30.0,
        ("login",): 120.0,
        ("session",): 120.0,
        ("refusal",): 900.0,
        ("enforcement",): 86400.0,
    }


@pytest.mark.parametrize(("watched", "method"), [(org(), "password"), (org(login=None), "none")])
def test_the_login_method_is_told(watched, method):
    (values,) = samples(board(watched), "sfmtls_org_info")

    assert values[3] == method


def test_orgs_with_different_labels_coexist_and_ours_cannot_be_replaced():
    made = board(
        org("a", labels={"tier": "1", "host": "forged", "org": "forged"}),
        org("b", labels={"team": "x"}),
    )
    info = [s for m in parse_text(text_of(made)) if m.name == "sfmtls_org_info" for s in m.samples]

    first, second = (sample.labels for sample in info)
    assert (first["tier"], "team" in first) == ("1", False)
    assert (second["team"], "tier" in second) == ("x", False)
    assert (first["org"], "forged" in first.values()) == ("a", False)


def test_info_values_are_cut_and_made_printable_and_short_ones_are_left_alone():
    made = board(org(labels={"note": "y" * 201, "fits": "z" * 200, "odd": "a\x1b[31m\nb\x00"}))
    (sample,) = next(iter(org_families(made.get("emea"), NOON))).samples

    assert len(sample.labels["note"]) == INFO_VALUE_LENGTH == 200
    assert sample.labels["note"].endswith("y…")
    assert sample.labels["fits"] == "z" * 200
    assert sample.labels["odd"] == "a\ufffd[31m\ufffdb\ufffd"


def test_roles_and_positions_are_on_the_info_series():
    infos = samples(healthy(), "sfmtls_certificate_info")

    assert [(v[0], v[1], v[2]) for v in infos] == [
        (side, position, role)
        for side in ("client", "server")
        for position, role in (("0", "leaf"), ("1", "intermediate"), ("2", "intermediate"))
    ]


# --- the agent as a whole


def fleet(act):
    instruments = Instruments(CollectorRegistry())
    act(instruments)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in instruments.families()
        for sample in metric.samples
    }


def test_internal_errors_are_counted_by_component_from_zero():
    counted = fleet(lambda instruments: instruments.internal_error(Component.POLICY))

    assert {key[1]: value for key, value in counted.items() if "errors" in key[0]} == {
        **dict.fromkeys(Component, 0),
        "policy": 1,
    }


def test_the_reload_gauges_are_absent_before_a_configuration_was_read():
    assert not [key for key in fleet(lambda _: None) if "reload" in key[0]]


def test_a_refused_configuration_sets_the_gauge_and_keeps_the_time_of_the_last_good_one():
    def loaded_then_refused(instruments):
        instruments.config_loaded(NOON)
        instruments.config_refused()

    name = "sfmtls_config_last_reload_success"
    loaded = fleet(lambda instruments: instruments.config_loaded(NOON))
    refused = fleet(loaded_then_refused)

    assert (loaded[f"{name}ful",], refused[f"{name}ful",]) == (1, 0)
    assert loaded[f"{name}_timestamp_seconds",] == NOON.timestamp()
    assert refused[f"{name}_timestamp_seconds",] == NOON.timestamp()


def test_cycles_in_flight_go_up_and_down_and_lag_is_never_negative():
    def two_begin_one_ends(instruments):
        instruments.cycle_began(-0.2)
        instruments.cycle_began(0.3)
        instruments.cycle_ended()

    seen = fleet(two_begin_one_ends)

    assert seen["sfmtls_probes_in_flight",] == 1
    assert seen["sfmtls_scheduler_lag_seconds_count",] == 2
    assert seen["sfmtls_scheduler_lag_seconds_sum",] == 0.3
    assert seen["sfmtls_scheduler_lag_seconds_bucket", "0.25"] == 1


def test_stage_durations_of_all_orgs_are_in_one_histogram():
    seen = fleet(lambda instruments: instruments.stages_took({Stage.TCP: 0.2, Stage.TLS: 0.1}))

    assert seen["sfmtls_fleet_stage_duration_seconds_count", "tcp"] == 1
    assert seen["sfmtls_fleet_stage_duration_seconds_sum", "tls"] == 0.1
    assert seen["sfmtls_fleet_stage_duration_seconds_count", "dns"] == 0


def test_two_daemons_do_not_share_their_instruments():
    fleet(lambda instruments: instruments.internal_error(Component.WEB))

    assert fleet(lambda _: None)["sfmtls_internal_errors_total", "web"] == 0


# --- registration


def test_two_families_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two families named sfmtls_org_info"):
        _register(
            OrgFamily(
                "sfmtls_org_info",
                Kind.GAUGE,
                (),
                "Again.",
                "always",
                part=lambda snapshot: snapshot,
                samples=lambda _: (),
            )
        )


def test_a_family_without_a_meaning_is_refused():
    with pytest.raises(ValueError, match="what the metric means"):
        _sentence(None)


def test_names_follow_the_conventions():
    for family in CATALOGUE.values():
        assert family.name.startswith("sfmtls_")
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert "org" not in family.labels
    assert len({family.name for family in ORG_FAMILIES}) == len(ORG_FAMILIES)


# --- whatever the snapshot

RULES = ("client_certificate_expiring", "server_key_weak")
ALERTS = ("unknown_ca", "certificate_required", "255")
moments = st.datetimes(
    NOON.replace(year=1950, tzinfo=None),
    NOON.replace(year=9900, tzinfo=None),
    timezones=st.just(UTC),
)
details = st.text(max_size=20)
outcomes = st.one_of(
    st.builds(Success, details),
    st.builds(Failure, st.sampled_from(Reason), details),
    st.builds(Undetermined, st.sampled_from(Reason), details),
    st.builds(Skipped, st.sampled_from(SkipCause), details),
)
chains = st.lists(
    st.builds(
        lambda subject, issuer, start, days: certificate(
            subject, issuer, not_before=start, days=days
        ),
        st.text(max_size=300),
        st.text(max_size=30),
        moments,
        st.floats(-10, 10_000),
    ),
    max_size=3,
).map(tuple)
handshakes = st.none() | st.builds(
    HandshakeOutcome,
    client_auth=st.sampled_from(ClientAuth),
    tls_version=st.sampled_from([None, "TLSv1.2", "TLSv1.3"]),
    cipher_suite=st.none() | st.text(max_size=20),
    server_chain=chains,
    alert=st.sampled_from([None, *ALERTS]),
)
results = st.builds(
    result,
    st.just("x"),
    moments,
    outcomes=st.dictionaries(st.sampled_from(Probe), outcomes),
    stages=st.dictionaries(st.sampled_from(Stage), st.floats(0, 100)),
    handshake=handshakes,
    client_auth=st.sampled_from(ClientAuth),
    client_chain=chains,
    api_usage=st.none() | st.builds(ApiUsage, st.integers(0, 2**40), st.integers(0, 2**40)),
    clock_skew=st.none() | st.floats(-1e9, 1e9),
)
judgements = st.fixed_dictionaries(
    {
        "violations": st.lists(
            st.builds(
                violation,
                st.sampled_from(RULES),
                st.sampled_from(Severity),
                st.sampled_from(Side),
                st.integers(0, 3),
            ),
            max_size=5,
        ),
        "not_evaluated": st.lists(st.sampled_from(RULES), max_size=3),
        "deadlines": st.none() | st.dictionaries(st.just("soap_login_retirement"), moments),
    }
)
names = st.text(min_size=1, max_size=30)
label_names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
orgs = st.builds(
    org,
    names,
    login=st.sampled_from([None, org().login]),
    enforcement=st.sampled_from([None, ENFORCEMENT]),
    refusal_interval=st.none() | st.floats(1, 1e6),
    labels=st.dictionaries(label_names, st.text(max_size=300), max_size=3),
)
CLOSED = {
    "probe": set(Probe),
    "stage": set(Stage),
    "state": set(ClientAuth),
    "cause": {*SkipCause, *CAUSES},
    "confidence": set(Confidence),
    "reason": {reason.value for reason in Reason},
    "side": set(Side),
    "position": {"0", "1", "2"},
    "role": {"leaf", "intermediate", "root"},
    "severity": set(Severity),
    "rule": set(RULES),
    "deadline": {"soap_login_retirement"},
    "alert": set(ALERTS),
    "component": set(Component),
}


@settings(max_examples=60)
@given(
    watched=st.lists(orgs, min_size=1, max_size=3, unique_by=lambda each: each.name),
    cycles=st.lists(st.tuples(results, judgements), max_size=3),
    limits=st.tuples(st.none() | st.booleans(), st.none() | st.integers(0, 100)),
    window=st.none() | st.builds(Window, moments),
    now=moments,
)
def test_whatever_the_snapshot_the_text_parses_and_labels_are_in_their_closed_sets(
    watched, cycles, limits, window, now
):
    made = board(*watched)
    for each in watched:
        made.login_limits(each.name, *limits)
        made.in_maintenance(each.name, window)
        for cycle, judged in cycles:
            told = Judgement(tuple(judged["violations"]), tuple(judged["not_evaluated"]))
            causes = by_probe(cycle, told)
            made.record(replace(cycle, org=each.name), causes=causes, **judged)
    exposed = exposition(made)
    closed = {**CLOSED, "org": {each.name for each in watched}}

    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        text = exposed.render(now, openmetrics=openmetrics)
        assert text == client_s_own(exposed, made, now, openmetrics)
        seen = set()
        for metric in parse(text.decode()):
            for sample in metric.samples:
                series = (sample.name, *sorted(sample.labels.items()))
                assert series not in seen
                seen.add(series)
                own_labels = {} if metric.name == "sfmtls_org_info" else sample.labels
                for label, value in own_labels.items():
                    assert value in closed.get(label, {value})
                if metric.name.endswith("_info"):
                    assert all(
                        len(value) <= INFO_VALUE_LENGTH and value.isprintable()
                        for label, value in sample.labels.items()
                        if label != "org"
                    )
