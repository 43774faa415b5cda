"""What fuzzing found once is not found again; nor is it in or near what fuzzing begins with."""

from collections.abc import Iterator
from functools import cache

import pytest
from fuzz import fuzz_revocation, run
from hypothesis import given, settings
from hypothesis import strategies as st


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    return tuple(run.target(name).seeds())


def inputs() -> Iterator[object]:
    for name in run.TARGETS:
        for number, seed in enumerate(seeds(name)):
            yield pytest.param(name, seed, id=f"{name}-seed-{number}")
    for file in sorted(run.found(run.TARGETS)):
        yield pytest.param(file.name.partition("-")[0], file.read_bytes(), id=file.name)


@pytest.mark.parametrize(("name", "data"), list(inputs()))
def test_an_input_does_no_harm(name, data):
    run.target(name).one_input(data)


@pytest.mark.parametrize("name", run.TARGETS)
@settings(max_examples=40)
@given(st.data())
def test_what_differs_a_little_from_a_seed_does_no_harm(name, data):
    changed = bytearray(data.draw(st.sampled_from(seeds(name))))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from((0, 0, 0, 1, len(changed) // 2)))

    run.target(name).one_input(bytes(changed[: len(changed) - cut]))


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        (fuzz_revocation.LIST_CONTENT, ["revoked", "unavailable", "good"]),
        (fuzz_revocation.ANSWER_CONTENT, ["revoked"]),
    ],
)
def test_what_is_signed_for_fuzzing_is_believed(kind, states):
    """Else nothing behind the signature would be reached."""
    contents = [seed[1:] for seed in seeds("revocation") if seed[:1] == kind]

    assert [fuzz_revocation.as_signed(kind, content).state for content in contents] == states


def test_every_kept_input_belongs_to_a_target():
    assert run.found(run.TARGETS) == set(run.REGRESSIONS.glob("[!.]*"))


def test_every_target_has_its_file_and_something_to_begin_with():
    files = {file.stem.removeprefix("fuzz_") for file in run.HERE.glob("fuzz_*.py")}

    assert files == set(run.TARGETS)
    assert all(seeds(name) for name in run.TARGETS)
