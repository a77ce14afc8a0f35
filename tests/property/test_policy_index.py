"""The index against a matcher that tries every rule, and what must hold however policies are written."""

from dataclasses import dataclass, replace
from itertools import product
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st
from support.policies import API, EVERYONE, NOBODY, facts, peer, token

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.policy.host import HostPattern
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import (
    NO_PRINCIPAL,
    HeaderMatch,
    PathMatch,
    PathType,
    QueryMatch,
    RouteMatch,
    RoutePolicy,
    Rule,
    Target,
)
from ext_authz.policy.requirements import PeerRequirement, Requirement, ScopeRequirement, TokenRequirement
from ext_authz.policy.spiffe_pattern import SpiffePattern
from ext_authz.principal import Principals

OTHER = "spiffe://cluster.local/ns/billing/sa/web"
SEGMENTS = ("a", "b", "B")
LITERALS = st.lists(st.sampled_from(SEGMENTS), max_size=3).map(lambda parts: "/" + "/".join(parts))
TEMPLATES = st.sampled_from(["/{x}", "/a/{x}", "/{x}/a", "/{x}/{y}", "/a/{x}/b", "/{x}/a/{y}"])
EXPRESSIONS = st.sampled_from(["/a.*", "/[ab]/?", "/b(/.*)?", "/.*"])
PATH_MATCHES = st.one_of(
    st.builds(PathMatch, st.sampled_from([PathType.EXACT, PathType.PATH_PREFIX]), LITERALS),
    st.builds(PathMatch, st.just(PathType.TEMPLATE), TEMPLATES),
    st.builds(PathMatch, st.just(PathType.REGULAR_EXPRESSION), EXPRESSIONS),
)
HEADER_MATCHES = st.lists(
    st.builds(HeaderMatch, st.sampled_from(["h", "i"]), st.sampled_from("12")),
    max_size=2,
    unique_by=lambda one: one.name,
)
QUERY_MATCHES = st.lists(
    st.builds(QueryMatch, st.sampled_from(["q", "r"]), st.sampled_from("12")),
    max_size=2,
    unique_by=lambda one: one.name,
)
MATCHES = st.builds(
    RouteMatch,
    PATH_MATCHES,
    st.sampled_from([None, None, "GET", "POST"]),
    st.one_of(st.just(()), st.just(()), HEADER_MATCHES.map(tuple)),
    st.one_of(st.just(()), st.just(()), QUERY_MATCHES.map(tuple)),
)
REQUIREMENTS = st.lists(
    st.one_of(
        st.builds(
            Requirement,
            peer=st.builds(PeerRequirement, spiffe=st.sampled_from([(), (OTHER,), ("spiffe://cluster.local/**",)])),
        ),
        st.builds(
            Requirement,
            token=st.builds(
                TokenRequirement, scopes=st.builds(ScopeRequirement, st.sampled_from([(), ("x",), ("invoices.read",)]))
            ),
        ),
        st.builds(Requirement, source_ips=st.sampled_from([("10.0.0.0/8",), ("192.0.2.1",)])),
    ),
    max_size=3,
).map(tuple)
TARGETS = st.sampled_from(
    [
        Target(API),
        Target("spiffe://cluster.local/ns/*/sa/api"),
        Target("spiffe://cluster.local/**"),
        Target(API, {"k": "1"}),
        Target(context_extensions={"k": "1"}),
        Target(NO_PRINCIPAL),
        Target(NO_PRINCIPAL, {"k": "1"}),
    ]
)
HOSTNAMES = st.one_of(
    st.just(()),
    st.just(()),
    st.lists(st.sampled_from(["a.example", "*.example", "*.b.example"]), max_size=2, unique=True).map(tuple),
)


@st.composite
def policies(draw: st.DrawFn) -> list[RoutePolicy]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        rules = []
        for rule_number in range(draw(st.integers(1, 4))):
            needed = draw(REQUIREMENTS)
            matches = tuple(draw(st.lists(MATCHES, min_size=1, max_size=3)))
            rules.append(Rule(f"r{rule_number}", matches, needed, public=not needed))
        targets = tuple(draw(st.lists(TARGETS, max_size=2)))
        made.append(RoutePolicy(f"p{number}", tuple(rules), targets, draw(HOSTNAMES)))
    return made


REQUESTS = st.builds(
    facts,
    st.tuples(
        st.lists(st.sampled_from([*SEGMENTS, "c"]), max_size=3).map(lambda parts: "/" + "/".join(parts)),
        st.sampled_from(["", "?q=1", "?q=2&r=1"]),
    ).map("".join),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    host=st.sampled_from(["a.example", "c.example", "x.b.example", "other"]),
    headers=st.dictionaries(st.sampled_from(["h", "i"]), st.sampled_from("12")),
    principal=st.sampled_from([API, OTHER, "", "spiffe://elsewhere/x"]),
    extensions=st.sampled_from([{}, {"k": "1"}, {"k": "2"}]),
)


@dataclass(frozen=True)
class Named:
    policy: str
    rule: str


def decided(index: PolicyIndex, request: RequestFacts) -> Named | Reason:
    try:
        rule = index.select(request).rule
    except Refusal as refusal:
        return refusal.reason
    return Named(rule.policy, rule.name)


def target_rank(target: Target, request: RequestFacts) -> tuple[object, ...] | None:
    principal, extensions = target.destination_principal, target.context_extensions
    if any(request.context_extensions.get(name) != value for name, value in extensions.items()):
        return None
    if principal is None:
        return (0, False, ()), len(extensions)
    if principal == NO_PRINCIPAL:
        return None if request.destination_principal else ((2, False, ()), len(extensions))
    pattern = SpiffePattern(principal)
    if not pattern.matches(request.destination_principal):
        return None
    literal = tuple(segment != "*" for segment in pattern.segments)
    kind = (2, False, ()) if pattern.is_exact else (1, not pattern.any_depth, literal)
    return kind, len(extensions)


def host_rank(policy: RoutePolicy, host: str) -> tuple[int, int] | None:
    patterns = [HostPattern(text) for text in policy.hostnames]
    ranks = [(2 if one.is_exact else 1, len(one.text)) for one in patterns if one.matches(host)]
    return max(ranks, default=None) if patterns else (0, 0)


def path_rank(match: PathMatch, segments: tuple[str, ...]) -> tuple[object, ...] | None:
    wanted = match.segments
    fits = all(one is None or one == other for one, other in zip(wanted, segments, strict=False))
    literal = tuple(one is not None for one in wanted)
    match match.type:
        case PathType.EXACT:
            return (3,) if wanted == segments else None
        case PathType.TEMPLATE:
            filled = all(segments[index] for _, index in match.variables) if len(wanted) == len(segments) else False
            return (2, literal) if filled and fits else None
        case PathType.REGULAR_EXPRESSION:
            text = "/" + "/".join(segments)
            matched = {"/a.*": text.startswith("/a"), "/.*": True, "/b(/.*)?": text == "/b" or text.startswith("/b/")}
            return (1,) if matched.get(match.value, text in {"/a", "/b", "/a/", "/b/"}) else None
        case PathType.PATH_PREFIX:
            return (0, len(wanted)) if len(segments) >= len(wanted) and fits else None


def _matches(policy: RoutePolicy) -> list[tuple[Rule, RouteMatch]]:
    return [(rule, match) for rule in policy.rules for match in rule.matches]


def naive(everything: list[RoutePolicy], request: RequestFacts) -> Named | Reason:
    """Every policy, every rule, every match, and the best of them."""
    targeted = [
        (rank, policy)
        for policy in everything
        for target in policy.targets
        if (rank := target_rank(target, request)) is not None
    ]
    if targeted:
        best = max(rank for rank, _ in targeted)
        considered = [policy for rank, policy in targeted if rank == best]
    elif request.destination_principal or not any(one.names_workloads for two in everything for one in two.targets):
        considered = [policy for policy in everything if not policy.targets]
    else:
        considered = []
    hosts = [(rank, policy) for policy in considered if (rank := host_rank(policy, request.host)) is not None]
    if not hosts:
        return Reason.NO_POLICY
    best_host = max(rank for rank, _ in hosts)
    path, _, query = request.path.partition("?")
    segments = tuple(path[1:].split("/")) if path != "/" else ()
    parameters = dict(pair.split("=") for pair in query.split("&")) if query else {}
    winners = []
    for rank, policy in hosts:
        if rank != best_host:
            continue
        for rule, match in _matches(policy):
            ranked = path_rank(match.path, segments)
            if (
                ranked is not None
                and match.method in {None, request.method}
                and all(request.headers.joined(one.name) == one.value for one in match.headers)
                and all(parameters.get(one.name) == one.value for one in match.query)
            ):
                order = (match.method is None, -len(match.headers), -len(match.query), policy.name, rule.name)
                winners.append((ranked, order))
    if not winners:
        return Reason.NO_RULE
    best_path = max(ranked for ranked, _ in winners)
    _, _, _, policy_name, rule_name = min(order for ranked, order in winners if ranked == best_path)
    return Named(policy_name, rule_name)


@given(policies(), REQUESTS)
def test_the_index_agrees_with_trying_every_rule(everything: list[RoutePolicy], request: RequestFacts) -> None:
    assert decided(PolicyIndex(everything, ["case_sensitive"]), request) == naive(everything, request)


@given(policies(), REQUESTS)
def test_letter_case_turns_a_decision_into_a_denial_only(everything: list[RoutePolicy], request: RequestFacts) -> None:
    assert decided(PolicyIndex(everything), request) in {naive(everything, request), Reason.PATH_AMBIGUOUS}


@given(policies(), REQUESTS, st.randoms(use_true_random=False))
def test_order_never_decides(everything: list[RoutePolicy], request: RequestFacts, random: Random) -> None:
    shuffled = [replace(one, rules=tuple(random.sample(one.rules, len(one.rules)))) for one in everything]
    random.shuffle(shuffled)
    index, other = PolicyIndex(everything), PolicyIndex(shuffled)
    assert decided(index, request) == decided(other, request)
    assert index.findings() == other.findings()


def allowed(index: PolicyIndex, request: RequestFacts, principals: Principals) -> bool:
    try:
        rule = index.select(request).rule
        rule.check_source(request)
        rule.check(principals)
    except Refusal:
        return False
    return True


@given(policies(), REQUESTS, REQUIREMENTS, st.data())
def test_a_further_requirement_never_allows_what_was_denied(
    everything: list[RoutePolicy], request: RequestFacts, further: tuple[Requirement, ...], data: st.DataObject
) -> None:
    assume(further)
    which = data.draw(st.integers(0, len(everything) - 1))
    policy = everything[which]
    number = data.draw(st.integers(0, len(policy.rules) - 1))
    rule = policy.rules[number]
    stricter = replace(rule, requirements=(*rule.requirements, *further), public=False)
    rules = (*policy.rules[:number], stricter, *policy.rules[number + 1 :])
    changed = [*everything[:which], replace(policy, rules=rules), *everything[which + 1 :]]
    before, after = PolicyIndex(everything), PolicyIndex(changed)
    for principals in (EVERYONE, NOBODY, Principals(peer(OTHER), token(scopes=("x",)))):
        assert allowed(before, request, principals) or not allowed(after, request, principals)


@given(policies())
def test_every_rule_that_ties_is_reported(everything: list[RoutePolicy]) -> None:
    """Two rules that only their names separate are an error, wherever they can meet."""
    errors = {(one.policy, one.rule) for one in PolicyIndex(everything).findings() if one.severity == "error"}
    rows = [(policy, rule, match) for policy in everything for rule in policy.rules for match in rule.matches]
    for (one, rule, match), (other, other_rule, other_match) in product(rows, rows):
        same = match == other_match and (one.name, rule.name) != (other.name, other_rule.name)
        if same and one.targets == other.targets and one.hostnames == other.hostnames:
            assert {(one.name, rule.name), (other.name, other_rule.name)} & errors


@given(policies(), st.text(), st.text(), st.text())
def test_any_request_is_decided_or_refused(everything: list[RoutePolicy], path: str, host: str, sni: str) -> None:
    assert decided(PolicyIndex(everything), facts(f"/{path}", host=host, sni=sni)) is not None
