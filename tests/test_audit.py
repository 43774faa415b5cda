"""`inspect`: what a file is, where it leads, what is wrong with it, and that nothing breaks it."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from making import HOST, NOW, at, chrome_client, ec_key, make, world

from agent import audit as auditing
from agent import offline, terminal_policy
from agent.audit import Question, Source, audit, moment, read_source
from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.drawing import printable, tree
from agent.org import Suppression
from agent.policy.tables import shipped_anchors, shipped_tables

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
BAD_BLOCK = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def pem(*certificates):
    parsed = (x509.load_der_x509_certificate(certificate.der) for certificate in certificates)
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in parsed)


def key_pem(made, passphrase=None, form=serialization.PrivateFormat.PKCS8):
    protection = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return made.key.private_bytes(serialization.Encoding.PEM, form, protection)


def looked_at(content, *, mode=0o600, **question):
    asked = Question(**({"now": NOW} | question))
    return audit(Source("identity.pem", content, mode), asked, shipped_tables(), world().anchors)


def rules(found):
    return [violation.rule for violation in found.judgement.violations]


@cache
def good():
    leaf = world().clients.leaf()
    return pem(leaf.facts, world().clients.intermediate.facts) + key_pem(leaf)


def troubled():
    w = world()
    leaf = w.chrome.leaf(eku=(CLIENT_AUTH, SERVER_AUTH), not_after=NOW + timedelta(days=9))
    stranger = make("Stranger", w.unknown.root, ca=True, not_after=NOW - timedelta(days=40))
    return pem(w.chrome.intermediate.facts, leaf.facts, stranger.facts) + BAD_BLOCK


def cross_signed():
    w = world()
    key = ec_key("cross-signed authority")
    usage = (CLIENT_AUTH, SERVER_AUTH)
    listed = make("Crossed", w.chrome.root, ca=True, key=key, eku=usage)
    private = make("Crossed", w.clients.root, ca=True, key=key, eku=usage)
    leaf = make("crossed.example.com", listed, eku=(CLIENT_AUTH,), names=("crossed.example.com",))
    return pem(leaf.facts, listed.facts, private.facts)


@pytest.mark.parametrize(
    ("name", "content"),
    [("good", good), ("troubled", troubled), ("cross_signed", cross_signed)],
)
def test_the_text_about_a_file_is_the_golden_one(name, content, capsys):
    golden = GOLDEN / f"inspect_{name}.txt"

    terminal_policy.print_audits([looked_at(content())])

    text = re.sub(r"sha256 [0-9a-f]{16}\b", "sha256 0123456789abcdef", capsys.readouterr().out)
    if UPDATE:
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_a_good_identity_is_clean_although_there_are_notes():
    found = looked_at(good())

    assert rules(found) == ["key_unencrypted", "root_private"]
    assert found.exit_code == auditing.CLEAN


def test_a_warning_is_a_finding():
    w = world()
    found = looked_at(pem(*w.clients.chain(aki=None)))

    assert rules(found) == ["aki_ski_problem", "root_private"]
    assert found.exit_code == auditing.FINDINGS


def test_a_bad_block_is_told_by_its_number_and_hides_nothing():
    found = looked_at(BAD_BLOCK + good())

    assert len(found.problems) == 1
    assert found.problems[0].startswith("block 1: not a certificate (")
    assert len(found.analysis.certificates) == 2
    assert found.exit_code == auditing.UNREADABLE


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "neither PEM nor DER: no block begins and no certificate starts"),
        (b"hello", "neither PEM nor DER: no block begins and no certificate starts"),
        (b"0\x03\x02\x01\x03", "DER, but not one certificate"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "block 1: it begins and never ends"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB", "block 1: the private key begins and never ends"),
        (
            b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
            "block 1: not a private key, or of an unknown kind",
        ),
    ],
)
def test_what_is_no_identity_is_unreadable_with_its_reason(content, problem):
    found = looked_at(content)

    assert any(text.startswith(problem) for text in found.problems), found.problems
    assert found.judgement is None
    assert found.exit_code == auditing.UNREADABLE


def test_a_name_that_is_no_text_makes_a_certificate_unreadable():
    sound = make("\0name", eku=(CLIENT_AUTH,)).facts.der
    bit_string = sound.replace(b"\x55\x04\x03\x0c", b"\x55\x04\x03\x03")

    found = looked_at(bit_string)

    assert "BitString" in found.problems[0]
    assert found.exit_code == auditing.UNREADABLE
    assert looked_at(sound).problems == ()


def test_der_loads_too():
    found = looked_at(world().client_chain[0].der)

    assert found.problems == ()
    assert rules(found) == ["leaf_only"]


def test_the_owner_of_the_key_is_the_leaf_wherever_it_stands():
    w = world()
    leaf = w.clients.leaf()
    found = looked_at(pem(w.clients.intermediate.facts, leaf.facts) + key_pem(leaf))

    assert auditing.owner(found) == 1
    assert "chain_leaf_not_first" in rules(found)


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_a_key_that_belongs_to_no_certificate_is_a_mismatch_in_any_format(form):
    other = make("other", world().clients.intermediate)

    found = looked_at(pem(*world().client_chain) + key_pem(other, form=form))
    twin = looked_at(good())

    assert "key_mismatch" in rules(found)
    assert "key_mismatch" not in rules(twin)


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_an_encrypted_key_is_not_opened_and_not_held_against_the_file(form):
    leaf = world().clients.leaf()
    chain = pem(leaf.facts, world().clients.intermediate.facts)

    found = looked_at(chain + key_pem(leaf, b"canary passphrase", form))

    assert found.private_key.encrypted
    assert found.private_key.subject_public_key_info_sha256 is None
    assert rules(found) == ["root_private"]
    assert "key_encrypted_no_passphrase" in found.judgement.not_evaluated


def test_two_keys_and_a_mode_for_everybody_are_told():
    found = looked_at(good() + key_pem(make("other")), mode=0o644)

    assert rules(found) == ["key_file_mode", "key_multiple", "root_private"]


def test_without_a_key_its_rules_lack_their_evidence():
    found = looked_at(pem(*world().client_chain))

    assert {"key_mismatch", "key_missing", "key_file_mode"} <= {*found.judgement.not_evaluated}


def test_another_date_gives_the_judgement_of_that_date():
    before = looked_at(good(), now=NOW, supposed=True)
    then = looked_at(good(), now=NOW + timedelta(days=121), supposed=True)

    assert before.exit_code == auditing.CLEAN
    assert "expired" in rules(then)


def test_a_supposed_date_is_not_compared_with_this_machine():
    long_ago, far_ahead = at("2020-06-01"), at("2028-01-01")

    supposed = {*rules(looked_at(good(), now=long_ago, supposed=True))} | {
        *rules(looked_at(good(), now=far_ahead, supposed=True))
    }
    real = {*rules(looked_at(good(), now=long_ago))} | {*rules(looked_at(good(), now=far_ahead))}

    assert real - supposed == {"clock_suspect", "trust_list_stale"}


def test_a_profile_is_whose_reading_counts():
    content = pem(*chrome_client(world(), eku=(CLIENT_AUTH, SERVER_AUTH)))

    def severity(profile):
        found = looked_at(content, profile=profile)
        return next(v.severity for v in found.judgement.violations if v.rule == "eku_dual")

    assert severity("salesforce") == "critical"
    assert severity("chrome-1.8") == "warning"


def test_with_a_host_it_is_a_servers_chain():
    content = pem(*world().server_chain)

    right = looked_at(content, host=HOST)
    wrong = looked_at(content, host="other.my.salesforce.com")

    assert rules(right) == []
    assert rules(wrong) == ["server_hostname_mismatch"]
    assert {v.side for v in wrong.judgement.violations} == {"server"}


def test_a_key_beside_a_servers_chain_is_not_judged_as_a_clients():
    leaf = world().servers.leaf(HOST, eku=(SERVER_AUTH,))
    found = looked_at(
        pem(leaf.facts, world().servers.intermediate.facts) + key_pem(leaf), mode=0o666, host=HOST
    )

    assert rules(found) == []


def test_what_is_suppressed_is_counted_and_does_not_change_the_exit_code(capsys):
    known = Suppression("aki_ski_problem", NOW + timedelta(days=1), "ticket 7")
    content = pem(*world().clients.chain(aki=None))
    found = looked_at(content, suppressions=(known,))

    terminal_policy.print_audits([found])

    assert found.exit_code == auditing.CLEAN
    assert "1 note; 1 suppressed; " in capsys.readouterr().out
    (shown,) = auditing.as_json([found])[0]["suppressed"]
    assert (shown["rule"], shown["reason"]) == ("aki_ski_problem", "ticket 7")
    assert looked_at(content).exit_code == auditing.FINDINGS


def test_all_paths_and_roots_of_a_cross_signed_chain_are_told_whatever_its_order():
    blocks = re.findall(rb"-----BEGIN.+?END CERTIFICATE-----\n", cross_signed(), re.DOTALL)
    straight = looked_at(b"".join(blocks))
    turned = looked_at(b"".join((blocks[0], blocks[2], blocks[1])))

    shown = [auditing.as_json([found])[0] for found in (straight, turned)]

    assert sorted(root["kind"] for root in shown[0]["roots"]) == ["chrome", "private"]
    assert len(shown[0]["paths"]) == 2
    assert shown[0]["roots"] == shown[1]["roots"]
    assert sorted(shown[0]["paths"]) == sorted(shown[1]["paths"])


def test_the_json_of_every_audit_has_the_same_keys():
    readable, unreadable = auditing.as_json([looked_at(good()), looked_at(b"")])

    assert readable.keys() == unreadable.keys()
    assert list(readable) == [
        "file",
        "exit_code",
        "problems",
        "side",
        "host",
        "at",
        "profile",
        "trust_list",
        "private_key",
        "certificates",
        "paths",
        "roots",
        "violations",
        "suppressed",
        "not_evaluated",
    ]
    assert readable["private_key"] == {"encrypted": False, "blocks": 1, "belongs_to": 0}
    assert readable["at"] == "2026-11-24T12:00:00Z"
    assert [c["position"] for c in readable["certificates"]] == [0, 1]
    assert readable["certificates"][0]["extended_key_usage"] == [CLIENT_AUTH]
    assert unreadable["certificates"] == []
    assert unreadable["private_key"] is None


# --- the command ---------------------------------------------------------------------------------


def run(*files, **differently):
    wanted = {
        "at": None,
        "profile": "salesforce",
        "host": None,
        "roots": None,
        "chrome_roots": None,
        "as_json": False,
        "now": NOW,
    }
    return offline.inspect(list(files), **(wanted | differently))


@pytest.fixture
def write(tmp_path):
    def written(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    return written


def test_the_exit_code_is_that_of_the_worst_file(write, tmp_path, capsys):
    clean = write("clean.pem", good())
    warned = write("warned.pem", pem(*world().clients.chain(aki=None)))

    # The roots of this test are on no list that is shipped.
    assert run(clean) == 0
    assert run(clean, warned) == 1
    assert run(clean, warned, tmp_path / "absent.pem") == 2
    out = capsys.readouterr().out
    assert "unreadable: No such file or directory" in out
    assert out.count("clean.pem") == 3


def test_a_root_of_the_operators_is_known_when_it_is_given(write, capsys):
    identity = write("identity.pem", good())
    roots = write("roots.pem", pem(world().clients.root.facts))

    run(identity, as_json=True)
    without = json.loads(capsys.readouterr().out)[0]
    run(identity, roots=roots, as_json=True)
    given = json.loads(capsys.readouterr().out)[0]

    assert (without["roots"], without["paths"]) == ([], [])
    assert [root["subject"] for root in given["roots"]] == ["CN=Clients Root"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"at": "tomorrow"}, "--at: 'tomorrow' is no date like 2027-03-15 or 2027-03-15T09:00:00Z"),
        ({"profile": "mozilla"}, "there is no profile 'mozilla'; there are: salesforce,"),
        ({"roots": Path("/nonexistent/roots.pem")}, "--roots /nonexistent/roots.pem: No such"),
        ({"chrome_roots": Path("/dev/null")}, "--chrome-roots /dev/null: "),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_before_anything_is_said(
    arguments, complaint, write, capsys
):
    assert run(write("identity.pem", good()), **arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(complaint)


def test_chromes_list_may_be_another_one(write, capsys):
    (shipped,) = shipped_anchors().named("CN=ISRG Root X2,O=Internet Security Research Group,C=US")
    stranger = "a" * 64
    name = shipped.subject
    listed = write(
        "root_store.md",
        "Version: 99\n\n"
        f"{shipped.fingerprint_sha256} | {name} | 2013-08-01 | 2038-01-15\n"
        f"{stranger} | CN=Stranger | 2020-01-01 | 2040-01-01\n".encode(),
    )
    identity = write("identity.pem", pem(shipped))

    run(identity, as_json=True)
    before = json.loads(capsys.readouterr().out)[0]["trust_list"]
    run(identity, as_json=True, chrome_roots=listed)
    shown, told = capsys.readouterr()

    after = json.loads(shown)[0]["trust_list"]
    assert before["source"] == shipped_tables().trust_list_source
    assert after["source"] == "Chrome Root Store version 99"
    assert "no certificate is known here of 1 of its roots" in told


def test_roots_that_cannot_be_read_are_refused(write, capsys):
    assert run(write("identity.pem", good()), roots=write("roots.pem", BAD_BLOCK)) == 2
    assert "block 1: not a certificate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2027-03-15", at("2027-03-15")),
        ("2027-03-15T09:30:00Z", at("2027-03-15T09:30:00")),
        ("2027-03-15T09:30:00", at("2027-03-15T09:30:00")),
        ("2027-03-15T09:30:00+02:00", at("2027-03-15T07:30:00")),
    ],
)
def test_a_date_begins_at_midnight_utc_and_a_date_time_may_name_its_zone(text, when):
    assert moment(text) == when
    assert moment(text).tzinfo is UTC


@pytest.mark.parametrize("text", ["", "15.3.2027", "2027-02-30", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        moment(text)


def test_a_file_without_end_is_not_read_to_its_end():
    assert read_source(Path("/dev/zero")) == "larger than 4 MiB, which no chain is"


def test_a_file_knows_its_mode_and_a_device_has_none(write):
    assert read_source(write("identity.pem", b"x")).mode == 0o600
    assert read_source(Path("/dev/null")).mode is None


def test_no_content_of_a_key_is_shown(write, capsys):
    leaf = world().clients.leaf()
    path = write("identity.pem", good())
    secret = key_pem(leaf).splitlines()[1].decode()

    run(path)
    run(path, as_json=True)

    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    assert secret not in repr(read_source(path))


def test_inspecting_loads_no_library_that_it_does_not_need():
    slow = {"httpx", "pydantic", "apscheduler", "starlette", "structlog", "asyncio"}
    code = "import sys; from agent import offline; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert slow & {*loaded.stdout.decode().split()} == set()


# --- hostile files -------------------------------------------------------------------------------


def everything(content, host=None):
    """Do with a file's content all that the command does."""
    found = looked_at(content, host=host)
    shown = json.loads(json.dumps(auditing.as_json([found])))[0]
    assert shown["exit_code"] in {0, 1, 2}
    return found, shown


def printed(content, capsys):
    found, _ = everything(content)
    terminal_policy.print_audits([found])
    return capsys.readouterr().out


def test_a_name_cannot_steer_the_terminal(capsys):
    hostile = make("a\x1b[2Jb\x9bc\u202ed\ne", world().clients.intermediate, eku=(CLIENT_AUTH,))

    out = printed(pem(hostile.facts), capsys)

    assert not {"\x1b", "\x9b", "\u202e"} & {*out}
    assert "a\\u001b[2Jb\\u009bc\\u202ed" in out


def test_a_long_name_is_cut_and_an_empty_one_is_said():
    assert len(printable("x" * 5000)) == 160
    assert printable("x" * 160) == "x" * 160


CHAIN = st.sampled_from([c for w in (world(),) for c in (*w.client_chain, *w.server_chain)])


@given(CHAIN, st.data())
def test_a_flipped_byte_of_der_breaks_nothing(certificate, data):
    der = bytearray(certificate.der)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))

    found, _ = everything(bytes(der))
    if found.analysis:
        assert tree(found.analysis, found.anchors, NOW)


@given(st.data())
def test_a_flipped_byte_of_a_whole_pem_file_breaks_nothing(data):
    content = bytearray(good())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))

    everything(bytes(content))


@given(st.data(), st.sampled_from([None, HOST]))
def test_a_cut_off_file_breaks_nothing(data, host):
    content = data.draw(st.sampled_from([good(), world().client_chain[0].der]))

    everything(content[: data.draw(st.integers(0, len(content)))], host)


@given(st.binary(max_size=300))
def test_any_bytes_at_all_break_nothing(content):
    everything(content)
    everything(b"0" + content)
    everything(b"-----BEGIN CERTIFICATE-----\n" + content + b"\n-----END CERTIFICATE-----\n")
    everything(b"-----BEGIN PRIVATE KEY-----\n" + content + b"\n-----END PRIVATE KEY-----\n")


def test_a_hundred_intermediates_cost_a_bounded_number_of_paths_and_lines(capsys):
    # Ten authorities that have all certified each other: ever more paths, none of which ends.
    names = [f"Mesh {i}" for i in range(11)]
    own = [make(name, ca=True) for name in names]
    mesh = [
        make(subject, issuer, ca=True).facts
        for subject in names
        for issuer in own
        if issuer.facts.subject != f"CN={subject}"
    ]
    leaf = make("leaf.example.com", own[0], eku=(CLIENT_AUTH,), names=("leaf.example.com",))
    content = pem(leaf.facts, *mesh[:100], own[5].facts)

    out = printed(content, capsys)
    found, shown = everything(content)

    assert len(shown["certificates"]) == 102
    assert len(found.analysis.paths) <= 64
    assert max(map(len, found.analysis.paths), default=0) <= 9
    assert "and " in out
    assert len(out.splitlines()) < 250


def test_a_root_that_hundreds_of_paths_lead_to_is_drawn_a_few_times(capsys):
    root = make("Fan Root", ca=True)
    key = ec_key("fan")
    fan = [make("Fan", root, ca=True, key=key).facts for _ in range(30)]
    leaf = make("leaf.example.com", make("Fan", root, ca=True, key=key), eku=(CLIENT_AUTH,))

    out = printed(pem(leaf.facts, *fan, root.facts), capsys)

    assert out.count("root, private") == 8
    assert "… and 22 more paths" in out


def test_a_thousand_names_take_no_more_lines_than_one(capsys):
    def lines(count):
        names = tuple(f"host-{i}.example.com" for i in range(count))
        w = world()
        leaf = w.clients.leaf("many.example.com", names=names)
        return len(printed(pem(leaf.facts, w.clients.intermediate.facts), capsys).splitlines())

    assert lines(1000) == lines(1)


def test_findings_that_are_alike_are_counted_instead_of_repeated(capsys):
    w = world()
    over = NOW - timedelta(days=40)
    strangers = [make(f"Stranger {i}", ca=True, not_after=over).facts for i in range(20)]

    out = printed(pem(*w.client_chain, *strangers), capsys)

    assert out.count("critical: expired") == 5
    assert "… and 15 more like this" in out
    assert "20 critical, 1 warning" in out  # that is for the length of the chain
