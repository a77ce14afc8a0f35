"""`kind: RequirementSet`, and the requirements of rules and defaults, as they are written."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from ext_authz.config.policy_words import AddressBlock, IssuerName, KubernetesName, SpiffePatternText, TrustDomainName
from ext_authz.config.written import ApiVersion, Items, Metadata, Scalar, Text, Written, refuse, text_or_mapping
from ext_authz.policy.requirements import (
    ClaimRequirement,
    NotRequired,
    PeerRequirement,
    Requirement,
    RequirementTerms,
    ScopeRequirement,
    TokenRequirement,
)
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement

__all__ = [
    "RequirementSetDocument",
    "WrittenBinding",
    "WrittenClaim",
    "WrittenPeer",
    "WrittenRequirement",
    "WrittenTerms",
    "WrittenToken",
]

_Forms = Discriminator(text_or_mapping)
_AsText = Tag("<text>")
_AsMapping = Tag("<mapping>")


class WrittenPeer(Written):
    """The caller must have a verified SPIFFE ID, and everything given must hold. `{}` accepts any verified one."""

    spiffe: Items[SpiffePatternText] = Field(default=(), examples=[["spiffe://cluster.local/ns/web/sa/*"]])
    """Any one suffices: an exact ID, `*` for one whole segment, a trailing `/**` for any depth."""

    trust_domains: Items[TrustDomainName] = Field(default=(), examples=[["cluster.local"]])
    """Any one suffices."""

    namespaces: Items[KubernetesName] = Field(default=(), examples=[["applications"]])
    """Any one suffices; of an ID `/ns/<namespace>/sa/<service account>`. Name the trust domain too."""

    service_accounts: Items[KubernetesName] = Field(default=(), examples=[["website"]])
    """Any one suffices; as `namespaces`."""

    def build(self) -> PeerRequirement:
        """The value this stands for."""
        return PeerRequirement(
            spiffe=self.spiffe,
            trust_domains=self.trust_domains,
            namespaces=self.namespaces,
            service_accounts=self.service_accounts,
        )


class WrittenScopes(Written):
    """Scopes, compared exactly: `read` is not `read:all`."""

    all: Items[Text] = Field(default=(), examples=[["invoices.read"]])
    """The token must have every one."""

    any: Items[Text] = Field(default=(), examples=[["invoices.read", "invoices.admin"]])
    """The token must have at least one."""


class WrittenClaim(Written):
    """One claim and the values it may have. Text, numbers and booleans are never equal to each other."""

    claim: Annotated[
        Annotated[Text, _AsText] | Annotated[Annotated[Items[Text], Field(min_length=1)], _AsMapping], _Forms
    ] = Field(examples=["department", ["realm_access", "level"]])
    """A claim's name (dots are part of it), or the list of names that leads to a nested one."""

    equals: Scalar | None = Field(default=None, examples=["finance", True])
    """The one value allowed."""

    one_of: Items[Scalar] | None = Field(default=None, examples=[["finance", "audit"]])
    """The values allowed."""

    @model_validator(mode="after")
    def _one_form(self) -> "WrittenClaim":
        if (self.equals is None) == (self.one_of is None):
            raise refuse("a claim needs `equals` or `one_of`; write exactly one of the two")
        if self.one_of == ():
            raise refuse("no value is listed, so nothing is allowed; write at least one", at="one_of")
        return self

    def build(self) -> ClaimRequirement:
        """The value this stands for."""
        return ClaimRequirement(
            path=(self.claim,) if isinstance(self.claim, str) else self.claim,
            one_of=(self.equals,) if self.one_of is None else self.one_of,
        )


class WrittenToken(Written):
    """A valid access token is required, and everything given must hold. `{}` accepts a token of any issuer."""

    issuers: Items[IssuerName] = Field(default=(), examples=[["corp"]])
    """Names of issuers in the server's configuration; any one suffices."""

    audiences: Items[Text] = Field(default=(), examples=[["https://billing.example.com"]])
    """The token must name at least one, besides one of its issuer's `audiences`."""

    scopes: WrittenScopes = Field(default=WrittenScopes(), examples=[{"all": ["invoices.read"]}])
    """What the token must be good for; a token without is answered 403 `insufficient_scope`."""

    clients: Items[Text] = Field(default=(), examples=[["mywebsite"]])
    """Client ids; any one suffices."""

    claims: Items[WrittenClaim] = Field(default=(), examples=[[{"claim": "department", "equals": "finance"}]])
    """All must hold."""

    def build(self) -> TokenRequirement:
        """The value this stands for."""
        return TokenRequirement(
            issuers=self.issuers,
            audiences=self.audiences,
            scopes=ScopeRequirement(all=self.scopes.all, any=self.scopes.any),
            clients=self.clients,
            claims=tuple(claim.build() for claim in self.claims),
        )


class WrittenBinding(Written):
    """How a token must be bound to the connection. A `cnf` that is there must always match."""

    mode: Literal["required", "when-present"] = "required"
    """`required`: a token without binding is denied. `when-present`: it may pass, so a stolen one works."""

    accept: Items[Literal["x5t#S256", "spiffe-id"]] = Field(
        default=("x5t#S256",), examples=[["x5t#S256", "spiffe-id"]], json_schema_extra={"minItems": 1}
    )
    """Any one suffices: the certificate's thumbprint (RFC 8705), or a claim that equals the caller's SPIFFE ID."""

    spiffe_id_claim: Text | None = Field(default=None, examples=["sub"])
    """The claim compared with the caller's verified SPIFFE ID; written exactly when `spiffe-id` is accepted."""

    @model_validator(mode="after")
    def _meetable(self) -> "WrittenBinding":
        if not self.accept:
            raise refuse("nothing is accepted, so every token is denied; write `[x5t#S256]`", at="accept")
        if "spiffe-id" in self.accept and self.spiffe_id_claim is None:
            raise refuse(
                "`spiffe-id` is accepted without `spiffe_id_claim`; write the claim, like `spiffe_id_claim: sub`"
            )
        if "spiffe-id" not in self.accept and self.spiffe_id_claim is not None:
            raise refuse(
                "the claim is never compared; write `accept: [x5t#S256, spiffe-id]` or remove it", at="spiffe_id_claim"
            )
        return self

    def build(self) -> BindingRequirement:
        """The value this stands for."""
        return BindingRequirement(
            mode=BindingMode(self.mode),
            accept=frozenset(BindingMethod(method) for method in self.accept),
            spiffe_id_claim=self.spiffe_id_claim,
        )


BindingTerm: TypeAlias = Annotated[
    Annotated[Literal["required", "when-present"], _AsText] | Annotated[WrittenBinding, _AsMapping], _Forms
]
_Nothing: TypeAlias = Annotated[Literal["none"], _AsText]
PeerTerm: TypeAlias = Annotated[_Nothing | Annotated[WrittenPeer, _AsMapping], _Forms]
TokenTerm: TypeAlias = Annotated[_Nothing | Annotated[WrittenToken, _AsMapping], _Forms]
SourceTerm: TypeAlias = Annotated[_Nothing | Annotated[Items[AddressBlock], _AsMapping], _Forms]


def _binding(term: BindingTerm | None) -> BindingRequirement | None:
    return None if term is None else (WrittenBinding(mode=term) if isinstance(term, str) else term).build()


class WrittenRequirement(Written):
    """What a caller must show; everything given must hold."""

    peer: WrittenPeer | None = Field(default=None, examples=[{"trust_domains": ["cluster.local"]}])
    """The caller's certificate."""

    token: WrittenToken | None = Field(default=None, examples=[{"issuers": ["corp"]}])
    """The caller's access token."""

    source_ips: Items[AddressBlock] | None = Field(default=None, examples=[["10.0.0.0/8"]])
    """Address blocks the connection may come from (the connection's own address, never X-Forwarded-For)."""

    binding: BindingTerm | None = Field(default=None, examples=["required"])
    """How the token must be bound; `required` unless said otherwise."""

    def build(self) -> Requirement:
        """The value this stands for."""
        return Requirement(
            peer=None if self.peer is None else self.peer.build(),
            token=None if self.token is None else self.token.build(),
            source_ips=self.source_ips or (),
            binding=_binding(self.binding),
        )


class WrittenTerms(Written):
    """Requirements of a rule, or defaults. `none` switches a default off by name."""

    peer: PeerTerm | None = Field(default=None, examples=[{"spiffe": ["spiffe://cluster.local/ns/web/sa/*"]}])
    """What the caller's certificate must show."""

    token: TokenTerm | None = Field(default=None, examples=[{"issuers": ["corp"]}])
    """What the caller's access token must show."""

    source_ips: SourceTerm | None = Field(default=None, examples=[["10.0.0.0/8"]])
    """Address blocks the connection may come from (the connection's own address, never X-Forwarded-For)."""

    binding: BindingTerm | None = Field(default=None, examples=["required"])
    """How the token must be bound; `required` unless said otherwise."""

    def build(self) -> RequirementTerms:
        """The value this stands for."""
        return RequirementTerms(
            peer=self.peer.build() if isinstance(self.peer, WrittenPeer) else self.peer and NotRequired(self.peer),
            token=self.token.build()
            if isinstance(self.token, WrittenToken)
            else self.token and NotRequired(self.token),
            source_ips=NotRequired(self.source_ips) if isinstance(self.source_ips, str) else self.source_ips,
            binding=_binding(self.binding),
        )


class RequirementSetDocument(Written):
    """Requirements with a name, for `use` in rules and defaults of any policy."""

    apiVersion: ApiVersion  # noqa: N815 - the key every Kubernetes-like document has
    """The version of this format."""

    kind: Literal["RequirementSet"]
    """This document is a requirement set."""

    metadata: Metadata
    """What identifies the set."""

    spec: WrittenRequirement
    """The requirements; all must hold."""
