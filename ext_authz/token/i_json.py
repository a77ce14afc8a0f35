"""Strict JSON objects (RFC 7493, I-JSON): one text, one meaning, bounded work."""

import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import orjson

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue

__all__ = ["MAX_DEPTH", "MAX_NUMBER_CHARACTERS", "parse_object"]

MAX_DEPTH = 16
"""Nesting of arrays and objects. Claims in use nest 3 or 4 levels (`cnf.jwk`, `authorization_details`)."""

MAX_NUMBER_CHARACTERS = 32
"""Longer than any 64-bit integer or shortest text of a double; int() of thousands of digits costs quadratic time."""

# In text without escapes. The closing quote is optional, so that an unterminated string is read once and not once per quote.
_STRING_OR_BRACKET = re.compile(r'"[^"]*+"?|[\[\]{}]')

# The same names in every token: one string object for all of them keeps a cached token small.
_COMMON_NAMES: Mapping[str, str] = {
    name: name
    for name in (
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "x5t#S256"),
        *("azp", "scp", "acr", "amr", "auth_time", "sid", "roles", "groups", "name", "email", "preferred_username"),
        *("alg", "typ", "kid", "kty", "crv", "use"),
    )
}


class _NotIJsonError(ValueError):
    """The text is JSON that RFC 7493 rules out, with the sentence to say so."""


def parse_object(data: bytes, reason: Reason) -> Mapping[str, JsonValue]:
    """Bytes to an object as read-only values (arrays are tuples), at any depth.

    Args:
        data: UTF-8 without a byte order mark. Its length is the caller's to bound.
        reason: what a refusal is to carry.

    Raises:
        Refusal: `reason`, for anything but one JSON object in UTF-8: other encodings, duplicate member names at any
            depth, lone surrogates, NaN and Infinity, numbers too long or beyond a double, more than MAX_DEPTH levels.
    """
    members = _read_canonical(data)
    if members is not None:
        return members
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Refusal(reason, "not UTF-8") from None
    if _is_too_deep(text):
        raise Refusal(reason, f"JSON nested deeper than {MAX_DEPTH} levels")
    try:
        value: JsonValue = _DECODER.decode(text)
    except _NotIJsonError as error:
        raise Refusal(reason, str(error)) from None
    except ValueError:
        raise Refusal(reason, "not JSON") from None
    if not isinstance(value, Mapping):
        raise Refusal(reason, "not a JSON object")
    # only an escape can bring a surrogate in: UTF-8 has none
    if "\\u" in text and not _is_text(value):
        raise Refusal(reason, "a lone surrogate in a JSON string")
    return value


def _read_canonical(data: bytes) -> Mapping[str, JsonValue] | None:
    """The object of a text that is exactly what its value is written as, or None: then the strict reader decides.

    Most servers write JSON without spaces, with numbers in their shortest form and with few escapes. When the fast reader's
    value written again is the same text, nothing of it was passed over: no second member of a name, no digit, no escape.
    """
    # as many brackets, in strings or not, cannot nest deeper
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        return None
    try:
        value = orjson.loads(data)
        if type(value) is dict and orjson.dumps(value) == data:
            return _freeze(value)
    except ValueError:
        # the strict reader says what is wrong
        pass
    return None


def _freeze(members: dict[str, Any]) -> Mapping[str, JsonValue]:
    for name, value in members.items():
        if type(value) is dict or type(value) is list:
            members[name] = _frozen(value)
    return MappingProxyType(members)


def _frozen(value: Any) -> JsonValue:  # noqa: ANN401 - JSON as a parser gives it
    if type(value) is dict:
        return _freeze(value)
    return tuple(map(_frozen, value)) if type(value) is list else value


def _is_too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    # JSON has a backslash in strings only, where these two say what ends one. An expression that steps over each of half a
    # million would remember every step.
    text = text.replace("\\\\", "").replace('\\"', "")
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first != '"':
            depth -= 1
    return False


def _is_text(value: JsonValue) -> bool:
    """Whether every string in `value` can be encoded."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, tuple):
        return all(_is_text(item) for item in value)
    if isinstance(value, Mapping):
        return all(_is_text(name) and _is_text(item) for name, item in value.items())
    return True


def _frozen_object(pairs: list[tuple[str, JsonValue]]) -> Mapping[str, JsonValue]:
    members = {
        _COMMON_NAMES.get(name, name): _frozen_array(value) if isinstance(value, list) else value
        for name, value in pairs
    }
    if len(members) != len(pairs):
        raise _NotIJsonError("a JSON member name appears twice")
    return MappingProxyType(members)


def _frozen_array(items: list[JsonValue]) -> tuple[JsonValue, ...]:
    return tuple(_frozen_array(item) if isinstance(item, list) else item for item in items)


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise _NotIJsonError("a JSON number is too long")
    return int(text)


def _bounded_float(text: str) -> float:
    value = float(text) if len(text) <= MAX_NUMBER_CHARACTERS else math.inf
    if not math.isfinite(value):
        raise _NotIJsonError("a JSON number is too long or beyond a double")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise _NotIJsonError("NaN or Infinity is not JSON")


# strict (the default): no control characters in strings
_DECODER = json.JSONDecoder(
    object_pairs_hook=_frozen_object,
    parse_int=_bounded_integer,
    parse_float=_bounded_float,
    parse_constant=_refuse_constant,
)
