"""`Decision` to CheckResponse bytes: the only place that builds one.

`serialize` always returns bytes, and what they say is what the decision says. Envoy reads a missing status as an allow
and an unreadable answer as a failed check, which `failure_mode_allow` may turn into an allow; so the status is always
written, and what cannot be written is a denial.

Header options carry `append: false` as well as `OVERWRITE_IF_EXISTS_OR_ADD`. Envoy up to 1.36 reads only the former for
request headers; every version that knows both prefers the former where it is present.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct, Value

from ext_authz.decision import Allow, Decision, Deny, Mutations
from ext_authz.errors import Reason
from ext_authz.principal import JsonValue
from ext_authz.wire._pb.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption, QueryParameter
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import (
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from ext_authz.wire.encoding import delimited, tag_of
from ext_authz.wire.metadata import struct_bytes

__all__ = ["DECISION_ID_LENGTH", "says_internal_error", "serialize"]

DECISION_ID_LENGTH = 32
"""Characters, all ASCII: with a fixed length everything around an id is encoded once."""

_GRPC_CODES = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    409: 10,  # ABORTED
    429: 8,  # RESOURCE_EXHAUSTED
    500: 13,  # INTERNAL
    501: 12,  # UNIMPLEMENTED
    503: 14,  # UNAVAILABLE
    504: 4,  # DEADLINE_EXCEEDED
}
_PERMISSION_DENIED = 7
_INTERNAL = 13

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_NOT_IN_FIELD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 §5.5: all of CTL but HTAB
# What ends a parameter (RFC 3986 §3.4; `;` as older parsers see it), a space and all that is not ASCII is out.
_QUERY_VALUE = re.compile(r"[!-\"$-%'-:<-~]*")
_QUERY_NAME = re.compile(r"[!-\"$-%'-:<>-~]+")

_LONGEST_REMEMBERED = 1024
"""Characters of a header value that is kept encoded: longer ones are certificates, which cost little beside their size."""

# A Status that is there and has code 0.
_OK_STATUS = delimited(tag_of(CheckResponse, "status"), b"")
_OK_RESPONSE = tag_of(CheckResponse, "ok_response")
_METADATA = tag_of(CheckResponse, "dynamic_metadata")
_REQUEST_HEADER = tag_of(OkHttpResponse, "headers")
_RESPONSE_HEADER = tag_of(OkHttpResponse, "response_headers_to_add")
_REMOVED_HEADER = tag_of(OkHttpResponse, "headers_to_remove")
_PARAMETER = tag_of(OkHttpResponse, "query_parameters_to_set")
_REMOVED_PARAMETER = tag_of(OkHttpResponse, "query_parameters_to_remove")
_HEADER = tag_of(HeaderValueOption, "header")
_KEY = tag_of(HeaderValue, "key")
_VALUE = tag_of(HeaderValue, "value")


# one entry of `Struct.fields` is a message with a key and a Value, as every protobuf map
_FIELDS = tag_of(Struct, "fields")
_ENTRY_KEY, _ENTRY_VALUE = b"\x0a", b"\x12"
_STRING_VALUE = tag_of(Value, "string_value")


def _entry_until_its_text(key: str, length: int) -> bytes:
    """A text entry of a Struct, without the text itself, which is `length` bytes and comes last."""
    text = b"\x00" * length
    value = delimited(_STRING_VALUE, text)
    entry = delimited(_FIELDS, delimited(_ENTRY_KEY, key.encode()) + delimited(_ENTRY_VALUE, value))
    return entry.removesuffix(text)


_ID_ENTRY = _entry_until_its_text("decision_id", DECISION_ID_LENGTH)


def _until_the_id(reason: Reason) -> bytes:
    """Metadata that tells the reason and the decision id, without the id, which comes last."""
    reason_entry = _entry_until_its_text("reason", len(reason.value)) + reason.value.encode()
    content = reason_entry + _ID_ENTRY
    return delimited(_METADATA, content + b"\x00" * DECISION_ID_LENGTH)[:-DECISION_ID_LENGTH]


_UNTIL_THE_ID = {reason: _until_the_id(reason) for reason in Reason}


def _overwriting(*, keep_empty_value: bool) -> bytes:
    option = HeaderValueOption(
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD, keep_empty_value=keep_empty_value
    )
    # present and false
    option.append.SetInParent()
    return option.SerializeToString()


_OVERWRITE = _overwriting(keep_empty_value=False)
# An empty value must not be taken for "leave what the client sent".
_OVERWRITE_WITH_EMPTY = _overwriting(keep_empty_value=True)


def serialize(
    decision: Decision,
    decision_id: str = "",
    *,
    id_in_metadata: bool = True,
    errors_as_error_response: bool = False,
) -> bytes:
    """The answer to Envoy.

    An `Allow` that cannot be written (a header name that is no token, a control character in a value, text that is not
    Unicode, metadata nested too deeply) is answered as the denial `internal_error`; `says_internal_error` tells. A
    `Deny` always denies: of its parts, those that cannot be written are left out.

    Args:
        decision: what was decided.
        decision_id: `DECISION_ID_LENGTH` ASCII characters, told in the metadata together with the reason and in the body of a
            denial that asks for it; empty for a decision without one.
        id_in_metadata: whether the metadata tells `decision_id` and `reason`.
        errors_as_error_response: answer denials with a status of 500 and above as Envoy's `error_response`, which hands
            the decision to the operator's `failure_mode_allow`.

    Returns:
        A serialized `envoy.service.auth.v3.CheckResponse`.
    """
    try:
        if isinstance(decision, Allow):
            return _allowed(decision, decision_id if id_in_metadata else "")
        if decision_id:
            return _identified_denied(decision, decision_id, id_in_metadata, errors_as_error_response)
        return _denied(decision, errors_as_error_response)
    except Exception:  # noqa: BLE001 - whatever cannot be said is a denial, never an error of the call
        return _FAILED_AS_ERROR if errors_as_error_response else _FAILED


def says_internal_error(response: bytes) -> bool:
    """Whether `response` is what `serialize` returned for an `Allow` that it could not write."""
    return response in (_FAILED, _FAILED_AS_ERROR)


def _id_bytes(decision_id: str) -> bytes:
    if len(decision_id) != DECISION_ID_LENGTH:
        raise ValueError("a decision id has another length")
    return decision_id.encode("ascii")


def _metadata(values: Mapping[str, JsonValue], reason: Reason, decision_id: str) -> bytes:
    """The dynamic metadata field: a rule's own values, and what is ours where both have the same name."""
    if not decision_id:
        return delimited(_METADATA, struct_bytes(values)) if values else b""
    if not values:
        return _UNTIL_THE_ID[reason] + _id_bytes(decision_id)
    own: dict[str, JsonValue] = {**values, "reason": reason.value}
    own.pop("decision_id", None)
    return delimited(_METADATA, struct_bytes(own) + _ID_ENTRY + _id_bytes(decision_id))


def _allowed(decision: Allow, decision_id: str) -> bytes:
    response = (_remembered_changes if decision.recurring else _changes)(decision.mutations)
    if decision_id or decision.dynamic_metadata:
        response += _metadata(decision.dynamic_metadata, decision.reason, decision_id)
    return response


def _changes(mutations: Mutations) -> bytes:
    """The status and all that an allowed request and its response are to have changed."""
    parts = [_header(_REQUEST_HEADER, name, value) for name, value in mutations.set_request_headers]
    parts.append(_removals(mutations.remove_request_headers))
    if mutations.set_response_headers or mutations.set_query_parameters or mutations.remove_query_parameters:
        parts += _rarer_mutations(mutations)
    return _OK_STATUS + delimited(_OK_RESPONSE, b"".join(parts))


# by what they hold: equal changes are equal bytes, whoever they are for; at some 2 KB each, and never more than `answers.is_short` lets through
_remembered_changes = lru_cache(maxsize=4096)(_changes)


def _rarer_mutations(mutations: Mutations) -> list[bytes]:
    parts = [_header(_RESPONSE_HEADER, name, value) for name, value in mutations.set_response_headers]
    for name, value in mutations.set_query_parameters:
        # Envoy puts both into the query string as they are: an `&` in a value would begin another parameter
        if not (_QUERY_NAME.fullmatch(name) and _QUERY_VALUE.fullmatch(value)):
            raise ValueError("a query parameter is not percent-encoded")
        parts.append(delimited(_PARAMETER, QueryParameter(key=name, value=value).SerializeToString()))
    parts += [delimited(_REMOVED_PARAMETER, name.encode()) for name in mutations.remove_query_parameters]
    return parts


def _header(field_tag: bytes, name: str, value: str) -> bytes:
    """One HeaderValueOption that overwrites."""
    if len(value) <= _LONGEST_REMEMBERED:
        return _remembered_header(field_tag, name, value)
    return _written_header(field_tag, name, value)


def _written_header(field_tag: bytes, name: str, value: str) -> bytes:
    if not value.isprintable() and _NOT_IN_FIELD_VALUE.search(value):
        raise ValueError("a header value has a control character")
    header = delimited(_HEADER, _key(name) + delimited(_VALUE, value.encode()))
    return delimited(field_tag, header + (_OVERWRITE if value else _OVERWRITE_WITH_EMPTY))


# a caller's values come again with each of its requests; at most some 10 MB
_remembered_header = lru_cache(maxsize=4096)(_written_header)


# names are the operator's, so few; the bound is for the configuration that makes one up for each request
@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return delimited(_KEY, _checked_name(name))


# the removals of a rule, with those override headers that the client happened to send
@lru_cache(maxsize=4096)
def _removals(names: tuple[str, ...]) -> bytes:
    return b"".join([delimited(_REMOVED_HEADER, _checked_name(name)) for name in names])


def _checked_name(name: str) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header name is not a token")
    return name.encode()


def _denied(decision: Deny, errors_as_error_response: bool) -> bytes:
    response = _denial(decision.http_status, decision.headers, decision.body, errors_as_error_response)
    if decision.dynamic_metadata:
        try:
            response += delimited(_METADATA, struct_bytes(decision.dynamic_metadata))
        except Exception:  # noqa: BLE001 - a denial without its metadata is still the denial
            return response
    return response


def _identified_denied(decision: Deny, decision_id: str, id_in_metadata: bool, errors_as_error_response: bool) -> bytes:
    parts = _identified_denial(
        decision.http_status,
        decision.headers,
        decision.identified_body or (decision.body,),
        decision.reason if id_in_metadata and not decision.dynamic_metadata else None,
        errors_as_error_response,
    )
    response = _id_bytes(decision_id).join(parts)
    if decision.dynamic_metadata:
        try:
            response += _metadata(decision.dynamic_metadata, decision.reason, decision_id if id_in_metadata else "")
        except Exception:  # noqa: BLE001 - a denial without its metadata is still the denial
            return response
    return response


@lru_cache(maxsize=512)
def _identified_denial(
    http_status: int,
    headers: tuple[tuple[str, str], ...],
    body: tuple[str, ...],
    reason: Reason | None,
    errors_as_error_response: bool,
) -> tuple[bytes, ...]:
    """The whole response in parts between which the decision id stands, last in the metadata if there is a `reason`."""
    response = CheckResponse.FromString(_denial(http_status, headers, "", errors_as_error_response))
    field = "error_response" if response.HasField("error_response") else "denied_response"
    answer = getattr(response, field).SerializeToString()
    response.ClearField(field)
    texts = [part.encode(errors="replace") for part in body]
    size = sum(map(len, texts)) + DECISION_ID_LENGTH * (len(texts) - 1)
    # the lengths in front are right for any id, because all are equally long
    answer += delimited(tag_of(DeniedHttpResponse, "body"), b"\x00" * size)[:-size] if size else b""
    head = delimited(tag_of(CheckResponse, field), answer + b"\x00" * size)
    texts[0] = response.SerializeToString() + (head[:-size] if size else head) + texts[0]
    if reason is not None:
        texts[-1] += _UNTIL_THE_ID[reason]
        texts.append(b"")
    return tuple(texts)


# denials are rendered once for each kind and scope set, so the same few come again and again
@lru_cache(maxsize=512)
def _denial(http_status: int, headers: tuple[tuple[str, str], ...], body: str, errors_as_error_response: bool) -> bytes:
    response = CheckResponse()
    # a denial that said 200, or a number that is no status, would not look like one to the client
    status = http_status if 300 <= http_status <= 599 else 403
    response.status.code = _GRPC_CODES.get(status, _INTERNAL if status >= 500 else _PERMISSION_DENIED)
    is_error = errors_as_error_response and status >= 500
    answer = response.error_response if is_error else response.denied_response
    answer.status.code = status  # type: ignore[assignment]  # the enum is open: a number is a value
    answer.body = body.encode(errors="replace").decode()
    _add_headers(answer, headers)
    return response.SerializeToString()


def _add_headers(answer: DeniedHttpResponse, headers: tuple[tuple[str, str], ...]) -> None:
    seen: set[str] = set()
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _NOT_IN_FIELD_VALUE.search(value):
            continue
        option = answer.headers.add()
        option.header.key = name
        option.header.value = value.encode(errors="replace").decode()
        # a second challenge stands beside the first (RFC 9110 §11.6.1)
        if name.lower() in seen:
            # `append: true` would have Envoy drop it: on a denial it appends only to what the proxy itself has set
            option.append_action = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
        else:
            option.append.SetInParent()
            option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        seen.add(name.lower())


_FAILED = _denial(500, (), "", False)
_FAILED_AS_ERROR = _denial(500, (), "", True)
