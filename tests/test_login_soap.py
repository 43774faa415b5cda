"""Envelopes out and answers in: nothing breaks out of the one, nothing breaks the reader."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.credentials import Secret
from agent.login.soap import (
    Envelope,
    Malformed,
    door_envelope,
    is_xml_text,
    login_envelope,
    read_envelope,
    session_envelope,
)
from agent.org import SessionCall

SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
PARTNER = "{urn:partner.soap.sforce.com}"

# Char of XML 1.0
XML_TEXT = st.text(
    st.one_of(
        st.sampled_from("\t\n\r &<>'\"]"),
        st.characters(min_codepoint=0x20, max_codepoint=0xD7FF),
        st.characters(min_codepoint=0xE000, max_codepoint=0xFFFD),
        st.characters(min_codepoint=0x10000, max_codepoint=0x10FFFF),
    ),
    max_size=200,
)


def envelope(content: str, header: str = "") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns="urn:partner.soap.sforce.com" xmlns:sf="urn:fault.partner.soap.sforce.com"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Header>{header}</soapenv:Header><soapenv:Body>{content}</soapenv:Body>"
        "</soapenv:Envelope>"
    ).encode()


def parsed(sent: bytes) -> ET.Element:
    return ET.fromstring(sent)  # noqa: S314 - a second reader of what we wrote ourselves


@given(XML_TEXT, XML_TEXT, st.none() | XML_TEXT)
@settings(max_examples=200)
def test_no_user_name_password_or_token_breaks_out_of_the_login_envelope(username, password, token):
    sent = login_envelope(username, Secret(password), None if token is None else Secret(token))

    root = parsed(sent)
    assert [e.tag for e in root.iter()] == [
        f"{SOAP}Envelope",
        f"{SOAP}Header",
        f"{PARTNER}CallOptions",
        f"{PARTNER}client",
        f"{SOAP}Body",
        f"{PARTNER}login",
        f"{PARTNER}username",
        f"{PARTNER}password",
    ]
    (login,) = root.iter(f"{PARTNER}login")
    assert (login[0].text or "") == username
    assert (login[1].text or "") == password + (token or "")
    read = read_envelope(sent)
    assert isinstance(read, Envelope)
    assert [child.text for child in read.content.children] == [username, password + (token or "")]


@given(XML_TEXT, XML_TEXT)
@settings(max_examples=100)
def test_no_query_and_no_session_breaks_out_of_the_session_envelope(soql, session):
    root = parsed(session_envelope(SessionCall.QUERY, soql, Secret(session)))

    assert (root.findtext(f".//{PARTNER}SessionHeader/{PARTNER}sessionId") or "") == session
    assert (root.findtext(f"{SOAP}Body/{PARTNER}query/{PARTNER}queryString") or "") == soql
    assert len(list(root.iter())) == 9


@pytest.mark.parametrize("call", [SessionCall.GET_USER_INFO, SessionCall.GET_SERVER_TIMESTAMP])
def test_a_call_without_arguments_carries_the_session_and_no_query(call):
    root = parsed(session_envelope(call, "SELECT Id FROM User", Secret("00D!AQ")))

    assert root.findtext(f".//{PARTNER}sessionId") == "00D!AQ"
    assert [e.tag for e in root.find(f"{SOAP}Body").iter()][1:] == [f"{PARTNER}{call.value}"]


def test_the_door_request_carries_no_credential_of_any_kind():
    root = parsed(door_envelope())

    assert [e.tag.rpartition("}")[2] for e in root.iter()] == [
        "Envelope",
        "Header",
        "CallOptions",
        "client",
        "Body",
        "getServerTimestamp",
    ]


@pytest.mark.parametrize("text", ["a\x00b", "\x0b", "\ud800", "\ufffe"])
def test_a_text_that_xml_cannot_carry_is_refused_without_being_quoted(text):
    assert not is_xml_text(text)
    with pytest.raises(ValueError, match="cannot carry") as error:
        login_envelope("ada", Secret(f"s3cret{text}"), None)
    assert "s3cret" not in str(error.value)


def test_what_xml_can_carry_is_not_refused():
    assert is_xml_text("a\tb\r\n & < > ' \" é \U0001f511")


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_arbitrary_bytes_are_read_without_an_exception(body):
    assert isinstance(read_envelope(body), Envelope | Malformed)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_envelope_is_read_without_an_exception(data):
    body = bytearray(
        envelope("<loginResponse><result><userId>005</userId></result></loginResponse>")
    )
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    assert isinstance(read_envelope(bytes(body)), Envelope | Malformed)


def test_an_answer_is_read_by_local_names_whatever_the_prefixes_and_unknown_elements():
    body = envelope(
        '<x:loginResponse xmlns:x="urn:other"><new>1</new><x:result><a/><x:userId>005</x:userId>'
        "</x:result></x:loginResponse>"
    )

    read = read_envelope(body)

    assert isinstance(read, Envelope)
    assert read.content.name == "loginResponse"
    assert read.content.value("result", "userId") == "005"
    assert read.content.descendant("userId").text == "005"
    assert read.content.descendant("password") is None
    assert read.content.value("result", "nothing", "deeper") is None


@pytest.mark.parametrize("nil", ["true", "1"])
def test_a_nil_element_counts_as_absent(nil):
    read = read_envelope(envelope(f'<r><sessionId xsi:nil="{nil}"/></r>'))

    assert isinstance(read, Envelope)
    assert read.content.child("sessionId") is None
    assert read.content.descendant("sessionId") is None
    assert read.content.value("sessionId") is None


def test_an_element_that_is_not_nil_counts_as_present():
    read = read_envelope(envelope('<r><sessionId xsi:nil="false">00D</sessionId></r>'))

    assert isinstance(read, Envelope)
    assert read.content.value("sessionId") == "00D"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252"])
def test_an_answer_in_any_encoding_that_expat_knows_is_read(encoding):
    text = envelope("<r><name>Zoë</name></r>").decode()
    declared = "utf-8" if encoding == "utf-8-sig" else encoding

    read = read_envelope(text.replace("UTF-8", declared).encode(encoding))

    assert isinstance(read, Envelope)
    assert read.content.value("name") == "Zoë"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "empty"),
        (b" \r\n ", "empty"),
        (b"not xml", "not XML"),
        (envelope("<r>")[:-20], "not XML"),
        (envelope("<r>\xff</r>").replace("\xff".encode(), b"\xff"), "not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding"),
        (b'<?xml version="1.0" encoding="shift_jis"?><a/>', "unknown encoding"),
        (envelope("<r>&undefined;</r>"), "not XML"),
        (b"<html><body/></html>", "not an Envelope"),
        (envelope("<r/>").replace(b"xmlsoap.org", b"example.org"), "not one of SOAP 1.1"),
        (b"<Envelope><Body><r/></Body></Envelope>", "not one of SOAP 1.1"),
        (envelope(""), "no content"),
        (envelope("<r/>").replace(b"soapenv:Body", b"soapenv:Leib"), "no content"),
    ],
)
def test_what_is_no_soap_message_is_malformed_and_says_why(body, detail):
    read = read_envelope(body)

    assert isinstance(read, Malformed)
    assert detail in read.detail


def test_the_twin_of_the_malformed_messages_is_read():
    assert isinstance(read_envelope(envelope("<r/>")), Envelope)


@pytest.mark.parametrize(
    "declaration",
    [
        b"<!DOCTYPE Envelope>",
        b'<!DOCTYPE Envelope SYSTEM "http://127.0.0.1:1/x.dtd">',
        b'<!DOCTYPE Envelope [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        b'<!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_dtd_and_entity_bombs_are_refused_before_anything_expands(declaration):
    body = envelope("<r>1</r>")

    read = read_envelope(body.replace(b"?>", b"?>" + declaration, 1))

    assert read == Malformed("the answer has a DOCTYPE, which SOAP forbids")


@pytest.mark.parametrize(("depth", "refused"), [(62, False), (63, True), (50_000, True)])
def test_nesting_deeper_than_64_elements_is_refused(depth, refused):
    read = read_envelope(envelope("<a>" * depth + "</a>" * depth))

    assert isinstance(read, Malformed) == refused
    if refused:
        assert "too deeply" in read.detail


@pytest.mark.parametrize(("count", "refused"), [(9_000, False), (10_000, True)])
def test_a_flood_of_elements_is_refused(count, refused):
    read = read_envelope(envelope(f"<r>{'<a/>' * count}</r>"))

    assert isinstance(read, Malformed) == refused
    if refused:
        assert "too many elements" in read.detail


def test_the_content_of_an_answer_is_not_shown():
    read = read_envelope(envelope("<r><sessionId>00D!canary</sessionId></r>"))

    assert "canary" not in repr(read)
