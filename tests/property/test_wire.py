"""Whatever arrives is facts or a refusal; whatever is decided is an answer that says so."""

from collections.abc import Mapping

from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.check_requests import check_request
from support.wire_messages import messages

from ext_authz.decision import Allow, Decision, Deny, Mutations
from ext_authz.errors import Reason, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.principal import JsonValue
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import says_internal_error, serialize
from ext_authz.wire.json_form import (
    JsonFormError,
    check_request_from_json,
    check_response_to_json,
)

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REFUSALS = {Reason.REQUEST_MALFORMED, Reason.REQUEST_WITHOUT_HTTP, Reason.HEADER_MALFORMED, Reason.HEADER_TOO_LARGE}


def facts_or_reason(data: bytes) -> RequestFacts | Reason:
    outcome: RequestFacts | Reason
    try:
        outcome = parse_check_request(data)
    except Refusal as refusal:
        outcome = refusal.reason
    assert isinstance(outcome, RequestFacts) or outcome in REFUSALS
    return outcome


@SETTINGS
@given(st.binary(max_size=500))
def test_any_bytes_are_facts_or_a_refusal(data: bytes) -> None:
    facts_or_reason(data)


@SETTINGS
@given(data=st.data())
def test_a_valid_message_with_any_bytes_changed_is_facts_or_a_refusal(data: st.DataObject) -> None:
    original = bytearray(check_request(path="/a?b", headers={"x-a": "1"}, sni="a", context_extensions={"a": "b"}))
    for _ in range(data.draw(st.integers(1, 5))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(original)))
    facts_or_reason(bytes(original))
    facts_or_reason(bytes(original[:cut]))


@SETTINGS
@given(messages(CheckRequest))
def test_any_message_is_facts_with_lowercase_header_names_or_a_refusal(message: Message) -> None:
    facts = facts_or_reason(message.SerializeToString())
    if isinstance(facts, RequestFacts):
        http = message.attributes.request.http  # type: ignore[attr-defined]  # every CheckRequest has it
        assert (facts.method, facts.path, facts.host) == (http.method, http.path, http.host)
        for name in facts.headers.names():
            assert name == name.lower()
            assert not name.startswith(":")


NAMES = st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)


@SETTINGS
@given(st.dictionaries(NAMES.filter(lambda name: name != "host"), st.text(st.characters(codec="utf-8"))))
def test_headers_are_the_same_in_both_forms(headers: Mapping[str, str]) -> None:
    merged = parse_check_request(check_request(headers=headers)).headers
    raw = parse_check_request(check_request(raw_headers=headers.items())).headers
    assert set(merged.names()) == set(raw.names()) == set(headers)
    for name, value in headers.items():
        assert merged.get_all(name) == raw.get_all(name) == (value,)


ANY_TEXT = st.text(st.characters(), max_size=20)
PAIRS = st.lists(st.tuples(NAMES | ANY_TEXT, ANY_TEXT), max_size=5).map(tuple)
TEXTS = st.lists(NAMES | ANY_TEXT, max_size=5).map(tuple)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=20,
)
METADATA = st.dictionaries(ANY_TEXT, JSON, max_size=3)
ALLOWS: st.SearchStrategy[Decision] = st.builds(
    Allow,
    reason=st.sampled_from([Reason.OK, Reason.PUBLIC_ROUTE]),
    mutations=st.builds(Mutations, PAIRS, TEXTS, PAIRS, PAIRS, TEXTS),
    dynamic_metadata=METADATA,
)
DENIALS: st.SearchStrategy[Decision] = st.builds(
    Deny,
    reason=st.sampled_from(sorted(set(Reason) - {Reason.OK, Reason.PUBLIC_ROUTE})),
    http_status=st.integers() | st.sampled_from([400, 401, 403, 500, 503]),
    headers=PAIRS,
    body=ANY_TEXT,
    dynamic_metadata=METADATA,
)


@SETTINGS
@given(ALLOWS | DENIALS, st.booleans())
@example(Allow(Reason.OK), False)
def test_any_decision_is_an_answer_that_says_the_same(decision: Decision, as_error: bool) -> None:
    data = serialize(decision, errors_as_error_response=as_error)
    response = CheckResponse.FromString(data)
    assert response.HasField("status")
    kind = response.WhichOneof("http_response")
    if isinstance(decision, Allow) and not says_internal_error(data):
        assert response.status.code == 0
        assert kind == "ok_response"
        mutations = decision.mutations
        sent = response.ok_response.headers
        assert tuple((option.header.key, option.header.value) for option in sent) == mutations.set_request_headers
        assert tuple(response.ok_response.headers_to_remove) == mutations.remove_request_headers
    else:
        assert response.status.code != 0
        assert kind == "denied_response" or (as_error and kind == "error_response")
    check_response_to_json(data)


@SETTINGS
@given(PAIRS, METADATA)
def test_a_denial_never_allows_because_of_what_it_carries(
    headers: tuple[tuple[str, str], ...], metadata: Mapping[str, JsonValue]
) -> None:
    response = CheckResponse.FromString(serialize(Deny(Reason.NO_RULE, 403, headers, "", metadata)))
    assert response.status.code == 7
    assert response.denied_response.status.code == 403


@SETTINGS
@given(messages(CheckResponse))
def test_any_response_is_json_or_an_error_of_ours(message: Message) -> None:
    try:
        check_response_to_json(message.SerializeToString())
    except JsonFormError:
        return


@SETTINGS
@given(st.text(max_size=60) | JSON.map(repr) | st.from_regex(r'\{"attributes":\{"[a-z_]{1,9}":[0-9{}"\[\]]{1,5}\}\}'))
def test_any_text_is_a_request_or_an_error_of_ours(text: str) -> None:
    try:
        facts_or_reason(check_request_from_json(text))
    except JsonFormError:
        return
