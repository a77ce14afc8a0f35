import re
from collections.abc import Callable

import pytest

from ext_authz.policy.requirements import (
    ClaimRequirement,
    NotRequired,
    PeerRequirement,
    Requirement,
    RequirementTerms,
    ScopeRequirement,
    TokenRequirement,
    resolve_binding,
    resolve_requirements,
)
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement

PEER = PeerRequirement(namespaces=("applications",))
TOKEN = TokenRequirement(issuers=("corp",))
OTHER_TOKEN = TokenRequirement(issuers=("other",))
WHEN_PRESENT = BindingRequirement(BindingMode.WHEN_PRESENT)
BY_ID = BindingRequirement(
    BindingMode.REQUIRED, frozenset({BindingMethod.X5T_S256, BindingMethod.SPIFFE_ID}), "spiffe_id"
)
NOTHING = RequirementTerms()


def test_own_terms_replace_defaults_field_by_field() -> None:
    defaults = RequirementTerms(peer=PEER, token=TOKEN, source_ips=("10.0.0.0/8",), binding=WHEN_PRESENT)
    own = RequirementTerms(token=OTHER_TOKEN)
    assert resolve_requirements(defaults, (), own) == (
        Requirement(peer=PEER, token=OTHER_TOKEN, source_ips=("10.0.0.0/8",), binding=WHEN_PRESENT),
    )
    assert resolve_requirements(defaults, (), NOTHING) == (Requirement(PEER, TOKEN, ("10.0.0.0/8",), WHEN_PRESENT),)


def test_none_switches_a_default_off_by_name() -> None:
    defaults = RequirementTerms(peer=PEER, token=TOKEN, source_ips=("10.0.0.0/8",), binding=WHEN_PRESENT)
    own = RequirementTerms(token=NotRequired.NONE, source_ips=NotRequired.NONE)
    assert resolve_requirements(defaults, (), own) == (Requirement(peer=PEER),)


def test_a_set_is_an_additional_requirement() -> None:
    extra = Requirement(source_ips=("10.0.0.0/8",))
    resolved = resolve_requirements(RequirementTerms(token=TOKEN), (extra,), RequirementTerms(peer=PEER))
    assert resolved == (Requirement(peer=PEER, token=TOKEN), extra)


def test_nothing_anywhere_resolves_to_nothing() -> None:
    assert resolve_requirements(NOTHING, (), NOTHING) == ()
    assert resolve_requirements(NOTHING, (Requirement(peer=PEER),), NOTHING) == (Requirement(peer=PEER),)


def test_a_binding_applies_to_the_token_of_a_set() -> None:
    resolved = resolve_requirements(NOTHING, (Requirement(token=TOKEN),), RequirementTerms(binding=WHEN_PRESENT))
    assert resolved == (Requirement(binding=WHEN_PRESENT), Requirement(token=TOKEN))
    assert resolve_binding(resolved) == WHEN_PRESENT


def test_a_binding_without_a_token_is_an_error_unless_it_is_a_default() -> None:
    with pytest.raises(ValueError, match=r"add `token: \{\}` or remove `binding`"):
        resolve_requirements(NOTHING, (), RequirementTerms(peer=PEER, binding=WHEN_PRESENT))
    with pytest.raises(ValueError, match=r"add `token: \{\}` or remove `binding`"):
        resolve_binding((Requirement(peer=PEER, binding=WHEN_PRESENT),))
    defaults = RequirementTerms(binding=WHEN_PRESENT)
    assert resolve_requirements(defaults, (), RequirementTerms(peer=PEER)) == (Requirement(peer=PEER),)


def test_a_token_is_bound_by_certificate_unless_said_otherwise() -> None:
    assert resolve_binding((Requirement(token=TOKEN),)) == BindingRequirement()
    assert resolve_binding((Requirement(token=TOKEN, binding=WHEN_PRESENT),)) == WHEN_PRESENT
    assert resolve_binding((Requirement(peer=PEER),)) is None
    assert resolve_binding(()) is None


def test_several_binding_terms_meet_in_the_stricter() -> None:
    loose_by_id = BindingRequirement(BindingMode.WHEN_PRESENT, BY_ID.accept, "spiffe_id")
    both = (Requirement(token=TOKEN, binding=BY_ID), Requirement(binding=WHEN_PRESENT))
    assert resolve_binding(both) == BindingRequirement()
    both = (Requirement(token=TOKEN, binding=BY_ID), Requirement(binding=loose_by_id))
    assert resolve_binding(both) == BY_ID
    both = (Requirement(token=TOKEN, binding=WHEN_PRESENT), Requirement(binding=WHEN_PRESENT))
    assert resolve_binding(both) == WHEN_PRESENT


@pytest.mark.parametrize(
    ("defaults", "sets", "own", "binding"),
    [
        # the rule's token came without a term, so it is `required` whatever a set says
        (
            NOTHING,
            [Requirement(token=TOKEN, binding=WHEN_PRESENT)],
            RequirementTerms(token=TOKEN),
            BindingRequirement(),
        ),
        (NOTHING, [Requirement(binding=WHEN_PRESENT)], RequirementTerms(token=TOKEN), BindingRequirement()),
        (RequirementTerms(token=TOKEN), [Requirement(binding=BY_ID)], NOTHING, BindingRequirement()),
        # and so is the token of one set beside another set
        (NOTHING, [Requirement(token=TOKEN), Requirement(binding=WHEN_PRESENT)], NOTHING, BindingRequirement()),
        # what the rule or its defaults say is met by the stricter of both
        (
            RequirementTerms(binding=WHEN_PRESENT),
            [Requirement(token=TOKEN, binding=BY_ID)],
            NOTHING,
            BindingRequirement(),
        ),
        (
            NOTHING,
            [Requirement(binding=WHEN_PRESENT)],
            RequirementTerms(token=TOKEN, binding=WHEN_PRESENT),
            WHEN_PRESENT,
        ),
        # a token that only the set takes is bound as the set says
        (NOTHING, [Requirement(token=TOKEN, binding=WHEN_PRESENT)], RequirementTerms(peer=PEER), WHEN_PRESENT),
    ],
)
def test_using_a_set_never_loosens_the_binding_of_a_token(
    defaults: RequirementTerms, sets: list[Requirement], own: RequirementTerms, binding: BindingRequirement
) -> None:
    assert resolve_binding(resolve_requirements(defaults, sets, own)) == binding


@pytest.mark.parametrize(
    "other",
    [
        BindingRequirement(BindingMode.REQUIRED, frozenset({BindingMethod.SPIFFE_ID}), "spiffe_id"),
        BindingRequirement(BindingMode.REQUIRED, BY_ID.accept, "another_claim"),
    ],
)
def test_binding_terms_that_no_token_meets_together_are_an_error(other: BindingRequirement) -> None:
    one = WHEN_PRESENT if other.accept == {BindingMethod.SPIFFE_ID} else BY_ID
    with pytest.raises(ValueError, match="write `binding` in one place"):
        resolve_binding((Requirement(token=TOKEN, binding=one), Requirement(binding=other)))


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: PeerRequirement(spiffe=("cluster.local/ns/a",)), "write `spiffe://trust.domain/path`"),
        (lambda: PeerRequirement(trust_domains=("Cluster.local",)), "write `cluster.local`"),
        (lambda: PeerRequirement(namespaces=("*",)), "write its exact name"),
        (lambda: PeerRequirement(service_accounts=("Web",)), "service account `Web` cannot exist"),
        (lambda: ScopeRequirement(all=("a b",)), "write each scope as its own item"),
        (lambda: ScopeRequirement(any=("",)), "write each scope as its own item"),
        (lambda: ScopeRequirement(any=('"a"',)), "without spaces or quotes"),
        (lambda: ClaimRequirement((), ("x",)), "write it as `department`"),
        (lambda: ClaimRequirement(("a", ""), ("x",)), "write it as `department`"),
        (lambda: ClaimRequirement(("a", "b"), ()), "`a.b` allows no value; write `equals` or `one_of`"),
        (lambda: TokenRequirement(issuers=("",)), "one issuer is empty"),
        (lambda: TokenRequirement(audiences=("",)), "one audience is empty"),
        (lambda: TokenRequirement(clients=("",)), "one client is empty"),
        (lambda: Requirement(source_ips=("10.0.0.1/8",)), "write `10.0.0.0/8`"),
        (lambda: Requirement(source_ips=("any",)), "write `10.0.0.0/8`"),
        (lambda: RequirementTerms(source_ips=()), "write addresses, or `source_ips: none`"),
    ],
)
def test_a_requirement_that_cannot_be_met_says_what_to_write(build: Callable[[], object], advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        build()


def test_requirements_that_can_be_met_are_values() -> None:
    assert PeerRequirement(trust_domains=("cluster.local",), service_accounts=("web",)) == PeerRequirement(
        (), ("cluster.local",), (), ("web",)
    )
    assert ScopeRequirement(all=("invoices.read",), any=("urn:a#b",)).all == ("invoices.read",)
    assert Requirement(source_ips=("10.0.0.0/8", "2001:db8::1")) != Requirement()


def test_a_rule_that_says_more_of_a_token_or_peer_keeps_what_the_defaults_say() -> None:
    defaults = RequirementTerms(
        peer=PeerRequirement(trust_domains=("cluster.local",)),
        token=TokenRequirement(issuers=("corp",), scopes=ScopeRequirement(all=("api",))),
    )
    own = RequirementTerms(
        peer=PeerRequirement(namespaces=("billing",)), token=TokenRequirement(scopes=ScopeRequirement(all=("admin",)))
    )
    assert resolve_requirements(defaults, (), own) == (
        Requirement(
            peer=PeerRequirement(trust_domains=("cluster.local",), namespaces=("billing",)),
            token=TokenRequirement(issuers=("corp",), scopes=ScopeRequirement(all=("admin",))),
        ),
    )


@pytest.mark.parametrize(
    ("default", "own", "resolved"),
    [
        (
            ScopeRequirement(all=("billing",)),
            ScopeRequirement(any=("r", "w")),
            ScopeRequirement(("billing",), ("r", "w")),
        ),
        (
            ScopeRequirement(any=("r", "w")),
            ScopeRequirement(all=("billing",)),
            ScopeRequirement(("billing",), ("r", "w")),
        ),
        (ScopeRequirement(("a",), ("b",)), ScopeRequirement(any=("c",)), ScopeRequirement(("a",), ("c",))),
        (ScopeRequirement(("a",), ("b",)), ScopeRequirement(("c",), ("d",)), ScopeRequirement(("c",), ("d",))),
    ],
)
def test_a_rule_that_adds_alternative_scopes_keeps_the_scopes_of_the_defaults(
    default: ScopeRequirement, own: ScopeRequirement, resolved: ScopeRequirement
) -> None:
    defaults = RequirementTerms(token=TokenRequirement(scopes=default))
    (one,) = resolve_requirements(defaults, (), RequirementTerms(token=TokenRequirement(scopes=own)))
    assert one.token == TokenRequirement(scopes=resolved)
