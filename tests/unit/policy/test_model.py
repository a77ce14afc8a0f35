import re
from collections.abc import Callable

import pytest
from support.policies import exact, expression, policy, prefix, rule, template, token_needed

from ext_authz.policy.header_name import check_header_name, check_removed_header, check_set_header
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
    ValueMatchType,
)
from ext_authz.policy.requirements import PeerRequirement, Requirement
from ext_authz.requirement import BindingRequirement

EXPRESSION = ValueMatchType.REGULAR_EXPRESSION


def injecting(value: str, *matches: RouteMatch, requirements: tuple[Requirement, ...] = ()) -> Rule:
    return Rule(
        "r",
        matches or (RouteMatch(),),
        requirements,
        public=not requirements,
        injection=Injection(request_headers={"x-value": value}),
    )


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: exact("orders"), "write `/orders`"),
        (lambda: prefix(""), "write `/`"),
        (lambda: exact("/a/../b"), "no request can have the path `/a/../b`: the path has a dot segment"),
        (lambda: exact("/a b"), "percent-encoded"),
        (lambda: exact("/a?b"), "write it under `query`"),
        (lambda: exact("/orders/{id}"), "write `type: Template`"),
        (lambda: template("/orders"), "write `type: Exact`"),
        (lambda: template("/orders/{Id}"), "write a whole segment in lowercase"),
        (lambda: template("/orders/v{id}/{x}"), "write a whole segment in lowercase"),
        (lambda: template("/{id}/{id}"), "give each its own name"),
        (lambda: template("orders/{id}"), "does not begin with `/`"),
        (lambda: expression("/("), "is not an RE2 expression: missing"),
        (lambda: expression("(?=a)"), "is not an RE2 expression"),
        (lambda: expression(r"(a)\1"), "is not an RE2 expression"),
        (lambda: expression("\ud800"), "it is not UTF-8"),
        (lambda: expression("a" * 1025), "longer than 1024 characters"),
        (lambda: expression(".{900}"), "instructions, more than 2000"),
        (lambda: RouteMatch(method="get"), "write one of GET"),
        (lambda: RouteMatch(method="CONNECT"), "write one of GET"),
        (lambda: RouteMatch(headers=(HeaderMatch("a", "1"), HeaderMatch("a", "2"))), "a header is matched twice"),
        (lambda: RouteMatch(query=(QueryMatch("a", "1"), QueryMatch("a", "2"))), "a query parameter is matched twice"),
        (lambda: HeaderMatch("X-A", "1"), "write `x-a`"),
        (lambda: HeaderMatch(":path", "1"), "write `method`, `path` or `hostnames`"),
        (lambda: HeaderMatch("x-http-method-override", "1"), "write `method`"),
        (lambda: HeaderMatch("a", "(", EXPRESSION), "not an RE2 expression"),
        (lambda: QueryMatch("a", "(", EXPRESSION), "not an RE2 expression"),
        (lambda: QueryMatch("", "1"), "write `name`"),
        (lambda: rule("R"), "is not lowercase letters"),
        (lambda: Rule("r", (), public=True), "matches nothing"),
        (lambda: Rule("r", (RouteMatch(),)), "write `public: true` if everyone may pass"),
        (lambda: Rule("r", (RouteMatch(),), (Requirement(),)), "the rule requires nothing"),
        (lambda: Rule("r", (RouteMatch(),), token_needed(), public=True), "remove `public: true` or the requirements"),
        (
            lambda: Rule("r", (RouteMatch(),), (Requirement(peer=PeerRequirement(), binding=BindingRequirement()),)),
            "add `token: {}`",
        ),
        (lambda: injecting("${token.sub}"), "the rule takes no token; add `token: {}`"),
        (lambda: injecting("${peer.spiffe_id}"), "the rule takes no peer; add `peer: {}`"),
        (
            lambda: Rule("r", (RouteMatch(),), public=True, injection=Injection(client_certificate="x-cert")),
            "`${peer.certificate}` would always be absent",
        ),
        (lambda: injecting("${path.id}"), "not every match is a Template with a variable `id`"),
        (lambda: injecting("${path.id}", template("/a/{id}"), template("/b/{no}")), "write `type: Template`"),
        (Target, "write `destination_principal`, `context_extensions` or `sni`"),
        (lambda: Target(destination_principal="billing"), "write `spiffe://trust.domain/path`"),
        (lambda: Target(sni="*"), "leave the field out"),
        (lambda: policy("P"), "the policy name `P`"),
        (lambda: RoutePolicy("p", ()), "the policy has no rules"),
        (lambda: policy("p", rule("a"), rule("a")), "two rules are called `a`"),
        (lambda: policy("p", hostnames=("A.example",)), "write `a.example`"),
    ],
)
def test_a_value_that_cannot_work_says_what_to_write(build: Callable[[], object], advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        build()


def test_a_rule_may_speak_of_what_it_takes() -> None:
    assert injecting("${token.sub}", requirements=token_needed())
    assert injecting("${peer.spiffe_id}", requirements=token_needed())
    assert injecting("${peer.spiffe_id}", requirements=(Requirement(peer=PeerRequirement()),))
    assert injecting("${path.id}", template("/a/{id}"), template("/b/{x}/{id}"))
    assert injecting("${request.method}")


def test_a_path_condition_is_read_like_a_path() -> None:
    assert PathMatch(PathType.PATH_PREFIX, "/a/").segments == ("a",)
    assert PathMatch(PathType.EXACT, "/a/").segments == ("a", "")
    assert PathMatch(PathType.EXACT, "/caf%c3%a9").segments == ("café",)
    assert PathMatch(PathType.TEMPLATE, "/a/{id}/b/{x_1}").segments == ("a", None, "b", None)
    assert PathMatch(PathType.TEMPLATE, "/a/{id}/b/{x_1}").variables == (("id", 1), ("x_1", 3))
    assert PathMatch(PathType.REGULAR_EXPRESSION, "/a/.*").segments == ()


def test_a_values_mappings_are_its_own() -> None:
    headers = {"x-a": "1"}
    extensions = {"a": "1"}
    injection, target = Injection(request_headers=headers), Target(context_extensions=extensions)
    headers.clear()
    extensions.clear()
    assert injection.request_headers == {"x-a": "1"}
    assert target.context_extensions == {"a": "1"}


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: Injection(request_headers={"host": "a"}), "write `method`, `path` or `hostnames`"),
        (lambda: Injection(request_headers={":path": "a"}), "write `method`, `path` or `hostnames`"),
        (lambda: Injection(request_headers={"X-Subject": "a"}), "write `x-subject`"),
        (lambda: Injection(request_headers={"x subject": "a"}), "is not a header name"),
        (lambda: Injection(request_headers={"": "a"}), "is not a header name"),
        (lambda: Injection(request_headers={"x-envoy-original-path": "/"}), "steers Envoy itself"),
        (lambda: Injection(request_headers={"x-forwarded-client-cert": "a"}), "write `client_certificate"),
        (lambda: Injection(request_headers={"x-http-method-override": "PUT"}), "is always removed"),
        (lambda: Injection(request_headers={"content-length": "1"}), "leave it to the proxy"),
        (lambda: Injection(remove_request_headers=("transfer-encoding",)), "leave it to the proxy"),
        (lambda: Injection(remove_request_headers=("connection",)), "leave it to the proxy"),
        (lambda: Injection(response_headers={"upgrade": "a"}), "leave it to the proxy"),
        (lambda: Injection(client_certificate="x-forwarded-client-cert"), "write `client_certificate"),
        (lambda: Injection(request_headers={"x-a": "1"}, client_certificate="x-a"), "is set twice"),
        (lambda: Injection(request_headers={"x-a": "1"}, remove_request_headers=("x-a",)), "both set and removed"),
        (lambda: Injection(request_headers={"x-a": ""}), "is empty"),
        (lambda: Injection(request_headers={"x-a": "${token.subject}"}), "there is no attribute `token.subject`"),
        (lambda: Injection(dynamic_metadata={"a": {"b": ("${x}",)}}), "there is no attribute `x`"),
        (lambda: Injection(set_query_parameters={"a b": "1"}), "is not plain"),
        (lambda: Injection(remove_query_parameters=("a&b",)), "is not plain"),
        (lambda: Injection(set_query_parameters={"a": "1"}, remove_query_parameters=("a",)), "both set and removed"),
    ],
)
def test_an_injection_that_cannot_work_says_what_to_write(build: Callable[[], object], advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        build()


def test_an_injection_knows_its_headers_and_references() -> None:
    injection = Injection(
        request_headers={"x-subject": "${token.sub}"},
        response_headers={"x-id": "${request.id}"},
        dynamic_metadata={"a": {"b": ("${peer.spiffe_id}", 1)}, "c": True},
        set_query_parameters={"tenant": "${token.claims.tenant}"},
        client_certificate="x-client-certificate",
    )
    assert injection.owned_headers == {"x-subject", "x-client-certificate"}
    assert injection.references == {
        "token.sub",
        "request.id",
        "peer.spiffe_id",
        "token.claims.tenant",
        "peer.certificate",
    }


def test_what_may_only_be_removed_can_be_removed() -> None:
    for name in ("x-envoy-original-path", "x-forwarded-client-cert", "authorization"):
        check_removed_header(name)
    check_set_header("authorization")
    check_header_name("x_subject")
