"""How rules are found and what evaluate() promises about them."""

import os
import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from pkgutil import iter_modules

import pytest
from counting import calls, signature_checks
from hypothesis import assume, given
from hypothesis import strategies as st
from making import HOST, NOW, ec_key, make, world

from agent import policy
from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import read_chain
from agent.org import Suppression
from agent.policy import CATALOGUE, Severity, Side, evaluate
from agent.policy import rule as registration
from agent.policy.rule import Finding, Violation

GOLDEN = Path(__file__).parents[1] / "golden" / "rules.txt"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"


def catalogue_text() -> str:
    lines = [
        f"{name}\t{found.severity}\t{found.documentation.splitlines()[0]}\n"
        for name, found in sorted(CATALOGUE.items())
    ]
    return "".join(lines)


def test_the_catalogue_is_the_golden_list():
    if UPDATE:
        GOLDEN.write_text(catalogue_text(), encoding="utf-8")

    assert catalogue_text() == GOLDEN.read_text(encoding="utf-8")


def test_every_rule_that_another_one_yields_to_exists():
    for found in CATALOGUE.values():
        assert set(found.unless) <= set(CATALOGUE), found.name


def test_every_evidence_that_a_rule_needs_exists():
    evidence = world().evidence()

    for found in CATALOGUE.values():
        assert all(hasattr(evidence, name) for name in found.needs), found.name


def rule_that(check, **differently):
    """Return a Rule made of a plain function, without registering it."""
    wanted = {
        "name": check.__name__,
        "severity": Severity.WARNING,
        "documentation": "It is made for a test.",
        "remedy": "None.",
        "reference": "-",
        "needs": (),
        "either": False,
        "unless": (),
        "same_certificate": False,
        "last_resort": False,
        "server_remedy": None,
        "module": __name__,
        "check": check,
    }
    return registration.Rule(**(wanted | differently))


def broken(_evidence):
    yield Finding("This is never reached completely.")
    raise LookupError("the table has no such row")


def working(_evidence):
    yield Finding("It works.")


def test_a_rule_that_raises_becomes_an_internal_finding_and_stops_no_other():
    rules = {"broken": rule_that(broken), "working": rule_that(working)}

    judgement = evaluate(world().evidence(), rules)

    assert [(v.rule, v.severity) for v in judgement.violations] == [
        ("internal", Severity.WARNING),
        ("working", Severity.WARNING),
    ]
    message = judgement.violations[0].message
    assert message == "The rule broken failed with LookupError: the table has no such row"


def test_a_rule_that_lacks_its_evidence_is_named_and_not_run():
    rules = {"broken": rule_that(broken, needs=("refusal",))}

    judgement = evaluate(world().evidence(refusal=None), rules)

    assert judgement.not_evaluated == ("broken",)
    assert judgement.violations == ()


def test_a_rule_for_either_side_runs_on_the_one_that_was_seen():
    rules = {"working": rule_that(working, needs=registration.BOTH, either=True)}

    one = evaluate(world().evidence(server_chain=None), rules)
    none = evaluate(world().evidence(server_chain=None, client_chain=()), rules)

    assert [v.rule for v in one.violations] == ["working"]
    assert none.not_evaluated == ("working",)


def test_without_any_chain_no_rule_about_chains_is_evaluated():
    judgement = evaluate(world().evidence(client_chain=None, server_chain=None))

    about_chains = {n for n, found in CATALOGUE.items() if set(registration.BOTH) & {*found.needs}}
    assert about_chains <= set(judgement.not_evaluated)
    assert judgement.violations == ()


def found_by(*rules):
    """Return what these rules are heard to say, as "rule side"."""
    judgement = evaluate(world().evidence(), {rule.name: rule for rule in rules})
    return [f"{v.rule} {v.side}" for v in judgement.violations]


def speaking(name, severity=Severity.WARNING, *, about=None, side=Side.CLIENT, **differently):
    def check(_evidence):
        yield Finding("It speaks.", side, about)

    return rule_that(check, name=name, severity=severity, **differently)


def test_a_rule_is_silent_where_another_one_tells_its_cause_better():
    worse = speaking("worse", unless=("better",))

    assert found_by(worse, speaking("better")) == ["better client"]
    assert found_by(worse, speaking("better", side=Side.ORG)) == ["better "]
    assert found_by(worse, speaking("better", side=Side.SERVER)) == [
        "better server",
        "worse client",
    ]


def test_what_matters_more_is_not_silenced_by_what_matters_less():
    worse = speaking("worse", Severity.CRITICAL, unless=("better",))

    assert found_by(worse, speaking("better")) == ["worse client", "better client"]
    assert found_by(worse, speaking("better", Severity.CRITICAL)) == ["better client"]


def test_a_rule_about_one_certificate_is_silenced_by_what_is_wrong_with_this_one_only():
    leaf, intermediate = world().client_chain
    worse = speaking("worse", about=leaf, unless=("better",), same_certificate=True)

    assert found_by(worse, speaking("better", about=leaf)) == ["better client"]
    assert found_by(worse, speaking("better", about=intermediate)) == [
        "better client",
        "worse client",
    ]


def test_a_last_resort_is_silent_where_a_certificate_has_something_critical():
    leaf = world().client_chain[0]
    last = speaking("last", last_resort=True)

    assert found_by(last, speaking("first", Severity.CRITICAL, about=leaf)) == ["first client"]
    assert found_by(last, speaking("first", about=leaf)) == ["first client", "last client"]
    # A file mode or a wrong port is critical too, and has nothing to do with the chain.
    assert found_by(last, speaking("first", Severity.CRITICAL)) == ["first client", "last client"]


def test_no_two_rules_silence_each_other():
    for found in CATALOGUE.values():
        for name in found.unless:
            assert found.name not in CATALOGUE[name].unless


def test_two_rules_of_one_name_are_refused():
    def expired(_evidence):
        """It has the name of another rule."""

    with pytest.raises(TypeError, match="two rules are called 'expired'"):
        registration.rule(Severity.INFO, remedy="-", reference="-")(expired)


def test_a_rule_without_a_docstring_is_refused():
    def undocumented(_evidence):
        yield from ()

    with pytest.raises(TypeError, match="rule 'undocumented' has no docstring"):
        registration.rule(Severity.INFO, remedy="-", reference="-")(undocumented)
    assert "undocumented" not in CATALOGUE


def test_a_rule_that_needs_what_no_evidence_has_is_refused():
    def hungry(_evidence):
        """It would never be evaluated, and nobody would know."""

    with pytest.raises(TypeError, match="rule 'hungry' needs what no evidence has: clients_chain"):
        registration.rule(
            Severity.INFO, remedy="-", reference="-", needs=("client_chain", "clients_chain")
        )(hungry)
    assert "hungry" not in CATALOGUE


def test_a_module_that_claims_no_rule_is_refused():
    with pytest.raises(TypeError, match=r"agent\.policy\.forgotten holds no rule"):
        policy._require_rules(["chain", "forgotten", "rule"], CATALOGUE)


def test_the_modules_that_are_there_all_claim_rules():
    policy._require_rules([module.name for module in iter_modules(policy.__path__)], CATALOGUE)


def test_severities_are_ordered_by_how_much_they_matter():
    assert Severity.INFO < Severity.WARNING < Severity.CRITICAL
    assert max(Severity) is Severity.CRITICAL
    assert Severity.CRITICAL >= Severity.WARNING >= Severity.INFO
    assert Severity.INFO <= Severity.INFO
    assert not Severity.CRITICAL > Severity.CRITICAL


def test_violations_come_worst_first_and_are_counted():
    w = world()
    chain = (*w.clients.chain(aki=None, eku=("1.3.6.1.5.5.7.3.1",)), w.clients.root.facts)

    judgement = evaluate(w.evidence(client_chain=chain))

    assert [v.severity for v in judgement.violations] == ["critical", "warning", "info"]
    assert judgement.count() == {"info": 1, "warning": 1, "critical": 1}


def suppressed(until, **differently):
    w = world()
    chain = w.clients.chain(aki=None)
    wanted = {"rule": "aki_ski_problem", "until": until, "reason": "known, ticket 7"}
    suppression = Suppression(**(wanted | differently))
    return chain[0], evaluate(w.evidence(client_chain=chain, suppressions=(suppression,)))


def test_a_suppressed_finding_stays_visible_as_such():
    leaf, judgement = suppressed(NOW + timedelta(seconds=1))

    assert judgement.violations == ()
    (known,) = judgement.suppressed
    assert known.violation.fingerprint == leaf.fingerprint_sha256
    assert known.suppression.reason == "known, ticket 7"


def test_a_suppression_ends():
    _, judgement = suppressed(NOW)

    assert [v.rule for v in judgement.violations] == ["aki_ski_problem"]
    assert judgement.suppressed == ()


def test_a_suppression_is_for_its_certificate_only():
    _, judgement = suppressed(NOW + timedelta(days=1), fingerprint="00" * 32)

    assert [v.rule for v in judgement.violations] == ["aki_ski_problem"]


def test_what_yields_to_a_suppressed_finding_stays_silent():
    w = world()
    suppression = Suppression("leaf_only", NOW + timedelta(days=1), "known")

    judgement = evaluate(w.evidence(client_chain=w.client_chain[:1], suppressions=(suppression,)))

    assert judgement.violations == ()


def test_a_violation_says_which_certificate_it_is_about():
    w = world()
    chain = (*w.client_chain, w.clients.root.facts)

    (violation,) = evaluate(w.evidence(client_chain=chain)).violations

    assert violation == Violation(
        rule="root_included",
        severity=Severity.INFO,
        side=Side.CLIENT,
        position=2,
        fingerprint=w.clients.root.facts.fingerprint_sha256,
        subject="CN=Clients Root",
        message="The client chain includes its root, CN=Clients Root.",
        remedy="Leave the root certificate off: whoever trusts it has it.",
        reference=violation.reference,
        bites_from=None,
    )
    assert repr(violation) == (
        "<Violation root_included client info: The client chain includes its root, "
        "CN=Clients Root.>"
    )


def test_what_is_wrong_with_the_server_is_for_its_owner_to_mend():
    w = world()
    chains = {"client_chain": w.clients.chain(aki=None)}
    chains["server_chain"] = w.servers.chain(HOST, eku=(SERVER_AUTH,), aki=None)

    client, server = evaluate(w.evidence(**chains)).violations

    assert client.remedy.startswith("Have it issued again")
    assert server.remedy == "Tell the server's owner (Salesforce Support)."


def test_every_finding_can_be_asked_for_at_another_day():
    w = world()
    evidence = w.evidence()
    end = w.client_chain[0].not_after

    def rules_at(now):
        return [v.rule for v in evaluate(replace(evidence, now=now)).violations]

    assert rules_at(NOW) == []
    assert rules_at(end - timedelta(days=60)) == ["renewal_due"]
    assert "expiring" in rules_at(end - timedelta(days=14))
    assert "expired" in rules_at(end + timedelta(days=1))


@given(
    which=st.integers(0, 1),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_a_damaged_certificate_is_judged_without_an_internal_finding(which, changes):
    w = world()
    certificates = list(w.client_chain)
    damaged = bytearray(certificates[which].der)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    read = read_chain(bytes(damaged)).certificates
    assume(read)
    certificates[which] = read[0]

    judgement = evaluate(w.evidence(client_chain=tuple(certificates)))

    assert "internal" not in {v.rule for v in judgement.violations}


def test_a_chain_of_a_hundred_intermediates_costs_a_bounded_number_of_signature_checks():
    issuer = make("Deep 0", ca=True)
    sent = []
    for number in range(1, 101):
        issuer = make(f"Deep {number}", issuer, ca=True)
        sent.append(issuer.facts)
    leaf = make("deep.example.com", issuer, eku=(CLIENT_AUTH,), names=("deep.example.com",))
    evidence = world().evidence(client_chain=(leaf.facts, *reversed(sent)))
    found = set()

    checks = signature_checks(lambda: found.update(v.rule for v in evaluate(evidence).violations))

    assert checks <= 2 * 32  # the pool, and each of it by itself
    # Those beyond the pool are not called useless: nobody looked.
    assert found == {"chain_too_long", "root_unresolved"}


def test_a_hundred_namesakes_that_sign_each_other_cost_a_bounded_number_of_signature_checks():
    # By their names each could have issued each; the keys tell, and each is signed by the next.
    keys = [make("Namesake", ca=True, key=ec_key(f"namesake {number}")) for number in range(101)]
    namesakes = [
        make("Namesake", above, ca=True, key=below.key, aki=None).facts
        for below, above in pairwise(keys)
    ]
    leaf = make("named.example.com", keys[0], eku=(CLIENT_AUTH,))
    evidence = world().evidence(client_chain=(leaf.facts, *namesakes))

    checks = signature_checks(lambda: evaluate(evidence))

    # Every pair of the pool at most, and each certificate once with itself and once with the leaf.
    assert 32 * 31 // 2 < checks <= 33 * 32 + 2 * 100


def test_a_thousand_strangers_in_a_file_cost_in_proportion():
    w = world()
    key = ec_key("stranger")
    strangers = [make(f"Stranger {number}", ca=True, key=key).facts for number in range(1000)]

    def judging(count):
        evidence = w.evidence(client_chain=(*w.client_chain, *strangers[:count]))
        return lambda: evaluate(evidence)

    assert calls(judging(1000)) <= 11 * calls(judging(100))


@pytest.mark.parametrize("side", ["client_chain", "server_chain"])
def test_a_thousand_names_cost_in_proportion(side):
    w = world()

    def judging(count):
        names = [f"host-{number}.example.com" for number in range(count)]
        usage = (CLIENT_AUTH,) if side == "client_chain" else (SERVER_AUTH,)
        return w.evidence(**{side: w.clients.chain(names=names, eku=usage)})

    few, many = judging(10), judging(1000)
    evaluate(few)

    assert calls(lambda: evaluate(many)) - calls(lambda: evaluate(few)) <= 990 * 20


def test_a_judgement_of_unchanged_evidence_is_cheap():
    evidence = world().evidence()
    evaluate(evidence)
    spent = []
    for _ in range(20):
        begun = time.process_time()
        evaluate(evidence)
        spent.append(time.process_time() - begun)

    assert min(spent) < 0.002
