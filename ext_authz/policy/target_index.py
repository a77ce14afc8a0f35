"""From where a request goes to the policies that count there.

The most specific target wins and the others do not count: an exact destination principal (or none shown) before a pattern (a fixed
depth before any depth, then literal segments before wildcards from left to right) before none; then more context
extensions before fewer; then an exact SNI before a longer wildcard before a shorter one before none.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from sys import intern
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from ext_authz.facts import RequestFacts
from ext_authz.policy.host import HostPattern
from ext_authz.policy.model import NO_PRINCIPAL, Target
from ext_authz.policy.spiffe_pattern import SpiffePattern

__all__ = ["HostTable", "TargetIndex", "TargetKey"]

Value = TypeVar("Value")

_PrincipalSpecificity: TypeAlias = tuple[int, bool, tuple[bool, ...]]
_Specificity: TypeAlias = tuple[_PrincipalSpecificity, int]
_ONE_PRINCIPAL: _PrincipalSpecificity = (2, False, ())
_Literals: TypeAlias = tuple[str, ...]


class HostTable(Generic[Value]):
    """Values by host name: the exact name, else the longest wildcard, else the one for any host."""

    __slots__ = ("_any", "_exact", "_suffixes")

    def __init__(self, values: Mapping[str | None, Value]) -> None:
        """Index `values` by hostname as written; None stands for any host."""
        self._exact: dict[str, Value] = {}
        self._suffixes: dict[str, Value] = {}
        self._any: Value | None = None
        for hostname, value in values.items():
            if hostname is None:
                self._any = value
            elif HostPattern(hostname).is_exact:
                self._exact[intern(hostname)] = value
            else:
                self._suffixes[HostPattern(hostname).suffix] = value

    def find(self, host: str) -> Value | None:
        """The value for `host`, a canonical name."""
        value = self._exact.get(host)
        if value is not None:
            return value
        if self._suffixes:
            for suffix in _suffixes(host):
                value = self._suffixes.get(suffix)
                if value is not None:
                    return value
        return self._any


def _suffixes(host: str) -> Iterator[str]:
    """`.b.c`, `.c` for `a.b.c`: longest first."""
    position = host.find(".", 1)
    while position > 0:
        yield host[position:]
        position = host.find(".", position + 1)


class TargetKey(NamedTuple):
    """A target without what does not tell destinations apart.

    Attributes:
        destination_principal: as written, or None.
        context_extensions: sorted by name.
        sni: as written, or None.
    """

    destination_principal: str | None
    context_extensions: tuple[tuple[str, str], ...]
    sni: str | None

    @classmethod
    def of(cls, target: Target) -> "TargetKey":
        """The key of a target as written."""
        return cls(target.destination_principal, tuple(sorted(target.context_extensions.items())), target.sni)

    @property
    def specificity(self) -> _Specificity:
        """Greater is more specific, before SNI. Only context extensions can make two targets of one request equal."""
        principal = self.destination_principal
        if principal is None:
            return (0, False, ()), len(self.context_extensions)
        pattern = _pattern(principal)
        if pattern is None or pattern.is_exact:
            return _ONE_PRINCIPAL, len(self.context_extensions)
        literal = tuple(segment != "*" for segment in pattern.segments)
        return (1, not pattern.any_depth, literal), len(self.context_extensions)

    @property
    def is_exact(self) -> bool:
        """Whether it names one principal (or that there is none), and no pattern."""
        return self.specificity[0] == _ONE_PRINCIPAL

    @property
    def names_workloads(self) -> bool:
        """As `Target.names_workloads`."""
        return self.destination_principal not in {None, NO_PRINCIPAL}

    @property
    def extension_names(self) -> tuple[str, ...]:
        """The names of `context_extensions`."""
        return tuple(name for name, _ in self.context_extensions)


class TargetIndex(Generic[Value]):
    """Values by target; the cost grows with the ways targets are written, not with their number."""

    __slots__ = ("_shapes", "_values")

    def __init__(self, values: Mapping[TargetKey, Value]) -> None:
        """Index `values`."""
        self._values = values
        members: dict[tuple[_Specificity, tuple[str, ...]], list[tuple[TargetKey, Value]]] = {}
        for key, value in values.items():
            members.setdefault((key.specificity, key.extension_names), []).append((key, value))
        # names last: equally specific shapes need some order that no file decides
        self._shapes = tuple(_Shape(members[shape]) for shape in sorted(members, reverse=True))

    def find(self, facts: RequestFacts, sni: str) -> Value | None:
        """The value of the most specific target that names where `facts` go; `sni` is canonical."""
        for shape in self._shapes:
            value = shape.find(facts, sni)
            if value is not None:
                return value
        return None

    def principals_alone(self) -> Mapping[str, Value]:
        """By destination principal, the value of the target that decides for every request that goes there.

        Nothing is more specific than a whole principal, unless another target names the same one and more.
        """
        named = Counter(key.destination_principal for key in self._values)
        return {
            _literals(key.destination_principal)[0]: value
            for key, value in self._values.items()
            if key.is_exact and named[key.destination_principal] == 1 and not key.extension_names and key.sni is None
        }


class _Shape(Generic[Value]):
    """All targets written in one way: one look-up, however many there are."""

    __slots__ = ("_extension_names", "_project", "_tables")

    def __init__(self, members: list[tuple[TargetKey, Value]]) -> None:
        example = members[0][0]
        self._extension_names = example.extension_names
        self._project = _projection(example.destination_principal)
        by_sni: dict[tuple[_Literals, _Literals], dict[str | None, Value]] = {}
        for key, value in members:
            extensions = tuple(text for _, text in key.context_extensions)
            by_sni.setdefault((_literals(key.destination_principal), extensions), {})[key.sni] = value
        self._tables = {literals: HostTable(values) for literals, values in by_sni.items()}

    def find(self, facts: RequestFacts, sni: str) -> Value | None:
        principal = self._project(facts.destination_principal)
        if principal is None:
            return None
        extensions: _Literals = ()
        if self._extension_names:
            given = facts.context_extensions
            if not all(name in given for name in self._extension_names):
                return None
            extensions = tuple(given[name] for name in self._extension_names)
        table = self._tables.get((principal, extensions))
        return None if table is None else table.find(sni)


def _pattern(principal: str) -> SpiffePattern | None:
    """`principal` as a pattern; None for NO_PRINCIPAL, which is the one empty text."""
    return None if principal == NO_PRINCIPAL else SpiffePattern(principal)


def _literals(principal: str | None) -> _Literals:
    """What `_projection` gives for every principal that the pattern matches."""
    if principal is None:
        return ()
    pattern = _pattern(principal)
    if pattern is None:
        return ("",)
    if pattern.is_exact:
        return (principal,)
    return (pattern.prefix, *(segment for segment in pattern.segments if segment != "*"))


def _projection(principal: str | None) -> Callable[[str], _Literals | None]:
    """From a destination's principal to the segments that the pattern's shape compares; None when it has another shape."""
    if principal is None:
        return lambda _text: ()
    pattern = _pattern(principal)
    if pattern is None or pattern.is_exact:
        return lambda text: (text,)
    literal = tuple(index for index, segment in enumerate(pattern.segments) if segment != "*")
    depth, any_depth = len(pattern.segments), pattern.any_depth

    def project(text: str) -> _Literals | None:
        scheme, _, rest = text.partition("://")
        trust_domain, _, path = rest.partition("/")
        segments = path.split("/")
        if "" in segments or (len(segments) <= depth if any_depth else len(segments) != depth):
            return None
        return (f"{scheme}://{trust_domain}/", *(segments[index] for index in literal))

    return project
