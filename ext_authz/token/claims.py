"""The claims of a JWT access token (RFC 9068 §2.2, RFC 7519 §4.1) under one issuer's terms."""

import re
from collections.abc import Hashable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue, VerifiedToken
from ext_authz.token.confirmation import parse_confirmation
from ext_authz.token.issuer import Issuer

__all__ = ["check_times", "verify_claims"]

MAX_STRING_CHARACTERS = 1_024
"""Of an identifier: subject, client, token id, audience. URLs and distinguished names fit."""

MAX_AUDIENCES = 100
"""Tokens in use name 1 to 5."""

MAX_SCOPE_CHARACTERS = 8_192
"""Half of the longest token."""

MAX_SCOPES = 1_000
"""As many as an array of scopes in the longest token could reasonably hold."""

MAX_NUMERIC_DATE = 253_402_300_800
"""Year 10000, exclusive: a date beyond it is a mistake (milliseconds) or an attack on arithmetic."""

_SHARED_VALUES = 4_096
"""Distinct client ids, scopes, audiences and confirmations that cached tokens share; only verified tokens bring any."""

# RFC 9068 §2.2; without them there is nobody to speak of and no end to it
_ALWAYS_REQUIRED = ("exp", "aud", "sub")

# RFC 6749 §3.3: scope = scope-token *( SP scope-token ); scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = r"[\x21\x23-\x5b\x5d-\x7e]++"  # noqa: S105 - a grammar
_SCOPE_TOKEN_ONLY = re.compile(_SCOPE_TOKEN)
_SCOPE = re.compile(rf"{_SCOPE_TOKEN}(?: {_SCOPE_TOKEN})*")

_Shared = TypeVar("_Shared", str, tuple[str, ...], frozenset[str])


def verify_claims(claims: Mapping[str, JsonValue], issuer: Issuer) -> VerifiedToken:
    """Claims, whose signature is verified, to the token they describe; its times are for `check_times`.

    Args:
        claims: the whole payload; its `iss` is the issuer's.
        issuer: whose terms count.

    Raises:
        Refusal: CLAIM_MISSING, CLAIM_MALFORMED, AUDIENCE_MISMATCH, TOKEN_LIFETIME_TOO_LONG, BINDING_MALFORMED,
            BINDING_METHOD_NOT_SUPPORTED.
    """
    for name in _required(issuer.required_claims, issuer.client_id_claim):
        # JSON null is no value
        if claims.get(name) is None:
            raise Refusal(Reason.CLAIM_MISSING, "a claim that RFC 9068 or the issuer's terms require is missing")
    audiences = _audiences(claims)
    if not issuer.any_audience and issuer.audiences.isdisjoint(audiences):
        raise Refusal(Reason.AUDIENCE_MISMATCH, "the token is meant for another audience")
    audiences = _shared(audiences)
    client_id = _shared(_text(claims[issuer.client_id_claim])) if issuer.client_id_claim in claims else None
    confirmation = parse_confirmation(claims)
    token = VerifiedToken(
        issuer.name,
        issuer.issuer,
        subject=_text(claims["sub"]),
        client_id=client_id,
        audiences=audiences,
        scopes=_scopes(claims, issuer),
        token_id=_text(claims["jti"]) if "jti" in claims else None,
        issued_at=_date(claims["iat"]) if "iat" in claims else None,
        expires_at=_date(claims["exp"]),
        not_before=_date(claims["nbf"]) if "nbf" in claims else None,
        skew=issuer.skew,
        confirmation=confirmation,
        claims=_with_shared_values(claims, issuer, audiences, client_id),
    )
    if issuer.maximum_lifetime is not None:
        _check_lifetime(token, issuer.maximum_lifetime)
    return token


@lru_cache(maxsize=_SHARED_VALUES)
def _required(beyond: frozenset[str], client_id_claim: str) -> tuple[str, ...]:
    """The claims that must be there, by the names that the issuer has for them."""
    return (*_ALWAYS_REQUIRED, *(client_id_claim if name == "client_id" else name for name in beyond))


def check_times(token: VerifiedToken, now: float) -> None:
    """Return while the token may be used: `nbf - skew <= now < exp + skew`, and the same from `iat` as from `nbf`.

    Raises:
        Refusal: TOKEN_EXPIRED, TOKEN_NOT_YET_VALID.
    """
    if now >= token.expires_at + token.skew:
        raise Refusal(Reason.TOKEN_EXPIRED, "the token has expired")
    if token.not_before is not None and now < token.not_before - token.skew:
        raise Refusal(Reason.TOKEN_NOT_YET_VALID, "the token is not valid yet")
    if token.issued_at is not None and now < token.issued_at - token.skew:
        raise Refusal(Reason.TOKEN_NOT_YET_VALID, "the token was issued in the future")


def _check_lifetime(token: VerifiedToken, maximum: float) -> None:
    if token.issued_at is None:
        raise Refusal(Reason.CLAIM_MISSING, "the claim `iat` is missing, and with it the token's lifetime")
    if token.expires_at - token.issued_at > maximum:
        raise Refusal(Reason.TOKEN_LIFETIME_TOO_LONG, "the token lives longer than the issuer's terms allow")


def _date(value: JsonValue) -> float:
    """A NumericDate (RFC 7519 §2). Numbers in claims are finite."""
    # bool is an int to isinstance
    if (type(value) is int or type(value) is float) and 0 <= value < MAX_NUMERIC_DATE:
        return value
    raise Refusal(Reason.CLAIM_MALFORMED, "a date is not a number of seconds before the year 10000")


def _text(value: JsonValue) -> str:
    """A bounded printable string."""
    if isinstance(value, str) and _is_identifier(value):
        return value
    raise Refusal(
        Reason.CLAIM_MALFORMED,
        f"an identifier is not a string of 1 to {MAX_STRING_CHARACTERS} printable characters",
    )


def _is_identifier(value: str) -> bool:
    return 0 < len(value) <= MAX_STRING_CHARACTERS and value.isprintable()


def _audiences(claims: Mapping[str, JsonValue]) -> tuple[str, ...]:
    # RFC 7519 §4.1.3: an array of strings, or one string
    value = claims["aud"]
    if isinstance(value, str) and _is_identifier(value):
        return (value,)
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, tuple) or not 0 < len(items) <= MAX_AUDIENCES:
        raise Refusal(Reason.CLAIM_MALFORMED, f"the claim `aud` is not a string or an array of 1 to {MAX_AUDIENCES}")
    audiences = tuple(item for item in items if isinstance(item, str) and _is_identifier(item))
    if len(audiences) != len(items):
        raise Refusal(Reason.CLAIM_MALFORMED, "an audience is not a bounded printable string")
    return audiences


def _scopes(claims: Mapping[str, JsonValue], issuer: Issuer) -> frozenset[str]:
    """The token's scopes; none when the claim is absent, or the empty string that some servers send for none."""
    if issuer.scope_claim not in claims:
        return frozenset()
    value = claims[issuer.scope_claim]
    if isinstance(value, str):
        return _scope_tokens(value)
    if not issuer.scope_array or not isinstance(value, tuple) or len(value) > MAX_SCOPES:
        raise Refusal(Reason.CLAIM_MALFORMED, "the scope is neither a string nor an array that the issuer may send")
    scopes = frozenset(item for item in value if isinstance(item, str) and _SCOPE_TOKEN_ONLY.fullmatch(item))
    if not all(isinstance(item, str) and item in scopes for item in value):
        raise Refusal(Reason.CLAIM_MALFORMED, "a member of the scope array is not a scope token")
    return _shared(scopes)


@lru_cache(maxsize=_SHARED_VALUES)
def _scope_tokens(scope: str) -> frozenset[str]:
    if scope and (len(scope) > MAX_SCOPE_CHARACTERS or not _SCOPE.fullmatch(scope)):
        raise Refusal(Reason.CLAIM_MALFORMED, "the scope is not a list of scope tokens separated by single spaces")
    return _shared(frozenset(scope.split(" ") if scope else ()))


def _with_shared_values(
    claims: Mapping[str, JsonValue], issuer: Issuer, audiences: tuple[str, ...], client_id: str | None
) -> Mapping[str, JsonValue]:
    """Equal claims whose values that repeat from token to token are the same objects in all of them."""
    members = dict(claims)
    members["iss"] = issuer.issuer
    if isinstance(members["aud"], str):
        members["aud"] = audiences[0]
    if client_id is not None:
        members[issuer.client_id_claim] = client_id
    if isinstance(scope := members.get(issuer.scope_claim), str):
        members[issuer.scope_claim] = _shared(scope)
    cnf = members.get("cnf")
    if type(cnf) is MappingProxyType:
        # one thumbprint and nothing else: `parse_confirmation` has seen to it
        members["cnf"] = _shared_members(*cnf.items())
    return MappingProxyType(members)


@lru_cache(maxsize=_SHARED_VALUES)
def _shared_members(*items: tuple[str, JsonValue]) -> Mapping[str, JsonValue]:
    return MappingProxyType(dict(items))


def _shared(value: _Shared) -> _Shared:
    """An equal value that other tokens hold already: 100,000 cached tokens of few clients then hold few of them."""
    shared: _Shared = _first_seen(value)
    return shared


@lru_cache(maxsize=_SHARED_VALUES)
def _first_seen(value: Hashable) -> Any:  # noqa: ANN401 - what went in
    return value
