import pytest
from support.policies import API, exact, expression, policy, prefix, rule, template, token_needed, with_conditions

from ext_authz.policy.findings import Finding, Severity
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import (
    METHODS,
    NO_PRINCIPAL,
    HeaderMatch,
    QueryMatch,
    RouteMatch,
    RoutePolicy,
    Rule,
    Target,
    ValueMatchType,
)

HERE = (Target(destination_principal=API),)
BY_HOST = (Target(destination_principal=API, routed_by_host=True),)


def found(*policies: RoutePolicy, strict: bool = False) -> list[tuple[str, str, str | None]]:
    findings = PolicyIndex(policies).findings(strict=strict)
    assert all(finding.text for finding in findings)
    return [(finding.severity.value, finding.policy, finding.rule) for finding in findings]


def test_good_policies_have_no_findings() -> None:
    assert (
        found(
            policy(
                "p",
                rule("root", prefix("/"), scopes=("read",)),
                rule("get", exact("/orders", "GET"), exact("/orders/", "GET"), scopes=("read", "list")),
                rule("head", exact("/orders", "HEAD"), exact("/orders/", "HEAD"), scopes=("read", "list")),
                rule("other", prefix("/orders"), scopes=("read", "list", "write")),
                rule("post", exact("/orders", "POST"), exact("/orders/", "POST"), scopes=("order",)),
                rule("order", template("/orders/{id}"), scopes=("read",)),
                rule("numbers", expression("/n/[0-9]+"), scopes=("read",)),
                rule("health", exact("/healthz")),
                targets=HERE,
            )
        )
        == []
    )


@pytest.mark.parametrize(
    "one",
    [
        exact("/a"),
        exact("/a", "GET"),
        prefix("/a"),
        expression("/a.*"),
        with_conditions(exact("/a"), (HeaderMatch("x", "1"), HeaderMatch("y", "1")), (QueryMatch("q", "1"),)),
    ],
)
def test_two_rules_for_the_same_requests_are_an_error(one: RouteMatch) -> None:
    other = with_conditions(one, tuple(reversed(one.headers)), one.query)
    assert found(policy("p", rule("b", other), rule("a", one))) == [("error", "p", "b")]
    assert found(policy("q", rule("b", other)), policy("p", rule("b", one))) == [("error", "q", "b")]
    assert found(policy("p", rule("b", one), hostnames=("a.example",)), policy("q", rule("b", one))) == []


def test_spellings_of_one_path_are_the_same_path() -> None:
    assert found(policy("p", rule("a", template("/o/{id}")), rule("b", template("/o/{name}")))) == [("error", "p", "b")]
    assert found(policy("p", rule("a", prefix("/o")), rule("b", prefix("/o/")))) == [("error", "p", "b")]
    assert found(policy("p", rule("a", exact("/%6f")), rule("b", exact("/o")))) == [("error", "p", "b")]


def test_a_match_written_twice_is_a_warning() -> None:
    assert found(policy("p", rule("a", exact("/o"), exact("/o")))) == [("warning", "p", "a")]


def test_a_match_that_others_leave_nothing_is_a_warning() -> None:
    every = tuple(prefix("/a", method) for method in METHODS)
    assert found(policy("p", rule("every", *every), rule("never", prefix("/a")))) == [("warning", "p", "never")]
    assert found(policy("p", rule("most", *every[1:]), rule("rest", prefix("/a")))) == []


def test_a_prefix_that_an_expression_takes_is_a_warning() -> None:
    assert found(policy("p", rule("all", expression("/.*")), rule("orders", prefix("/orders"), scopes=()))) == [
        ("warning", "p", "orders")
    ]
    assert found(policy("p", rule("all", expression("/.*", "GET")), rule("orders", prefix("/orders")))) == []
    assert found(policy("p", rule("all", expression("/orders/[a-z]+")), rule("orders", prefix("/orders")))) == []


def test_a_trailing_slash_that_leads_elsewhere_is_a_warning() -> None:
    root = rule("root", prefix("/"))
    assert found(policy("p", root, rule("admin", exact("/admin"), scopes=("admin",)))) == [("warning", "p", "admin")]
    assert found(policy("p", root, rule("admin", exact("/admin/"), scopes=("admin",)))) == []
    assert found(policy("p", rule("admin", exact("/admin"), scopes=("admin",)))) == []
    by_header = with_conditions(exact("/admin"), (HeaderMatch("x", ".", ValueMatchType.REGULAR_EXPRESSION),))
    texts = [
        one.text for one in PolicyIndex([policy("p", root, rule("admin", by_header, scopes=("admin",)))]).findings()
    ]
    assert not any("is another path" in text for text in texts)


@pytest.mark.parametrize(
    ("rest", "warned"),
    [
        ((), True),
        (("read",), True),
        (("admin", "read"), False),
        (("admin", "read", "write"), False),
        (("other",), False),
    ],
)
def test_a_template_whose_trailing_slash_leads_to_a_laxer_rule_is_a_warning(
    rest: tuple[str, ...], *, warned: bool
) -> None:
    accounts = rule("accounts", template("/accounts/{id}"), scopes=("admin", "read"))
    expected = [("warning", "p", "accounts")] if warned else []
    assert found(policy("p", rule("rest", prefix("/"), scopes=rest), accounts)) == expected
    both = rule("accounts", template("/accounts/{id}"), template("/accounts/{id}/"), scopes=("admin", "read"))
    assert found(policy("p", rule("rest", prefix("/"), scopes=rest), both)) == []


def test_a_rule_that_other_methods_leave_for_a_laxer_one_is_a_warning() -> None:
    admin = rule("admin", prefix("/admin", "GET"), scopes=("admin",))
    (finding,) = PolicyIndex([policy("p", rule("lax", prefix("/")), admin)]).findings()
    assert (finding.severity, finding.rule) == (Severity.WARNING, "admin")
    assert "with `HEAD`, `POST`, `PUT`, `DELETE`, `OPTIONS`, `PATCH` the path falls under rule `lax`" in finding.text
    assert found(policy("p", rule("lax", prefix("/"), scopes=()), admin)) == [("warning", "p", "admin")]
    assert found(policy("p", rule("lax", prefix("/", "HEAD")), admin)) == [("warning", "p", "admin")]
    assert found(policy("p", rule("lax", prefix("/", "POST")), admin)) == [("warning", "p", "admin")]


@pytest.mark.parametrize(
    "others",
    [
        # nothing laxer matches
        [],
        [rule("all", prefix("/"), scopes=("admin",))],
        [rule("all", prefix("/"), scopes=("admin", "more"))],
        [rule("all", prefix("/"), scopes=("other",))],
        # written down as it is wanted
        [rule("sign-in", prefix("/admin", "POST"))],
        [rule("preflight", prefix("/", "OPTIONS"))],
        [rule("write", prefix("/", "POST"), scopes=())],
    ],
)
def test_methods_that_lead_to_no_laxer_rule_are_no_finding(others: list[Rule]) -> None:
    assert found(policy("p", rule("admin", prefix("/admin", "GET"), scopes=("admin",)), *others)) == []


def test_reading_may_ask_for_less_than_writing() -> None:
    read = rule("read", prefix("/", "GET"), prefix("/", "HEAD"))
    for method in ("POST", "DELETE"):
        assert found(policy("p", read, rule("change", prefix("/comments", method), scopes=()))) == []


@pytest.mark.parametrize(
    "conditioned",
    [
        with_conditions(prefix("/"), (HeaderMatch("x-mode", "admin"),)),
        with_conditions(prefix("/"), (HeaderMatch("x-mode", "a|b", ValueMatchType.REGULAR_EXPRESSION),)),
        with_conditions(prefix("/"), (), (QueryMatch("mode", "admin"),)),
    ],
)
def test_a_condition_that_a_client_meets_or_leaves_to_be_asked_for_less_is_a_warning(conditioned: RouteMatch) -> None:
    lax, strict = rule("lax", prefix("/")), rule("strict", prefix("/"), scopes=())
    (finding,) = PolicyIndex([policy("p", lax, rule("by-choice", conditioned, scopes=()))]).findings()
    assert "leaves out a header or parameter" in finding.text
    (finding,) = PolicyIndex([policy("p", strict, rule("by-choice", conditioned))]).findings()
    assert "leaves rule `strict`" in finding.text
    assert (
        found(policy("p", strict, rule("by-choice", conditioned, scopes=()), rule("x", exact("/x"), exact("/x/"))))
        == []
    )
    assert found(policy("p", rule("by-choice", conditioned, scopes=()), rule("x", exact("/x")))) == []
    incomparable = rule("other", prefix("/"), scopes=("a",))
    assert found(policy("p", incomparable, rule("by-choice", conditioned, scopes=("b",)))) == []


def test_a_policy_without_targets_beside_targeted_ones_is_noted() -> None:
    listener = policy("listener", targets=(Target(context_extensions={"listener": "edge"}),))
    assert found(policy("gateway"), listener) == [("info", "gateway", None)]
    assert found(policy("gateway"), policy("plain", targets=(Target(NO_PRINCIPAL),))) == [("info", "gateway", None)]


def test_a_policy_without_targets_beside_named_workloads_is_a_warning_that_says_what_to_write() -> None:
    mixed = (policy("gateway"), policy("workload", targets=HERE), policy("plain", targets=(Target(NO_PRINCIPAL),)))
    assert found(*mixed) == [("warning", "gateway", None)]
    assert found(*mixed, strict=True) == [("error", "gateway", None)]
    (finding,) = PolicyIndex(mixed).findings()
    assert "policies (`workload`) name destinations by `destination_principal`" in finding.text
    assert "`targets: [{destination_principal: none}]`" in finding.text
    assert found(*mixed[1:], policy("edge", targets=(Target(context_extensions={"listener": "edge"}),))) == []


def test_targets_of_which_neither_is_more_specific_are_a_warning() -> None:
    one = policy("one", targets=(Target(context_extensions={"a": "1"}),))
    other = policy("other", targets=(Target(context_extensions={"b": "1"}),))
    assert found(other, one) == [("warning", "other", None)]
    assert found(one, other, strict=True) == [("error", "other", None)]
    same_name = policy("other", targets=(Target(context_extensions={"a": "2"}),))
    assert found(one, same_name) == []


@pytest.mark.parametrize(
    ("lax", "strict"),
    [
        ((rule("open"),), (rule("closed", scopes=()),)),
        ((rule("open"),), (rule("closed", prefix("/api"), scopes=()),)),
        ((rule("a", prefix("/"), scopes=("a",)),), (rule("b", prefix("/"), scopes=("b",)),)),
        ((rule("a", expression("/a"), scopes=("a",)),), (rule("b", expression("/a"), scopes=("b",)),)),
        ((rule("a", expression("/a"), scopes=("a",)),), (rule("b", expression("/b"), scopes=("a",)),)),
    ],
)
def test_a_host_that_changes_the_strictness_is_a_warning(lax: tuple[Rule, ...], strict: tuple[Rule, ...]) -> None:
    for lax_hosts in ((), ("public.example.com",)):
        hosts = {"lax": lax_hosts, "strict": ("billing.example.com",)}
        policies = [
            policy("lax", *lax, targets=HERE, hostnames=hosts["lax"]),
            policy("strict", *strict, targets=HERE, hostnames=hosts["strict"]),
        ]
        assert [severity for severity, _, _ in found(*policies)] == ["warning"]
        assert [severity for severity, _, _ in found(*policies, strict=True)] == ["error"]


def test_a_host_that_changes_nothing_is_no_finding() -> None:
    same = [
        rule("all", prefix("/"), scopes=("a",)),
        rule("id", template("/a/{id}"), scopes=()),
        rule("x", expression("/x")),
    ]
    also_same = [Rule(f"{one.name}-2", one.matches, one.requirements, one.public) for one in same]
    one = policy("one", *same, targets=HERE, hostnames=("a.example",))
    other = policy("other", *also_same, targets=HERE, hostnames=("b.example",))
    assert found(one, other) == []


def test_where_the_proxy_routes_by_host_another_host_is_another_workload() -> None:
    closed = rule("closed", scopes=())
    for targets in (BY_HOST, (Target(sni="*.example.com"),), ()):
        lax = policy("lax", targets=targets, hostnames=("a.example.com",))
        strict = policy("strict", closed, targets=targets, hostnames=("b.example.com",))
        assert found(lax, strict, strict=True) == []
    lax = policy("lax", targets=BY_HOST, hostnames=("a.example.com",))
    strict = policy("strict", closed, targets=HERE, hostnames=("b.example.com",))
    assert [severity for severity, _, _ in found(lax, strict)] == ["warning"]


def test_findings_are_ordered_by_severity_and_say_what_to_do() -> None:
    index = PolicyIndex(
        [
            policy("gateway", rule("a", exact("/a"), exact("/a")), rule("b", exact("/a"))),
            policy("listener", rule("c", scopes=()), targets=(Target(context_extensions={"listener": "edge"}),)),
        ]
    )
    assert [finding.severity for finding in index.findings()] == [Severity.ERROR, Severity.WARNING, Severity.INFO]
    assert index.findings()[0] == Finding(
        Severity.ERROR,
        "gateway",
        "b",
        "it matches the same requests as rule `a` of policy `gateway` (any method Exact `/a`); "
        "remove one, or make one match more specific",
    )


def test_a_claim_of_json_values_does_not_disturb_the_comparison() -> None:
    needed = token_needed("a")
    one = policy("one", Rule("r", (prefix("/"),), needed), targets=HERE, hostnames=("a.example", "c.example"))
    other = policy("other", Rule("r", (prefix("/"),), needed), targets=HERE, hostnames=("b.example",))
    assert found(one, other) == []
