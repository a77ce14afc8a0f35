"""The `cnf` claim (RFC 7800 §3.1): what the token is bound to."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import Confirmation, JsonValue
from ext_authz.token.base64url import decode_base64url

__all__ = ["parse_confirmation"]

_MEMBERS = frozenset({"x5t#S256"})

_CERTIFICATES = 4_096
"""Callers whose tokens share what they are bound to; as many as certificates are remembered."""


def parse_confirmation(claims: Mapping[str, JsonValue]) -> Confirmation | None:
    """The token's binding; None when the claims hold no `cnf`.

    A binding that we cannot check is a fault of the token here: nothing that was meant to restrict it is passed over.

    Raises:
        Refusal: BINDING_MALFORMED when `cnf` is not an object or the thumbprint not 43 base64url characters;
            BINDING_METHOD_NOT_SUPPORTED when it holds no `x5t#S256`, or another member beside it.
    """
    if "cnf" not in claims:
        return None
    members = claims["cnf"]
    # what a parsed object is, before the slow general question
    if type(members) is not MappingProxyType and not isinstance(members, Mapping):
        raise Refusal(Reason.BINDING_MALFORMED, "the claim `cnf` is not an object")
    if members.keys() != _MEMBERS:
        raise Refusal(
            Reason.BINDING_METHOD_NOT_SUPPORTED, "the claim `cnf` holds something other than `x5t#S256` alone"
        )
    thumbprint = members["x5t#S256"]
    # RFC 8705 §3.1: base64url without padding, line breaks or white space; 32 bytes are 43 characters
    if not isinstance(thumbprint, str) or len(thumbprint) != 43:
        raise Refusal(Reason.BINDING_MALFORMED, "`x5t#S256` is not a string of 43 characters")
    return _confirmation(thumbprint)


# one caller's tokens are bound to the one certificate of its own
@lru_cache(maxsize=_CERTIFICATES)
def _confirmation(thumbprint: str) -> Confirmation:
    digest = decode_base64url(thumbprint)
    if digest is None:
        raise Refusal(Reason.BINDING_MALFORMED, "`x5t#S256` is not canonical base64url")
    return Confirmation(digest)
