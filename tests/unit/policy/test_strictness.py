import pytest
from support.policies import exact

from ext_authz.policy.compiled import CompiledRule
from ext_authz.policy.injection import Injection
from ext_authz.policy.model import Rule
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.policy.requirements import (
    ClaimRequirement,
    PeerRequirement,
    Requirement,
    ScopeRequirement,
    TokenRequirement,
)
from ext_authz.policy.strictness import asks_less
from ext_authz.requirement import BindingMode, BindingRequirement

WHEN_PRESENT = BindingRequirement(BindingMode.WHEN_PRESENT)


def compiled(*requirements: Requirement) -> CompiledRule:
    rule = Rule("r", (exact("/"),), requirements, public=not requirements)
    return CompiledRule("p", rule, CompiledInjection(Injection(), frozenset()))


def token(**parts: object) -> Requirement:
    return Requirement(token=TokenRequirement(**parts))  # type: ignore[arg-type]  # whichever the case names


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ([], [Requirement(peer=PeerRequirement())]),
        ([token()], [token(), Requirement(peer=PeerRequirement())]),
        ([token()], [token(issuers=("corp",))]),
        ([token(issuers=("corp", "other"))], [token(issuers=("corp",))]),
        ([token(scopes=ScopeRequirement(any=("a", "b")))], [token(scopes=ScopeRequirement(all=("a",)))]),
        ([token(claims=(ClaimRequirement(("c",), (1, 2)),))], [token(claims=(ClaimRequirement(("c",), (1,)),))]),
        ([Requirement(token=TokenRequirement(), binding=WHEN_PRESENT)], [token()]),
        ([Requirement(source_ips=("10.0.0.0/8",))], [Requirement(source_ips=("10.0.0.0/8",)), token()]),
        (
            [Requirement(peer=PeerRequirement(namespaces=("a",)))],
            [Requirement(peer=PeerRequirement(namespaces=("a",), trust_domains=("b.c",)))],
        ),
    ],
)
def test_a_rule_that_more_may_pass_asks_for_less(less: list[Requirement], more: list[Requirement]) -> None:
    assert asks_less(compiled(*less), compiled(*more))
    assert not asks_less(compiled(*more), compiled(*less))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (token(clients=("a",)), token(clients=("b",))),
        (token(), Requirement(peer=PeerRequirement())),
        (token(claims=(ClaimRequirement(("c",), (1,)),)), token(claims=(ClaimRequirement(("c",), (True,)),))),
        (token(audiences=("a",)), token(audiences=("a",))),
    ],
)
def test_neither_of_two_rules_that_ask_for_something_else_asks_for_less(one: Requirement, other: Requirement) -> None:
    assert not asks_less(compiled(one), compiled(other))
    assert not asks_less(compiled(other), compiled(one))
