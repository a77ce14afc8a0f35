"""Whatever a token or certificate says, what is injected is one visible header value."""

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st
from support.policies import context, facts, peer, token

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import KNOWN_ATTRIBUTES
from ext_authz.policy.injection import Injection
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.policy.template import Template
from ext_authz.principal import JsonValue, Principals

JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
ATTRIBUTES = [name for name in KNOWN_ATTRIBUTES if "<" not in name] + ["token.claims.a", "path.id"]
PIECES = st.one_of(
    st.sampled_from([f"${{{name}}}" for name in ATTRIBUTES]),
    st.text("ab $%{}\n\x00é", max_size=5).map(lambda text: text.replace("$", "$$")),
)


@given(st.lists(PIECES, min_size=1, max_size=4).map("".join), st.text(), JSON)
@example("${token.sub}", "a\r\nx-admin: 1", None)
@example("${token.claims.a}", "", "\x00")
def test_a_template_renders_a_visible_value_or_nothing(text: str, anything: str, claim: JsonValue) -> None:
    try:
        render = Template(text).render
    except ValueError:
        return
    principals = Principals(peer(), token(subject=anything, claims={"a": claim}, client_id=anything))
    request = facts(host=anything, source=anything)
    try:
        value = render(context(principals, request, variables={"id": anything}))
    except Refusal as refusal:
        assert refusal.reason is Reason.INJECTION_NOT_POSSIBLE  # noqa: PT017 - a property over both outcomes
        return
    assert value is None or (value and value.isprintable() and value.strip(" ") == value)


@given(st.text())
def test_any_text_is_a_template_or_says_why_not(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert Template(text).text == text


NAMES = st.sampled_from(
    ["x-a", "x_a", "x-a-b", "x_a_b", "x-a_b", "x-http-method", "x_http_method", "accept", "authorization"]
)


@given(st.frozensets(NAMES), st.frozensets(st.sampled_from(["x-a", "x_a", "x-a-b"])), st.booleans(), st.text())
def test_no_header_of_ours_reaches_the_upstream_as_the_client_sent_it(
    sent: frozenset[str], owned: frozenset[str], sets: bool, subject: str
) -> None:
    injection = Injection(request_headers={"x-a": "${token.sub}"} if sets else {})
    compiled = CompiledInjection(injection, owned)
    request = facts(headers=dict.fromkeys(sent, "forged"))
    try:
        mutations = compiled.mutations(context(Principals(None, token(subject=subject)), request))
    except Refusal:
        return
    upstream = dict.fromkeys(sent, "forged")
    for name in mutations.remove_request_headers:
        upstream.pop(name, None)
    upstream.update(mutations.set_request_headers)
    guarded = {name.replace("_", "-") for name in owned | injection.owned_headers | {"x-http-method"}}
    assert not any(value == "forged" and name.replace("_", "-") in guarded for name, value in upstream.items())
    assert not {name for name, _ in mutations.set_request_headers} & set(mutations.remove_request_headers)
