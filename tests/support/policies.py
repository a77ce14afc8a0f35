"""Builders of policies and requests, with everything a test does not speak of filled in."""

from collections.abc import Mapping

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Headers, Provenance, RequestFacts
from ext_authz.policy.attributes import Context
from ext_authz.policy.model import (
    HeaderMatch,
    Injection,
    PathMatch,
    PathType,
    QueryMatch,
    RouteMatch,
    RoutePolicy,
    Rule,
    Target,
)
from ext_authz.policy.requirements import Requirement, ScopeRequirement, TokenRequirement
from ext_authz.principal import JsonValue, Peer, PeerCertificate, Principals, TrustedBy, VerifiedToken
from ext_authz.spiffe import SpiffeId

API = "spiffe://cluster.local/ns/billing/sa/api"
WEB = "spiffe://cluster.local/ns/applications/sa/web"
CERTIFICATE = PeerCertificate(
    der=b"certificate" * 20,
    thumbprint=bytes(range(32)),
    uri_sans=(WEB,),
    dns_sans=(),
    subject="CN=web",
    not_before=0.0,
    not_after=1e10,
)


def exact(path: str, method: str | None = None) -> RouteMatch:
    return RouteMatch(PathMatch(PathType.EXACT, path), method)


def prefix(path: str, method: str | None = None) -> RouteMatch:
    return RouteMatch(PathMatch(PathType.PATH_PREFIX, path), method)


def template(path: str, method: str | None = None) -> RouteMatch:
    return RouteMatch(PathMatch(PathType.TEMPLATE, path), method)


def expression(path: str, method: str | None = None) -> RouteMatch:
    return RouteMatch(PathMatch(PathType.REGULAR_EXPRESSION, path), method)


def with_conditions(
    match: RouteMatch, headers: tuple[HeaderMatch, ...] = (), query: tuple[QueryMatch, ...] = ()
) -> RouteMatch:
    return RouteMatch(match.path, match.method, headers, query)


def token_needed(*scopes: str) -> tuple[Requirement, ...]:
    return (Requirement(token=TokenRequirement(scopes=ScopeRequirement(all=scopes))),)


def rule(
    name: str, *matches: RouteMatch, scopes: tuple[str, ...] | None = None, injection: Injection | None = None
) -> Rule:
    """A public rule; with `scopes` one that needs a token with them."""
    return Rule(
        name,
        matches or (RouteMatch(),),
        requirements=() if scopes is None else token_needed(*scopes),
        public=scopes is None,
        injection=injection or Injection(),
    )


def policy(name: str, *rules: Rule, targets: tuple[Target, ...] = (), hostnames: tuple[str, ...] = ()) -> RoutePolicy:
    return RoutePolicy(name, rules or (rule("all"),), targets, hostnames)


def facts(
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "billing.example.com",
    headers: Mapping[str, str] | None = None,
    principal: str = API,
    sni: str = "",
    source: str = "10.0.0.1",
    extensions: Mapping[str, str] | None = None,
) -> RequestFacts:
    return RequestFacts(
        method=method,
        path=path,
        host=host,
        request_id="request-1",
        headers=Headers.merged(headers or {}),
        source_address=source,
        destination_principal=principal,
        sni=sni,
        context_extensions=extensions or {},
    )


def peer(
    spiffe_id: str | None = WEB,
    certificate: PeerCertificate | None = CERTIFICATE,
    thumbprint: bytes | None = CERTIFICATE.thumbprint,
) -> Peer:
    return Peer(
        thumbprint=thumbprint,
        certificate=certificate,
        spiffe_id=None if spiffe_id is None else SpiffeId.parse(spiffe_id),
        trusted_by=TrustedBy.NOBODY if spiffe_id is None else TrustedBy.PROXY,
        identity_refusal=Refusal(Reason.CHAIN_NOT_VERIFIED, "nobody verified it") if spiffe_id is None else None,
        provenance=(Provenance.XFCC,),
    )


def token(
    *,
    scopes: tuple[str, ...] = ("invoices.read",),
    claims: Mapping[str, JsonValue] | None = None,
    client_id: str | None = "mywebsite",
    audiences: tuple[str, ...] = ("billing",),
    expires_at: float = 2_000_000_000.0,
    subject: str = "alice",
) -> VerifiedToken:
    return VerifiedToken(
        issuer_name="corp",
        issuer="https://issuer.example.com",
        subject=subject,
        client_id=client_id,
        audiences=audiences,
        scopes=frozenset(scopes),
        token_id="token-1",
        issued_at=1.0,
        expires_at=expires_at,
        not_before=None,
        skew=30.0,
        confirmation=None,
        claims=claims or {},
    )


EVERYONE = Principals(peer(), token())
NOBODY = Principals(None, None)


def context(
    principals: Principals = EVERYONE,
    request: RequestFacts | None = None,
    variables: Mapping[str, str] | None = None,
    query: str = "",
) -> Context:
    return Context(request or facts(), principals, "/a/b", query, "billing.example.com", variables or {})
