"""Every rule, on evidence with exactly one defect and on evidence without it."""

import re
from dataclasses import replace
from datetime import timedelta
from functools import cache

import chain_cases
import door_cases
import encoding_cases
import file_cases
import purpose_cases
import pytest
import renewal_cases
import root_cases
import server_cases
import strength_cases
import validity_cases
from making import CASES, NOW, Case, at, world

from agent.policy import CATALOGUE, Evidence, evaluate

MODULES = (
    chain_cases,
    door_cases,
    encoding_cases,
    file_cases,
    purpose_cases,
    renewal_cases,
    root_cases,
    server_cases,
    strength_cases,
    validity_cases,
)


@cache
def evidence_of(case: Case) -> Evidence:
    return case.evidence(world())


def found(case: Case) -> set[str]:
    judgement = evaluate(evidence_of(case))
    return {f"{v.rule} {v.side or 'org'} {v.severity}" for v in judgement.violations}


def identity(case: Case) -> str:
    return f"{case.rule}-{case.evidence.__name__}"


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_exactly_these_findings_are_made(case):
    assert found(case) == case.finds


def test_nothing_is_found_where_nothing_is_wrong():
    judgement = evaluate(world().evidence())

    assert judgement.violations == ()
    assert judgement.not_evaluated == ()


@pytest.mark.parametrize("rule", sorted(set(CATALOGUE) - {"internal"}))
def test_every_rule_has_a_case_in_which_it_speaks_and_one_in_which_it_is_silent(rule):
    kinds = {case.positive for case in CASES if case.rule == rule}

    assert kinds == {True, False}


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_every_message_is_a_sentence_and_comes_with_a_remedy(case):
    for violation in evaluate(evidence_of(case)).violations:
        assert violation.message[0].isupper()
        assert violation.message.endswith((".", ")"))
        assert violation.remedy
        assert violation.reference


DATE = re.compile(r"\d{4}-\d\d-\d\d")
# They count until a date, or the date is what is wrong, or an authority's answer holds one.
COUNT_FROM_NO_DATE = {
    "not_yet_valid",
    "validity_negative",
    "clock_suspect",
    "crl_stale",
    "crl_unavailable",
    "revoked",
}
# Whether they count is decided by the days in the certificate, whenever it is asked.
COUNT_BY_THE_CERTIFICATE = {
    "ca_eku_not_dedicated",
    "client_root_in_chrome_list",
    "clientauth_not_renewable",
    "root_constrained",
    "server_eku",
    "validity_too_long",
}


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_every_message_names_its_certificate(case):
    for violation in evaluate(evidence_of(case)).violations:
        assert (violation.subject or "") in violation.message


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_a_finding_that_names_a_date_says_from_when_on_it_counts_and_the_reverse(case):
    for violation in evaluate(evidence_of(case)).violations:
        if violation.rule not in COUNT_FROM_NO_DATE:
            assert bool(DATE.search(violation.message)) == (violation.bites_from is not None)


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_what_counts_since_a_date_did_not_count_so_before_it(case):
    evidence = evidence_of(case)
    for violation in evaluate(evidence).violations:
        bites = violation.bites_from
        if bites is None or bites > evidence.now or violation.rule in COUNT_BY_THE_CERTIFICATE:
            continue
        before = evaluate(replace(evidence, now=bites - timedelta(seconds=1))).violations
        alike = [v for v in before if (v.rule, v.side, v.subject) == about(violation)]
        assert all(v.severity < violation.severity for v in alike)


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_what_will_count_from_a_date_on_is_found_then(case):
    evidence = evidence_of(case)
    for violation in evaluate(evidence).violations:
        bites = violation.bites_from
        if bites is None or bites <= evidence.now:
            continue
        then = evaluate(replace(evidence, now=bites)).violations
        (alike,) = (v for v in then if (v.rule, v.side, v.subject) == about(violation))
        assert alike.severity >= violation.severity


def about(violation):
    return violation.rule, violation.side, violation.subject


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_the_same_evidence_gives_the_same_judgement(case):
    assert evaluate(evidence_of(case)) == evaluate(evidence_of(case))


def test_the_moment_of_the_cases_is_after_the_first_policy_date():
    assert at("2026-06-15") < NOW < at("2027-03-15")
