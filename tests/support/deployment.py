"""One deployment of the core, bytes in and CheckResponse out: the request path without sockets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ext_authz.authorizer import authorize
from ext_authz.decision import Allow, Decision, Deny, Diagnostics
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import (
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    SourceCertificateSource,
    XfccSource,
)
from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.identity.peer import CertificateCache
from ext_authz.need import Need
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import Injection, PathMatch, PathType, RouteMatch, RoutePolicy, Rule, Target
from ext_authz.policy.requirements import PeerRequirement, Requirement, ScopeRequirement, TokenRequirement
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement
from ext_authz.snapshot import Snapshot
from ext_authz.spiffe import TrustDomain
from ext_authz.token.issuer import InlineKeys, Issuer
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize
from support.check_requests import check_request
from support.pki import Leaf, authority
from support.tokens import NOW, access_token, cnf_for, issuer

BILLING = "spiffe://cluster.local/ns/billing/sa/api"
WEBSITE = "spiffe://cluster.local/ns/applications/sa/website"
ROOT = authority()
CALLER = ROOT.svid(WEBSITE)
THIEF = ROOT.svid("spiffe://cluster.local/ns/applications/sa/thief")

BOUND = TokenRequirement(scopes=ScopeRequirement(all=("invoices.read",)))
BY_SPIFFE_ID = BindingRequirement(
    accept=frozenset({BindingMethod.X5T_S256, BindingMethod.SPIFFE_ID}), spiffe_id_claim="client_spiffe_id"
)


def rule(name: str, path: str, *requirements: Requirement, method: str | None = None, **parts: Any) -> Rule:
    """A rule for everything below `path`."""
    kind = parts.pop("type", PathType.PATH_PREFIX)
    return Rule(name, (RouteMatch(PathMatch(kind, path), method),), requirements, **parts)


POLICIES = (
    RoutePolicy(
        "billing",
        (
            rule(
                "invoices",
                "/invoices",
                Requirement(peer=PeerRequirement(namespaces=("applications",)), token=BOUND),
                injection=Injection(
                    request_headers={"x-subject": "${token.sub}", "x-caller": "${peer.spiffe_id}"},
                    remove_request_headers=("authorization",),
                ),
            ),
            rule("self-signed", "/public-clients", Requirement(token=BOUND)),
            rule("rotating", "/rotating", Requirement(token=TokenRequirement(), binding=BY_SPIFFE_ID)),
            rule(
                "lenient",
                "/lenient",
                Requirement(token=TokenRequirement(), binding=BindingRequirement(BindingMode.WHEN_PRESENT)),
            ),
            rule("admin", "/admin", Requirement(peer=PeerRequirement(service_accounts=("admin",)))),
            rule("workloads", "/workloads", Requirement(peer=PeerRequirement())),
            rule("nearby", "/nearby", Requirement(source_ips=("10.0.0.0/8",))),
            rule("health", "/healthz", public=True, type=PathType.EXACT, method="GET"),
            rule("assets", "/public", public=True),
            rule("everything-else", "/", Requirement(token=BOUND)),
        ),
        targets=(Target(destination_principal=BILLING),),
    ),
    RoutePolicy("lax", (rule("anything", "/", public=True),), hostnames=("lax.example.com",)),
    RoutePolicy(
        "by-sni",
        (rule("anything", "/", public=True),),
        targets=(Target(sni="tenant.example.com"),),
        hostnames=("tenant.example.com", "other.example.com"),
    ),
)

EVIDENCE = EvidenceSettings(certificate_sources=(SourceCertificateSource(), XfccSource()))
XFCC_ONLY = EvidenceSettings(certificate_sources=(XfccSource(),), chain_verified_by_proxy=True)
PEM_HEADER = EvidenceSettings(certificate_sources=(PemHeaderSource("x-client-certificate"),))
CLIENT_CERT = EvidenceSettings(certificate_sources=(ClientCertSource(),))


@dataclass
class Answer:
    """One decided request."""

    decision: Decision
    response: CheckResponse

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.decision.reason

    @property
    def allowed(self) -> bool:
        """As Envoy reads it."""
        return self.response.HasField("status") and self.response.status.code == 0

    @property
    def status(self) -> int:
        """The HTTP status a denied client gets."""
        return int(self.response.denied_response.status.code)

    def denied_header(self, name: str) -> str | None:
        """A header a denied client gets."""
        for option in self.response.denied_response.headers:
            if option.header.key == name:
                return str(option.header.value or option.header.raw_value.decode())
        return None

    @property
    def upstream_headers(self) -> dict[str, str]:
        """Headers set on the allowed request."""
        return {
            option.header.key: str(option.header.value or option.header.raw_value.decode())
            for option in self.response.ok_response.headers
        }

    @property
    def removed_headers(self) -> set[str]:
        """Headers removed from the allowed request."""
        return set(self.response.ok_response.headers_to_remove)


@dataclass
class Deployment:
    """The core with one configuration; `needs` gathers what it asked for."""

    policies: Iterable[RoutePolicy] = POLICIES
    evidence: EvidenceSettings = EVIDENCE
    issuers: tuple[Issuer, ...] = field(default_factory=lambda: (issuer(),))
    bundles: Bundles = field(default_factory=lambda: Bundles([Bundle.from_pem(TrustDomain("cluster.local"), ROOT.pem)]))
    leniencies: frozenset[str] = frozenset()
    denials: DenialSettings = field(default_factory=DenialSettings)
    needs: list[Need] = field(default_factory=list)

    def __post_init__(self) -> None:
        keys = {
            one.name: KeySet.from_json(one.keys.jwks.encode())
            for one in self.issuers
            if isinstance(one.keys, InlineKeys)
        }
        self.snapshot = Snapshot(
            generation=1,
            policies=PolicyIndex(tuple(self.policies), self.leniencies),
            evidence=self.evidence,
            bundles=self.bundles,
            certificates=CertificateCache(),
            issuers=IssuerDirectory(self.issuers, keys),
            denials=Denials(self.denials),
        )

    def check(self, data: bytes, now: float = NOW) -> Answer:
        """Decide the bytes of a CheckRequest; a need is noted and taken as one that cannot be fulfilled."""
        try:
            facts = parse_check_request(data)
        except Refusal as refusal:
            decision: Decision = self.snapshot.denials.deny(
                refusal.reason, takes_token=False, diagnostics=Diagnostics(detail=refusal.detail)
            )
        else:
            outcome = authorize(facts, self.snapshot, now)
            if isinstance(outcome, Need):
                self.needs.append(outcome)
                outcome = authorize(facts, self.snapshot, now, frozenset({outcome}))
            assert isinstance(outcome, Allow | Deny)
            decision = outcome
        return Answer(decision, CheckResponse.FromString(serialize(decision)))

    def request(
        self,
        path: str = "/invoices/1",
        *,
        token: str | None = None,
        leaf: Leaf | None = CALLER,
        headers: Mapping[str, str] | None = None,
        now: float = NOW,
        **parts: object,
    ) -> Answer:
        """Decide a request with this token (`Authorization: Bearer`) from the holder of this certificate."""
        sent = {} if token is None else {"authorization": f"Bearer {token}"}
        sent |= headers or {}
        arguments: dict[str, object] = {
            "path": path,
            "headers": sent,
            "destination_principal": BILLING,
            "source_certificate": "" if leaf is None else leaf.url_encoded_pem,
            **parts,
        }
        if "raw_headers" in arguments:
            del arguments["headers"]
        return self.check(check_request(**arguments), now)


def bound_token(leaf: Leaf = CALLER, **changes: Any) -> str:
    """A right access token, bound to `leaf`."""
    return access_token(**({"cnf": cnf_for(leaf.der)} | changes))
