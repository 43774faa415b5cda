"""The operator's lists of certificates, as files."""

import pytest
from making import world

from agent.listing import Lists, read_lists
from agent.org import Policy


@pytest.fixture
def write(tmp_path):
    def written(name, content):
        file = tmp_path / name
        file.write_bytes(content)
        return str(file)

    return written


def test_each_list_is_the_fingerprints_in_its_file(write):
    w = world()
    roots, leaf = (w.clients.root, w.chrome.root), w.clients.leaf()
    policy = Policy(
        accepted_roots=write("accepted.pem", b"".join(root.pem for root in roots)),
        uploaded=write("uploaded.pem", leaf.pem),
    )

    assert read_lists(policy) == Lists(
        accepted_roots=frozenset(root.facts.fingerprint_sha256 for root in roots),
        uploaded=frozenset({leaf.facts.fingerprint_sha256}),
    )
    assert read_lists(Policy()) == Lists()


@pytest.mark.parametrize("key", ["accepted_roots", "uploaded"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda _: b"", "neither PEM nor DER"),
        (lambda w: w.clients.root.pem + w.chrome.root.pem[:200], "block 2: it begins and never"),
        (lambda w: w.clients.root.pem.replace(b"MII", b"AAA"), "block 1: not a certificate"),
    ],
)
def test_a_list_that_can_be_read_in_part_is_none_and_it_is_said_why(content, why, key, write):
    path = write("list.pem", content(world()))

    found = read_lists(Policy(**{key: path}))

    assert getattr(found, key) is None
    assert list(found.problems) == [key]
    assert found.problems[key].startswith(f"{path}: ")
    assert why in found.problems[key]


def test_a_missing_list_is_named(tmp_path):
    found = read_lists(Policy(uploaded=str(tmp_path / "absent")))

    assert found == Lists(
        problems={"uploaded": f"{tmp_path}/absent cannot be read: No such file or directory"}
    )
