"""What `check` finds for one org, offline."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from boards import result, violation

from agent import report, terminal
from agent.inspection import inspect, inspect_all
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    Org,
    PasswordCredentials,
    Policy,
    Suppression,
    TrustAnchors,
)
from agent.policy.rule import Severity
from agent.simulator.pki import ClientCertificate, Pki


@pytest.fixture
def org(tmp_path):
    pki = Pki.create(datetime.now(UTC))
    (tmp_path / "root.pem").write_bytes(pki.servers.root_pem())
    issued = pki.client(ClientCertificate.GOOD)
    (tmp_path / "chain.pem").write_bytes(issued.chain_pem())
    (tmp_path / "key.pem").write_bytes(issued.key_pem())
    return Org(
        name="emea",
        endpoint=Endpoint("emea.my.salesforce.com"),
        identity=ClientIdentity(
            FromFile(str(tmp_path / "chain.pem")), FromFile(str(tmp_path / "key.pem"))
        ),
        trust=TrustAnchors(system=False, file=str(tmp_path / "root.pem")),
    )


def found_by(org, rule):
    return [v for v in inspect(org, {}).judgement.violations if v.rule == rule]


@pytest.mark.parametrize(
    ("mode", "severities"),
    [(0o644, [Severity.CRITICAL]), (0o640, [Severity.WARNING]), (0o600, [])],
)
def test_a_private_key_that_others_can_read_is_a_finding(org, tmp_path, mode, severities):
    (tmp_path / "chain.pem").chmod(0o644)
    (tmp_path / "key.pem").chmod(mode)

    assert [v.severity for v in found_by(org, "key_file_mode")] == severities
    assert inspect(org, {}).problems == ()


def test_a_file_that_holds_chain_and_key_is_as_secret_as_the_key(org, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "chain.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    both.chmod(0o644)
    where = FromFile(str(both))
    together = dataclasses.replace(org, identity=ClientIdentity(where, where))

    assert len(found_by(together, "key_file_mode")) == 1


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_another_secret_that_everybody_can_read_is_a_warning(org, tmp_path, mode, warned):
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(mode)
    login = PasswordCredentials("ada@example.com", FromFile(str(password)))
    found = inspect(dataclasses.replace(org, login=login), {})

    expected = f"orgs.emea.password: file {password} can be read by every user of this machine"
    assert list(found.warnings) == [expected] * warned
    assert found.problems == ()


def test_check_judges_by_the_policy_of_the_org(org):
    until = datetime.now(UTC) + timedelta(days=9)
    known = Suppression("key_file_mode", until, "our own authority")
    plain = inspect(org, {}).judgement
    suppressing = dataclasses.replace(org, policy=Policy(suppressions=(known,)))
    suppressed = inspect(suppressing, {}).judgement

    assert "key_file_mode" in {v.rule for v in plain.violations}
    assert plain.suppressed == ()
    assert "key_file_mode" not in {v.rule for v in suppressed.violations}
    assert [s.suppression for s in suppressed.suppressed] == [known]


@pytest.mark.parametrize("there", [True, False])
def test_accepted_roots_are_read_and_that_they_cannot_be_is_a_warning(org, tmp_path, there):
    file = tmp_path / "accepted.pem"
    if there:
        file.write_bytes((tmp_path / "root.pem").read_bytes())
    found = inspect(dataclasses.replace(org, policy=Policy(accepted_roots=str(file))), {})

    why = f"orgs.emea.policy.accepted_roots: {file} cannot be read: No such file or directory"
    assert list(found.warnings) == [why] * (not there)
    assert ("root_not_in_cacerts" in found.judgement.not_evaluated) is not there
    assert found.problems == ()


def test_all_orgs_together_tell_which_share_a_certificate(org):
    elsewhere = dataclasses.replace(org, name="apac", endpoint=Endpoint("apac.my.salesforce.com"))
    nothing = FromFile("/nowhere")
    broken = dataclasses.replace(org, name="amer", identity=ClientIdentity(nothing, nothing))
    alone = inspect_all([org], {})
    together = inspect_all([org, broken, elsewhere], {})

    def shared(found):
        return [v.message for v in found.judgement.violations if "shared" in v.rule]

    assert list(map(shared, alone)) == [[]]
    emea, amer, apac = together
    assert [found.org.name for found in together] == ["emea", "amer", "apac"]
    assert "apac" in "".join(shared(emea))
    assert "emea" in "".join(shared(apac))
    assert amer.problems == ("file /nowhere cannot be read: No such file or directory",)
    assert "cert_shared_between_orgs" in inspect(org, {}).judgement.not_evaluated


def test_all_orgs_look_the_same_whoever_looks(org):
    nothing = FromFile("/nowhere")
    orgs = [
        dataclasses.replace(org, name=f"org{number}", endpoint=Endpoint(f"{number}.example"))
        for number in range(100)
    ]
    orgs[7] = dataclasses.replace(orgs[7], identity=ClientIdentity(nothing, nothing))
    orgs[60] = dataclasses.replace(orgs[60], policy=Policy(accepted_roots="/nowhere"))
    alone = inspect_all(orgs, {}, processes=1)

    assert inspect_all(orgs, {}, processes=2) == alone
    assert [n for n, found in enumerate(alone) if found.problems] == [7]
    assert [n for n, found in enumerate(alone) if found.warnings] == [60]


# --- what is printed


def printed(capsys, show):
    show()
    return capsys.readouterr().out


def test_what_is_suppressed_is_a_line_of_its_org_or_of_all_that_share_it(org, capsys):
    until = datetime(2126, 1, 1, tzinfo=UTC)
    known = Suppression("key_file_mode", until, "our [own] authority")
    orgs = [
        dataclasses.replace(org, name=name, policy=Policy(suppressions=(known,)))
        for name in ("emea", "apac")
    ]
    line = "1 suppressed until 2126-01-01: key_file_mode, our [own] authority"
    one = printed(capsys, lambda: terminal.print_inspections(inspect_all(orgs[:1], {})))
    both = printed(capsys, lambda: terminal.print_inspections(inspect_all(orgs, {})))

    assert one.count(line) == both.count(line) == 1
    assert "2 orgs: emea, apac" in both
    assert "suppressed" not in printed(
        capsys, lambda: terminal.print_inspections([inspect(org, {})])
    )


@pytest.mark.parametrize(("many", "lines"), [(3, 3), (2, 1)])
def test_of_many_orgs_only_those_with_something_to_say_have_a_line(
    org, capsys, monkeypatch, many, lines
):
    monkeypatch.setattr(terminal, "_MANY", many)
    missing = FromFile("/nowhere/client.pem")
    orgs = [
        org,
        dataclasses.replace(org, name="broken", identity=ClientIdentity(missing, missing)),
        dataclasses.replace(org, name="apac"),
    ]
    text = printed(capsys, lambda: terminal.print_inspections(inspect_all(orgs, {})))

    assert text.count("not usable") == 1
    assert text.count("/nowhere/client.pem cannot be read") == 1
    assert text.count(":8443") == lines
    assert ("2 other orgs: good" in text) == (lines == 1)


def test_of_many_orgs_that_are_all_good_none_has_a_line(org, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_MANY", 1)
    orgs = [org, dataclasses.replace(org, name="apac")]
    text = printed(capsys, lambda: terminal.print_inspections(inspect_all(orgs, {})))

    assert ":8443" not in text
    assert "2 orgs: good" in text


def test_a_cycle_shows_what_is_suppressed_as_text_and_as_json(org, capsys):
    until = datetime(2126, 1, 1, tzinfo=UTC)
    known = Suppression("key_file_mode", until, "our own authority")
    judgement = inspect(
        dataclasses.replace(org, policy=Policy(suppressions=(known,))), {}
    ).judgement
    text = printed(capsys, lambda: terminal.print_cycles([(result(), judgement)], everything=False))
    (suppressed,) = report.cycle(result(), judgement)["suppressed"]

    assert "1 suppressed until 2126-01-01: key_file_mode, our own authority" in text
    assert suppressed["rule"] == "key_file_mode"
    assert suppressed["until"] == "2126-01-01T00:00:00Z"
    assert suppressed["reason"] == "our own authority"
    assert suppressed.keys() - {"until", "reason"} == report.violation(violation()).keys()
