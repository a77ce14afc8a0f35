"""What Envoy is told: the answer always says what the decision says."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from google.protobuf.json_format import MessageToDict

from ext_authz.decision import Allow, Decision, Deny, Mutations
from ext_authz.denials import Denials, DenialSettings, kind_of
from ext_authz.errors import Reason
from ext_authz.principal import JsonValue
from ext_authz.wire._pb.envoy.config.core.v3.base_pb2 import HeaderValueOption
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from ext_authz.wire.check_response import says_internal_error, serialize
from ext_authz.wire.metadata import MAX_DEPTH

ALLOWING = frozenset({Reason.OK, Reason.PUBLIC_ROUTE})


def answer(decision: Decision, *, errors_as_error_response: bool = False) -> CheckResponse:
    response = CheckResponse.FromString(serialize(decision, errors_as_error_response=errors_as_error_response))
    assert response.HasField("status")
    return response


def allow(**parts: object) -> Allow:
    return Allow(Reason.OK, Mutations(**parts))  # type: ignore[arg-type]


def option(name: str, value: str) -> HeaderValueOption:
    expected = HeaderValueOption(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD, keep_empty_value=not value)
    expected.header.key, expected.header.value = name, value
    expected.append.value = False
    expected.append.SetInParent()
    return expected


def test_an_allow_without_changes_is_a_status_of_zero_that_is_there() -> None:
    assert serialize(Allow(Reason.OK)) == b"\x0a\x00\x1a\x00"
    response = answer(Allow(Reason.PUBLIC_ROUTE))
    assert response.status.code == 0
    assert response.WhichOneof("http_response") == "ok_response"
    assert not response.HasField("dynamic_metadata")


def test_every_mutation_reaches_its_field() -> None:
    response = answer(
        allow(
            set_request_headers=(("x-subject", "alice"), ("x-long", "v" * 300), ("x-longer", "v" * 70_000)),
            remove_request_headers=("authorization", "x-" + "n" * 200),
            set_response_headers=(("x-served-by", "ü"),),
            set_query_parameters=(("tenant", "a"),),
            remove_query_parameters=("debug", "Ü"),
        )
    )
    expected = CheckResponse()
    expected.status.SetInParent()
    ok = expected.ok_response
    ok.headers.extend([option("x-subject", "alice"), option("x-long", "v" * 300), option("x-longer", "v" * 70_000)])
    ok.headers_to_remove.extend(["authorization", "x-" + "n" * 200])
    ok.response_headers_to_add.append(option("x-served-by", "ü"))
    ok.query_parameters_to_set.add(key="tenant", value="a")
    ok.query_parameters_to_remove.extend(["debug", "Ü"])
    assert response == expected


def test_the_bytes_are_those_of_a_message_built_the_long_way() -> None:
    decision = allow(set_request_headers=(("a", "b"), ("c", "d")), remove_request_headers=("d",))
    expected = CheckResponse()
    expected.status.SetInParent()
    expected.ok_response.headers.extend([option("a", "b"), option("c", "d")])
    expected.ok_response.headers_to_remove.append("d")
    assert serialize(decision) == expected.SerializeToString()


def test_an_empty_value_overwrites_too() -> None:
    (header,) = answer(allow(set_request_headers=(("x-subject", ""),))).ok_response.headers
    assert header.keep_empty_value
    assert header.HasField("append")
    assert not header.append.value


def test_query_parameters_go_as_they_are() -> None:
    parameters = (("filter[a]", "a%26b=c"), ("t", ""), ("!$%'()*+,-./:?@_~", "!$%'()*+,-./:<=>?@[]_{}~"))
    sent = answer(allow(set_query_parameters=parameters)).ok_response.query_parameters_to_set
    assert tuple((parameter.key, parameter.value) for parameter in sent) == parameters


@pytest.mark.parametrize("character", [*map(chr, range(0x21)), "#", "&", ";", "\x7f", "\x80", "é"])
def test_a_query_parameter_that_would_become_two_is_a_denial(character: str) -> None:
    assert says_internal_error(serialize(allow(set_query_parameters=(("a", f"b{character}"),))))
    assert says_internal_error(serialize(allow(set_query_parameters=((f"a{character}", "b"),))))


@pytest.mark.parametrize("name", ["", "a=", "a\n"])
def test_a_query_parameter_needs_a_name_of_its_own(name: str) -> None:
    assert says_internal_error(serialize(allow(set_query_parameters=((name, "b"),))))


@pytest.mark.parametrize("value", ["a\tb", "ü", "\u00a0", "\u2028", "a, b"])
def test_a_field_value_that_http_allows_is_sent_as_it_is(value: str) -> None:
    (header,) = answer(allow(set_request_headers=(("x-a", value),))).ok_response.headers
    assert header.header.value == value


CONTROL = [chr(number) for number in (*range(9), *range(10, 32), 127)]
DEEP: JsonValue = ()
for _ in range(MAX_DEPTH + 1):
    DEEP = (DEEP,)


@pytest.mark.parametrize(
    "decision",
    [
        *(allow(set_request_headers=(("x-a", f"a{character}b"),)) for character in CONTROL),
        allow(set_request_headers=(("x-a", "\ud800"),)),
        allow(set_request_headers=(("x-\ud800", "a"),)),
        allow(set_request_headers=(("", "a"),)),
        allow(set_request_headers=((":path", "/admin"),)),
        allow(set_request_headers=(("x-a\n", "a"),)),
        allow(set_request_headers=(("x-a", None),)),
        allow(remove_request_headers=("x a",)),
        allow(remove_request_headers=("x-a\n",)),
        allow(set_response_headers=(("x-a", "a\r\nset-cookie: b"),)),
        allow(set_query_parameters=(("a", "\ud800"),)),
        allow(remove_query_parameters=("\ud800",)),
        Allow(Reason.OK, dynamic_metadata={"a": float("nan")}),
        Allow(Reason.OK, dynamic_metadata={"a": float("-inf")}),
        Allow(Reason.OK, dynamic_metadata={"a": DEEP}),
        Allow(Reason.OK, dynamic_metadata={"a": 10**5000}),
        Allow(Reason.OK, dynamic_metadata={"\ud800": 1}),
        Allow(Reason.OK, dynamic_metadata={"a": "\ud800"}),
        Allow(Reason.OK, dynamic_metadata={"a": [1]}),  # type: ignore[dict-item]
        None,
    ],
)
@pytest.mark.parametrize("as_error", [False, True])
def test_what_cannot_be_written_is_a_denial(decision: Decision, as_error: bool) -> None:
    data = serialize(decision, errors_as_error_response=as_error)
    assert says_internal_error(data)
    response = CheckResponse.FromString(data)
    assert response.status.code == 13
    assert response.WhichOneof("http_response") == ("error_response" if as_error else "denied_response")


def test_an_allow_that_was_written_does_not_say_internal_error() -> None:
    assert not says_internal_error(serialize(Allow(Reason.OK)))


def test_metadata_keeps_every_json_value() -> None:
    metadata: Mapping[str, JsonValue] = MappingProxyType(
        {
            "null": None,
            "true": True,
            "integer": 7,
            "exact": 2**53,
            "large": 2**53 + 1,
            "negative": -(2**64),
            "float": 0.5,
            "text": "ü\x00",
            "empty list": (),
            "empty object": {},
            "list": (1, (None, MappingProxyType({"a": ("b",)}))),
            "object": {"a": {"b": False}},
        }
    )
    response = answer(Allow(Reason.OK, dynamic_metadata=metadata))
    assert MessageToDict(response.dynamic_metadata) == {
        "null": None,
        "true": True,
        "integer": 7.0,
        "exact": float(2**53),
        "large": "9007199254740993",
        "negative": "-18446744073709551616",
        "float": 0.5,
        "text": "ü\x00",
        "empty list": [],
        "empty object": {},
        "list": [1.0, [None, {"a": ["b"]}]],
        "object": {"a": {"b": False}},
    }


@pytest.mark.parametrize("shape", ["list", "object"])
def test_metadata_may_be_nested_to_the_limit_and_no_deeper(shape: str) -> None:
    def nested(depth: int) -> JsonValue:
        value: JsonValue = "leaf"
        for _ in range(depth):
            value = (value,) if shape == "list" else {"a": value}
        return value

    # the outer Struct is a level of its own
    deepest = Allow(Reason.OK, dynamic_metadata={"a": nested(MAX_DEPTH - 1)})
    assert answer(deepest).status.code == 0
    deeper = Allow(Reason.OK, dynamic_metadata={"a": nested(MAX_DEPTH)})
    assert says_internal_error(serialize(deeper))


@pytest.mark.parametrize("reason", sorted(set(Reason) - ALLOWING))
def test_every_denial_of_the_table_denies_with_its_status_and_code(reason: Reason) -> None:
    denial = Denials(DenialSettings(realm="r")).deny(reason, scopes=("a",))
    response = answer(denial)
    assert response.WhichOneof("http_response") == "denied_response"
    denied = response.denied_response
    assert denied.status.code == kind_of(reason).status
    assert response.status.code == {400: 3, 401: 16, 403: 7, 500: 13, 503: 14}[kind_of(reason).status]
    assert tuple((header.header.key, header.header.value) for header in denied.headers) == denial.headers
    assert denied.body == denial.body


@pytest.mark.parametrize(
    ("http_status", "sent", "grpc_code"),
    [
        (302, 302, 7),
        (400, 400, 3),
        (401, 401, 16),
        (403, 403, 7),
        (404, 404, 5),
        (409, 409, 10),
        (418, 418, 7),
        (429, 429, 8),
        (499, 499, 7),
        (500, 500, 13),
        (501, 501, 12),
        (502, 502, 13),
        (503, 503, 14),
        (504, 504, 4),
        (599, 599, 13),
        # no status that a denied client may see
        (-1, 403, 7),
        (0, 403, 7),
        (200, 403, 7),
        (299, 403, 7),
        (600, 403, 7),
        (2**40, 403, 7),
    ],
)
def test_a_denial_has_a_status_that_denies(http_status: int, sent: int, grpc_code: int) -> None:
    response = answer(Deny(Reason.NO_RULE, http_status))
    assert response.status.code == grpc_code
    assert response.denied_response.status.code == sent


@pytest.mark.parametrize(
    ("http_status", "field"),
    [(400, "denied_response"), (403, "denied_response"), (500, "error_response"), (503, "error_response")],
)
def test_only_failures_of_ours_become_error_responses_and_only_when_asked(http_status: int, field: str) -> None:
    denial = Deny(Reason.INTERNAL_ERROR, http_status, (("x-a", "b"),), "text")
    response = answer(denial, errors_as_error_response=True)
    assert response.status.code != 0
    assert response.WhichOneof("http_response") == field
    assert getattr(response, field).body == "text"
    assert answer(denial).WhichOneof("http_response") == "denied_response"


def test_a_denial_overwrites_and_keeps_a_second_challenge_beside_the_first() -> None:
    headers = (("www-authenticate", "Bearer"), ("content-type", "text/plain"), ("WWW-Authenticate", "DPoP"))
    first, second, third = answer(Deny(Reason.TOKEN_MISSING, 401, headers)).denied_response.headers
    assert first == option("www-authenticate", "Bearer")
    assert second == option("content-type", "text/plain")
    assert not third.HasField("append")
    assert third.append_action == HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


def test_a_denial_leaves_out_what_cannot_be_written() -> None:
    denial = Deny(
        Reason.NO_RULE,
        403,
        (("x a", "b"), ("x-b", "a\r\nb"), ("\ud800", "b"), ("x-c", "\ud800!"), ("x-d", "d")),
        "bo\ud800dy\x00",
        {"a": float("nan")},
    )
    response = answer(denial)
    assert response.status.code == 7
    assert not response.HasField("dynamic_metadata")
    denied = response.denied_response
    assert [(header.header.key, header.header.value) for header in denied.headers] == [("x-c", "?!"), ("x-d", "d")]
    assert denied.body == "bo?dy\x00"


def test_a_denial_carries_its_metadata() -> None:
    response = answer(Deny(Reason.NO_RULE, 403, dynamic_metadata={"reason": "no_rule"}))
    assert MessageToDict(response.dynamic_metadata) == {"reason": "no_rule"}


def test_one_denial_never_gets_the_answer_of_another() -> None:
    bodies = [Deny(Reason.NO_RULE, 403, (), body) for body in ("a", "b", "a")]
    assert [answer(denial).denied_response.body for denial in bodies] == ["a", "b", "a"]
