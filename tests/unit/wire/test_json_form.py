"""Check requests and responses as people write and read them."""

import json

import pytest

from ext_authz.decision import Allow, Deny, Mutations
from ext_authz.errors import Reason
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize
from ext_authz.wire.json_form import JsonFormError, check_request_from_json, check_response_to_json


@pytest.mark.parametrize(
    ("context", "session"), [("context_extensions", "tls_session"), ("contextExtensions", "tlsSession")]
)
def test_a_request_is_read_with_either_spelling_of_field_names(context: str, session: str) -> None:
    text = json.dumps(
        {
            "attributes": {
                "request": {"http": {"method": "GET", "path": "/a", "host": "b", "headers": {"x-a": "1"}}},
                "source": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 7}}},
                context: {"k": "v"},
                session: {"sni": "b"},
            }
        }
    )
    facts = parse_check_request(check_request_from_json(text))
    assert (facts.method, facts.path, facts.sni, facts.source_port) == ("GET", "/a", "b", 7)
    assert facts.headers.get_all("x-a") == ("1",)
    assert facts.context_extensions == {"k": "v"}


def test_raw_header_values_are_base64() -> None:
    text = '{"attributes":{"request":{"http":{"header_map":{"headers":[{"key":"x-a","raw_value":"/w=="}]}}}}}'
    request = CheckRequest.FromString(check_request_from_json(text))
    assert request.attributes.request.http.header_map.headers[0].raw_value == b"\xff"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"attributes":{"request":{"htpp":{}}}}', "htpp"),
        ('{"atributes":{}}', "atributes"),
        ('{"attributes":{"request":{"http":{"method":7}}}}', "method"),
        ('{"attributes":{"source":{"address":{"socket_address":{"port_value":-1}}}}}', "port_value"),
        ('{"attributes":{"request":{"time":"yesterday"}}}', "attributes.request.time"),
        ("[]", ""),
        ("null", ""),
        ("7", ""),
        ("", ""),
        ("{", ""),
        ('{"attributes":{"request":{"http":{"method":"\\ud800"}}}}', ""),
        ('{"attributes":{},"attributes":{}}', "attributes"),
        ('{"attributes":' * 2000, ""),
        (
            '{"attributes":{"metadata_context":{"typed_filter_metadata":{"a":{"@type":"type.googleapis.com/x.Y"}}}}}',
            "x.Y",
        ),
    ],
)
def test_text_that_is_no_request_is_an_error_that_names_the_field(text: str, names: str) -> None:
    with pytest.raises(JsonFormError, match="not a CheckRequest in protobuf JSON") as error:
        check_request_from_json(text)
    assert names in str(error.value)


def test_a_response_is_printed_with_the_names_of_the_proto_files() -> None:
    allowed = Allow(Reason.OK, Mutations(set_request_headers=(("x-a", "ü"),), remove_request_headers=("x-b",)))
    assert json.loads(check_response_to_json(serialize(allowed))) == {
        "status": {},
        "ok_response": {
            "headers": [
                {
                    "header": {"key": "x-a", "value": "ü"},
                    "append": False,
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            "headers_to_remove": ["x-b"],
        },
    }


@pytest.mark.parametrize(("http_status", "shown"), [(403, "Forbidden"), (418, 418)])
def test_a_status_is_shown_by_name_where_it_has_one(http_status: int, shown: object) -> None:
    printed = json.loads(check_response_to_json(serialize(Deny(Reason.NO_RULE, http_status))))
    assert printed["denied_response"]["status"]["code"] == shown


def test_bytes_that_are_no_response_are_an_error() -> None:
    with pytest.raises(JsonFormError):
        check_response_to_json(b"\xff")


def test_a_response_that_json_cannot_express_is_an_error() -> None:
    unknown = CheckResponse()
    unknown.status.details.add(type_url="type.googleapis.com/x.Y", value=b"1")
    not_finite = CheckResponse()
    not_finite.dynamic_metadata["a"] = float("nan")
    for response in (unknown, not_finite):
        with pytest.raises(JsonFormError):
            check_response_to_json(response.SerializeToString())
