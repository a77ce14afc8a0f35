"""Attack lines 38 to 48, 54, 62 and 63: which rule decides, and that nothing else is consulted."""

import pytest
from support.policies import (
    API,
    EVERYONE,
    exact,
    expression,
    facts,
    policy,
    prefix,
    rule,
    template,
    token,
    token_needed,
    with_conditions,
)

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Headers, RequestFacts
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import NO_PRINCIPAL, HeaderMatch, Injection, QueryMatch, Rule, Target, ValueMatchType
from ext_authz.policy.requirements import PeerRequirement, Requirement, ScopeRequirement, TokenRequirement
from ext_authz.principal import Principals
from ext_authz.requirement import BindingRequirement

HERE = (Target(destination_principal=API),)
REGULAR = ValueMatchType.REGULAR_EXPRESSION


def decided(index: PolicyIndex, request: RequestFacts) -> str | Reason:
    """The rule that decides, or why none does."""
    try:
        return index.select(request).rule.name
    except Refusal as refusal:
        return refusal.reason


PATHS = PolicyIndex(
    [
        policy(
            "p",
            rule("root", prefix("/")),
            rule("orders", prefix("/orders")),
            rule("orders-below", prefix("/orders/open/")),
            rule("exact", exact("/orders/open")),
            rule("order", template("/orders/{id}")),
            rule("lines", template("/orders/{id}/lines")),
            rule("any-lines", template("/{any}/open/lines")),
            rule("slash", exact("/slash/")),
            rule("expression", expression(r"/orders/[0-9]+/x(/.*)?")),
            rule("encoded", exact("/caf%C3%A9")),
        )
    ]
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "root"),
        ("/orders", "orders"),
        ("/orders/", "orders"),
        ("/ordersx", "root"),
        ("/orders/open", "exact"),
        ("/orders/open?x=1", "exact"),
        ("/orders/open/", "orders-below"),
        ("/orders/open/x", "orders-below"),
        ("/orders/42", "order"),
        ("/orders/42/", "orders"),
        ("/orders/42/lines", "lines"),
        ("/orders/open/lines", "lines"),
        ("/things/open/lines", "any-lines"),
        ("/orders/42/x", "expression"),
        ("/orders/42/x/y/z", "expression"),
        ("/orders/42/xy", "orders"),
        ("/orders/42/y", "orders"),
        ("/slash/", "slash"),
        ("/slash", "root"),
        ("/caf%c3%a9", "encoded"),
        ("/%6frders/open", "exact"),
    ],
)
def test_the_most_specific_path_wins(path: str, name: str) -> None:
    assert decided(PATHS, facts(path)) == name


@pytest.mark.parametrize("path", ["/public/../admin", "//admin", "/a%2fb", "*", "", "http://x/", "/%c0%af", "/a;b"])
def test_an_ambiguous_path_reaches_no_rule(path: str) -> None:
    assert decided(PATHS, facts(path)) is Reason.PATH_MALFORMED


@pytest.mark.parametrize("method", ["get", "Get", "CONNECT", "TRACE", "PROPFIND", "", "GET ", "GET\n", "*"])
def test_an_unsupported_method_reaches_no_rule(method: str) -> None:
    """Attack line 46."""
    assert decided(PATHS, facts(method=method)) is Reason.METHOD_NOT_SUPPORTED


def test_a_rule_for_get_says_nothing_about_head_and_options() -> None:
    """Attack line 47."""
    index = PolicyIndex([policy("p", rule("public", prefix("/", "GET")))])
    assert decided(index, facts(method="GET")) == "public"
    for method in ("HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"):
        assert decided(index, facts(method=method)) is Reason.NO_RULE


def test_a_method_override_does_not_choose_the_rule() -> None:
    """Attack line 45."""
    index = PolicyIndex(
        [policy("p", rule("get", prefix("/", "GET")), rule("delete", prefix("/", "DELETE"), scopes=()))]
    )
    request = facts("/?_method=DELETE", headers={"x-http-method-override": "DELETE"})
    selection = index.select(request)
    assert selection.rule.name == "get"
    removed = selection.rule.mutations(selection, request, EVERYONE).remove_request_headers
    assert {"x-http-method", "x-http-method-override", "x-method-override"} <= set(removed)


CONDITIONS = PolicyIndex(
    [
        policy(
            "p",
            rule("any", prefix("/a")),
            rule("method", prefix("/a", "POST")),
            rule("one-header", with_conditions(prefix("/a"), (HeaderMatch("x-a", "1"),))),
            rule("two-headers", with_conditions(prefix("/a"), (HeaderMatch("x-a", "1"), HeaderMatch("x-b", "2")))),
            rule("one-parameter", with_conditions(prefix("/a"), query=(QueryMatch("q", "1"),))),
            rule(
                "patterns",
                with_conditions(
                    prefix("/a"),
                    (HeaderMatch("x-c", "v[0-9]+", ValueMatchType.REGULAR_EXPRESSION),),
                    (QueryMatch("r", "[a-z]+", ValueMatchType.REGULAR_EXPRESSION),),
                ),
            ),
            rule("longer", prefix("/a/b")),
        )
    ]
)


@pytest.mark.parametrize(
    ("request_facts", "name"),
    [
        (facts("/a"), "any"),
        (facts("/a", headers={"x-a": "2", "x-b": "2"}), "any"),
        (facts("/a", headers={"x-a": "1"}), "one-header"),
        (facts("/a", headers={"x-a": "1", "x-b": "2"}), "two-headers"),
        (facts("/a", headers={"x-a": "1", "x-b": "2"}, method="POST"), "method"),
        (facts("/a/b", headers={"x-a": "1", "x-b": "2"}, method="POST"), "longer"),
        (facts("/a?q=1"), "one-parameter"),
        (facts("/a?%71=%31"), "one-parameter"),
        (facts("/a?q=2"), "any"),
        (facts("/a?q=1", headers={"x-a": "1"}), "one-header"),
        (facts("/a?r=abc", headers={"x-c": "v12"}), "patterns"),
        (facts("/a?r=abc", headers={"x-c": "v12x"}), "any"),
        (facts("/a?r=ABC", headers={"x-c": "v12"}), "any"),
        (facts("/a?r=abc", headers={"x-c": "\ud800"}), "any"),
        (facts("/a?q=1&q=2"), Reason.PATH_AMBIGUOUS),
        (facts("/a?x;q=1"), Reason.PATH_AMBIGUOUS),
        (facts("/a?q=%ff"), Reason.PATH_MALFORMED),
    ],
)
def test_method_then_headers_then_query_break_ties(request_facts: RequestFacts, name: str | Reason) -> None:
    assert decided(CONDITIONS, request_facts) == name


def test_a_header_that_a_rule_asks_for_and_that_is_not_utf8_denies() -> None:
    request = RequestFacts("GET", "/a", "h", headers=Headers.raw([("x-a", b"\xff")]))
    assert decided(CONDITIONS, request) is Reason.HEADER_MALFORMED


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("/admin", "admin"),
        ("/ADMIN", Reason.PATH_AMBIGUOUS),
        ("/Admin/users", Reason.PATH_AMBIGUOUS),
        ("/%41dmin", Reason.PATH_AMBIGUOUS),
        ("/PUBLIC", "root"),
        ("/admin/USERS", "admin"),
        ("/orders/ABC", "order"),
        ("/ORDERS/abc", Reason.PATH_AMBIGUOUS),
        ("/Secret/1", Reason.PATH_AMBIGUOUS),
        ("/\u212aelvin".encode().decode("latin-1"), Reason.PATH_MALFORMED),
        ("/%e2%84%aaelvin", Reason.PATH_AMBIGUOUS),
        ("/capital", Reason.PATH_AMBIGUOUS),
        ("/Capital", "capital"),
        ("/CAPITAL", Reason.PATH_AMBIGUOUS),
    ],
)
def test_another_letter_case_reaches_no_looser_rule(path: str, verdict: str | Reason) -> None:
    """Attack line 42."""
    policies = [
        policy(
            "p",
            rule("root", prefix("/")),
            rule("admin", prefix("/admin"), scopes=("admin",)),
            rule("order", template("/orders/{id}"), scopes=()),
            rule("secret", expression("/secret/[0-9]+"), scopes=()),
            rule("kelvin", exact("/kelvin"), scopes=()),
            rule("capital", exact("/Capital"), scopes=()),
        )
    ]
    assert decided(PolicyIndex(policies), facts(path)) == verdict
    if verdict is Reason.PATH_AMBIGUOUS:
        assert decided(PolicyIndex(policies, ["case_sensitive"]), facts(path)) == "root"


@pytest.mark.parametrize("path", ["/adm%C4%B1n", "/ADM%C4%B0N", "/adm%c4%b1n/x", "/%C5%BFecret/1", "/cafE%CC%81"])
def test_letters_that_some_upstreams_take_as_equal_reach_no_looser_rule(path: str) -> None:
    strict = rule("s", prefix("/admin"), template("/secret/{id}"), exact("/cafe%CC%81"), scopes=())
    index = PolicyIndex([policy("p", rule("root", prefix("/")), strict)])
    assert decided(index, facts(path)) is Reason.PATH_AMBIGUOUS


def test_another_letter_case_where_only_the_protected_rule_exists_is_denied() -> None:
    index = PolicyIndex([policy("p", rule("admin", prefix("/admin"), scopes=()))])
    assert decided(index, facts("/ADMIN")) is Reason.PATH_AMBIGUOUS
    assert decided(index, facts("/OTHER")) is Reason.NO_RULE
    strict_expression = PolicyIndex([policy("p", rule("a", prefix("/")), rule("b", expression("/[A-Z]+"), scopes=()))])
    assert decided(strict_expression, facts("/abc")) is Reason.PATH_AMBIGUOUS
    escaped = PolicyIndex([policy("p", rule("a", prefix("/")), rule("b", expression(r"/\x41"), scopes=()))])
    assert decided(escaped, facts("/a")) is Reason.PATH_AMBIGUOUS


def test_another_letter_case_does_not_lead_from_one_expression_to_another() -> None:
    strict, rest = rule("a-strict", expression("/admin/.*"), scopes=("admin",)), rule("b-rest", expression("/.*"))
    index = PolicyIndex([policy("p", strict, rest)])
    assert decided(index, facts("/admin/x")) == "a-strict"
    assert decided(index, facts("/other/x")) == "b-rest"
    assert decided(index, facts("/OTHER/x")) == "b-rest"
    for path in ("/ADMIN/x", "/Admin/x", "/%41dmin/x"):
        assert decided(index, facts(path)) is Reason.PATH_AMBIGUOUS
    assert decided(PolicyIndex([policy("p", strict, rest)], ["case_sensitive"]), facts("/ADMIN/x")) == "b-rest"


def test_two_expressions_of_one_rule_are_not_told_apart_by_letter_case() -> None:
    index = PolicyIndex([policy("p", rule("both", expression("/a/.*"), expression("/A/.*"), scopes=()))])
    assert decided(index, facts("/A/x")) == "both"


def test_a_leniency_by_name_opens_what_it_names() -> None:
    index = PolicyIndex([policy("p", rule("admin", prefix("/admin")))], ["merge_slashes"])
    assert decided(index, facts("//admin")) == "admin"
    with pytest.raises(ValueError, match="there is no leniency `x`"):
        PolicyIndex([], ["x"])


def test_a_host_with_an_empty_port_is_a_host() -> None:
    index = PolicyIndex([policy("p", rule("all", scopes=()))])
    assert decided(index, facts("/pkg.Service/Method", host="api.example.com:", method="POST")) == "all"


TWO_HOSTS = (
    policy("lax", rule("open"), hostnames=("lax.example.com",)),
    policy("rest", rule("closed", scopes=("admin",))),
)


@pytest.mark.parametrize("host", ["lax.example.com:81", "lax.example.com:", "other.example.com:443", "[::1]:80"])
def test_a_port_by_which_the_proxy_could_route_elsewhere_is_refused_where_hosts_are_told_apart(host: str) -> None:
    assert decided(PolicyIndex(TWO_HOSTS), facts(host=host)) is Reason.HOST_MALFORMED
    expected = "open" if host.startswith("lax") else "closed"
    assert decided(PolicyIndex(TWO_HOSTS, ["ignore_host_port"]), facts(host=host)) == expected
    (lax, rest) = TWO_HOSTS
    assert decided(PolicyIndex([rest]), facts(host=host)) == "closed"
    assert decided(PolicyIndex([lax]), facts(host=host)) == ("open" if expected == "open" else Reason.NO_POLICY)


@pytest.mark.parametrize("host", ["lax.example.com.", "lax.example.com.:81"])
def test_a_trailing_dot_by_which_the_proxy_routes_elsewhere_is_refused(host: str) -> None:
    for leniencies in ([], ["ignore_host_port"]):
        assert decided(PolicyIndex(TWO_HOSTS, leniencies), facts(host=host)) is Reason.HOST_MALFORMED


BY_HEADER = PolicyIndex(
    [
        policy(
            "p",
            rule("strict", with_conditions(prefix("/"), (HeaderMatch("x-mode", "admin"),)), scopes=("admin",)),
            rule("pattern", with_conditions(prefix("/p"), (HeaderMatch("x-kind", "a|b", REGULAR),)), scopes=()),
            rule("own", with_conditions(prefix("/o"), (HeaderMatch("x_own", "1"),)), scopes=()),
            rule("lax", prefix("/")),
        )
    ]
)


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        ([("x-mode", "admin")], "strict"),
        ([("x-mode", "user")], "lax"),
        ([("x-mode", "user,admin")], "lax"),
        ([("x-mode", "admin"), ("x-mode", "admin")], Reason.HEADER_MALFORMED),
        ([("x-mode", "user"), ("x-mode", "admin")], Reason.HEADER_MALFORMED),
        ([("x-mode", "user"), ("x-mode", "guest")], Reason.HEADER_MALFORMED),
        ([("x-kind", "a"), ("x-kind", "c")], Reason.HEADER_MALFORMED),
        ([("accept", "a"), ("accept", "b")], "lax"),
    ],
)
def test_a_header_that_rules_read_has_one_value(sent: list[tuple[str, str]], verdict: str | Reason) -> None:
    raw = Headers.raw((name, value.encode()) for name, value in sent)
    assert decided(BY_HEADER, facts()._replace(headers=raw)) == verdict


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("x-mode", "admin", "strict"),
        ("x-mode", "admin,admin", Reason.HEADER_MALFORMED),
        ("x-mode", "user, admin", Reason.HEADER_MALFORMED),
        ("x-mode", "admin\t,", Reason.HEADER_MALFORMED),
        ("x-mode", "user,guest", "lax"),
        ("x-mode", "administrator,user", "lax"),
        ("x-kind", "a,c", "lax"),
        ("accept", "admin,b", "lax"),
        ("x_mode", "admin", Reason.HEADER_MALFORMED),
        ("x_mode", "user", Reason.HEADER_MALFORMED),
        ("x.mode", "admin", Reason.HEADER_MALFORMED),
        ("x.other", "admin", "lax"),
        ("x_other", "admin", "lax"),
        ("x_own", "1", "lax"),
    ],
)
def test_a_header_that_envoy_joined_is_taken_for_several_when_a_rule_asks_for_one_of_them(
    name: str, value: str, verdict: str | Reason
) -> None:
    assert decided(BY_HEADER, facts(headers={name: value})) == verdict


def test_a_rule_may_read_a_header_whose_name_has_an_underscore() -> None:
    assert decided(BY_HEADER, facts("/o", headers={"x_own": "1"})) == "own"


HOSTS = PolicyIndex(
    [
        policy("any", rule("any", prefix("/any")), rule("any-all", prefix("/"))),
        policy("wild", rule("wild", prefix("/wild")), hostnames=("*.example.com",)),
        policy("deep", rule("deep"), hostnames=("*.b.example.com",)),
        policy("name", rule("name", prefix("/name")), hostnames=("a.example.com", "z.example.org")),
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "verdict"),
    [
        ("a.example.com", "/name", "name"),
        ("A.EXAMPLE.COM", "/name", "name"),
        ("z.example.org", "/name", "name"),
        ("a.example.com", "/wild", Reason.NO_RULE),
        ("a.example.com", "/any", Reason.NO_RULE),
        ("x.example.com", "/wild", "wild"),
        ("x.y.example.com", "/wild", "wild"),
        ("x.example.com", "/any", Reason.NO_RULE),
        ("x.b.example.com", "/", "deep"),
        ("b.example.com", "/wild", "wild"),
        ("example.com", "/any", "any"),
        ("other", "/", "any-all"),
        ("[::1]", "/", "any-all"),
        ("a b", "/", Reason.HOST_MALFORMED),
        ("", "/", Reason.HOST_MALFORMED),
    ],
)
def test_the_most_specific_hostname_alone_counts(host: str, path: str, verdict: str | Reason) -> None:
    assert decided(HOSTS, facts(path, host=host)) == verdict


def test_the_host_of_a_laxer_policy_does_not_help_at_a_stricter_workload() -> None:
    """Attack line 62."""
    index = PolicyIndex(
        [
            policy("lax", rule("open"), hostnames=("public.example.com",)),
            policy("strict", rule("closed", scopes=("admin",)), targets=HERE),
        ]
    )
    assert decided(index, facts(host="public.example.com")) == "closed"
    assert decided(index, facts(host="public.example.com", principal="spiffe://cluster.local/ns/x/sa/y")) == "open"
    narrowed = PolicyIndex(
        [
            policy("lax", rule("open"), hostnames=("public.example.com",)),
            policy("strict", rule("closed", scopes=()), targets=HERE, hostnames=("billing.example.com",)),
        ]
    )
    assert decided(narrowed, facts(host="public.example.com")) is Reason.NO_POLICY


@pytest.mark.parametrize("host", ["billing.example.com", "any.example.org", "public.example.com"])
def test_a_destination_that_no_policy_covers_is_denied(host: str) -> None:
    """Attack line 63."""
    index = PolicyIndex([policy("strict", rule("all"), targets=HERE)])
    assert decided(index, facts(host=host, principal="spiffe://cluster.local/ns/x/sa/y")) is Reason.NO_POLICY
    assert decided(index, facts(host=host, principal="")) is Reason.NO_POLICY
    assert decided(PolicyIndex([]), facts(host=host)) is Reason.NO_POLICY


TARGETS = PolicyIndex(
    [
        policy("exact", rule("exact"), targets=HERE),
        policy(
            "exact-extended",
            rule("exact-extended"),
            targets=(Target(destination_principal=API, context_extensions={"tier": "gold"}),),
        ),
        policy("account", rule("account"), targets=(Target("spiffe://cluster.local/ns/*/sa/api"),)),
        policy("namespace", rule("namespace"), targets=(Target("spiffe://cluster.local/ns/billing/sa/*"),)),
        policy("domain", rule("domain"), targets=(Target("spiffe://cluster.local/**"),)),
        policy("below", rule("below"), targets=(Target("spiffe://cluster.local/ns/**"),)),
        policy("two", rule("two"), targets=(Target(context_extensions={"a": "1", "b": "2"}),)),
        policy("one", rule("one"), targets=(Target(context_extensions={"a": "1"}),)),
        policy("either", rule("either"), targets=(Target("spiffe://x/a"), Target("spiffe://x/b"))),
        policy("untargeted", rule("untargeted")),
    ]
)


@pytest.mark.parametrize(
    ("principal", "extensions", "verdict"),
    [
        (API, {}, "exact"),
        (API, {"tier": "gold", "x": "y"}, "exact-extended"),
        (API, {"tier": "silver"}, "exact"),
        (API, {"a": "1", "b": "2"}, "exact"),
        ("spiffe://cluster.local/ns/billing/sa/web", {}, "namespace"),
        ("spiffe://cluster.local/ns/other/sa/api", {}, "account"),
        ("spiffe://cluster.local/ns/other/sa/web", {}, "below"),
        ("spiffe://cluster.local/ns/other", {}, "below"),
        ("spiffe://cluster.local/ns", {}, "domain"),
        ("spiffe://cluster.local/x", {"a": "1"}, "domain"),
        ("spiffe://cluster.local", {}, "untargeted"),
        ("spiffe://cluster.local/", {}, "untargeted"),
        ("spiffe://other/ns/billing/sa/web", {}, "untargeted"),
        ("https://cluster.local/ns/billing/sa/web", {}, "untargeted"),
        ("CN=api", {"a": "1"}, "one"),
        ("", {"a": "1", "b": "2"}, "two"),
        ("", {"a": "1", "b": "3"}, "one"),
        ("", {"a": "2", "b": "2"}, Reason.NO_POLICY),
        ("", {}, Reason.NO_POLICY),
        ("CN=api", {"a": "2"}, "untargeted"),
        ("spiffe://x/a", {}, "either"),
        ("spiffe://x/b", {}, "either"),
        ("spiffe://x/c", {}, "untargeted"),
    ],
)
def test_the_most_specific_target_alone_counts(
    principal: str, extensions: dict[str, str], verdict: str | Reason
) -> None:
    assert decided(TARGETS, facts(principal=principal, extensions=extensions)) == verdict


def test_a_destination_without_identity_is_covered_by_what_is_written_for_one() -> None:
    gateway, workload = policy("gateway", rule("gateway")), policy("workload", rule("workload"), targets=HERE)
    plain = policy("plain", rule("plain"), targets=(Target(NO_PRINCIPAL),))
    edge = policy("edge", rule("edge"), targets=(Target(NO_PRINCIPAL, {"listener": "edge"}),))
    assert decided(PolicyIndex([gateway]), facts(principal="")) == "gateway"
    assert decided(PolicyIndex([gateway, plain]), facts(principal="")) == "plain"
    assert decided(PolicyIndex([gateway, plain]), facts(principal=API)) == "gateway"
    assert decided(PolicyIndex([gateway, edge]), facts(principal="")) == "gateway"
    assert decided(PolicyIndex([gateway, workload]), facts(principal="")) is Reason.NO_POLICY
    assert decided(PolicyIndex([workload, plain]), facts(principal="")) == "plain"
    assert decided(PolicyIndex([workload, plain]), facts(principal=API)) == "workload"
    everything = PolicyIndex([gateway, workload, plain, edge])
    assert decided(everything, facts(principal="", extensions={"listener": "edge"})) == "edge"
    assert decided(everything, facts(principal="none")) == "gateway"


NAMES = PolicyIndex(
    [
        policy("secure", rule("secure", scopes=()), targets=(Target(sni="secure.example.com"),)),
        policy("wild", rule("wild", scopes=()), targets=(Target(sni="*.example.com"),)),
        policy("open", rule("open")),
    ]
)


@pytest.mark.parametrize(
    ("sni", "host", "verdict"),
    [
        ("secure.example.com", "secure.example.com:443", "secure"),
        ("SECURE.example.com", "secure.example.com", "secure"),
        ("secure.example.com", "open.example.org", Reason.HOST_SNI_MISMATCH),
        ("secure.example.com", "other.example.com", Reason.HOST_SNI_MISMATCH),
        ("a.example.com", "a.example.com", "wild"),
        ("a.example.com", "b.example.com", Reason.HOST_SNI_MISMATCH),
        ("open.example.org", "secure.example.com", Reason.HOST_SNI_MISMATCH),
        ("", "secure.example.com", Reason.HOST_SNI_MISMATCH),
        ("open.example.org", "open.example.org", "open"),
        ("open.example.org", "other.example.org", "open"),
        ("", "open.example.org", "open"),
    ],
)
def test_a_name_with_its_own_policy_is_reached_only_over_its_own_connection(
    sni: str, host: str, verdict: str | Reason
) -> None:
    """Attack line 48."""
    assert decided(NAMES, facts(sni=sni, host=host)) == verdict


def test_a_policy_name_is_unique() -> None:
    with pytest.raises(ValueError, match="two policies are called `p`"):
        PolicyIndex([policy("p"), policy("p")])


def test_each_request_is_judged_by_its_own_rule() -> None:
    """Attack line 54: what one route allowed says nothing about another."""
    index = PolicyIndex(
        [
            policy(
                "p", rule("read", prefix("/read"), scopes=("read",)), rule("write", prefix("/write"), scopes=("write",))
            )
        ]
    )
    reader = Principals(None, token(scopes=("read",)))
    index.select(facts("/read")).rule.check(reader)
    with pytest.raises(Refusal) as refusal:
        index.select(facts("/write")).rule.check(reader)
    assert refusal.value.reason is Reason.SCOPE_INSUFFICIENT


def test_a_selection_holds_the_request_as_the_rule_saw_it() -> None:
    index = PolicyIndex([policy("p", rule("order", template("/orders/{id}/lines/{line}")))])
    selection = index.select(facts("/orders/a%20b/lines/7?x=1", host="Billing.example.com:8443"))
    assert selection.variables == {"id": "a b", "line": "7"}
    assert selection.path.text == "/orders/a%20b/lines/7"
    assert selection.path.decoded == "/orders/a b/lines/7"
    assert selection.host == "billing.example.com"


def test_a_rule_says_what_it_needs() -> None:
    peer_rule = Rule("peer", (prefix("/peer"),), (Requirement(peer=PeerRequirement()),))
    scopes = ScopeRequirement(all=("a", "b"), any=("c", "d"))
    second = Requirement(token=TokenRequirement(scopes=ScopeRequirement(any=("x", "a"))))
    token_rule = Rule("token", (prefix("/token"),), (Requirement(token=TokenRequirement(scopes=scopes)), second))
    source_rule = Rule("source", (prefix("/source"),), (Requirement(source_ips=("10.0.0.0/8",)),))
    index = PolicyIndex([policy("p", rule("public", prefix("/")), peer_rule, token_rule, source_rule)])

    public = index.select(facts("/")).rule
    assert (public.policy, public.name, public.public) == ("p", "public", True)
    assert (public.needs_peer, public.needs_token, public.binding, public.challenge_scopes) == (False, False, None, ())
    only_peer = index.select(facts("/peer")).rule
    assert (only_peer.public, only_peer.needs_peer, only_peer.needs_token, only_peer.binding) == (
        False,
        True,
        False,
        None,
    )
    with_token = index.select(facts("/token")).rule
    assert (with_token.needs_peer, with_token.needs_token) == (True, True)
    assert with_token.binding == BindingRequirement()
    assert with_token.challenge_scopes == ("a", "b", "c")
    by_source = index.select(facts("/source")).rule
    by_source.check_source(facts(source="10.1.1.1"))
    with pytest.raises(Refusal) as refusal:
        by_source.check_source(facts(source="11.1.1.1"))
    assert refusal.value.reason is Reason.SOURCE_IP_NOT_ALLOWED


def test_the_peer_is_judged_before_the_token() -> None:
    requirements = (*token_needed("x"), Requirement(peer=PeerRequirement()))
    index = PolicyIndex([policy("p", Rule("r", (prefix("/"),), requirements))])
    with pytest.raises(Refusal) as refusal:
        index.select(facts()).rule.check(Principals(None, None))
    assert refusal.value.reason is Reason.PEER_MISSING


def test_headers_of_every_rule_for_the_destination_are_taken_from_the_client() -> None:
    """Attack line 5."""
    setting = Injection(request_headers={"x-subject": "${token.sub}"}, dynamic_metadata={"subject": "${token.sub}"})
    index = PolicyIndex(
        [
            policy("a", rule("private", prefix("/private"), scopes=(), injection=setting), targets=HERE),
            policy("b", rule("public", prefix("/public")), targets=HERE, hostnames=("public.example.com",)),
            policy("c", rule("elsewhere")),
        ]
    )
    forged = {"x-subject": "root", "x_subject": "root"}
    request = facts("/public", host="public.example.com", headers=forged)
    selection = index.select(request)
    mutations = selection.rule.mutations(selection, request, EVERYONE)
    assert mutations.set_request_headers == ()
    assert {"x-subject", "x_subject"} <= set(mutations.remove_request_headers)
    assert selection.rule.dynamic_metadata(selection, request, EVERYONE) == {}

    request = facts("/private", headers=forged)
    selection = index.select(request)
    mutations = selection.rule.mutations(selection, request, EVERYONE)
    assert mutations.set_request_headers == (("x-subject", "alice"),)
    assert "x_subject" in mutations.remove_request_headers
    assert "x-subject" not in mutations.remove_request_headers
    assert selection.rule.dynamic_metadata(selection, request, EVERYONE) == {"subject": "alice"}

    request = facts(principal="spiffe://x/y", headers=forged)
    selection = index.select(request)
    assert "x-subject" not in selection.rule.mutations(selection, request, EVERYONE).remove_request_headers
