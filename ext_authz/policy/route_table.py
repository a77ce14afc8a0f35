"""The rules for one destination under one host name, as a tree of path segments.

Precedence, as in the Gateway API with its open places filled:

1. Path: Exact; then Template, literal segments before variables from left to right; then RegularExpression; then the
   longest PathPrefix.
2. A method before none; more headers before fewer; more query parameters before fewer.
3. The policy's name, then the rule's, then the place of the match in its rule. Two rules that only this separates are
   reported at load (see `findings`).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from sys import intern
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, assert_never

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.policy.compiled import CompiledRule
from ext_authz.policy.expression import compile_expression
from ext_authz.policy.letter_case import fold
from ext_authz.policy.model import HeaderMatch, PathMatch, PathType, QueryMatch, RouteMatch, ValueMatchType
from ext_authz.policy.path import CanonicalPath
from ext_authz.policy.query import parse_query
from ext_authz.policy.single_header import SingleHeaders

__all__ = ["Candidate", "RouteTable"]

_Rank: TypeAlias = tuple[int, tuple[bool, ...]]
_Condition: TypeAlias = Callable[[RequestFacts, Mapping[str, str]], bool]
_ESCAPED_CHARACTER = re.compile(r"\\[0-9xp]")
_EXACT: _Rank = (3, ())
_EXPRESSION: _Rank = (1, ())
_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class Candidate(NamedTuple):
    """One match of one rule.

    Attributes:
        rank: of the path condition; greater is more specific.
        order: among candidates of the same rank; smaller comes first.
        rule: what decides if it wins.
        match: as written.
        method: None for any.
        condition: headers and query parameters, None when there are none.
        variables: of a template, with the index of their segment.
    """

    rank: _Rank
    order: tuple[bool, int, int, str, str, int]
    rule: CompiledRule
    match: RouteMatch
    method: str | None
    condition: _Condition | None
    variables: tuple[tuple[str, int], ...]

    def holds(self, facts: RequestFacts, parameters: Mapping[str, str]) -> bool:
        """Whether everything but the path holds."""
        if self.method is not None and self.method != facts.method:
            return False
        return self.condition is None or self.condition(facts, parameters)


class _Node:
    """A place in the tree.

    Among thousands of routes a look-up costs what it touches. What a node does not have is therefore one empty value that
    all nodes share, and texts are interned.
    """

    __slots__ = ("children", "exact", "prefix", "template", "variable")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = _NO_CHILDREN
        self.variable: _Node | None = None
        self.exact: tuple[Candidate, ...] = ()
        self.template: tuple[Candidate, ...] = ()
        self.prefix: tuple[Candidate, ...] = ()

    def child(self, segment: str) -> "_Node":
        """The node below for `segment`, which is made when there is none."""
        if self.children is _NO_CHILDREN:
            self.children = {}
        return self.children.setdefault(intern(segment), _Node())


_NO_CHILDREN: dict[str, _Node] = {}


class _Tree:
    """Finds the candidate that wins, with literals as written or, `folded`, without regard to letter case."""

    __slots__ = ("_expressions", "_root")

    def __init__(self, candidates: Iterable[Candidate], *, folded: bool) -> None:
        self._root = _Node()
        self._expressions: list[tuple[Callable[[str], bool], Candidate]] = []
        for candidate in sorted(candidates, key=lambda one: one.order):
            path = candidate.match.path
            if path.type is PathType.REGULAR_EXPRESSION:
                self._expressions.append((compile_expression(path.value, ignore_case=folded), candidate))
                continue
            node = self._node(path.segments, folded=folded)
            match path.type:
                case PathType.EXACT:
                    node.exact += (candidate,)
                case PathType.TEMPLATE:
                    node.template += (candidate,)
                case PathType.PATH_PREFIX:
                    node.prefix += (candidate,)
                case _:
                    assert_never(path.type)

    def _node(self, segments: tuple[str | None, ...], *, folded: bool) -> _Node:
        node = self._root
        for segment in segments:
            if segment is None:
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.child(fold(segment) if folded else segment)
        return node

    def find(self, segments: tuple[str, ...], facts: RequestFacts, parameters: Mapping[str, str]) -> Candidate | None:
        """The most specific candidate that holds."""
        node = self._root
        prefixes = [node.prefix] if node.prefix else []
        # a template has a variable somewhere, so it can match only where one branches off this way
        has_templates = node.variable is not None
        for segment in segments:
            child = node.children.get(segment)
            if child is None:
                break
            node = child
            if node.prefix:
                prefixes.append(node.prefix)
            if node.variable is not None:
                has_templates = True
        else:
            found = _first(node.exact, facts, parameters)
            if found is not None:
                return found
        if has_templates:
            found = _find_template(self._root, segments, 0, facts, parameters)
            if found is not None:
                return found
        if self._expressions:
            found = self._find_expression("/" + "/".join(segments), facts, parameters)
            if found is not None:
                return found
        # the longest was found last
        return _first([candidate for prefix in reversed(prefixes) for candidate in prefix], facts, parameters)

    def _find_expression(self, decoded: str, facts: RequestFacts, parameters: Mapping[str, str]) -> Candidate | None:
        for matches, candidate in self._expressions:
            if candidate.holds(facts, parameters) and matches(decoded):
                return candidate
        return None


def _first(candidates: Iterable[Candidate], facts: RequestFacts, parameters: Mapping[str, str]) -> Candidate | None:
    for candidate in candidates:
        if candidate.holds(facts, parameters):
            return candidate
    return None


def _find_template(
    node: _Node, segments: tuple[str, ...], index: int, facts: RequestFacts, parameters: Mapping[str, str]
) -> Candidate | None:
    """Depth first, literal before variable; visits a node at most once, so the cost is bounded by the tree."""
    if index == len(segments):
        return _first(node.template, facts, parameters)
    segment = segments[index]
    child = node.children.get(segment)
    if child is not None:
        found = _find_template(child, segments, index + 1, facts, parameters)
        if found is not None:
            return found
    if node.variable is not None and segment:
        return _find_template(node.variable, segments, index + 1, facts, parameters)
    return None


class RouteTable:
    """Every rule that can apply at one destination under one host name."""

    __slots__ = ("_folded", "_has_capitals", "_headers", "_query_names", "_written", "candidates")

    def __init__(self, rules: Iterable[tuple[CompiledRule, tuple[RouteMatch, ...]]], *, case_sensitive: bool) -> None:
        """Index `rules` with their matches.

        Args:
            rules: in any order.
            case_sensitive: whether a path in another letter case is simply another path.
        """
        self.candidates = tuple(
            _candidate(rule, match, index) for rule, matches in rules for index, match in enumerate(matches)
        )
        self._written = _Tree(self.candidates, folded=False)
        matches = [candidate.match.path for candidate in self.candidates]
        self._has_capitals = any(_has_capitals(path) for path in matches)
        self._folded: _Tree | None = None
        if not case_sensitive:
            shares = not self._has_capitals and all(path.type is not PathType.REGULAR_EXPRESSION for path in matches)
            self._folded = self._written if shares else _Tree(self.candidates, folded=True)
        headers = SingleHeaders(header for one in self.candidates for header in one.match.headers)
        self._headers = headers or None
        self._query_names = frozenset(query.name for one in self.candidates for query in one.match.query)

    def find(self, path: CanonicalPath, facts: RequestFacts) -> Candidate:
        """The candidate that decides.

        Raises:
            Refusal: NO_RULE; PATH_AMBIGUOUS when the path in another letter case would win a more specific one, or the
                expression of another rule, or the query has two readings; PATH_MALFORMED and HEADER_MALFORMED where a
                rule asks for what cannot be read or has several values.
        """
        if self._headers is not None:
            self._headers.check(facts.headers)
        parameters = parse_query(path.query, self._query_names) if self._query_names else _NO_PARAMETERS
        winner = self._written.find(path.segments, facts, parameters)
        if self._folded is None or (winner is not None and winner.rank is _EXACT):
            pass
        elif self._has_capitals or path.text != path.text.lower():
            # percent-encoding has capitals, so a text without any is lowercase when decoded too
            other = self._folded.find(tuple(map(fold, path.segments)), facts, parameters)
            if other is not None and (winner is None or _precedes(other, winner)):
                # an upstream that ignores case would serve what the other rule protects
                raise Refusal(Reason.PATH_AMBIGUOUS, "the path in another letter case falls under another rule")
        if winner is None:
            raise Refusal(Reason.NO_RULE, "no rule covers the request")
        return winner


def _precedes(folded: Candidate, written: Candidate) -> bool:
    """Whether what wins without regard to letter case is more specific, or may be.

    Literal paths of one rank that differ only by case are told apart by how the request writes them. All expressions have
    one rank, and which of two is narrower nobody can tell.
    """
    if folded.rank == written.rank == _EXPRESSION:
        return folded.rule is not written.rule
    return folded.rank > written.rank


def _has_capitals(path: PathMatch) -> bool:
    """Whether a lowercase path could meet `path` only when letter case is ignored."""
    if path.type is PathType.REGULAR_EXPRESSION:
        # an escape may stand for a capital
        return path.value != fold(path.value) or _ESCAPED_CHARACTER.search(path.value) is not None
    return any(segment != fold(segment) for segment in path.segments if segment is not None)


def _candidate(rule: CompiledRule, match: RouteMatch, index: int) -> Candidate:
    order = (match.method is None, -len(match.headers), -len(match.query), rule.policy, rule.name, index)
    method = None if match.method is None else intern(match.method)
    return Candidate(_rank(match), order, rule, match, method, _condition(match), match.path.variables)


def _rank(match: RouteMatch) -> _Rank:
    literal = tuple(segment is not None for segment in match.path.segments)
    match match.path.type:
        case PathType.EXACT:
            return _EXACT
        case PathType.TEMPLATE:
            return 2, literal
        case PathType.REGULAR_EXPRESSION:
            return _EXPRESSION
        case PathType.PATH_PREFIX:
            return 0, literal
        case _:
            assert_never(match.path.type)


def _condition(match: RouteMatch) -> _Condition | None:
    headers = tuple((header.name, _value_test(header)) for header in match.headers)
    query = tuple((parameter.name, _value_test(parameter)) for parameter in match.query)
    if not headers and not query:
        return None

    def condition(facts: RequestFacts, parameters: Mapping[str, str]) -> bool:
        for name, test in headers:
            value = facts.headers.joined(name)
            if value is None or not test(value):
                return False
        return all(name in parameters and test(parameters[name]) for name, test in query)

    return condition


def _value_test(match: HeaderMatch | QueryMatch) -> Callable[[str], bool]:
    if match.type is ValueMatchType.REGULAR_EXPRESSION:
        return compile_expression(match.value)
    wanted = match.value
    return lambda value: value == wanted
