"""A token issuer as it is written in `kind: Server`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from ext_authz.config.server_words import Algorithm, HttpUrl, Seconds, TokenType
from ext_authz.config.written import Items, Name, Text, Written, refuse

__all__ = ["MAX_SKEW_SECONDS", "WrittenIssuer", "WrittenKeys"]

MAX_SKEW_SECONDS = 300.0
"""Clocks that differ by more are broken, and an expired token would live on for as long."""


class WrittenKeys(Written):
    """Where an issuer's keys come from: exactly one of `url`, `discovery`, `metadata_url`, `file` and `inline`."""

    model_config: ClassVar = {
        **Written.model_config,
        "json_schema_extra": {
            "oneOf": [{"required": [key]} for key in ("url", "discovery", "metadata_url", "file", "inline")]
        },
    }

    url: HttpUrl | None = Field(default=None, examples=["https://login.example.com/jwks"])
    """A JWKS."""

    discovery: Literal[True] | None = Field(default=None, examples=[True])
    """The JWKS that the issuer's own metadata names (RFC 8414, then OpenID Connect Discovery)."""

    metadata_url: HttpUrl | None = Field(
        default=None, examples=["https://login.example.com/.well-known/oauth-authorization-server"]
    )
    """The metadata document, where it is not at a well-known place."""

    file: Text | None = Field(default=None, examples=["keys/corp.json"])
    """A JWKS file, relative to this file; read again when it changes."""

    inline: dict[str, JsonValue] | None = Field(default=None, examples=[{"keys": []}])
    """A JWKS written here."""

    ca_file: Text | None = Field(default=None, examples=["ca/corp.pem"])
    """PEM file of the roots for the URL, relative to this file; the system's when not given."""

    @model_validator(mode="after")
    def _one_source(self) -> "WrittenKeys":
        remote = (self.url, self.discovery, self.metadata_url)
        written = [key for key in (*remote, self.file, self.inline) if key is not None]
        if len(written) != 1:
            raise refuse("write exactly one of `url`, `discovery`, `metadata_url`, `file` and `inline`")
        if self.ca_file is not None and not any(remote):
            raise refuse("nothing is fetched, so `ca_file` has no use; remove it", at="ca_file")
        if self.inline is not None and not isinstance(self.inline.get("keys"), list):
            raise refuse("a JWKS is a mapping with a list `keys`; write `inline: {keys: [...]}`", at="inline")
        return self


class WrittenIssuer(Written):
    """One issuer's terms. Every token is held to RFC 9068 unless a key here says otherwise."""

    name: Name
    """What policies call it."""

    issuer: Text = Field(examples=["https://login.example.com/"])
    """The claim `iss`, compared exactly: a trailing slash makes another issuer."""

    audiences: Items[Text] = Field(default=(), examples=[["https://api.example.com"]])
    """The token's `aud` must hold one of these."""

    keys: WrittenKeys = Field(examples=[{"discovery": True}])
    """Where its keys come from."""

    algorithms: Annotated[Items[Algorithm], Field(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    """Signature algorithms accepted."""

    types: Annotated[Items[TokenType], Field(min_length=1)] = ("at+jwt",)
    """JWS `typ` values accepted (RFC 9068 §2.1)."""

    required_claims: Items[Text] = ("client_id", "iat", "jti")
    """Claims that must be there besides iss, sub, exp and aud, which always must."""

    skew_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """Clock difference allowed either way."""

    maximum_lifetime_seconds: Seconds | None = Field(default=None, examples=[3600])
    """Longest `exp - iat` accepted; any when not given."""

    client_id_claim: Text = Field(default="client_id", examples=["azp"])
    """The claim that names the client."""

    scope_claim: Text = Field(default="scope", examples=["scp"])
    """The claim that holds the scopes."""

    scope_array: bool = False
    """Accept a list of texts as the scope claim, besides one text with spaces."""

    ignored_headers: Items[Text] = Field(default=(), examples=[["rh"]])
    """JOSE header members of this issuer's own that are passed over; any other unknown one is refused."""

    insecure_allow_http: bool = False
    """Fetch keys, or name the issuer, over `http` to another host: whoever is on the way can sign tokens."""

    insecure_any_audience: bool = False
    """Accept tokens that were issued for other services."""

    insecure_accept_generic_jwt_type: bool = False
    """Accept `JWT` in `types` (or no `typ`, written `""`): an ID token of the same issuer could pass (RFC 8725 §3.11)."""

    insecure_large_skew: bool = False
    """Accept more than 300 seconds of clock difference."""
