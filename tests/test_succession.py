"""What counts as a change of a chain, how long it is news, and what comes before what."""

from datetime import timedelta

import pytest
from making import HOST, NOW, Hierarchy, make, world

from agent.certificate import SERVER_AUTH
from agent.succession import NEWS, Earlier, Past, Succession, client_after, server_after

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def server(authority, host=HOST):
    """Return a new chain of a server, whole to its root, so that the root is known."""
    return (*authority.chain(host, eku=(SERVER_AUTH,)), authority.root.facts)


@pytest.fixture(scope="module")
def w():
    return world()


def served(*shown, every=MINUTE, known=None, start=NOW):
    """Return what is known of a server that showed these chains one after the other."""
    for number, chain in enumerate(shown):
        known = server_after(known, chain, start + number * every, world().anchors)
    return known


def before(known, now):
    return Past("door", server=known).server_before(now)


# --- the server


def test_a_server_that_never_changed_has_nothing_before_it(w):
    chain = server(w.servers)
    known = served(chain, chain, chain)

    assert known == Succession(chain)
    assert before(known, NOW) is None


def test_another_authority_is_news_for_two_weeks_and_then_no_more(w):
    old, new = server(w.servers), server(w.chrome)
    known = served(old, new, new)
    changed = NOW + MINUTE

    assert known == Succession(new, (Earlier(old, changed),), changed)
    assert before(known, changed + NEWS - timedelta(seconds=1)) == old
    assert before(known, changed + NEWS) is None


def test_another_leaf_of_the_same_authority_is_no_change(w):
    old, new = server(w.servers), server(w.servers)
    known = served(old, new)

    assert old != new
    assert known == Succession(new)


def test_a_renewed_leaf_does_not_end_the_news_of_a_change_before_it(w):
    old, new, newer = server(w.servers), server(w.chrome), server(w.chrome)
    known = served(old, new, newer)

    assert (known.present, before(known, NOW + 2 * MINUTE)) == (newer, old)


def test_an_issuer_of_another_name_below_the_same_root_is_a_change(w):
    issuer = make("Another Intermediate", w.servers.root, ca=True, path_length=0)
    old, new = server(w.servers), server(Hierarchy(w.servers.root, issuer))

    assert before(served(old, new), NOW + MINUTE) == old


def test_a_root_that_is_sent_or_left_out_is_no_change(w):
    whole = server(w.chrome)
    known = served(server(w.servers), whole, whole[:-1])

    assert before(known, NOW + 2 * MINUTE) is not None
    assert known.changed_at == NOW + MINUTE


def test_chains_shown_in_turn_are_one_change_which_ends_while_they_go_on(w):
    one, other = server(w.servers), server(w.chrome)
    known = served(*[one, other] * 30, every=DAY / 2)
    changed = NOW + DAY / 2

    assert known.changed_at == changed
    assert [earlier.chain for earlier in known.before] == [one]
    assert before(known, NOW + 30 * DAY) is None
    # While it is news there is always the other one to compare with.
    known = None
    for number, chain in enumerate([one, other] * 10):
        known = served(chain, known=known, start=NOW + number * MINUTE)
        if number:
            assert {known.present, before(known, NOW + number * MINUTE)} == {one, other}


def test_three_chains_shown_in_turn_are_two_changes_and_no_more(w):
    chains = [server(authority) for authority in (w.servers, w.chrome, w.public)]
    known = served(*chains * 5)

    assert known.changed_at == NOW + 2 * MINUTE
    assert len(known.before) == 2


def test_an_authority_that_was_gone_for_longer_is_news_when_it_comes_back(w):
    one, other = server(w.servers), server(w.chrome)
    known = served(one, other, one)
    late = NOW + 2 * MINUTE + NEWS
    again = served(other, known=known, start=late)
    soon = served(other, known=known, start=late - 2 * MINUTE)

    assert (again.changed_at, before(again, late)) == (late, one)
    assert soon.changed_at == NOW + MINUTE
    assert before(soon, late) is None


def test_a_door_with_ever_new_authorities_is_not_remembered_for_ever(w):
    known = None
    for number in range(9):
        issuer = make(f"Intermediate {number}", w.servers.root, ca=True, path_length=0)
        known = served(server(Hierarchy(w.servers.root, issuer)), known=known)

    assert len(known.before) == 4


# --- the client


def presented(*shown):
    known = None
    for number, chain in enumerate(shown):
        known = client_after(known, chain, NOW + number * DAY)
    return Past("door", client=known).client_before()


def test_a_renewal_is_compared_with_the_certificate_before_it_as_long_as_it_is_in_use(w):
    old, new = w.clients.chain(), w.clients.chain()

    assert presented(old) is None
    assert presented(old, new) == old
    assert presented(old, *[new] * 400) == old


def test_other_intermediates_below_the_same_leaf_are_no_renewal(w):
    old, new = w.clients.chain(), w.clients.chain()

    assert presented(old, old[:1]) is None
    assert presented(old, new, new[:1]) == old
    assert presented(old[:1], old, new) == old


def test_the_certificate_before_put_back_is_no_renewal_and_the_next_one_is(w):
    old, bad, new = (w.clients.chain() for _ in range(3))

    assert presented(old, bad, old) is None
    assert presented(old, bad, old, new) == old
    assert presented(old, bad, old, bad) == old
