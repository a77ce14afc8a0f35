"""`kind: RoutePolicy` as it is written."""

from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal

from pydantic import Field, model_validator

from ext_authz.config.model_requirement import WrittenTerms
from ext_authz.config.policy_words import (
    DestinationPrincipal,
    HeaderTemplates,
    Hostname,
    MatchedHeader,
    MetadataValue,
    Method,
    QueryName,
    RemovedHeader,
    SetHeader,
    SetName,
    TemplateText,
)
from ext_authz.config.written import ApiVersion, Items, Metadata, Name, Text, Written, frozen_json, refuse
from ext_authz.policy.model import (
    HeaderMatch,
    Injection,
    PathMatch,
    PathType,
    QueryMatch,
    RouteMatch,
    Target,
    ValueMatchType,
)

__all__ = [
    "RoutePolicyDocument",
    "WrittenDefaults",
    "WrittenHeaderMatch",
    "WrittenInjection",
    "WrittenMatch",
    "WrittenPath",
    "WrittenPolicySpec",
    "WrittenQueryMatch",
    "WrittenRule",
    "WrittenTarget",
]


class WrittenPath(Written):
    """One condition on the canonical path (percent-decoded once, without query)."""

    type: Literal["Exact", "PathPrefix", "Template", "RegularExpression"] = "PathPrefix"
    """How `value` is compared. `PathPrefix` compares whole segments: `/orders` matches `/orders/7`, not `/orders-old`."""

    value: Text = Field(examples=["/orders", "/orders/{id}", "/v[0-9]+/orders"])
    """A path, a template whose `{variables}` stand for one whole segment, or an RE2 expression for the whole path."""

    @model_validator(mode="after")
    def _usable(self) -> "WrittenPath":
        try:
            self.build()
        except ValueError as error:
            raise refuse(str(error), at="value") from None
        return self

    def build(self) -> PathMatch:
        """The value this stands for."""
        return PathMatch(PathType(self.type), self.value)


class WrittenHeaderMatch(Written):
    """One condition on a request header. The client chooses headers: use them to route, never to loosen a rule."""

    name: MatchedHeader = Field(examples=["x-api-version"])
    """Compared without case."""

    value: str = Field(examples=["2"])
    """The whole value, or an RE2 expression for the whole value."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    """How `value` is compared."""

    @model_validator(mode="after")
    def _usable(self) -> "WrittenHeaderMatch":
        try:
            self.build()
        except ValueError as error:
            raise refuse(str(error), at="value") from None
        return self

    def build(self) -> HeaderMatch:
        """The value this stands for."""
        return HeaderMatch(self.name, self.value, ValueMatchType(self.type))


class WrittenQueryMatch(Written):
    """One condition on a query parameter."""

    name: Text = Field(examples=["format"])
    """Compared exactly, after percent-decoding."""

    value: str = Field(examples=["json"])
    """The whole value after percent-decoding, or an RE2 expression for the whole value."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    """How `value` is compared."""

    @model_validator(mode="after")
    def _usable(self) -> "WrittenQueryMatch":
        try:
            self.build()
        except ValueError as error:
            raise refuse(str(error), at="value") from None
        return self

    def build(self) -> QueryMatch:
        """The value this stands for."""
        return QueryMatch(self.name, self.value, ValueMatchType(self.type))


class WrittenMatch(Written):
    """What a request must look like; everything given must hold."""

    path: WrittenPath | None = Field(default=None, examples=[{"type": "Exact", "value": "/healthz"}])
    """Every path when not given."""

    method: Method | None = Field(default=None, examples=["GET"])
    """One method. Without `method` and `methods`, every method but CONNECT and TRACE, which are always denied."""

    methods: Items[Method] | None = Field(default=None, examples=[["GET", "HEAD"]], json_schema_extra={"minItems": 1})
    """Any of these methods. HEAD and OPTIONS are never implied by GET."""

    headers: Items[WrittenHeaderMatch] = ()
    """All must hold."""

    query: Items[WrittenQueryMatch] = ()
    """All must hold."""

    @model_validator(mode="after")
    def _one_form(self) -> "WrittenMatch":
        if self.methods is not None and self.method is not None:
            raise refuse("both `method` and `methods` are written; keep `methods`", at="method")
        if self.methods == ():
            raise refuse("no method is listed, so nothing matches; write `[GET]` or remove the key", at="methods")
        return self

    def build(self) -> Iterable[RouteMatch]:
        """The values this stands for: one for each method."""
        for method in dict.fromkeys(self.methods or (self.method,)):
            yield RouteMatch(
                path=PathMatch() if self.path is None else self.path.build(),
                method=method,
                headers=tuple(header.build() for header in self.headers),
                query=tuple(parameter.build() for parameter in self.query),
            )


class WrittenInjection(Written):
    """What to change on an allowed request. Values are templates: `${token.sub}`, `${peer.spiffe_id}`; `$$` is `$`."""

    request_headers: HeaderTemplates | None = Field(default=None, examples=[{"x-subject": "${token.sub}"}])
    """Set for the upstream, over whatever the client sent; removed where the value is absent."""

    remove_request_headers: Items[RemovedHeader] | None = Field(default=None, examples=[["authorization"]])
    """Never reach the upstream."""

    response_headers: HeaderTemplates | None = Field(default=None, examples=[{"x-decided-by": "ext-authz"}])
    """Set on the response to the client; left out where the value is absent."""

    dynamic_metadata: dict[Text, MetadataValue] | None = Field(default=None, examples=[{"subject": "${token.sub}"}])
    """For Envoy's access log and later filters (namespace `envoy.filters.http.ext_authz`)."""

    set_query_parameters: dict[QueryName, TemplateText] | None = Field(
        default=None, examples=[{"tenant": "${token.claims.tenant}"}]
    )
    """Set for the upstream, over whatever the client sent; removed where the value is absent."""

    remove_query_parameters: Items[QueryName] | None = Field(default=None, examples=[["debug"]])
    """Never reach the upstream, in whatever letter case and spelling it may read as these."""

    client_certificate: SetHeader | None = Field(default=None, examples=["x-client-certificate"])
    """The header that carries the caller's certificate to the upstream, as URL-encoded PEM."""

    def build(self) -> Injection:
        """The value this stands for."""
        return Injection(
            request_headers=self.request_headers or {},
            remove_request_headers=self.remove_request_headers or (),
            response_headers=self.response_headers or {},
            dynamic_metadata={name: frozen_json(value) for name, value in (self.dynamic_metadata or {}).items()},
            set_query_parameters=self.set_query_parameters or {},
            remove_query_parameters=self.remove_query_parameters or (),
            client_certificate=self.client_certificate,
        )


class WrittenDefaults(WrittenTerms):
    """What holds for every rule that is not public, field by field, unless the rule says otherwise."""

    use: Items[SetName] | None = Field(default=None, examples=[["partner-network"]])
    """RequirementSets for every rule."""

    inject: WrittenInjection | None = Field(default=None, examples=[{"remove_request_headers": ["authorization"]}])
    """Changes for every rule; a rule's own `inject` replaces them field by field."""


class WrittenRule(Written):
    """Which requests, what they need, what they get. Order never decides: the most specific match wins."""

    name: Name
    """Unique in its policy; appears in the decision log and in metrics."""

    matches: Items[WrittenMatch] = Field(examples=[[{"path": {"value": "/invoices"}, "method": "GET"}]])
    """Any one suffices."""

    require: WrittenTerms | None = Field(default=None, examples=[{"peer": {"namespaces": ["applications"]}}])
    """What the caller must show, over the policy's defaults."""

    use: Items[SetName] | None = Field(default=None, examples=[["partner-network"]])
    """RequirementSets that must hold in addition."""

    public: bool = False
    """Everyone may pass, and nothing about the caller is looked at."""

    inject: WrittenInjection | None = Field(default=None, examples=[{"request_headers": {"x-subject": "${token.sub}"}}])
    """What to change on an allowed request."""


class WrittenTarget(Written):
    """A destination, named by what the client cannot choose; everything given must hold."""

    destination_principal: DestinationPrincipal | None = Field(
        default=None, examples=["spiffe://cluster.local/ns/billing/sa/api"]
    )
    """The workload's own SPIFFE ID, as Envoy's certificate shows it; patterns as for a peer. `none` for a destination that
    shows no identity, as without TLS."""

    context_extensions: dict[Text, str] = Field(default_factory=dict, examples=[{"workload": "billing"}])
    """Envoy's per-route `context_extensions`; each must be there with this value."""

    sni: Hostname | None = Field(default=None, examples=["billing.example.com"])
    """The TLS server name. The client chose it, but it must equal Host, and Envoy picked the filter chain by it."""

    routed_by_host: bool = False
    """States that the proxy routes by Host here, so that another Host means another workload; silences a finding."""

    @model_validator(mode="after")
    def _names_something(self) -> "WrittenTarget":
        if self.destination_principal is None and not self.context_extensions and self.sni is None:
            raise refuse(
                "the target names no destination; write `destination_principal`, `context_extensions` or `sni`"
            )
        return self

    def build(self) -> Target:
        """The value this stands for."""
        return Target(
            destination_principal=self.destination_principal,
            context_extensions=MappingProxyType(self.context_extensions),
            sni=self.sni,
            routed_by_host=self.routed_by_host,
        )


class WrittenPolicySpec(Written):
    """The policy itself."""

    targets: Items[WrittenTarget] = Field(
        default=(), examples=[[{"destination_principal": "spiffe://cluster.local/ns/billing/sa/api"}]]
    )
    """Any one suffices. A policy without targets is a gateway's and counts only where no policy names the destination, and, once
    any policy names a `destination_principal`, only at destinations that show an identity."""

    hostnames: Items[Hostname] = Field(default=(), examples=[["billing.example.com", "*.billing.example.com"]])
    """Any one suffices; any host when empty. Hosts are the client's choice: they refine inside a target."""

    defaults: WrittenDefaults = Field(default=WrittenDefaults(), examples=[{"token": {"issuers": ["corp"]}}])
    """For every rule that is not public."""

    rules: Items[WrittenRule] = Field(json_schema_extra={"minItems": 1})
    """At least one; a request that no rule matches is denied."""


class RoutePolicyDocument(Written):
    """Rules for the requests that go to some destinations under some host names."""

    apiVersion: ApiVersion  # noqa: N815 - the key every Kubernetes-like document has
    """The version of this format."""

    kind: Literal["RoutePolicy"]
    """This document is a policy."""

    metadata: Metadata
    """What identifies the policy."""

    spec: WrittenPolicySpec
    """The policy."""
