"""Whole CheckRequests against an oracle that knows nothing of the code: allowed exactly when a naive reading says so.

One deployment serves every example, so its caches are warm with what other callers, tokens and times left in them: an
answer that was reached for another request would show as a difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from support.deployment import BILLING, ROOT, WEBSITE, Answer, Deployment, rule
from support.pki import Leaf, authority, ec_key, self_signed, xfcc
from support.tokens import NOW, OMIT, access_token, cnf_for, signing_key

from ext_authz.policy.model import Injection, PathType, RoutePolicy, Target
from ext_authz.policy.requirements import PeerRequirement, Requirement, ScopeRequirement, TokenRequirement
from ext_authz.requirement import BindingMode, BindingRequirement

ADMIN = "spiffe://cluster.local/ns/operations/sa/admin"
ELSEWHERE = "spiffe://cluster.local/ns/shop/sa/web"
SCOPED = TokenRequirement(scopes=ScopeRequirement(all=("orders.read",)))
WHO = Injection(request_headers={"x-subject": "${token.sub}", "x-caller": "${peer.spiffe_id}"})

POLICIES = (
    RoutePolicy(
        "billing",
        (
            rule(
                "orders",
                "/orders",
                Requirement(peer=PeerRequirement(namespaces=("applications",)), token=SCOPED),
                injection=WHO,
            ),
            rule("self", "/self", Requirement(token=TokenRequirement()), injection=WHO),
            rule(
                "flexible",
                "/flexible",
                Requirement(token=TokenRequirement(), binding=BindingRequirement(BindingMode.WHEN_PRESENT)),
                injection=WHO,
            ),
            rule("open", "/open", public=True, type=PathType.EXACT, method="GET"),
            rule("rest", "/", Requirement(peer=PeerRequirement(service_accounts=("admin",)))),
        ),
        targets=(Target(destination_principal=BILLING),),
    ),
    RoutePolicy("shop", (rule("all", "/", public=True),), targets=(Target(destination_principal=ELSEWHERE),)),
    RoutePolicy("gateway", (rule("all", "/", public=True),), hostnames=("gateway.example.com",)),
)
DEPLOYMENT = Deployment(policies=POLICIES)
PLACES = ("orders", "self", "flexible", "open")


@dataclass(frozen=True)
class Caller:
    """A certificate and what it truly is."""

    leaf: Leaf
    spiffe_id: str | None


_STRANGERS = authority("strangers", key=ec_key("strangers"))
CALLERS = {
    "website": Caller(ROOT.svid(WEBSITE), WEBSITE),
    "replica": Caller(ROOT.svid(WEBSITE, key=ec_key("replica")), WEBSITE),
    "admin": Caller(ROOT.svid(ADMIN, key=ec_key("admin")), ADMIN),
    "stranger": Caller(_STRANGERS.svid(WEBSITE, key=ec_key("stranger")), None),
    "self-signed": Caller(self_signed(uri_sans=[ADMIN]), None),
    "expired": Caller(ROOT.svid(ADMIN, key=ec_key("expired"), not_after=NOW - 1_000), None),
    "two names": Caller(ROOT.leaf(key=ec_key("two"), uri_sans=[WEBSITE, ADMIN]), None),
}


@dataclass(frozen=True)
class Token:
    """A token by what matters about it."""

    bound_to: str | None = None
    scope: str = "orders.read"
    subject: str = "alice"
    audience: str = "https://api.example"
    forged: bool = False
    type: str = "at+jwt"

    @property
    def text(self) -> str:
        """The compact form; the same for the same token, as ECDSA would otherwise sign it anew each time."""
        if self not in _TEXTS:
            binding = OMIT if self.bound_to is None else cnf_for(CALLERS[self.bound_to].leaf.der)
            key = signing_key(index=1, kid="es256-0") if self.forged else signing_key()
            _TEXTS[self] = access_token(
                key,
                header={"typ": self.type},
                scope=self.scope,
                sub=self.subject,
                aud=self.audience,
                cnf=binding,
            )
        return _TEXTS[self]


_TEXTS: dict[Token, str] = {}


@dataclass(frozen=True)
class Attempt:
    """One request by its ingredients."""

    method: str
    segments: tuple[str, ...]
    query: str
    host: str
    destination: str
    certificate: str | None
    xfcc: tuple[tuple[str, str], ...]
    token: Token | None
    presented: str
    raw: bool
    after: float
    underscored: bool = True

    def decide(self) -> Answer:
        """What the deployment says."""
        headers: list[tuple[str, str]] = [("x-subject", "mallory"), ("accept", "*/*")]
        if self.underscored:
            # no answer is taken from memory for a request that has such a name
            headers.append(("x_caller", "mallory"))
        headers += [("x-forwarded-client-cert", xfcc(CALLERS[name].leaf, by=by)) for name, by in self.xfcc]
        if self.token is not None:
            headers.append(("authorization", self.presented.replace("T", self.token.text)))
        return DEPLOYMENT.request(
            "/" + "/".join(self.segments) + self.query,
            leaf=None if self.certificate is None else CALLERS[self.certificate].leaf,
            now=NOW + self.after,
            method=self.method,
            host=self.host,
            destination_principal=self.destination,
            **({"raw_headers": headers} if self.raw else {"headers": dict(_joined(headers))}),
        )

    def expected(self) -> tuple[bool, dict[str, str]]:
        """Whether it may pass, and the headers that must then go upstream."""
        refused: tuple[bool, dict[str, str]] = (False, {})
        place = self._place()
        if place is None or self.method not in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}:
            return refused
        if self.destination == ELSEWHERE:
            return True, {}
        if not self.destination:
            # policies name destinations by identity, and this one shows none
            return False, {}
        if self.destination != BILLING:
            # a gateway: here the host is all there is
            return self.host.lower().removesuffix(":443") == "gateway.example.com", {}
        if place == "open":
            return True, {}
        caller = self._caller()
        if caller == "contradictory":
            return refused
        # a bundle verifies certificates; the hash of one proves possession and no name
        spiffe_id = None if self.certificate is None else CALLERS[self.certificate].spiffe_id
        if place == "rest":
            return spiffe_id == ADMIN, {}
        token = self._valid_token()
        if token is None or (token.bound_to != caller if token.bound_to is not None else place != "flexible"):
            return refused
        if place == "orders" and ("orders.read" not in token.scope.split() or spiffe_id != WEBSITE):
            return refused
        return True, {"x-subject": token.subject} | ({} if spiffe_id is None else {"x-caller": spiffe_id})

    def _place(self) -> str | None:
        """Which rule is meant; None for a path that two readers could read differently."""
        plain = [segment.replace("%6f", "o").replace("%2e", ".") for segment in self.segments]
        if any(segment in {".", ".."} for segment in plain) or "" in plain[:-1]:
            return None
        if any(sign in segment for segment in plain for sign in (";", "%2f", "%5c", "%25", "%00")):
            return None
        first = plain[0]
        if self.destination == BILLING and first != first.lower() and first.lower() in PLACES:
            return "rest" if first.lower() == "open" and (len(plain) > 1 or self.method != "GET") else None
        if first not in PLACES or (first == "open" and (len(plain) > 1 or self.method != "GET")):
            return "rest"
        return first

    def _caller(self) -> str | None:
        """Whose certificate the connection has; the proxy's own XFCC element is the last."""
        names = [self.certificate] if self.certificate is not None else []
        if self.xfcc:
            *others, (name, by) = self.xfcc
            if others and (by != BILLING or any(other == BILLING for _, other in others)):
                return "contradictory"
            names.append(name)
        return "contradictory" if len(set(names)) > 1 else names[0] if names else None

    def _valid_token(self) -> Token | None:
        token = self.token
        if token is None or self.presented not in {"Bearer T", "bearer T", "BEARER T"} or "access_token" in self.query:
            return None
        good = token.audience == "https://api.example" and token.type == "at+jwt" and not token.forged
        # issued a minute before NOW for six minutes, thirty seconds of skew
        return token if good and -90 <= self.after < 330 else None


def _joined(headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(name for name, _ in headers):
        yield name, ",".join(value for other, value in headers if other == name)


SEGMENTS = (*PLACES, "ORDERS", "Open", "%6frders", "ordersx", "a", "1")
ODD = ("..", ".", "%2e%2e", "", "a%2f..", "a;b", "a%5cb", "%252e", "a%00")
names_of_callers = st.sampled_from(tuple(CALLERS))
tokens = st.builds(
    Token,
    bound_to=st.none() | names_of_callers,
    scope=st.sampled_from(["orders.read", "orders.read:all", "", "orders.write orders.read"]),
    subject=st.sampled_from(["alice", "bob"]),
    audience=st.sampled_from(["https://api.example"] * 4 + ["https://api.example/"]),
    forged=st.sampled_from([False] * 4 + [True]),
    type=st.sampled_from(["at+jwt"] * 4 + ["jwt"]),
)
attempts = st.builds(
    Attempt,
    method=st.sampled_from(["GET"] * 5 + ["POST", "HEAD", "get", "TRACE", "CONNECT"]),
    segments=st.tuples(st.sampled_from(SEGMENTS)).flatmap(
        lambda first: (
            st.just(first)
            | st.lists(st.sampled_from(SEGMENTS), max_size=2).map(lambda rest: (*first, *rest))
            | st.lists(st.sampled_from((*SEGMENTS, *ODD)), max_size=3).map(lambda rest: (*first, *rest))
        )
    ),
    query=st.sampled_from(["", "", "", "?", "?a=1", "?access_token=x", "?a=../x"]),
    host=st.sampled_from(["api.example.com", "gateway.example.com", "GATEWAY.example.com:443"]),
    destination=st.sampled_from([BILLING] * 6 + [ELSEWHERE, "", "spiffe://cluster.local/ns/x/sa/y"]),
    certificate=st.none() | names_of_callers,
    xfcc=st.just(())
    | st.tuples(st.tuples(names_of_callers, st.just(BILLING)))
    | st.lists(st.tuples(names_of_callers, st.sampled_from([BILLING, ELSEWHERE])), max_size=3).map(tuple),
    token=st.none() | tokens | tokens,
    presented=st.sampled_from(
        ["Bearer T"] * 6 + ["BEARER T", "Bearer  T", "Basic T", "Bearer T,Bearer T", "T", "Bearer T "]
    ),
    raw=st.booleans(),
    after=st.sampled_from([0.0] * 6 + [-91.0, -90.0, -89.5, 329.5, 330.0, 1_000_000.0]),
    underscored=st.booleans(),
)


def check(attempt: Attempt) -> None:
    """The answer is the oracle's, the same twice, and tells a denied client nothing about the token."""
    answer = attempt.decide()
    may_pass, upstream = attempt.expected()
    assert answer.allowed == may_pass, (attempt, answer.reason, answer.decision.diagnostics.detail)
    assert attempt.decide().response == answer.response
    if may_pass:
        assert answer.upstream_headers == upstream, attempt
        if attempt.destination == BILLING:
            # what the rule does not set the client cannot set either, in no spelling
            assert {"x-subject", "x-caller"} <= answer.upstream_headers.keys() | answer.removed_headers
            assert ("x_caller" in answer.removed_headers) == attempt.underscored
    else:
        told = answer.response.SerializeToString()
        assert not any(text in told for text in (b"alice", b"bob", b"eyJ"))


@given(attempts)
def test_a_request_is_allowed_exactly_when_a_naive_reading_of_its_ingredients_says_so(attempt: Attempt) -> None:
    check(attempt)


def test_every_caller_with_every_callers_token_gets_its_own_answer() -> None:
    for underscored, place, certificate, owner, forwarded in product(
        (False, True), ("orders", "self", "flexible", "a"), (None, *CALLERS), (None, *CALLERS), (False, True)
    ):
        elements = ((certificate, BILLING),) if forwarded and certificate is not None else ()
        check(
            Attempt(
                "GET",
                (place,),
                "",
                "api.example.com",
                BILLING,
                certificate,
                elements,
                Token(owner),
                "Bearer T",
                raw=forwarded,
                after=0.0,
                underscored=underscored,
            )
        )


def test_every_fault_of_a_token_denies_however_it_is_presented_and_whatever_was_cached() -> None:
    faults = (
        Token("website"),
        Token("website", scope="orders.read:all"),
        Token("website", audience="https://api.example/"),
        Token("website", forged=True),
        Token("website", type="jwt"),
    )
    # the clock goes forth and back: what was right before its time is wrong after it, and right again
    for place, token, after, raw in product(
        ("orders", "self", "flexible"), faults, (0.0, -90.0, -90.5, 329.5, 330.0, 0.0), (False, True)
    ):
        for presented in ("Bearer T", "bearer T", "Bearer  T", "Basic T", "Bearer T,Bearer T"):
            check(
                Attempt(
                    method="GET",
                    segments=(place,),
                    query="",
                    host="api.example.com",
                    destination=BILLING,
                    certificate="website",
                    xfcc=(),
                    token=token,
                    presented=presented,
                    raw=raw,
                    after=after,
                    underscored=False,
                )
            )
