"""CheckRequest and CheckResponse in protobuf JSON, for people: the command line reads and prints it."""

from google.protobuf import json_format
from google.protobuf.message import DecodeError, EncodeError

from ext_authz.errors import ExtAuthzError
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

__all__ = ["JsonFormError", "check_request_from_json", "check_response_to_json"]


class JsonFormError(ExtAuthzError):
    """The text or the message has no counterpart in the other form; the message says which field and why."""


def check_request_from_json(text: str) -> bytes:
    """The serialized CheckRequest that `text` describes.

    Args:
        text: protobuf JSON; field names as in the `.proto` files or in lowerCamelCase.

    Raises:
        JsonFormError: not JSON, a field that CheckRequest does not have (named), or a value of the wrong type.
    """
    # the parser takes an empty array for an empty message
    if not text.lstrip().startswith("{"):
        raise JsonFormError("not a CheckRequest in protobuf JSON: not a JSON object")
    request = CheckRequest()
    try:
        json_format.Parse(text, request)
        return request.SerializeToString()
    # beside its own ParseError, the parser lets errors of the JSON decoder and of odd values through
    except (json_format.Error, EncodeError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise JsonFormError(f"not a CheckRequest in protobuf JSON: {error}") from error


def check_response_to_json(data: bytes) -> str:
    """A serialized CheckResponse as indented protobuf JSON, with the field names of the `.proto` files.

    Raises:
        JsonFormError: `data` is not a CheckResponse, or holds what JSON cannot say (an `Any` of an unknown type, NaN).
    """
    try:
        response = CheckResponse.FromString(data)
        return json_format.MessageToJson(response, preserving_proto_field_name=True, ensure_ascii=False)
    except (DecodeError, json_format.Error, ValueError, TypeError, RecursionError) as error:
        raise JsonFormError(f"not a CheckResponse that JSON can express: {error}") from error
