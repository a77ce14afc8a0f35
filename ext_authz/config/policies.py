"""From policy documents to policies; every rule is checked on its own, so one mistake hides no other."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ext_authz.config.model_policy import RoutePolicyDocument, WrittenDefaults, WrittenInjection, WrittenRule
from ext_authz.config.model_requirement import RequirementSetDocument, WrittenRequirement, WrittenTerms
from ext_authz.config.policy_words import KnownNames
from ext_authz.config.problem import Problems, shown
from ext_authz.config.validation import field_name, validate
from ext_authz.config.yaml_source import Document, PlainValue, ValuePath
from ext_authz.policy.model import RoutePolicy, Rule
from ext_authz.policy.requirements import PeerRequirement, Requirement, RequirementTerms, resolve_requirements

__all__ = ["LoadedPolicy", "build_policies", "kind_of", "name_of"]

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
        _refuse_twice(((document, ("metadata", "name"), name_of(document)) for document in same_kind), problems)
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


def kind_of(document: Document) -> str | None:
    """The `kind` as written, or None."""
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    return kind if isinstance(kind, str) else None


def name_of(document: Document) -> str | None:
    """The `metadata.name` as written, or None."""
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None


def _refuse_twice(named: Iterable[tuple[Document, ValuePath, str | None]], problems: Problems) -> None:
    first: dict[str, str] = {}
    for document, path, name in named:
        if name is None:
            continue
        place = document.place(path)
        if name in first:
            problems.add(
                place, field_name(path), f"the name {shown(name)} is taken in {first[name]}", "give each its own name"
            )
        first.setdefault(name, str(place))


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
        frame, raw_rules = _without_rules(document.value)
        written = validate(RoutePolicyDocument, frame, document, problems, context=self._known)
        rules = [
            validate(WrittenRule, raw, document, problems, under=(*_RULES, index), context=self._known)
            for index, raw in enumerate(raw_rules)
        ]
        names = (
            (document, (*_RULES, index, "name"), rule.name) for index, rule in enumerate(rules) if rule is not None
        )
        _refuse_twice(names, problems)
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
            use = defaults.use if rule.use is None else rule.use
            # a set that is wrong itself is reported where it is written
            sets = [self._sets[name] for name in use or () if name in self._sets]
            requirements = resolve_requirements(terms, sets, own)
            if not requirements and len(sets) < len(use or ()):
                requirements = (Requirement(peer=PeerRequirement()),)
            injection = _over(injection, defaults.inject)
        return Rule(
            name=rule.name,
            matches=tuple(one for match in rule.matches for one in match.build()),
            requirements=requirements,
            public=rule.public,
            injection=injection.build(),
        )


def _without_rules(value: PlainValue) -> tuple[PlainValue, list[PlainValue]]:
    """The document with an empty list of rules, and the rules; unchanged when there is no such list."""
    if isinstance(value, dict) and isinstance(spec := value.get("spec"), dict):
        rules = spec.get("rules")
        if isinstance(rules, list):
            return {**value, "spec": {**spec, "rules": []}}, rules
    return value, []


def _over(own: WrittenInjection, default: WrittenInjection | None) -> WrittenInjection:
    if default is None:
        return own
    return default.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
