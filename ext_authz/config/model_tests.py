"""`kind: PolicyTests` as it is written: requests, who sends them, and the decision that is expected."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from ext_authz.config.policy_words import SpiffeIdText
from ext_authz.config.problem import closest, shown
from ext_authz.config.written import ApiVersion, Items, Metadata, Text, Written, refuse, text_or_mapping
from ext_authz.errors import Reason

__all__ = [
    "PolicyTestsDocument",
    "WrittenCase",
    "WrittenExpectation",
    "WrittenExpectedValue",
    "WrittenTestPeer",
    "WrittenTestRequest",
    "WrittenTestToken",
]

_REASONS = {reason.value for reason in Reason}


class WrittenTestRequest(Written):
    """A request as Envoy would describe it. Nothing in it is proved."""

    method: Text = Field(default="GET", examples=["POST"])
    """The method; also one that is always denied."""

    host: str = Field(default="service.example", examples=["billing.example.com"])
    """`Host` or `:authority`."""

    path: str = Field(examples=["/invoices/7?format=pdf"])
    """With query, as it is on the wire."""

    headers: dict[Text, str] = Field(default_factory=dict, examples=[{"x-subject": "admin"}])
    """What the client sends; names in lowercase."""

    source_ip: Text = Field(default="192.0.2.1", examples=["10.1.2.3"])
    """Where the connection comes from."""

    destination: SpiffeIdText | None = Field(default=None, examples=["spiffe://cluster.local/ns/billing/sa/api"])
    """The workload's own identity."""

    context_extensions: dict[Text, str] = Field(default_factory=dict, examples=[{"workload": "billing"}])
    """From Envoy's route."""

    sni: str = Field(default="", examples=["billing.example.com"])
    """The TLS server name."""


class WrittenTestPeer(Written):
    """A caller's certificate, as it would have been verified."""

    certificate: Text | None = Field(default=None, examples=["website-1"])
    """Any label: the same label is the same certificate. Without it the proxy shows no thumbprint (ambient mesh)."""

    spiffe_id: SpiffeIdText | None = Field(default=None, examples=["spiffe://cluster.local/ns/applications/sa/website"])
    """Its verified identity; without it the certificate is self-signed or untrusted."""

    @model_validator(mode="after")
    def _shows_something(self) -> "WrittenTestPeer":
        if self.certificate is None and self.spiffe_id is None:
            raise refuse("the peer shows nothing; write `certificate` or `spiffe_id`, or leave `peer` out of the case")
        return self


class WrittenTestToken(Written):
    """A token whose signature, issuer, audience and times have been verified."""

    issuer: Text = Field(examples=["corp"])
    """The issuer's name in the server's configuration."""

    subject: Text = Field(examples=["alice"])
    """`sub`."""

    client: Text | None = Field(default=None, examples=["mywebsite"])
    """`client_id`."""

    scopes: Items[Text] = Field(default=(), examples=[["invoices.read"]])
    """The members of `scope`."""

    audiences: Items[Text] = Field(default=(), examples=[["https://billing.example.com"]])
    """`aud`."""

    claims: dict[Text, JsonValue] = Field(default_factory=dict, examples=[{"department": "finance"}])
    """Further claims."""

    bound_to: Text | None = Field(default=None, examples=["website-1"])
    """The label of the certificate in `cnf`; unbound when not given."""


class WrittenPattern(Written):
    """A value that is not known exactly."""

    matches: Text = Field(examples=["-----BEGIN%20CERTIFICATE.*"])
    """A regular expression for the whole value."""

    @model_validator(mode="after")
    def _usable(self) -> "WrittenPattern":
        try:
            re.compile(self.matches)
        except re.error as error:
            raise refuse(f"not a regular expression: {error}; write one", at="matches") from None
        return self


WrittenExpectedValue: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[WrittenPattern, Tag("<mapping>")], Discriminator(text_or_mapping)
]


def _known_reason(text: str) -> str:
    if text not in _REASONS:
        guess = closest(text, _REASONS)
        raise ValueError(f"there is no reason {shown(text)}; {guess or 'write one such as `binding_missing`'}")
    return text


class WrittenExpectation(Written):
    """The decision; only what is written is compared, but a header that is not listed as set must not be set."""

    decision: Literal["allow", "deny"]
    """The outcome."""

    reason: Annotated[str, AfterValidator(_known_reason)] | None = Field(default=None, examples=["scope_insufficient"])
    """The stable code."""

    rule: Text | None = Field(default=None, examples=["read-invoices"])
    """The rule that decided."""

    status: Annotated[int, Field(ge=400, le=599)] | None = Field(default=None, examples=[401])
    """The HTTP status of a denial."""

    request_headers: dict[Text, WrittenExpectedValue] | None = Field(default=None, examples=[{"x-subject": "alice"}])
    """Every header that is set for the upstream, and no other."""

    removed_request_headers: Items[Text] | None = Field(default=None, examples=[["authorization"]])
    """Headers that must be among those removed."""

    response_headers: dict[Text, WrittenExpectedValue] | None = Field(default=None, examples=[{"x-decided-by": "me"}])
    """Every header that is set on the response, and no other."""

    dynamic_metadata: dict[Text, JsonValue] | None = Field(default=None, examples=[{"subject": "alice"}])
    """All of it."""

    @model_validator(mode="after")
    def _fits(self) -> "WrittenExpectation":
        if self.decision == "allow" and self.status is not None:
            raise refuse("an allowed request has no status of ours; remove it", at="status")
        for key in ("request_headers", "removed_request_headers", "response_headers", "dynamic_metadata"):
            if self.decision == "deny" and getattr(self, key) is not None:
                raise refuse("a denied request is not changed; remove it", at=key)
        return self


class WrittenCase(Written):
    """One request and its decision."""

    name: Text = Field(examples=["a stolen token is denied"])
    """A sentence."""

    request: WrittenTestRequest
    """What arrives."""

    peer: Text | None = Field(default=None, examples=["website"])
    """A name under `peers`; without it there is no client certificate."""

    token: Text | None = Field(default=None, examples=["alice"])
    """A name under `tokens`; without it no token is presented."""

    expect: WrittenExpectation
    """What is decided."""


class WrittenTestsSpec(Written):
    """Callers by name, and cases."""

    peers: dict[Text, WrittenTestPeer] = Field(default_factory=dict)
    """Certificates that cases speak of."""

    tokens: dict[Text, WrittenTestToken] = Field(default_factory=dict)
    """Tokens that cases speak of."""

    cases: Annotated[Items[WrittenCase], Field(min_length=1)]
    """Each is decided on its own."""


class PolicyTestsDocument(Written):
    """Expected decisions of policies."""

    apiVersion: ApiVersion  # noqa: N815 - the key every Kubernetes-like document has
    """The version of this format."""

    kind: Literal["PolicyTests"]
    """This document holds expected decisions."""

    metadata: Metadata
    """What identifies the tests."""

    spec: WrittenTestsSpec
    """The tests."""
