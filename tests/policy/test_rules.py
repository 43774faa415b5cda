"""Every rule, on evidence with exactly one defect and on evidence without it."""

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


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_the_same_evidence_gives_the_same_judgement(case):
    assert evaluate(evidence_of(case)) == evaluate(evidence_of(case))


def test_the_moment_of_the_cases_is_after_the_first_policy_date():
    assert at("2026-06-15") < NOW < at("2027-03-15")
