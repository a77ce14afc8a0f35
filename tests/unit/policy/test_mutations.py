"""Attack lines 5 and 45: what a rule sets is the rule's, and no header replaces the method."""

import pytest
from support.policies import NOBODY, context, facts, peer, token

from ext_authz.decision import Mutations
from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import Context
from ext_authz.policy.injection import Injection
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.principal import Principals

OVERRIDES = ("x-http-method", "x-http-method-override", "x-method-override")


def compiled(injection: Injection, *owned: str) -> CompiledInjection:
    return CompiledInjection(injection, frozenset(owned))


def sent(*names: str) -> Context:
    return context(request=facts(headers=dict.fromkeys(names, "forged")))


def test_headers_are_set_from_the_request() -> None:
    injection = Injection(
        request_headers={"x-subject": "${token.sub}", "x-static": "1"},
        remove_request_headers=("authorization",),
        response_headers={"x-id": "${request.id}", "x-none": "${token.claims.none}"},
    )
    assert compiled(injection).mutations(context()) == Mutations(
        set_request_headers=(("x-subject", "alice"), ("x-static", "1")),
        remove_request_headers=("authorization", *OVERRIDES),
        set_response_headers=(("x-id", "request-1"),),
    )


def test_a_header_whose_value_is_absent_is_removed() -> None:
    injection = Injection(request_headers={"x-subject": "${token.sub}"}, client_certificate="x-client-certificate")
    mutations = compiled(injection).mutations(context(NOBODY))
    assert mutations.set_request_headers == ()
    assert mutations.remove_request_headers == (*OVERRIDES, "x-subject", "x-client-certificate")


def test_headers_that_other_rules_set_are_removed() -> None:
    mutations = compiled(Injection(request_headers={"x-a": "1"}), "x-a", "x-b").mutations(context())
    assert mutations.set_request_headers == (("x-a", "1"),)
    assert mutations.remove_request_headers == ("x-b", *OVERRIDES)


def test_the_certificate_goes_into_its_header() -> None:
    mutations = compiled(Injection(client_certificate="x-client-certificate")).mutations(context())
    ((name, value),) = mutations.set_request_headers
    assert name == "x-client-certificate"
    assert value.startswith("-----BEGIN%20CERTIFICATE-----%0A")


@pytest.mark.parametrize("name", ["x_user_id", "x_user-id", "x-user_id", "x.user.id", "x.user-id", "x_user.id"])
def test_a_name_that_some_upstreams_read_as_ours_is_removed(name: str) -> None:
    for injection, owned in (
        (Injection(request_headers={"x-user-id": "${token.sub}"}), ()),
        (Injection(), ("x-user-id",)),
        (Injection(remove_request_headers=("x-user-id",)), ()),
    ):
        removed = compiled(injection, *owned).mutations(sent(name, "x_other", "accept")).remove_request_headers
        assert name in removed
        assert "x_other" not in removed
        assert "accept" not in removed


def test_a_name_with_underscores_of_our_own_is_set_and_its_other_spellings_removed() -> None:
    mutations = compiled(Injection(request_headers={"x_user": "1"})).mutations(sent("x_user", "x-user"))
    assert mutations.set_request_headers == (("x_user", "1"),)
    assert mutations.remove_request_headers == (
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-user",
    )


def test_method_overrides_are_removed_in_every_spelling() -> None:
    removed = compiled(Injection()).mutations(sent("x_http_method_override")).remove_request_headers
    assert removed == (*OVERRIDES, "x_http_method_override")


def test_what_is_removed_already_is_not_listed_twice() -> None:
    removed = compiled(Injection(), "x_user").mutations(sent("x_user")).remove_request_headers
    assert removed == (
        *OVERRIDES[:0],
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-user",
        "x_user",
    )


def test_query_parameters_are_set_encoded_and_in_every_spelling_of_the_client_removed() -> None:
    injection = Injection(
        set_query_parameters={"user": "${token.sub}", "none": "${token.claims.none}"},
        remove_query_parameters=("debug",),
    )
    principals = Principals(None, token(subject="a&admin=1 ü"))
    mutations = compiled(injection).mutations(context(principals, query="us%65r=x&d%65bug&q=1&user=y&us%65r=z"))
    assert mutations.set_query_parameters == (("user", "a%26admin%3D1%20%C3%BC"),)
    assert mutations.remove_query_parameters == ("debug", "none", "us%65r", "d%65bug")


@pytest.mark.parametrize(
    "name",
    ["User.id", "USER_ID", "user_id[]", "user_id%5B%5D", "user_id%00x", "+user_id", "%20user+id", "user[id"],
)
def test_a_parameter_that_some_upstream_reads_as_ours_is_removed(name: str) -> None:
    for injection in (
        Injection(set_query_parameters={"user_id": "${token.sub}"}),
        Injection(remove_query_parameters=("user_id",)),
    ):
        query = f"user=1&{name}=mallory&user_ids=2&[user_id]=3"
        removed = compiled(injection).mutations(context(query=query)).remove_query_parameters
        assert name in removed
        assert not {"user", "user_ids", "[user_id]"} & set(removed)


def test_a_query_that_could_be_split_otherwise_is_refused_where_parameters_are_set() -> None:
    with pytest.raises(Refusal) as refusal:
        compiled(Injection(remove_query_parameters=("a",))).mutations(context(query="x=1;a=2"))
    assert refusal.value.reason is Reason.PATH_AMBIGUOUS
    assert compiled(Injection()).mutations(context(query="x=1;a=2")).remove_query_parameters == ()


def test_metadata_keeps_json_types_of_single_references() -> None:
    injection = Injection(
        dynamic_metadata={
            "level": "${token.claims.level}",
            "groups": "${token.claims.groups}",
            "text": "level ${token.claims.level}",
            "nested": {
                "subject": "${token.sub}",
                "none": "${token.claims.none}",
                "list": ("${token.sub}", 1, "${path.x}"),
            },
            "flag": True,
            "none": "${token.claims.none}",
        }
    )
    principals = Principals(peer(), token(claims={"level": 3, "groups": ("a", "b")}))
    compiled_injection = compiled(injection)
    assert compiled_injection.has_metadata
    assert compiled_injection.dynamic_metadata(context(principals)) == {
        "level": 3,
        "groups": ("a", "b"),
        "text": "level 3",
        "nested": {"subject": "alice", "list": ("alice", 1)},
        "flag": True,
    }
    assert not compiled(Injection()).has_metadata


def test_metadata_with_control_characters_is_refused() -> None:
    injection = compiled(Injection(dynamic_metadata={"a": "${token.claims.a}"}))
    with pytest.raises(Refusal) as refusal:
        injection.dynamic_metadata(context(Principals(None, token(claims={"a": ("x\ny",)}))))
    assert refusal.value.reason is Reason.INJECTION_NOT_POSSIBLE
