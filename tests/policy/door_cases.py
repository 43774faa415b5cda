"""Cases of agent/policy/endpoint.py."""

from dataclasses import replace
from datetime import timedelta

from making import HOST, NOW, at, case

from agent.certificate import SERVER_AUTH
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Success


@case("endpoint_not_my_domain", "endpoint_not_my_domain org critical")
def the_shared_login_host(w):
    host = "login.salesforce.com"
    return w.evidence(host=host, server_chain=w.servers.chain(host, eku=(SERVER_AUTH,)))


@case("endpoint_not_my_domain", "endpoint_not_my_domain org warning")
def a_host_outside_salesforce(w):
    host = "salesforce.example.com"
    return w.evidence(host=host, server_chain=w.servers.chain(host, eku=(SERVER_AUTH,)))


@case("endpoint_not_my_domain")
def the_my_domain_host_of_a_sandbox(w):
    host = "example--dev.sandbox.my.salesforce.com"
    return w.evidence(host=host, server_chain=w.servers.chain(host, eku=(SERVER_AUTH,)))


@case("endpoint_port", "endpoint_port org critical")
def the_ordinary_port(w):
    return w.evidence(port=443)


@case("endpoint_port")
def the_port_for_mutual_tls(w):
    return w.evidence(port=8443)


@case("endpoint_port", "endpoint_port org critical")
def the_ordinary_port_where_nobody_asks_and_anybody_may_enter(w):
    return w.evidence(
        port=443,
        client_auth=ClientAuth.NOT_REQUESTED,
        refusal=Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE),
    )


@case("endpoint_port", "endpoint_not_my_domain org warning")
def another_port_of_a_host_that_is_not_salesforces(w):
    host = "salesforce.example.com"
    chain = w.servers.chain(host, eku=(SERVER_AUTH,))
    return w.evidence(host=host, port=9443, server_chain=chain)


@case("client_certificate_not_requested", "client_certificate_not_requested org critical")
def a_server_that_does_not_ask(w):
    return w.evidence(client_auth=ClientAuth.NOT_REQUESTED)


@case("client_certificate_not_requested")
def a_server_whose_verdict_stays_unknown(w):
    return w.evidence(client_auth=ClientAuth.UNCONFIRMED)


@case(
    "client_certificate_not_requested",
    "client_certificate_not_requested org critical",
    "endpoint_not_my_domain org warning",
)
def a_host_that_is_not_salesforces_and_does_not_ask(w):
    host = "salesforce.example.com"
    chain = w.servers.chain(host, eku=(SERVER_AUTH,))
    return w.evidence(host=host, server_chain=chain, client_auth=ClientAuth.NOT_REQUESTED)


@case("door_open_without_certificate", "door_open_without_certificate org critical")
def a_door_that_lets_anybody_in(w):
    return w.evidence(refusal=Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE))


@case("door_open_without_certificate")
def a_door_that_could_not_be_reached(w):
    return w.evidence(refusal=Failure(Reason.TCP_TIMEOUT))


@case("enforcement_off", "enforcement_off org critical")
def a_session_that_works_without_the_certificate(w):
    return w.evidence(enforcement=Failure(Reason.ENFORCEMENT_OFF))


@case("enforcement_off")
def a_session_that_does_not_work_without_the_certificate(w):
    return w.evidence(enforcement=Success())


@case("issuer_not_accepted", "issuer_not_accepted client warning")
def a_server_that_names_another_authority(w):
    return w.evidence(acceptable_issuers=("CN=Somebody Else",))


@case("issuer_not_accepted")
def a_server_that_names_the_root(w):
    return w.evidence(acceptable_issuers=("CN=Somebody Else", w.clients.root.facts.subject))


@case("soap_login_retiring", "soap_login_retiring org warning")
def soap_login_half_a_year_before_its_end(w):
    return w.evidence(soap_login=True)


@case("soap_login_retiring", "soap_login_retiring org info")
def soap_login_more_than_a_year_before_its_end(w):
    end = NOW + timedelta(days=366)
    tables = w.evidence().tables
    dates = tables.dates | {
        "soap_login_retirement": replace(tables.dates["soap_login_retirement"], date=end)
    }
    return w.evidence(soap_login=True, tables=replace(tables, dates=dates))


@case("soap_login_retiring")
def no_soap_login(w):
    return w.evidence(soap_login=False)


@case("api_version_retiring", "api_version_retiring org info")
def an_api_version_that_is_announced_to_end(w):
    return w.evidence(api_version="40.0")


@case("api_version_retiring", "api_version_retiring org critical")
def an_api_version_that_has_ended(w):
    return w.evidence(api_version="30.0")


@case("api_version_retiring")
def an_api_version_that_stays(w):
    return w.evidence(api_version="41.0")


@case("clock_suspect", "clock_suspect org warning")
def a_server_that_is_301_seconds_ahead(w):
    return w.evidence(clock_skew=301.0)


@case("clock_suspect", "clock_suspect org warning")
def a_clock_from_before_the_agent_was_made(w):
    tables = replace(w.evidence().tables, trust_list_as_of=at("2026-11-25"))
    return w.evidence(tables=tables, host=HOST)


@case("clock_suspect")
def a_server_that_is_300_seconds_behind(w):
    return w.evidence(clock_skew=-300.0)
