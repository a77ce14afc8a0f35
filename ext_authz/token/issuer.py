"""What we accept from one token issuer."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["DiscoveredKeys", "InlineKeys", "Issuer", "KeyFile", "KeySource", "KeyUrl"]


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """A JWKS behind a URL (https, or http on loopback).

    Attributes:
        url: absolute.
        ca_file: PEM file of the roots for this URL, or None for the system's.
    """

    url: str
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class DiscoveredKeys:
    """A JWKS whose URL the issuer's metadata names: RFC 8414, then OpenID Connect Discovery.

    Attributes:
        url: the metadata document's URL, or None to derive both well-known locations from the issuer identifier.
        ca_file: as in `KeyUrl`.
    """

    url: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A JWKS in a local file, reloaded on change.

    Attributes:
        path: absolute path.
    """

    path: str


@dataclass(frozen=True, slots=True)
class InlineKeys:
    """A JWKS written in the configuration.

    Attributes:
        jwks: the JSON text.
    """

    jwks: str


KeySource: TypeAlias = KeyUrl | DiscoveredKeys | KeyFile | InlineKeys


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer's terms.

    Attributes:
        name: what policies call it.
        issuer: `iss`, compared exactly.
        audiences: the token's `aud` must hold one of these (RFC 9068 §4).
        plain_http: fetch keys over http from any host. Only configuration with an `insecure_...` flag sets it.
        any_audience: accept any `aud`; `audiences` is empty then. Only configuration with an `insecure_...` flag sets it.
        keys: where its keys come from.
        algorithms: JWS `alg` values accepted.
        types: JWS `typ` values accepted, lowercase, without `application/` (RFC 9068 §2.1: `at+jwt`). The empty string
            stands for a token without `typ`.
        required_claims: claims that must be there beyond iss, sub, exp and aud, which always must. `client_id` here
            means the claim that `client_id_claim` names.
        skew: seconds of clock difference allowed either way.
        maximum_lifetime: longest `exp - iat` accepted in seconds, or None.
        client_id_claim: the claim that names the client (`client_id` by RFC 9068; `azp` with some servers).
        scope_claim: the claim that holds scopes: a space-separated string, or an array of strings where `scope_array` says so.
        scope_array: accept an array of strings as the scope claim.
        ignored_headers: JOSE header members of this issuer's own that are passed over; any other unknown one is refused.
    """

    name: str
    issuer: str
    audiences: frozenset[str]
    keys: KeySource
    algorithms: frozenset[str] = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
    types: frozenset[str] = frozenset({"at+jwt"})
    required_claims: frozenset[str] = frozenset({"sub", "client_id", "iat", "jti"})
    skew: float = 30.0
    maximum_lifetime: float | None = None
    client_id_claim: str = "client_id"
    scope_claim: str = "scope"
    scope_array: bool = False
    ignored_headers: frozenset[str] = frozenset()
    any_audience: bool = False
    plain_http: bool = False
