"""Whatever a server answers, in whatever pieces: an answer or a reason, and always the same one."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.login.answer import door_request
from agent.login.flow import Response
from agent.login.soap import MAX_ANSWER_BYTES
from agent.probe.http import HttpClient
from agent.reason import Reason
from agent.result import Failure

BODY = b"<html>down for maintenance</html>"
ZIPPED = gzip.compress(BODY, mtime=0)
SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n%b\r\n0\r\nX: y\r\n\r\n" % BODY,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(ZIPPED), ZIPPED),
    b"HTTP/1.0 302 Found\r\nLocation: https://example.com/\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
)
REASONS = {Reason.HTTP_MALFORMED, Reason.TLS_EOF, Reason.RESPONSE_TOO_LARGE}


class Wire:
    """A channel whose far side says these pieces and closes."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)

    async def send(self, data):
        pass

    async def receive(self):
        return next(self._pieces, b"")


def answered(pieces):
    """Return what comes of an answer in these pieces."""

    async def ask():
        client = HttpClient(Wire(pieces), "acme.my.salesforce.com:8443")
        return await client.post(door_request("/services/Soap/u/64.0"))

    return asyncio.run(ask())


@st.composite
def answers(draw):
    """One of the seeds, with some bytes changed, cut out or put in; or anything at all."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        piece = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\r\n", b"\n", b":", b"0"]))
        )
        content[at : at + draw(st.integers(0, 6))] = piece
    return bytes(content)


@settings(max_examples=400)
@given(answers=st.one_of(answers(), st.binary(max_size=200)), data=st.data())
def test_any_answer_is_an_answer_or_a_reason_and_in_any_pieces_the_same(answers, data):
    whole = answered([answers] if answers else [])
    size = data.draw(st.integers(1, max(1, len(answers))))
    cut = answered([answers[at : at + size] for at in range(0, len(answers), size)])

    assert isinstance(whole, Response | Failure)
    assert type(cut) is type(whole)
    if isinstance(whole, Failure):
        assert {whole.reason, cut.reason} <= REASONS
    else:
        assert (cut.status, cut.body) == (whole.status, whole.body)
        assert len(whole.body) <= MAX_ANSWER_BYTES


@pytest.mark.parametrize(
    "cut",
    [
        SEEDS[0][:-3],
        SEEDS[1][:30],
        SEEDS[2][:47],
        SEEDS[2][:-9],
        b"HTT",
    ],
)
def test_an_answer_that_ends_in_the_middle_was_cut_and_is_no_other_protocol(cut):
    assert answered([cut]) == Failure(Reason.TLS_EOF, "closed in the middle of the answer")


@pytest.mark.parametrize("where", [b"\x01", b"https://example.com:port/", b"x:y", b"//", b"\xff"])
def test_a_redirect_to_what_is_no_address_is_a_redirect_all_the_same(where):
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n"

    assert answered([head % where]).status == 302


def test_every_seed_is_read_as_what_it_is():
    read = [answered([seed] if seed else []) for seed in SEEDS]

    assert [getattr(one, "status", None) for one in read] == [
        200,
        500,
        200,
        204,
        200,
        302,
        None,
        None,
        None,
    ]
    assert [one.body for one in read[:3]] == [BODY] * 3
    assert read[4].body == BODY
    assert [one.reason for one in read[6:]] == [
        Reason.HTTP_MALFORMED,
        Reason.HTTP_MALFORMED,
        Reason.TLS_EOF,
    ]
