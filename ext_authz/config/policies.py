"""From policy documents to policies; every rule is checked on its own, so one mistake hides no other."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ext_authz.config.model_policy import RoutePolicyDocument, WrittenDefaults, WrittenInjection, WrittenRule
from ext_authz.config.model_requirement import RequirementSetDocument, WrittenRequirement, WrittenTerms
from ext_authz.config.naming import kind_of, name_of, refuse_twice
from ext_authz.config.policy_words import KnownNames
from ext_authz.config.problem import Problems
from ext_authz.config.validation import field_name, validate, without_items
from ext_authz.config.yaml_source import Document, ValuePath
from ext_authz.policy.model import RoutePolicy, Rule
from ext_authz.policy.requirements import PeerRequirement, Requirement, RequirementTerms, resolve_requirements

__all__ = ["LoadedPolicy", "build_policies"]

_Value = TypeVar("_Value")
_RULES: ValuePath = ("spec", "rules")


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy and where it is written.

    Attributes:
        policy: the value.
        document: its document.
    """

    policy: RoutePolicy
    document: Document


def build_policies(
    documents: Iterable[Document], issuers: frozenset[str] | None, problems: Problems
) -> tuple[LoadedPolicy, ...]:
    """Every policy of `documents` that is right, in order.

    Args:
        documents: of kind RoutePolicy and RequirementSet; others are passed over.
        issuers: names that policies may use, or None to accept any.
        problems: takes what is wrong.
    """
    documents = tuple(documents)
    sets = [document for document in documents if kind_of(document) == "RequirementSet"]
    policies = [document for document in documents if kind_of(document) == "RoutePolicy"]
    for same_kind in (sets, policies):
        refuse_twice(((document, ("metadata", "name"), name_of(document)) for document in same_kind), problems)
    # names count as known even when what they name is wrong: that is reported where it is written
    known = KnownNames(issuers, frozenset(name for document in sets if (name := name_of(document)) is not None))
    requirements: dict[str, Requirement] = {}
    for document in sets:
        written = validate(RequirementSetDocument, document.value, document, problems, context=known)
        if written is not None:
            requirements[written.metadata.name] = written.spec.build()
            if written.spec == WrittenRequirement():
                problems.add(document.place(("spec",)), "spec", "the set requires nothing", "write `peer` or `token`")
    built = (_Builder(document, known, requirements, problems).policy() for document in policies)
    return tuple(policy for policy in built if policy is not None)


class _Builder:
    """One policy document."""

    def __init__(
        self, document: Document, known: KnownNames, sets: Mapping[str, Requirement], problems: Problems
    ) -> None:
        self._document = document
        self._known = known
        self._sets = sets
        self._problems = problems

    def policy(self) -> LoadedPolicy | None:
        document, problems = self._document, self._problems
        before = len(problems)
        frame, raw_rules = without_items(document.value, "rules")
        written = validate(RoutePolicyDocument, frame, document, problems, context=self._known)
        rules = [
            validate(WrittenRule, raw, document, problems, under=(*_RULES, index), context=self._known)
            for index, raw in enumerate(raw_rules)
        ]
        names = (
            (document, (*_RULES, index, "name"), raw["name"] if isinstance(raw, dict) and "name" in raw else None)
            for index, raw in enumerate(raw_rules)
        )
        refuse_twice(names, problems)
        if written is None:
            return None
        defaults = written.spec.defaults
        terms = defaults.build()
        built = [
            self._at((*_RULES, index), partial(self._rule, rule, defaults, terms))
            for index, rule in enumerate(rules)
            if rule is not None
        ]
        if len(problems) > before:
            return None
        policy = self._at(
            _RULES,
            lambda: RoutePolicy(
                name=written.metadata.name,
                rules=tuple(rule for rule in built if rule is not None),
                targets=tuple(target.build() for target in written.spec.targets),
                hostnames=written.spec.hostnames,
            ),
        )
        return None if policy is None else LoadedPolicy(policy, document)

    def _at(self, path: ValuePath, build: Callable[[], _Value]) -> _Value | None:
        """What `build` makes, or None; its ValueError becomes a problem at `path`."""
        try:
            return build()
        except ValueError as error:
            self._problems.add(self._document.place(path), field_name(path), str(error))
            return None

    def _rule(self, rule: WrittenRule, defaults: WrittenDefaults, terms: RequirementTerms) -> Rule:
        own = (rule.require or WrittenTerms()).build()
        requirements: tuple[Requirement, ...] = ()
        injection = rule.inject or WrittenInjection()
        if rule.public:
            if rule.require is not None or rule.use:
                raise ValueError(
                    "the rule is public and has requirements; remove `public: true`, or `require` and `use`"
                )
        else:
            use = _sets_used(defaults.use, rule.use)
            # a set that is wrong itself is reported where it is written
            sets = [self._sets[name] for name in use if name in self._sets]
            requirements = resolve_requirements(terms, sets, own)
            if not requirements and len(sets) < len(use):
                requirements = (Requirement(peer=PeerRequirement()),)
            injection = _over(injection, defaults.inject)
        return Rule(
            name=rule.name,
            matches=tuple(one for match in rule.matches for one in match.build()),
            requirements=requirements,
            public=rule.public,
            injection=injection.build(),
        )


def _sets_used(default: tuple[str, ...] | None, own: tuple[str, ...] | None) -> tuple[str, ...]:
    """Sets only ever add; an empty list of the rule's own drops the default ones."""
    if own == ():
        return ()
    return tuple(dict.fromkeys((*(default or ()), *(own or ()))))


def _over(own: WrittenInjection, default: WrittenInjection | None) -> WrittenInjection:
    if default is None:
        return own
    return default.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
