"""Cases of agent/policy/validity.py."""

from datetime import timedelta

from making import HOST, NOW, case, chrome_client, der_of, make, reissued

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors

DAY = timedelta(days=1)
UNDER_CHROME = "client_root_in_chrome_list client warning"


def client(w, age, left):
    return w.evidence(client_chain=w.clients.chain(not_before=NOW - age, not_after=NOW + left))


def server(w, age, left):
    chain = w.servers.chain(HOST, eku=(SERVER_AUTH,), not_before=NOW - age, not_after=NOW + left)
    return w.evidence(server_chain=chain)


def below(w, **differently):
    intermediate = make("Validity Intermediate", w.clients.root, ca=True, **differently)
    leaf = make("v.example.com", intermediate, eku=(CLIENT_AUTH,), names=("v.example.com",))
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("expired", "expired client critical")
def a_client_certificate_that_ended_a_second_ago(w):
    return client(w, 90 * DAY, -timedelta(seconds=1))


@case("expired", "expired client critical")
def an_intermediate_that_ended_yesterday(w):
    return below(w, not_after=NOW - DAY)


def below_root_until(w, end):
    """Return evidence with a client's chain whose root, which is not sent, ends then."""
    root = make("Ending Root", ca=True, not_after=end)
    intermediate = make("Validity Intermediate", root, ca=True)
    leaf = make(
        "v.example.com",
        intermediate,
        eku=(CLIENT_AUTH,),
        names=("v.example.com",),
        not_before=NOW - 100 * DAY,
        not_after=NOW + 51 * DAY,
    )
    anchors = Anchors([Anchor(found.facts, AnchorKind.PRIVATE) for found in (root, w.servers.root)])
    return w.evidence(
        client_chain=(leaf.facts, intermediate.facts),
        anchors=anchors,
        accepted_roots=frozenset({root.facts.fingerprint_sha256}),
    )


@case("expired", "expired client critical")
def a_root_that_ended_yesterday_and_is_not_sent(w):
    return below_root_until(w, NOW - DAY)


@case("ca_expiring", "ca_expiring client warning")
def a_root_that_ends_in_80_days_and_is_not_sent(w):
    return below_root_until(w, NOW + 80 * DAY)


@case("expired", "chain_ambiguous client info")
def a_root_that_ended_yesterday_where_another_is_reached(w):
    old = make("Old Root", ca=True, not_after=NOW - DAY)
    crossed = make("Clients Intermediate", old, ca=True, key=w.clients.intermediate.key)
    anchors = Anchors(
        [Anchor(found.facts, AnchorKind.PRIVATE) for found in (w.clients.root, w.servers.root, old)]
    )
    return w.evidence(client_chain=(*w.client_chain, crossed.facts), anchors=anchors)


@case("expired", "expiring client critical")
def a_client_certificate_that_ends_this_second(w):
    return client(w, 90 * DAY, timedelta(0))


@case("not_yet_valid", "not_yet_valid client critical")
def a_client_certificate_that_begins_in_an_hour(w):
    return client(w, -DAY / 24, 90 * DAY)


@case("not_yet_valid")
def a_client_certificate_that_begins_this_second(w):
    return client(w, timedelta(0), 90 * DAY)


@case("expiring", "expiring client warning")
def a_client_certificate_with_25_of_100_days_left(w):
    return client(w, 75 * DAY, 25 * DAY)


@case("expiring", "expiring client critical")
def a_client_certificate_with_14_of_100_days_left(w):
    return client(w, 86 * DAY, 14 * DAY)


@case("expiring", "expiring server warning")
def a_server_certificate_with_14_of_100_days_left(w):
    return server(w, 86 * DAY, 14 * DAY)


@case("expiring", "renewal_due client info")
def a_client_certificate_with_26_of_100_days_left(w):
    return client(w, 74 * DAY, 26 * DAY)


@case("ca_expiring", "ca_expires_before_leaf client warning")
def an_intermediate_that_ends_in_80_days_before_its_leaf(w):
    return below(w, not_after=NOW + 80 * DAY)


@case("ca_expiring", "ca_expiring client warning", "renewal_due client info")
def an_intermediate_that_ends_in_80_days_after_its_leaf(w):
    intermediate = make("Validity Intermediate", w.clients.root, ca=True, not_after=NOW + 80 * DAY)
    leaf = make(
        "v.example.com",
        intermediate,
        eku=(CLIENT_AUTH,),
        names=("v.example.com",),
        not_before=NOW - 100 * DAY,
        not_after=NOW + 45 * DAY,
    )
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("ca_expiring")
def an_intermediate_that_ends_in_130_days(w):
    return below(w, not_after=NOW + 130 * DAY)


@case("renewal_due", "renewal_due client info")
def a_client_certificate_with_a_third_of_its_life_left(w):
    return client(w, 66 * DAY, 33 * DAY)


@case("renewal_due", "renewal_due client info")
def a_short_lived_client_certificate_with_half_of_its_life_left(w):
    return client(w, 3 * DAY, 3 * DAY)


@case("renewal_due")
def a_client_certificate_with_more_than_a_third_left(w):
    return client(w, 66 * DAY, 34 * DAY)


@case("ca_expires_before_leaf", "ca_expires_before_leaf client critical")
def an_intermediate_that_ends_in_29_days_before_its_leaf(w):
    return below(w, not_after=NOW + 29 * DAY)


@case(
    "ca_expires_before_leaf",
    "ca_expires_before_leaf client critical",
    "root_unresolved client info",
)
def an_intermediate_that_ends_first_below_a_root_that_nobody_knows(w):
    short = make("Short", w.unknown.root, ca=True, not_after=NOW + 20 * DAY)
    leaf = make("v.example.com", short, eku=(CLIENT_AUTH,), names=("v.example.com",))
    return w.evidence(client_chain=(leaf.facts, short.facts))


@case("renewal_due", "renewal_due client info", "expired client critical")
def a_renewal_that_is_due_below_an_intermediate_that_has_expired(w):
    old = make("Old", w.clients.root, ca=True, not_after=NOW - DAY)
    leaf = make(
        "v.example.com",
        old,
        eku=(CLIENT_AUTH,),
        names=("v.example.com",),
        not_before=NOW - 66 * DAY,
        not_after=NOW + 33 * DAY,
    )
    return w.evidence(client_chain=(leaf.facts, old.facts))


@case("ca_expires_before_leaf")
def an_intermediate_that_ends_with_its_leaf(w):
    return below(w, not_after=NOW + 120 * DAY)


@case("ca_expires_before_leaf", "ca_expiring client warning")
def one_of_two_authorities_that_ends_before_the_leaf(w):
    short = make("Renewed", w.clients.root, ca=True, not_after=NOW + 80 * DAY)
    long = make("Renewed", w.clients.root, ca=True, key=short.key)
    leaf = make("v.example.com", short, eku=(CLIENT_AUTH,), names=("v.example.com",))
    return w.evidence(client_chain=(leaf.facts, short.facts, long.facts))


@case("validity_too_long", "validity_too_long client critical", UNDER_CHROME)
def a_public_client_certificate_for_a_second_too_long(w):
    begin = NOW - 60 * DAY
    chain = chrome_client(w, not_before=begin, not_after=begin + 200 * DAY)
    return w.evidence(client_chain=chain)


@case("validity_too_long", "validity_too_long client info")
def a_private_client_certificate_for_three_years(w):
    return client(w, 60 * DAY, 1035 * DAY)


@case("validity_too_long", UNDER_CHROME)
def a_public_client_certificate_for_exactly_200_days(w):
    begin = NOW - 60 * DAY
    end = begin + 200 * DAY - timedelta(seconds=1)
    return w.evidence(client_chain=chrome_client(w, not_before=begin, not_after=end))


def backwards(w, begin, end):
    """Return evidence with a client's certificate of these UTCTimes, which no library makes."""
    validity = der_of(0x30, der_of(0x17, begin), der_of(0x17, end))
    leaf = reissued(
        w.clients.leaf(),
        w.clients.intermediate,
        lambda fields: [*fields[:4], validity, *fields[5:]],
    )
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case("validity_negative", "validity_negative client critical")
def a_client_certificate_that_ended_before_it_began(w):
    return backwards(w, b"261123000000Z", b"261122000000Z")


@case("validity_negative", "validity_negative client critical")
def a_client_certificate_that_will_end_before_it_begins(w):
    return backwards(w, b"261223000000Z", b"261222000000Z")


@case("validity_negative")
def a_client_certificate_that_ends_after_it_begins(w):
    return client(w, DAY, 90 * DAY)
