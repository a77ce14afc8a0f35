"""Whose answer may be given again, and to whom."""

from dataclasses import replace

import pytest
from support.deployment import BILLING, CALLER, THIEF, Deployment, bound_token, rule
from support.policies import peer, token

from ext_authz.decision import Allow
from ext_authz.errors import Reason
from ext_authz.policy.answers import AnswerCache
from ext_authz.policy.compiled import CompiledRule
from ext_authz.policy.model import Injection, PathType, RouteMatch, RoutePolicy, Rule, Target
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.policy.requirements import Requirement, TokenRequirement

ANSWER = Allow(Reason.OK)
NAMES = tuple(f"rule-{number}" for number in range(1_000))


def compiled_rule(name: str = "rule") -> CompiledRule:
    return CompiledRule("policy", Rule(name, (RouteMatch(),), public=True), CompiledInjection(Injection(), frozenset()))


def _put(answers: AnswerCache, rule: CompiledRule) -> bool:
    answers.put(rule, None, None, ANSWER)
    return True


def test_an_answer_is_given_again_for_the_same_rule_peer_and_token() -> None:
    answers, rule, caller, credential = AnswerCache(), compiled_rule(), peer(), token()
    assert answers.get(rule, caller, credential) is None
    answers.put(rule, caller, credential, ANSWER)
    assert answers.get(rule, caller, credential) is ANSWER


def test_what_is_only_equal_has_no_answer() -> None:
    answers, rule, caller, credential = AnswerCache(), compiled_rule(), peer(), token()
    answers.put(rule, caller, credential, ANSWER)
    assert answers.get(compiled_rule(), caller, credential) is None
    assert answers.get(rule, replace(caller), credential) is None
    assert token() == credential
    assert answers.get(rule, caller, token()) is None


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True), (False, False)])
def test_absent_is_nobody_and_not_anybody(known: tuple[bool, bool]) -> None:
    answers, rule, caller, credential = AnswerCache(), compiled_rule(), peer(), token()
    parties = (caller if known[0] else None, credential if known[1] else None)
    answers.put(rule, *parties, ANSWER)
    for asked in ((None, None), (caller, None), (None, credential), (caller, credential)):
        assert answers.get(rule, *asked) is (ANSWER if asked == parties else None)


def test_an_entry_keeps_its_parties_so_that_no_other_object_comes_to_have_their_identity() -> None:
    answers = AnswerCache(capacity=10_000)
    # each rule is let go at once, and the next would be made in the same place
    assert all(answers.get(rule, None, None) is None and _put(answers, rule) for rule in map(compiled_rule, NAMES))


def test_a_flood_of_answers_stays_within_the_bound() -> None:
    answers = AnswerCache(capacity=8)
    rules = [compiled_rule(name) for name in NAMES]
    for one in rules:
        answers.put(one, None, None, ANSWER)
        assert len(answers) <= 8
    assert answers.get(rules[0], None, None) is None
    assert answers.get(rules[-1], None, None) is ANSWER


def injecting(**parts: object) -> Deployment:
    """One rule for `/a`, another for `/b`, both with this injection."""
    injection = Injection(**parts)  # type: ignore[arg-type]  # the fields of an injection
    required = Requirement(token=TokenRequirement())
    rules = (
        rule("a", "/a", required, injection=injection),
        rule("b", "/b", required, injection=injection),
        rule("variable", "/v/{id}", required, type=PathType.TEMPLATE, injection=Injection({"x-id": "${path.id}"})),
    )
    return Deployment(policies=(RoutePolicy("billing", rules, targets=(Target(destination_principal=BILLING),)),))


def test_a_second_request_of_a_caller_gets_the_same_answer() -> None:
    deployment, text = (
        injecting(request_headers={"x-subject": "${token.sub}", "x-caller": "${peer.spiffe_id}"}),
        bound_token(),
    )
    first, second = (deployment.request(path, token=text) for path in ("/a/1", "/a/2"))
    assert first.allowed
    assert second.decision is first.decision
    assert second.response == first.response


def test_another_rule_caller_or_token_gets_an_answer_of_its_own() -> None:
    deployment = injecting(request_headers={"x-subject": "${token.sub}", "x-caller": "${peer.spiffe_id}"})
    decisions = [
        deployment.request(path, token=text, leaf=leaf).decision
        for leaf in (CALLER, THIEF)
        for text in (bound_token(leaf, sub="alice"), bound_token(leaf, sub="bob"))
        for path in ("/a", "/b")
    ]
    assert all(isinstance(decision, Allow) for decision in decisions)
    about = [(one.diagnostics.rule, one.diagnostics.subject, one.diagnostics.spiffe_id) for one in decisions]
    assert len(set(about)) == len(decisions)


@pytest.mark.parametrize(
    "parts",
    [
        {"request_headers": {"x-path": "${request.path}"}},
        {"request_headers": {"x-both": "${token.sub} ${request.path}"}},
        {"response_headers": {"x-path": "${request.path}"}},
        {"set_query_parameters": {"path": "${request.path}"}},
        {"dynamic_metadata": {"deep": {"path": "${request.path}"}}},
    ],
)
def test_an_answer_that_names_the_request_is_made_for_each(parts: dict[str, object]) -> None:
    deployment, text = injecting(**parts), bound_token()
    for path in ("/a/1", "/a/2"):
        answer = deployment.request(path, token=text)
        assert answer.allowed
        assert path in str(answer.decision).replace("%2F", "/")
        assert not answer.decision.recurring  # type: ignore[union-attr]  # it is allowed


def test_a_variable_of_the_path_is_the_requests_own() -> None:
    deployment, text = injecting(), bound_token()
    for number in ("1", "2"):
        assert deployment.request(f"/v/{number}", token=text).upstream_headers == {"x-id": number}


def test_changes_of_the_query_look_at_the_query_of_each_request() -> None:
    deployment, text = injecting(remove_query_parameters=("debug",)), bound_token()
    for query, removed in (("d%65bug=1", ["debug", "d%65bug"]), ("q=1", ["debug"])):
        answer = deployment.request(f"/a?{query}", token=text)
        assert list(answer.response.ok_response.query_parameters_to_remove) == removed


@pytest.mark.parametrize("spelled", ["x_subject", "x.subject"])
def test_a_header_in_another_spelling_is_removed_also_beside_remembered_answers(spelled: str) -> None:
    deployment, text = injecting(request_headers={"x-subject": "${token.sub}"}), bound_token()
    for headers, removed in (({}, False), ({spelled: "mallory"}, True), ({}, False)):
        answer = deployment.request("/a", token=text, headers=headers)
        assert (spelled in answer.removed_headers) == removed


@pytest.mark.parametrize("field", ["request_headers", "response_headers"])
@pytest.mark.parametrize(("length", "is_kept"), [(4_096, True), (4_097, False)])
def test_only_short_answers_are_kept(field: str, length: int, *, is_kept: bool) -> None:
    deployment, text = injecting(**{field: {"x-groups": "${token.claims.groups}"}}), bound_token(groups="g" * length)
    first, second = (deployment.request("/a", token=text) for _ in range(2))
    assert second.allowed
    assert second.response == first.response
    assert len(deployment.snapshot.answers) == is_kept
    assert second.decision.recurring == is_kept  # type: ignore[union-attr]  # it is allowed


def test_a_snapshot_with_other_keys_remembers_no_answers() -> None:
    deployment = injecting()
    deployment.request("/a", token=bound_token())
    assert len(deployment.snapshot.answers) == 1
    assert len(deployment.snapshot.with_keys({}, generation=2).answers) == 0
