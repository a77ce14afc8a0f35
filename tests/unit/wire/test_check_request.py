"""What a CheckRequest is read as, and what is refused."""

import pytest
from support.check_requests import check_request, check_request_message, envoy_certificate

from ext_authz.errors import Reason, Refusal
from ext_authz.wire import check_request as module
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from ext_authz.wire.check_request import MAX_HEADER_VALUE_BYTES, MAX_HEADERS, parse_check_request


def reason_of(data: bytes) -> Reason:
    with pytest.raises(Refusal) as refused:
        parse_check_request(data)
    return refused.value.reason


def test_every_attribute_becomes_the_fact_of_its_name() -> None:
    facts = parse_check_request(
        check_request(
            method="POST",
            path="/orders?x=1",
            host="shop.example.com:8443",
            scheme="https",
            protocol="HTTP/1.1",
            request_id="42",
            headers={"accept": "*/*"},
            source_address="2001:db8::7",
            source_port=1234,
            source_principal="spiffe://cluster.local/ns/a/sa/b",
            source_certificate=envoy_certificate("-----BEGIN CERTIFICATE-----\n+/=\n"),
            destination_address="10.9.8.7",
            destination_port=443,
            destination_principal="spiffe://cluster.local/ns/shop/sa/api",
            sni="shop.example.com",
            context_extensions={"virtual_host": "shop"},
        )
    )
    assert facts.method == "POST"
    assert facts.path == "/orders?x=1"
    assert facts.host == "shop.example.com:8443"
    assert facts.scheme == "https"
    assert facts.protocol == "HTTP/1.1"
    assert facts.request_id == "42"
    assert (facts.source_address, facts.source_port) == ("2001:db8::7", 1234)
    assert facts.source_principal == "spiffe://cluster.local/ns/a/sa/b"
    assert facts.source_certificate == "-----BEGIN%20CERTIFICATE-----%0A%2B%2F%3D%0A"
    assert (facts.destination_address, facts.destination_port) == ("10.9.8.7", 443)
    assert facts.destination_principal == "spiffe://cluster.local/ns/shop/sa/api"
    assert facts.sni == "shop.example.com"
    assert facts.context_extensions == {"virtual_host": "shop"}
    assert list(facts.headers.names()) == ["accept"]
    assert facts.headers.get_all("accept") == ("*/*",)
    assert not facts.headers.is_raw


def test_attributes_that_are_not_there_are_empty() -> None:
    request = CheckRequest()
    request.attributes.request.http.SetInParent()
    facts = parse_check_request(request.SerializeToString())
    assert (facts.method, facts.path, facts.host, facts.sni) == ("", "", "", "")
    assert (facts.source_address, facts.source_port) == ("", 0)
    assert len(facts.headers) == 0
    assert facts.context_extensions == {}


def test_the_context_extensions_cannot_be_changed() -> None:
    facts = parse_check_request(check_request(context_extensions={"a": "b"}))
    with pytest.raises(TypeError):
        facts.context_extensions["a"] = "c"  # type: ignore[index]


@pytest.mark.parametrize("path", ["/run/app.sock", "@abstract"])
def test_a_unix_socket_has_no_address(path: str) -> None:
    facts = parse_check_request(check_request(source_address=path, destination_address=path))
    assert (facts.source_address, facts.source_port) == ("", 0)
    assert (facts.destination_address, facts.destination_port) == ("", 0)


def test_an_internal_listener_and_a_named_port_have_no_number() -> None:
    request = check_request_message(source_address="", destination_address="")
    request.attributes.source.address.envoy_internal_address.server_listener_name = "inner"
    request.attributes.destination.address.socket_address.address = "10.0.0.1"
    request.attributes.destination.address.socket_address.named_port = "http"
    facts = parse_check_request(request.SerializeToString())
    assert (facts.source_address, facts.source_port) == ("", 0)
    assert (facts.destination_address, facts.destination_port) == ("10.0.0.1", 0)


@pytest.mark.parametrize("data", [b"", CheckRequest().SerializeToString(), b"\x0a\x00"])
def test_a_request_without_the_http_attribute_is_refused(data: bytes) -> None:
    assert reason_of(data) is Reason.REQUEST_WITHOUT_HTTP


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\xff",
        b"\xff" * 40,
        b"not protobuf",
        # `attributes.request.http.method` is not UTF-8; a CESU-8 surrogate is not UTF-8 either
        b"\x0a\x07\x22\x05\x12\x03\x12\x01\xff",
        b"\x0a\x09\x22\x07\x12\x05\x12\x03\xed\xa0\x80",
    ],
)
def test_bytes_that_are_no_check_request_are_refused(data: bytes) -> None:
    assert reason_of(data) is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize("error", [RecursionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")])
def test_what_other_implementations_of_protobuf_raise_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(_: bytes) -> CheckRequest:
        raise error

    monkeypatch.setattr(module, "_read", read)
    assert reason_of(b"") is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(("levels", "reason"), [(5, Reason.REQUEST_WITHOUT_HTTP), (200, Reason.REQUEST_MALFORMED)])
def test_metadata_nested_beyond_what_a_parser_follows_is_refused(levels: int, reason: Reason) -> None:
    struct = b""
    for _ in range(levels):
        # Value.struct_value, the map entry's value, Struct.fields
        for tag in (b"\x2a", b"\x12", b"\x0a"):
            struct = tag + _length(struct) + struct
    # the entry of Metadata.filter_metadata, AttributeContext.metadata_context, CheckRequest.attributes
    for tag in (b"\x12", b"\x0a", b"\x5a", b"\x0a"):
        struct = tag + _length(struct) + struct
    assert reason_of(struct) is reason


def _length(payload: bytes) -> bytes:
    number, groups = len(payload), bytearray()
    while number >= 128:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def test_raw_headers_keep_duplicates_and_their_order() -> None:
    facts = parse_check_request(
        check_request(raw_headers=[("authorization", "Bearer a"), ("x-a", "1"), ("authorization", "Bearer b")])
    )
    assert facts.headers.is_raw
    assert facts.headers.get_all("authorization") == ("Bearer a", "Bearer b")
    assert list(facts.headers.names()) == ["authorization", "x-a"]


def test_a_raw_header_that_is_not_utf8_is_refused_where_it_is_read() -> None:
    facts = parse_check_request(check_request(raw_headers=[("x-a", b"\xff"), ("x-b", "fine")]))
    assert facts.headers.get_all("x-b") == ("fine",)
    with pytest.raises(Refusal) as refused:
        facts.headers.get_all("x-a")
    assert refused.value.reason is Reason.HEADER_MALFORMED


def test_a_header_map_may_hold_text_instead_of_bytes() -> None:
    request = check_request_message(raw_headers=[])
    header = request.attributes.request.http.header_map.headers.add()
    header.key, header.value = "x-a", "text"
    assert parse_check_request(request.SerializeToString()).headers.get_all("x-a") == ("text",)


def test_an_empty_header_map_is_a_request_without_headers() -> None:
    request = check_request_message(pseudo_headers=False)
    request.attributes.request.http.header_map.SetInParent()
    facts = parse_check_request(request.SerializeToString())
    assert facts.headers.is_raw
    assert len(facts.headers) == 0


@pytest.mark.parametrize("raw", [(), (("x-a", b"1"),)])
def test_headers_in_both_forms_are_refused(raw: tuple[tuple[str, bytes], ...]) -> None:
    request = check_request_message(headers={"x-a": "1"})
    header_map = request.attributes.request.http.header_map
    header_map.SetInParent()
    for name, value in raw:
        header = header_map.headers.add()
        header.key, header.raw_value = name, value
    assert reason_of(request.SerializeToString()) is Reason.REQUEST_MALFORMED


FORMS = pytest.mark.parametrize("form", ["headers", "raw_headers"])
PSEUDO = pytest.mark.parametrize(
    ("name", "value"), [(":method", "GET"), (":path", "/"), (":authority", "api.example.com"), (":scheme", "https")]
)


@FORMS
@PSEUDO
def test_a_pseudo_header_that_agrees_with_its_attribute_is_left_out(form: str, name: str, value: str) -> None:
    facts = parse_check_request(check_request(pseudo_headers=False, **{form: {name: value, "x-a": "1"}.items()}))
    assert list(facts.headers.names()) == ["x-a"]


@FORMS
@PSEUDO
@pytest.mark.parametrize("other", ["", "other", "GET ", "/admin"])
def test_a_pseudo_header_that_contradicts_its_attribute_is_refused(
    form: str, name: str, value: str, other: str
) -> None:
    assert value != other
    data = check_request(pseudo_headers=False, **{form: [(name, other)]})
    assert reason_of(data) is Reason.REQUEST_MALFORMED


@FORMS
def test_a_host_header_that_contradicts_the_authority_is_refused(form: str) -> None:
    assert reason_of(check_request(**{form: [("host", "other.example.com")]})) is Reason.REQUEST_MALFORMED
    assert reason_of(check_request(**{form: [("Host", "other.example.com")]})) is Reason.REQUEST_MALFORMED
    facts = parse_check_request(check_request(**{form: [("host", "api.example.com")]}))
    assert facts.headers.get_all("host") == ("api.example.com",)


def test_a_second_raw_path_that_differs_is_refused() -> None:
    assert reason_of(check_request(raw_headers=[(":path", "/admin")])) is Reason.REQUEST_MALFORMED


@FORMS
def test_the_protocol_of_an_extended_connect_is_left_out(form: str) -> None:
    facts = parse_check_request(check_request(method="CONNECT", **{form: [(":protocol", "websocket")]}))
    assert len(facts.headers) == 0


@FORMS
@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        ":status",
        "a b",
        "a:b",
        "a\n",
        "a\nb",
        "\n",
        "a\x00",
        "ä",
        "\u212aelvin",
        "(x)",
        "a,b",
        "x\t",
        '"',
        "[a]",
        "@",
    ],
)
def test_a_header_name_that_is_no_token_is_refused(form: str, name: str) -> None:
    assert reason_of(check_request(**{form: [(name, "1")]})) is Reason.HEADER_MALFORMED


@FORMS
def test_every_character_of_a_token_may_be_in_a_name(form: str) -> None:
    name = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
    assert list(parse_check_request(check_request(**{form: [(name, "1")]})).headers.names()) == [name]


@FORMS
@pytest.mark.parametrize("character", [chr(number) for number in range(256)])
def test_a_name_is_allowed_exactly_when_rfc_9110_allows_each_character(form: str, character: str) -> None:
    data = check_request(**{form: [(f"x{character}", "1")]})
    if character.isascii() and (character.isalnum() or character in "!#$%&'*+-.^_`|~"):
        assert list(parse_check_request(data).headers.names()) == [f"x{character.lower()}"]
    else:
        assert reason_of(data) is Reason.HEADER_MALFORMED


def test_merged_names_that_differ_only_in_case_are_refused() -> None:
    assert reason_of(check_request(headers={"x-user": "a", "X-User": "b"})) is Reason.HEADER_MALFORMED


def test_raw_names_that_differ_only_in_case_are_duplicates() -> None:
    facts = parse_check_request(check_request(raw_headers=[("x-user", "a"), ("X-User", "b")]))
    assert facts.headers.get_all("x-user") == ("a", "b")


@FORMS
def test_more_headers_than_the_limit_are_refused(form: str) -> None:
    fields = [(f"x-{number}", "v") for number in range(MAX_HEADERS)]
    assert len(parse_check_request(check_request(pseudo_headers=False, **{form: fields})).headers) == MAX_HEADERS
    fields.append(("one-more", "v"))
    assert reason_of(check_request(pseudo_headers=False, **{form: fields})) is Reason.HEADER_TOO_LARGE


@FORMS
@pytest.mark.parametrize("character", ["a", "é"])
def test_a_value_longer_than_the_limit_in_bytes_is_refused(form: str, character: str) -> None:
    longest = character * (MAX_HEADER_VALUE_BYTES // len(character.encode()))
    facts = parse_check_request(check_request(**{form: [("x-a", longest)]}))
    assert facts.headers.get_all("x-a") == (longest,)
    assert reason_of(check_request(**{form: [("x-a", longest + "a")]})) is Reason.HEADER_TOO_LARGE


@pytest.mark.parametrize(
    ("names", "is_kept"),
    [
        (["accept", "x-tenant"], True),
        ([f"X{number}" for number in range(65)], False),
        (["x" * 2_049], False),
    ],
    ids=["usual", "many", "long"],
)
def test_only_usual_names_are_remembered(names: list[str], *, is_kept: bool) -> None:
    module._remembered_names.cache_clear()
    data = check_request(headers=dict.fromkeys(names, "1"), pseudo_headers=False)
    for _ in range(2):
        assert set(parse_check_request(data).headers.names()) == {name.lower() for name in names}
    assert module._remembered_names.cache_info().currsize == is_kept


def test_no_refusal_repeats_what_the_client_sent() -> None:
    marker = "Zq9Zq9"
    for form in ("headers", "raw_headers"):
        for field in [(marker + " ", "1"), ("host", marker), (":path", marker), (":" + marker, "1")]:
            with pytest.raises(Refusal) as refused:
                parse_check_request(check_request(**{form: [field]}))
            assert marker.lower() not in str(refused.value).lower()
