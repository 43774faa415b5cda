"""The likely causes: right for every scenario, each with a twin that lacks only its defect."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from socket import AF_INET

import pytest
from boards import ALL_WELL, CLIENT_CHAIN, HANDSHAKE, SERVER_CHAIN, STAGES, certificate, result
from boards import violation as example
from doors import Stage as Theatre
from hypothesis import given
from hypothesis import strategies as st

from agent import diagnosis
from agent.diagnosis import CATALOGUE, Confidence, by_probe, diagnose
from agent.diagnosis.cause import Known, Row, Suspicion, add, cause
from agent.judge import Judge
from agent.org import IpFamily, Suppression
from agent.policy import CATALOGUE as RULES
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Severity, Side
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    Probe,
    Refused,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
)
from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator
from agent.simulator.soap import Asked

ROOT = Path(__file__).parent.parent
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
CERTAIN, LIKELY, POSSIBLE = Confidence
NOTHING = Judgement((), ())

# --- every scenario


def told(name, confidence, *scenarios):
    return dict.fromkeys(scenarios, (name, confidence))


def behind(doors, client):
    return [f"{door}_{client}" for door in doors]


def asked(*names):
    return [f"{where}_{name}" for name in names for where in Asked]


VERSIONS = ("tls12", "tls13")
# Doors that say what they hold against a certificate, and those that do not.
SAYING = (
    "tls12_required",
    "tls13_required",
    "tls13_required_no_tickets",
    "optional",
    *(f"soft_{version}" for version in VERSIONS),
)
CLOSING = [
    f"{door}_{version}"
    for door in ("closing_without_alert", "closing_with_notify")
    for version in VERSIONS
]
FORBIDDING = [f"soft_forbidden_{version}" for version in VERSIONS]
NGINX = [f"soft_nginx_{version}" for version in VERSIONS]
VAGUE = (*CLOSING, *FORBIDDING, *NGINX)
BROKEN_XML = (
    "truncated",
    "doctype",
    "entity_bomb",
    "wrong_namespace",
    "deep",
    "not_utf8",
)

TOP = {
    # --- our certificate, at doors that say what is wrong with it and at those that do not
    **told("no_certificate_sent", CERTAIN, *behind((*SAYING, *NGINX), "none")),
    **told("no_certificate_sent", LIKELY, *behind((*CLOSING, *FORBIDDING), "none")),
    **told("client_root_unknown", LIKELY, *behind(SAYING, "unknown_ca")),
    **told("client_root_unknown", POSSIBLE, *behind((*NGINX, *FORBIDDING), "unknown_ca")),
    **told("closed_after_certificate", LIKELY, *behind(CLOSING, "unknown_ca")),
    **told("client_certificate_self_signed", CERTAIN, *behind(SAYING, "self_signed")),
    **told("client_certificate_self_signed", LIKELY, *behind(VAGUE, "self_signed")),
    **told("client_certificate_expired", CERTAIN, *behind(SAYING, "expired")),
    **told("client_certificate_expired", LIKELY, *behind(VAGUE, "expired")),
    # The alert for this is bad_certificate, which may mean anything; a page has a word for it.
    **told("client_certificate_not_yet_valid", LIKELY, *behind(SAYING, "not_yet_valid")),
    **told("client_certificate_not_yet_valid", LIKELY, *behind(VAGUE, "not_yet_valid")),
    **told(
        "client_certificate_not_yet_valid",
        CERTAIN,
        "soft_tls12_not_yet_valid",
        "soft_tls13_not_yet_valid",
    ),
    **told("client_certificate_not_for_clients", CERTAIN, *behind(SAYING, "server_auth_only")),
    **told("client_certificate_not_for_clients", LIKELY, *behind(VAGUE, "server_auth_only")),
    **told(
        "client_intermediate_missing", LIKELY, *behind((*SAYING, *VAGUE), "intermediate_missing")
    ),
    **told(
        "certificate_optional", LIKELY, "optional_good", "optional_wrong_order", "optional_expiring"
    ),
    **told(
        "client_certificate_not_uploaded",
        LIKELY,
        "mutual_auth_failed",
        "mutual_auth_failed_on_login",
        "door_mutual_auth_failed",
    ),
    # --- the door
    **told("mutual_tls_off", LIKELY, "not_asking"),
    **told("port_speaks_plain_http", CERTAIN, "plain_http"),
    **told("port_speaks_something_else", CERTAIN, "garbage"),
    **told(
        "middlebox_ends_connections",
        POSSIBLE,
        "accept_and_close",
        "reset_after_accept",
        "reset_after_client_hello",
    ),
    **told("middlebox_holds_connections", POSSIBLE, "accept_and_hang"),
    **told("server_name_unknown", CERTAIN, "unrecognized_name"),
    **told("no_common_tls_version", CERTAIN, "protocol_version_alert", "old_tls_only"),
    **told("no_common_cipher", LIKELY, "no_common_cipher"),
    # --- the server's certificate
    **told("server_certificate_expired", LIKELY, "server_expired"),
    **told("server_certificate_not_yet_valid", LIKELY, "server_not_yet_valid"),
    **told("another_server_answers", LIKELY, "server_wrong_name"),
    **told("server_root_not_trusted", LIKELY, "server_unknown_root"),
    **told("server_certificate_self_signed", CERTAIN, "server_self_signed"),
    **told("server_intermediate_missing", CERTAIN, "server_intermediate_missing"),
    **told("server_certificate_not_for_servers", CERTAIN, "server_client_auth_only"),
    # --- answers
    **told(
        "down_for_maintenance",
        CERTAIN,
        *asked("maintenance_200", "maintenance_503"),
        "org_in_maintenance",
    ),
    **told(
        "salesforce_in_trouble",
        POSSIBLE,
        *asked("html_unexpected", "empty", "not_http", "oversize", "not_soap", *BROKEN_XML),
        "session_id_is_nil",
    ),
    **told(
        "salesforce_in_trouble",
        LIKELY,
        *asked("status_500", "status_503"),
        # What the door answers is a fault with status 500; without SOAP in it, it is just that.
        *(f"door_{name}" for name in BROKEN_XML),
        "server_unavailable",
        "functionality_temporarily_unavailable",
        "unknown_exception",
    ),
    **told("my_domain_renamed", LIKELY, *asked("redirect")),
    **told("gateway_refuses", LIKELY, *asked("status_401", "status_403")),
    # Doors refuse certificates like that, too.
    **told("client_root_unknown", POSSIBLE, "door_status_403"),
    **told("no_api_there", LIKELY, *asked("status_404")),
    **told("too_many_requests", LIKELY, *asked("status_429")),
    **told("server_slow", LIKELY, *asked("slow_body")),
    **told("answer_cut", LIKELY, *asked("cut")),
    **told("something_in_between_answers", LIKELY, "server_url_elsewhere", "server_url_lookalike"),
    # --- logins
    **told("password_wrong", POSSIBLE, "invalid_login", "invalid_login_unprefixed"),
    **told("user_locked_out", CERTAIN, "password_lockout"),
    **told(
        "password_expired",
        CERTAIN,
        "password_expired",
        "password_expired_fault_on_login",
        "password_expired_fault_on_session",
    ),
    **told("security_token_missing", LIKELY, "must_use_security_token"),
    **told("device_not_activated", LIKELY, "login_challenge_issued", "login_challenge_pending"),
    **told("second_factor_wanted", CERTAIN, "transaction_security_two_factors"),
    **told("outside_login_ip_ranges", CERTAIN, "restricted_domain"),
    **told("outside_login_hours", CERTAIN, "restricted_time"),
    **told("user_shared_with_busy_client", LIKELY, "login_rate"),
    **told("any_api_auth_missing", CERTAIN, "insufficient_access"),
    **told("soap_login_off", CERTAIN, "login_disabled"),
    **told("api_version_not_served", LIKELY, "unsupported_api_version"),
    **told("edition_without_api", CERTAIN, "api_disabled_for_org"),
    **told("api_permission_missing", LIKELY, "api_currently_disabled"),
    **told("client_blocked", CERTAIN, "unsupported_client", "client_not_accessible"),
    **told("security_policy_blocks", CERTAIN, "transaction_security_no_access"),
    **told("api_requests_used_up", CERTAIN, "request_limit_exceeded"),
    **told("org_suspended", LIKELY, "org_locked"),
    **told("trial_over", CERTAIN, "trial_expired"),
    **told("org_moved", CERTAIN, "org_not_owned_by_instance"),
    **told("session_ended_by_another", LIKELY, "session_lost_always"),
    **told("another_org_answers", CERTAIN, "wrong_organization"),
    **told("mutual_auth_not_assigned", CERTAIN, "enforcement_off"),
    # A fault that nobody knows tells nothing.
    "unknown_code": None,
}


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("diagnosis"))


def fails(scenario):
    return any(isinstance(wanted, Reason) for wanted in scenario.expected.values())


def test_the_table_has_every_scenario_in_which_something_fails():
    assert set(TOP) == {name for name, scenario in SCENARIOS.items() if fails(scenario)}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_best_cause_of_every_scenario_is_the_right_one_and_health_has_none(name, theatre):
    async with Simulator(SCENARIOS[name], theatre.pki) as simulator:
        seen = await theatre.cycle(simulator, Resolver(1))
        judge = Judge(theatre.org(simulator), shipped_tables())
    judgement = judge.judge(seen, None, datetime.now(UTC)).judgement

    causes = diagnose(seen, judgement)

    wanted = TOP.get(name)
    assert [(c.name, c.confidence) for c in causes[:1]] == ([wanted] if wanted else [])
    check(seen, judgement)


def check(seen, judgement):
    """Check what holds of any causes; return them."""
    causes, each = diagnose(seen, judgement), by_probe(seen, judgement)
    failed = {probe for probe, outcome in seen.outcomes.items() if isinstance(outcome, Failure)}
    assert set(each) == failed
    for found in (causes, *each.values()):
        assert len(found) <= 4
        ranks = [c.confidence.rank for c in found]
        assert ranks == sorted(ranks)
        assert len({c.name for c in found}) == len(found)
        assert all(c.name in CATALOGUE and c.remedy and c.sentence for c in found)
        assert all(c.sentence.endswith((".", "…")) for c in found)
        # What is only not excluded is no news beside what is proven.
        assert not {CERTAIN, POSSIBLE} <= {c.confidence for c in found}
    assert {c.name for c in causes} <= {c.name for found in each.values() for c in found}
    assert bool(causes) == any(each.values())
    return causes


# --- each cause, and its twin without the defect


@dataclass(frozen=True)
class Seen:
    """One failure and what the policy found; by default the handshake failed before the verdict."""

    reason: Reason
    detail: str = ""
    probe: Probe = Probe.HANDSHAKE
    code: str | None = None
    alert: str | None = None
    auth: ClientAuth | None = None
    requested: bool = True
    sent: bool = True
    shook_hands: bool = True
    door: bool = False
    ours: tuple = CLIENT_CHAIN
    theirs: tuple = SERVER_CHAIN
    found: tuple = ()
    not_evaluated: tuple = ()

    @property
    def result(self):
        failure = Failure(self.reason, self.detail)
        before = ClientAuth.NOT_REACHED if self.probe is Probe.HANDSHAKE else ClientAuth.ACCEPTED
        auth = self.auth or before
        handshake = replace(
            HANDSHAKE,
            client_auth=auth,
            certificate_requested=self.requested,
            certificate_sent=self.requested and self.sent,
            server_chain=self.theirs,
            alert=self.alert,
        )
        stages = dict(STAGES) if self.door or self.probe is not Probe.HANDSHAKE else {Stage.TLS: 1}
        return result(
            outcomes={self.probe: failure},
            stages=stages,
            handshake=handshake if self.shook_hands else None,
            client_auth=auth,
            client_chain=self.ours,
            login=Refused(failure, self.code) if self.probe is Probe.LOGIN else None,
        )

    @property
    def judgement(self):
        return Judgement(tuple(self.found), self.not_evaluated)

    def causes(self):
        return {c.name: c for c in check(self.result, self.judgement)}


def violation(rule, severity=Severity.CRITICAL, side=Side.CLIENT):
    assert rule in RULES
    return replace(example(rule, severity, side), message=f"{rule} was found.", remedy=f"{rule}!")


def refused(reason=Reason.CLIENT_CERT_BAD, alert="bad_certificate", **seen):
    return Seen(reason, alert=alert, auth=ClientAuth.REJECTED, **seen)


def page(text, **seen):
    return Seen(Reason.CLIENT_CERT_PAGE, text, auth=ClientAuth.SOFT_REJECTED, door=True, **seen)


def closed(detail="closed right after our answer about a certificate", **seen):
    return Seen(Reason.TLS_EOF, detail, auth=ClientAuth.UNCONFIRMED, **seen)


def login(reason, code=None, **seen):
    return Seen(reason, probe=Probe.LOGIN, code=code, **seen)


def session(reason, **seen):
    return Seen(reason, probe=Probe.SESSION, **seen)


def defect(name, rule, seen, **twin):
    """Return the case of a defect in our own file: without the finding it is gone."""
    side = Side.ORG if rule == "same_leaf_as_server" else Side.CLIENT
    return case(name, replace(seen, found=(violation(rule, side=side),)), **({"found": ()} | twin))


@dataclass(frozen=True)
class Example:
    name: str
    seen: Seen
    twin: dict = field(default_factory=dict)


def case(name, seen, **twin):
    return Example(name, seen, twin)


UNKNOWN_CA = refused(Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca")
VAGUE_ALERT = refused(Reason.CLIENT_CERT_UNKNOWN, "certificate_unknown")
PURPOSE = refused(Reason.CLIENT_CERT_UNSUPPORTED, "unsupported_certificate")
ROOT_PRIVATE = violation("root_private", Severity.INFO)
ROOT_UNRESOLVED = violation("root_unresolved", Severity.INFO)
EXPIRED = violation("expired")
SELF_SIGNED = (certificate("CN=x", "CN=x"),)
REFUSAL = Seen(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE, probe=Probe.REFUSAL)
R, P = Reason, Probe

EXAMPLES = [
    # --- our own file
    defect("client_certificate_expired", "expired", VAGUE_ALERT),
    defect("client_certificate_not_yet_valid", "not_yet_valid", refused()),
    defect("client_certificate_self_signed", "leaf_self_signed", UNKNOWN_CA),
    defect("client_intermediate_missing", "leaf_only", UNKNOWN_CA),
    defect("client_chain_inconsistent", "chain_signature_invalid", UNKNOWN_CA),
    defect("server_certificate_presented", "same_leaf_as_server", PURPOSE),
    defect("client_certificate_regressed", "renewed_cert_regressed", PURPOSE),
    defect("client_certificate_not_for_clients", "eku_no_client_auth", PURPOSE),
    defect("client_authority_not_for_clients", "ca_eku_excludes_client_auth", PURPOSE),
    defect("client_key_usage_wrong", "ku_no_digital_signature", PURPOSE),
    defect("client_chain_disordered", "chain_out_of_order", UNKNOWN_CA),
    defect("client_certificate_weak", "weak_signature", refused()),
    case(
        "client_certificate_revoked",
        refused(R.CLIENT_CERT_REVOKED, "certificate_revoked"),
        alert="certificate_unknown",
    ),
    case("closed_after_certificate", closed(), auth=ClientAuth.NOT_REACHED),
    case(
        "client_root_not_listed",
        replace(UNKNOWN_CA, found=(violation("root_not_in_cacerts"),)),
        found=(),
    ),
    case(
        "client_issuer_not_accepted",
        replace(UNKNOWN_CA, found=(violation("issuer_not_accepted", Severity.WARNING),)),
        found=(),
    ),
    case("client_root_private", replace(UNKNOWN_CA, found=(ROOT_PRIVATE,)), found=()),
    case("client_root_unknown", replace(UNKNOWN_CA, found=(ROOT_UNRESOLVED,)), found=()),
    case("client_root_not_trusted", UNKNOWN_CA, found=(ROOT_PRIVATE,)),
    case(
        "no_certificate_sent",
        refused(R.CLIENT_CERT_REQUIRED, "handshake_failure", sent=False, ours=()),
        requested=False,
    ),
    case(
        "client_key_kind_not_taken",
        refused(R.CLIENT_CERT_REQUIRED, "certificate_required", sent=False),
        sent=True,
    ),
    case(
        "certificate_lost_on_the_way", page("No client certificate provided."), sent=False, ours=()
    ),
    case("client_key_proof_failed", refused(alert="decrypt_error"), alert="bad_certificate"),
    case(
        "clock_wrong",
        refused(R.CLIENT_CERT_EXPIRED, "certificate_expired"),
        found=(EXPIRED,),
    ),
    case(
        "authority_expired_at_server",
        refused(R.CLIENT_CERT_EXPIRED, "certificate_expired"),
        found=(EXPIRED,),
    ),
    case("client_certificate_kind_unsupported", PURPOSE, found=(violation("eku_no_client_auth"),)),
    case(
        "client_certificate_not_uploaded",
        session(R.MUTUAL_AUTH_FAILED),
        reason=R.SESSION_INVALID,
    ),
    case(
        "client_certificate_perhaps_revoked",
        replace(VAGUE_ALERT, not_evaluated=("revoked",)),
        not_evaluated=(),
    ),
    case("servers_differ", login(R.CLIENT_CERT_UNKNOWN_CA), reason=R.TLS_EOF),
    case(
        "client_key_of_another_certificate",
        Seen(R.CLIENT_KEY_MISMATCH, shook_hands=False),
        reason=R.CLIENT_MATERIAL_UNREADABLE,
    ),
    case(
        "client_files_unusable",
        Seen(R.CLIENT_MATERIAL_UNREADABLE, shook_hands=False),
        reason=R.CLIENT_KEY_MISMATCH,
    ),
    case("secret_unreadable", login(R.CREDENTIALS_UNREADABLE), reason=R.INVALID_LOGIN),
    # --- answers
    case("salesforce_in_trouble", login(R.SERVER_ERROR), reason=R.MAINTENANCE),
    case("something_in_between_answers", login(R.HOST_POLICY), reason=R.WRONG_ORG),
    case(
        "my_domain_renamed",
        Seen(R.HTTP_REDIRECT, "HTTP 302 to new.my.salesforce.com", door=True),
        detail="HTTP 302 to portal.example.com",
    ),
    case("gateway_refuses", login(R.HTTP_STATUS, detail="HTTP 401"), detail="HTTP 503"),
    case("too_many_requests", login(R.HTTP_STATUS, detail="HTTP 429"), detail="HTTP 401"),
    case("no_api_there", login(R.HTTP_STATUS, detail="HTTP 404"), detail="HTTP 401"),
    case("down_for_maintenance", login(R.MAINTENANCE), reason=R.SERVER_ERROR),
    case("server_slow", login(R.HTTP_TIMEOUT), detail="no time was left to send it"),
    case(
        "cycle_too_short",
        login(R.HTTP_TIMEOUT, detail="no time was left to send it"),
        detail="no complete answer in 1.2 s",
    ),
    case("answer_cut", login(R.TLS_EOF), probe=P.HANDSHAKE),
    case(
        "connection_closed_each_time",
        login(R.UNDETERMINED, detail="it closes after each answer and TLS gives no verdict"),
        detail="Cannot allocate memory",
    ),
    case("agent_has_a_bug", Seen(R.INTERNAL, shook_hands=False), reason=R.DNS_ERROR),
    # --- logins
    case("password_wrong", login(R.INVALID_LOGIN, "INVALID_LOGIN"), code="INACTIVE_OWNER_OR_USER"),
    case("user_of_another_org", login(R.INVALID_LOGIN), code="INACTIVE_OWNER_OR_USER"),
    case("user_locked_out", login(R.USER_LOCKED, "PASSWORD_LOCKOUT"), reason=R.PASSWORD_EXPIRED),
    case("user_inactive", login(R.INVALID_LOGIN), reason=R.USER_LOCKED),
    case("password_expired", login(R.PASSWORD_EXPIRED), reason=R.USER_LOCKED),
    case(
        "soap_login_retired",
        login(
            R.LOGIN_DISABLED,
            "INVALID_OPERATION_NOW",
            found=(violation("soap_login_retiring", side=Side.ORG),),
        ),
        found=(violation("soap_login_retiring", Severity.WARNING, Side.ORG),),
    ),
    case(
        "api_version_removed",
        login(R.API_VERSION, found=(violation("api_version_retiring", side=Side.ORG),)),
        found=(violation("api_version_retiring", Severity.WARNING, Side.ORG),),
    ),
    case(
        "security_token_missing",
        login(R.LOGIN_CHALLENGE, "LOGIN_MUST_USE_SECURITY_TOKEN"),
        code="LOGIN_CHALLENGE_ISSUED",
    ),
    case(
        "second_factor_wanted",
        login(R.LOGIN_CHALLENGE, "TXN_SECURITY_TWO_FA_REQUIRED"),
        code="LOGIN_CHALLENGE_ISSUED",
    ),
    case(
        "device_not_activated",
        login(R.LOGIN_CHALLENGE, "LOGIN_CHALLENGE_PENDING"),
        code="LOGIN_MUST_USE_SECURITY_TOKEN",
    ),
    case(
        "outside_login_ip_ranges",
        login(R.LOGIN_RESTRICTED, "LOGIN_DURING_RESTRICTED_DOMAIN"),
        code="LOGIN_DURING_RESTRICTED_TIME",
    ),
    case(
        "outside_login_hours",
        login(R.LOGIN_RESTRICTED, "LOGIN_DURING_RESTRICTED_TIME"),
        code="LOGIN_DURING_RESTRICTED_DOMAIN",
    ),
    case(
        "login_limits_of_profile",
        login(R.LOGIN_RESTRICTED),
        code="LOGIN_DURING_RESTRICTED_DOMAIN",
    ),
    case("user_shared_with_busy_client", login(R.LOGIN_RATE), reason=R.API_LIMIT),
    case(
        "soap_login_off", login(R.LOGIN_DISABLED, "INVALID_OPERATION"), code="INSUFFICIENT_ACCESS"
    ),
    case(
        "any_api_auth_missing",
        login(R.LOGIN_DISABLED, "INSUFFICIENT_ACCESS"),
        code="INVALID_OPERATION",
    ),
    case("soap_login_not_allowed", login(R.LOGIN_DISABLED), code="INVALID_OPERATION"),
    case(
        "api_version_not_served",
        login(R.API_VERSION),
        found=(violation("api_version_retiring", side=Side.ORG),),
    ),
    case(
        "edition_without_api",
        login(R.API_DISABLED, "API_DISABLED_FOR_ORG"),
        code="API_CURRENTLY_DISABLED",
    ),
    case(
        "security_policy_blocks",
        login(R.API_DISABLED, "TXN_SECURITY_NO_ACCESS"),
        code="API_CURRENTLY_DISABLED",
    ),
    case(
        "client_blocked", login(R.API_DISABLED, "UNSUPPORTED_CLIENT"), code="API_DISABLED_FOR_ORG"
    ),
    case(
        "api_permission_missing",
        login(R.API_DISABLED, "API_CURRENTLY_DISABLED"),
        code="CLIENT_NOT_ACCESSIBLE_FOR_USER",
    ),
    case("api_requests_used_up", session(R.API_LIMIT), reason=R.LOGIN_RATE),
    case("trial_over", login(R.ORG_UNAVAILABLE, "TRIAL_EXPIRED"), code="ORG_LOCKED"),
    case("org_moved", login(R.ORG_UNAVAILABLE, "ORG_NOT_OWNED_BY_INSTANCE"), code="ORG_LOCKED"),
    case("org_suspended", login(R.ORG_UNAVAILABLE, "ORG_LOCKED"), code="TRIAL_EXPIRED"),
    case("session_ended_by_another", session(R.SESSION_INVALID), reason=R.MUTUAL_AUTH_FAILED),
    case(
        "mutual_auth_not_assigned",
        Seen(R.ENFORCEMENT_OFF, probe=P.ENFORCEMENT),
        reason=R.MUTUAL_AUTH_FAILED,
    ),
    case("another_org_answers", login(R.WRONG_ORG), reason=R.HOST_POLICY),
    # --- the network
    case(
        "endpoint_wrong",
        Seen(
            R.TCP_TIMEOUT,
            shook_hands=False,
            found=(violation("endpoint_not_my_domain", side=Side.ORG),),
        ),
        found=(),
    ),
    case("host_name_wrong", Seen(R.DNS_NOT_FOUND, shook_hands=False), reason=R.DNS_TIMEOUT),
    case("resolver_knows_no_internet", Seen(R.DNS_NOT_FOUND), reason=R.DNS_TIMEOUT),
    case(
        "address_family_missing",
        Seen(R.DNS_ERROR, "x has IPv4 addresses only, but ip_family wants IPv6"),
        detail="x: Temporary failure in name resolution",
    ),
    case(
        "resolver_fails",
        Seen(R.DNS_ERROR, "x: Temporary failure in name resolution"),
        detail="x has IPv4 addresses only, but ip_family wants IPv6",
    ),
    case(
        "resolver_hangs",
        Seen(R.DNS_ERROR, "x was not looked up: too many look-ups wait for answers"),
        detail="x: Temporary failure in name resolution",
    ),
    case("nothing_listens", Seen(R.TCP_REFUSED), reason=R.TCP_TIMEOUT),
    case("firewall_drops", Seen(R.TCP_TIMEOUT), reason=R.TCP_REFUSED),
    case("server_down", Seen(R.TCP_TIMEOUT), reason=R.TCP_REFUSED),
    case("no_route", Seen(R.TCP_UNREACHABLE), reason=R.TCP_TIMEOUT),
    case(
        "network_trouble",
        Seen(R.UNDETERMINED, "Cannot allocate memory"),
        detail="it closes after each answer and TLS gives no verdict",
    ),
    case("proxy_name_wrong", Seen(R.PROXY_DNS), reason=R.PROXY_REFUSED),
    case("proxy_down", Seen(R.PROXY_REFUSED), reason=R.PROXY_TIMEOUT),
    case(
        "proxy_wants_credentials",
        Seen(R.PROXY_DENIED, "the proxy answered 407"),
        detail="the proxy answered 403",
    ),
    case(
        "proxy_forbids",
        Seen(R.PROXY_DENIED, "the proxy answered 403"),
        detail="the proxy answered 407",
    ),
    case(
        "proxy_cannot_reach_door",
        Seen(R.PROXY_DENIED, "the proxy answered 502"),
        detail="the proxy answered 403",
    ),
    case(
        "proxy_is_none",
        Seen(R.PROXY_DENIED, "the proxy does not speak HTTP"),
        detail="the proxy answered 502",
    ),
    case("proxy_stuck", Seen(R.PROXY_TIMEOUT), reason=R.PROXY_REFUSED),
    # --- the server
    case(
        "no_common_cipher",
        Seen(R.TLS_HANDSHAKE_FAILURE, alert="handshake_failure", sent=False),
        alert="internal_error",
    ),
    case(
        "tls_disagreement",
        Seen(R.TLS_HANDSHAKE_FAILURE, "wrong_signature_type", sent=False),
        auth=ClientAuth.REJECTED,
    ),
    case("middlebox_ends_connections", Seen(R.TCP_RESET, sent=False), auth=ClientAuth.UNCONFIRMED),
    case("middlebox_holds_connections", Seen(R.TLS_TIMEOUT), reason=R.TLS_EOF),
    case("connection_cut_in_use", login(R.TCP_RESET), reason=R.TLS_EOF),
    case(
        "port_speaks_plain_http",
        Seen(R.NOT_TLS, "it began with HTTP/1.1 400"),
        detail="it began with 32 32 30",
    ),
    case(
        "port_speaks_something_else",
        Seen(R.NOT_TLS, "it began with 32 32 30"),
        detail="it began with HTTP/1.1 400",
    ),
    case("no_common_tls_version", Seen(R.TLS_VERSION), reason=R.TLS_UNRECOGNIZED_NAME),
    case("server_name_unknown", Seen(R.TLS_UNRECOGNIZED_NAME), reason=R.TLS_VERSION),
    case(
        "server_in_trouble",
        Seen(R.TLS_HANDSHAKE_FAILURE, alert="internal_error"),
        alert="handshake_failure",
    ),
    case(
        "trust_store_unusable",
        Seen(R.SERVER_UNTRUSTED, "trust store: No such file", shook_hands=False, theirs=()),
        shook_hands=True,
    ),
    case(
        "server_root_changed",
        Seen(R.SERVER_UNTRUSTED, found=(violation("server_root_changed", side=Side.SERVER),)),
        found=(),
    ),
    case("server_root_not_trusted", Seen(R.SERVER_UNTRUSTED), theirs=SELF_SIGNED),
    case(
        "server_certificate_self_signed",
        Seen(R.SERVER_UNTRUSTED, theirs=SELF_SIGNED),
        theirs=SERVER_CHAIN,
    ),
    case("tls_inspected", Seen(R.SERVER_UNTRUSTED), shook_hands=False),
    case("server_intermediate_missing", Seen(R.SERVER_INCOMPLETE_CHAIN), reason=R.SERVER_EKU),
    case("server_certificate_expired", Seen(R.SERVER_EXPIRED), reason=R.SERVER_NOT_YET_VALID),
    case("server_certificate_not_yet_valid", Seen(R.SERVER_NOT_YET_VALID), reason=R.SERVER_EXPIRED),
    case("another_server_answers", Seen(R.SERVER_HOSTNAME), reason=R.SERVER_EKU),
    case("server_certificate_not_for_servers", Seen(R.SERVER_EKU), reason=R.SERVER_HOSTNAME),
    case("mutual_tls_off", Seen(R.CLIENT_NOT_REQUESTED, requested=False), reason=R.TLS_EOF),
    case("certificate_optional", REFUSAL, reason=R.ENFORCEMENT_OFF),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_cause_is_found_with_its_defect_and_not_without(example):
    twin = replace(example.seen, **example.twin)

    assert example.name in example.seen.causes()
    assert example.name not in twin.causes()


def test_every_cause_has_its_one_example():
    names = [example.name for example in EXAMPLES]

    assert len(names) == len(set(names))
    assert set(names) == set(CATALOGUE)


def somehow(reason):
    """Return the causes that some way to fail for this reason has."""
    refusal = reason.name.startswith("CLIENT_")
    auth = ClientAuth.REJECTED if refusal else ClientAuth.NOT_REACHED
    return {
        c
        for probe in (Probe.HANDSHAKE, Probe.LOGIN)
        for c in Seen(reason, "HTTP 500: x", probe, auth=auth).causes()
    }


def test_every_reason_has_a_cause_but_those_that_tell_nothing():
    silent = {reason for reason in Reason if not somehow(reason)}

    # A fault that nobody knows; and what is no outcome of a probe, but of the store.
    assert silent == {Reason.FAULT_OTHER, Reason.STATE_LOST}


# --- the same word, another cause


def best(seen):
    causes = check(seen.result, seen.judgement)
    return causes[0].name, causes[0].confidence


def test_unknown_ca_is_another_sentence_for_a_gap_in_our_file_than_for_a_private_root():
    gap = replace(UNKNOWN_CA, found=(violation("leaf_only"),))
    private = replace(UNKNOWN_CA, found=(ROOT_PRIVATE,))
    gap_s, private_s = (diagnose(s.result, s.judgement)[0] for s in (gap, private))

    assert (gap_s.name, private_s.name) == ("client_intermediate_missing", "client_root_private")
    assert "lacks an intermediate certificate" in gap_s.sentence
    assert "complete, but to a private root" in private_s.sentence
    assert gap_s.remedy == "leaf_only!"
    for each in (gap_s, private_s):
        assert each.sentence.endswith("The server refused with the alert unknown_ca.")


def test_handshake_failure_after_a_request_that_we_left_unanswered_is_no_missing_cipher():
    unanswered = refused(R.CLIENT_CERT_REQUIRED, "handshake_failure", sent=False, ours=())
    no_cipher = Seen(R.TLS_HANDSHAKE_FAILURE, alert="handshake_failure", requested=False)

    assert best(unanswered) == ("no_certificate_sent", CERTAIN)
    assert best(no_cipher) == ("no_common_cipher", LIKELY)
    assert "no_common_cipher" not in unanswered.causes()
    assert "no_certificate_sent" not in no_cipher.causes()


def test_a_close_right_after_our_certificate_is_named_as_such():
    sentence = closed().causes()["closed_after_certificate"].sentence

    assert best(closed()) == ("closed_after_certificate", LIKELY)
    assert "closed the connection right after our certificate" in sentence


def test_a_close_is_blamed_on_the_defect_of_our_file_before_anything_else():
    expired = closed(found=(EXPIRED,))

    assert list(expired.causes())[:2] == ["client_certificate_expired", "closed_after_certificate"]
    assert "right after our certificate" in expired.causes()["client_certificate_expired"].sentence


@pytest.mark.parametrize(
    ("detail", "name", "confidence"),
    [
        ("closed without an answer", "closed_after_certificate", LIKELY),
        ("the connection was cut without close_notify", "closed_after_certificate", POSSIBLE),
        ("closed in the middle of the answer", "answer_cut", LIKELY),
    ],
)
def test_a_close_at_the_first_request_is_a_refusal_only_if_no_answer_had_begun(
    detail, name, confidence
):
    seen_ = closed(detail, door=True)

    assert best(seen_) == (name, confidence)
    assert ("closed_after_certificate" in seen_.causes()) is (name != "answer_cut")


def test_an_answer_that_breaks_off_is_not_blamed_on_our_certificate():
    cut = closed("closed in the middle of the answer", door=True, found=(EXPIRED,))

    assert "client_certificate_expired" not in cut.causes()
    assert "client_certificate_expired" in replace(cut, detail="closed without an answer").causes()


@pytest.mark.parametrize(
    ("seen", "confidence"),
    [
        (refused(R.CLIENT_CERT_EXPIRED, "certificate_expired"), CERTAIN),  # OpenSSL
        (page("certificate has expired"), CERTAIN),  # Salesforce
        (VAGUE_ALERT, LIKELY),  # Java
        (refused(R.CLIENT_CERT_BAD, "bad_certificate"), LIKELY),  # Go 1.19
        (refused(R.CLIENT_ACCESS_DENIED, "access_denied"), LIKELY),  # GnuTLS
        (refused(R.TLS_HANDSHAKE_FAILURE, "handshake_failure"), LIKELY),
        (page("The SSL certificate error"), LIKELY),  # nginx
        (closed(), LIKELY),  # Node
        (UNKNOWN_CA, POSSIBLE),  # which names something else
    ],
)
def test_how_sure_our_own_expiry_is_depends_on_the_server_s_word(seen, confidence):
    found = replace(seen, found=(EXPIRED,)).causes()["client_certificate_expired"]

    assert found.confidence is confidence


@pytest.mark.parametrize(
    ("words", "name", "rule"),
    [
        ("No client certificate provided.", "certificate_lost_on_the_way", None),
        ("certificate has expired", "client_certificate_expired", "expired"),
        ("certificate is not yet valid", "client_certificate_not_yet_valid", "not_yet_valid"),
        ("unable to get local issuer certificate", "client_intermediate_missing", "leaf_only"),
        ("unable to verify the first certificate", "client_intermediate_missing", "leaf_only"),
        ("self-signed certificate", "client_certificate_self_signed", "leaf_self_signed"),
        ("self signed certificate", "client_certificate_self_signed", "leaf_self_signed"),
        ("self-signed certificate in certificate chain", "client_root_private", "root_private"),
        (
            "unsuitable certificate purpose",
            "client_certificate_not_for_clients",
            "eku_no_client_auth",
        ),
        ("certificate revoked", "client_certificate_revoked", "revoked"),
    ],
)
def test_the_words_of_a_page_are_understood_and_quoted(words, name, rule):
    causes = page(words, found=(violation(rule),) if rule else ()).causes()

    assert next(iter(causes)) == name
    assert words.lower().removesuffix(".") in causes[name].sentence


def test_a_page_with_other_words_is_a_refusal_that_does_not_say_why():
    (found, *_) = page("Hunter2 is not welcome", found=(EXPIRED,)).causes().values()

    assert (found.name, found.confidence) == ("client_certificate_expired", LIKELY)
    assert "a web page that does not say why" in found.sentence
    assert "Hunter2" not in found.sentence


@pytest.mark.parametrize("rule", ["expired", "weak_signature", "not_yet_valid"])
@pytest.mark.parametrize(
    "changes",
    [
        {"severity": Severity.WARNING},
        {"side": Side.SERVER},
    ],
)
def test_what_is_mild_or_the_server_s_keeps_no_door_shut(rule, changes):
    ours = replace(VAGUE_ALERT, found=(violation(rule),))
    not_ours = replace(VAGUE_ALERT, found=(violation(rule, **changes),))
    guesses = {"client_root_not_trusted"}

    assert not set(ours.causes()) & guesses
    assert set(not_ours.causes()) == guesses


def test_a_defect_that_the_operator_suppressed_is_a_cause_all_the_same():
    known = Suppressed(EXPIRED, Suppression("expired", datetime.max.replace(tzinfo=UTC), "known"))
    suppressed = Judgement((), (), (known,))

    assert diagnose(VAGUE_ALERT.result, suppressed) == diagnose(
        VAGUE_ALERT.result, Judgement((EXPIRED,), ())
    )


def test_a_certificate_that_was_not_sent_is_not_blamed():
    unsent = refused(R.CLIENT_CERT_REQUIRED, "certificate_required", sent=False, found=(EXPIRED,))

    assert "client_certificate_expired" not in unsent.causes()
    assert "client_certificate_expired" in replace(unsent, sent=True).causes()


def test_the_possibilities_of_a_refused_login_come_in_salesforce_s_own_order():
    assert list(login(R.INVALID_LOGIN, "INVALID_LOGIN").causes()) == [
        "password_wrong",
        "user_of_another_org",
        "user_locked_out",
        "user_inactive",
    ]


def test_a_list_of_uploaded_certificates_makes_certain_what_is_else_likely():
    listed = session(
        R.MUTUAL_AUTH_FAILED, found=(violation("uploaded_cert_mismatch", Severity.WARNING),)
    )

    assert best(session(R.MUTUAL_AUTH_FAILED)) == ("client_certificate_not_uploaded", LIKELY)
    assert best(listed) == ("client_certificate_not_uploaded", CERTAIN)


def test_a_clock_that_is_suspect_is_blamed_first():
    suspect = violation("clock_suspect", Severity.WARNING, Side.ORG)

    assert best(Seen(R.SERVER_NOT_YET_VALID)) == ("server_certificate_not_yet_valid", LIKELY)
    assert best(Seen(R.SERVER_NOT_YET_VALID, found=(suspect,))) == ("clock_wrong", LIKELY)


async def test_the_resolver_s_own_words_for_a_missing_family_are_known():
    resolver = Resolver(1, lambda _, port: ((AF_INET, ("192.0.2.1", port)),))
    failure = await resolver.resolve("x.example", 8443, IpFamily.IPV6, 1)

    assert best(Seen(failure.reason, failure.detail)) == ("address_family_missing", CERTAIN)


# --- what holds of all


def test_two_probes_that_fail_for_one_cause_have_it_once_in_the_whole():
    seen = replace(
        session(R.MUTUAL_AUTH_FAILED, sent=False, ours=()).result,
        outcomes={
            Probe.SESSION: Failure(R.MUTUAL_AUTH_FAILED),
            Probe.REFUSAL: Failure(R.DOOR_OPEN_WITHOUT_CERTIFICATE),
        },
    )

    each = by_probe(seen, NOTHING)

    assert [c.name for c in each[Probe.SESSION]] == ["no_certificate_sent"]
    assert [c.name for c in each[Probe.REFUSAL]] == ["certificate_optional"]
    assert [c.name for c in diagnose(seen, NOTHING)] == [
        "no_certificate_sent",
        "certificate_optional",
    ]


@pytest.mark.parametrize(
    "outcomes",
    [
        ALL_WELL,
        {Probe.LOGIN: Skipped(SkipCause.BREAKER_OPEN), Probe.HANDSHAKE: Success()},
        {Probe.REFUSAL: Undetermined(Reason.TCP_RESET)},
        {},
    ],
)
def test_what_did_not_fail_has_no_causes(outcomes):
    seen = result(outcomes=outcomes)

    assert diagnose(seen, Judgement((EXPIRED,), ())) == ()
    assert by_probe(seen, Judgement((EXPIRED,), ())) == {}


CANARY = "hunter2"
# Where the detail is ours: the kernel's words, a resolver's, a file's; of a server at most the
# first bytes of what is no TLS, and names out of its certificates.
QUOTED = {
    R.CLIENT_KEY_MISMATCH,
    R.CLIENT_MATERIAL_UNREADABLE,
    R.CREDENTIALS_UNREADABLE,
    R.DNS_ERROR,
    R.DNS_NOT_FOUND,
    R.DNS_TIMEOUT,
    R.HTTP_TIMEOUT,
    R.NOT_TLS,
    R.PROXY_DENIED,
    R.PROXY_DNS,
    R.PROXY_REFUSED,
    R.PROXY_TIMEOUT,
    R.SERVER_INCOMPLETE_CHAIN,
    R.SERVER_UNTRUSTED,
    R.TCP_REFUSED,
    R.TCP_TIMEOUT,
    R.TCP_UNREACHABLE,
    R.TLS_HANDSHAKE_FAILURE,
    R.UNDETERMINED,
}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_what_a_server_wrote_freely_is_in_no_sentence(reason):
    details = (
        CANARY,
        f"HTTP 503: {CANARY}",
        f"HTTP 302 to {CANARY}.my.salesforce.com",
        f"certificate has expired {CANARY}",
        f"alert {CANARY}",
    )
    sentences = [
        c.sentence
        for detail in details
        for probe in (Probe.LOGIN, Probe.SESSION, Probe.HANDSHAKE)
        for auth in ClientAuth
        for shook in (True, False)
        for c in Seen(reason, detail, probe, CANARY, auth=auth, door=True, shook_hands=shook)
        .causes()
        .values()
        # Before any password was sent, where a door leads is told.
        if not (c.name == "my_domain_renamed" and probe is Probe.HANDSHAKE)
    ]

    assert any(CANARY in sentence for sentence in sentences) is (reason in QUOTED)


found = st.lists(
    st.builds(
        violation, st.sampled_from(sorted(RULES)), st.sampled_from(Severity), st.sampled_from(Side)
    ),
    max_size=8,
)
outcomes = st.dictionaries(
    st.sampled_from(Probe),
    st.one_of(
        st.builds(Failure, st.sampled_from(Reason), st.text(max_size=40)),
        st.builds(Undetermined, st.sampled_from(Reason)),
        st.builds(Skipped, st.sampled_from(SkipCause)),
        st.just(Success()),
    ),
)
seen = st.builds(
    Seen,
    st.sampled_from(Reason),
    st.sampled_from(["", "HTTP 403", "HTTP 999: x", "closed without an answer", "alert x"]),
    st.sampled_from(Probe),
    st.sampled_from([None, "", "INVALID_LOGIN", "TXN_SECURITY_", "CLIENT_"]),
    st.sampled_from([None, "unknown_ca", "handshake_failure", "255"]),
    st.sampled_from([None, *ClientAuth]),
    requested=st.booleans(),
    sent=st.booleans(),
    shook_hands=st.booleans(),
    door=st.booleans(),
    ours=st.sampled_from([(), CLIENT_CHAIN]),
    theirs=st.sampled_from([(), SERVER_CHAIN, SELF_SIGNED]),
    found=found,
    not_evaluated=st.sampled_from([(), ("revoked",)]),
)


@given(seen, outcomes)
def test_whatever_was_seen_there_are_at_most_four_ranked_causes_and_always_the_same(each, more):
    several = replace(each.result, outcomes=more)
    backwards = replace(each.result, outcomes=dict(reversed(more.items())))

    once = check(each.result, each.judgement)
    all_of_them = check(several, each.judgement)

    assert once == diagnose(each.result, each.judgement)
    assert all_of_them == diagnose(backwards, each.judgement)


# --- the catalogue


def test_every_cause_is_on_the_page():
    page_ = ROOT / "docs" / "causes.md"
    if UPDATE:
        page_.write_text(diagnosis.reference(), encoding="utf-8")

    text = page_.read_text(encoding="utf-8")
    assert text == diagnosis.reference()
    for name, known in CATALOGUE.items():
        assert text.count(f"| `{name}` |") == 1
        assert known.meaning.endswith(".")
        assert known.remedy.endswith((".", ")"))
        assert "|" not in known.meaning + known.remedy + known.basis


def test_two_causes_of_one_name_and_one_without_a_meaning_are_refused():
    def look(_case):
        return Suspicion(CERTAIN)

    def password_wrong(_case):
        """Take a name that is taken."""

    with pytest.raises(TypeError, match="two causes are called 'password_wrong'"):
        cause(remedy="Do it.")(password_wrong)
    with pytest.raises(TypeError, match="does not say what it means"):
        cause(remedy="Do it.")(look)
    with pytest.raises(TypeError, match="what to do about it"):
        add(Known("new", "It means this.", "", "-", __name__, look))
    assert not {"look", "new"} & set(CATALOGUE)


def test_the_confidence_of_a_cause_is_in_its_repr():
    (found, *_) = VAGUE_ALERT.causes().values()

    assert repr(found) == f"<Cause client_root_not_trusted, possible: {found.sentence}>"


def test_a_row_needs_its_reason_and_its_condition():
    row = Row(
        name="x",
        reasons=(R.TCP_RESET,),
        confidence=LIKELY,
        meaning="It is so.",
        when=lambda case_: case_.detail == "so",
    )
    told_, untold, other = (
        diagnosis.cause.Case(P.HANDSHAKE, failure, VAGUE_ALERT.result, NOTHING)
        for failure in (
            Failure(R.TCP_RESET, "so"),
            Failure(R.TCP_RESET, "otherwise"),
            Failure(R.TCP_REFUSED, "so"),
        )
    )

    assert row.look(told_) == Suspicion(LIKELY)
    assert row.look(untold) is None
    assert row.look(other) is None
