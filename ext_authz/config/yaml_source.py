"""YAML as plain values, each with its place in the file.

A strict subset of YAML 1.2: the core schema's types, text keys, no key twice, no anchors, aliases, merge keys or tags.
So nothing can be read in two ways (`no` is text, `010` is refused) and nothing can grow while it is read.
"""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

import yaml

from ext_authz.config.problem import Place, Problems, shown

__all__ = ["MAX_DEPTH", "MAX_FILE_BYTES", "Document", "PlainValue", "ValuePath", "parse_yaml"]

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Ten thousand routes take about 6 MB; a file beyond this is not a policy."""

MAX_DEPTH = 24
"""The deepest field of any document is at depth 12; claims and metadata may nest some more."""

MAX_NUMBER_CHARACTERS = 32
"""Every number a field can hold is shorter; int() on longer text is quadratic."""

PlainValue: TypeAlias = "bool | int | float | str | list[PlainValue] | dict[str, PlainValue] | None"
ValuePath: TypeAlias = tuple[str | int, ...]

# YAML 1.2.2 §10.3.2, the core schema; numbers that YAML 1.1 reads otherwise are refused in `_number`
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_START = frozenset("0123456789+-.")

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it; only its events are used, so nothing is ever constructed from a tag."""

_SYNTAX_HINTS = (
    ("found character that cannot start any token", "quote the text, and indent with spaces, never with tabs"),
    ("found a tab character", "indent with spaces, never with tabs"),
    ("mapping values are not allowed", "indent the key like its neighbours, or quote the text that holds `: `"),
    ("could not find expected ':'", "write `key: value`"),
    ("found unexpected end of stream", "close the quote that is open here"),
    ("did not find expected ',' or", "close the bracket, and quote a text that holds `{`, `}`, `[`, `]` or `,`"),
    ("found unknown escape character", "use single quotes, or write the backslash twice"),
    ("control characters are not allowed", "remove the character, or write it as an escape in double quotes"),
    ("did not find expected alphabetic or numeric character", "quote a text that begins with `*` or `&`"),
)
_SYNTAX_HINT = "indent keys of one mapping alike, and quote a text that holds `: `, ` #` or begins with a special sign"


class _Mark(Protocol):
    line: int
    column: int


class _Event(Protocol):
    """What is read of PyYAML's event classes, which declare less than they hold."""

    start_mark: _Mark
    anchor: str | None
    tag: str | None
    value: str
    implicit: tuple[bool, bool]


class Node:
    """Where a value and its key are written, and the same for what is inside."""

    __slots__ = ("children", "column", "key_column", "key_line", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line = self.key_line = line
        self.column = self.key_column = column
        self.children: dict[str | int, Node] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Attributes:
        file: as problems name it.
        value: plain values.
        root: the places of `value`.
    """

    file: str
    value: PlainValue
    root: Node

    def place(self, path: Sequence[str | int] = (), *, of_key: bool = False) -> Place:
        """Where the value at `path` is written; for a path that is not there, its nearest ancestor.

        Args:
            path: keys and indexes from the outside inwards.
            of_key: the place of the value's key instead.
        """
        node = self.root
        for step in path:
            child = node.children.get(step) if node.children else None
            if child is None:
                return Place(self.file, node.line, node.column)
            node = child
        if of_key:
            return Place(self.file, node.key_line, node.key_column)
        return Place(self.file, node.line, node.column)


class _Stop(Exception):  # noqa: N818 - not an error of its own: the problem is recorded already
    """Nothing after this point can be read."""


def parse_yaml(data: bytes, file: str, problems: Problems) -> tuple[Document, ...]:
    """Every document of a file; empty ones (`---` alone, or only comments) are left out.

    Args:
        data: the file's bytes, UTF-8.
        file: its name in problems.
        problems: takes what is wrong. After a syntax error the rest of the file is not read.
    """
    if len(data) > MAX_FILE_BYTES:
        problems.add(Place(file), "", f"the file is larger than {MAX_FILE_BYTES} bytes", "split it into several files")
        return ()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        problems.add(Place(file, line, column), "", "a byte is not UTF-8", "save the file as UTF-8")
        return ()
    return _Reader(text, file, problems).documents()


class _Reader:
    """Builds values from libyaml's events: a tenth of the time that PyYAML's own composer takes."""

    def __init__(self, text: str, file: str, problems: Problems) -> None:
        self._text = text
        self._parser = _PARSER(text)
        self._file = file
        self._problems = problems

    def documents(self) -> tuple[Document, ...]:
        found: list[Document] = []
        try:
            while not isinstance(event := self._next(), yaml.StreamEndEvent):
                if isinstance(event, yaml.DocumentStartEvent):
                    value, node = self._value(self._next(), 1)
                    if value is not None:
                        found.append(Document(self._file, value, node))
        except _Stop:
            # what follows a syntax error is unknown; what came before it is still checked
            pass
        return tuple(found)

    def _next(self) -> _Event:
        try:
            event: _Event = self._parser.get_event()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file)
            self._syntax(place, str(error.problem))
        except yaml.reader.ReaderError as error:
            # libyaml counts in bytes, PyYAML's own reader in characters; they differ only after non-ASCII text
            before = self._text.encode()[: error.position].decode(errors="ignore")
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            self._syntax(Place(self._file, line, column), str(error.reason))
        else:
            return event

    def _syntax(self, place: Place, problem: str) -> NoReturn:
        hint = next((hint for start, hint in _SYNTAX_HINTS if problem.startswith(start)), _SYNTAX_HINT)
        self._problems.add(place, "", f"not valid YAML: {problem}", hint)
        raise _Stop from None

    def _value(self, event: _Event, depth: int) -> tuple[PlainValue, Node]:
        mark = event.start_mark
        node = Node(mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent) and event.anchor is None and event.tag is None:
            # nearly every event is one of these, and ten thousand rules say the same few things
            text = sys.intern(event.value)
            return (self._plain(text, node) if event.implicit[0] else text), node
        if depth > MAX_DEPTH:
            self._add(node, f"nested deeper than {MAX_DEPTH} levels", "flatten the structure")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self._add(node, "aliases are not supported", "write the value out, or name a RequirementSet in `use`")
            return None, node
        if event.anchor is not None:
            self._add(node, "anchors are not supported", "remove the `&` name, or name a RequirementSet in `use`")
        if event.tag is not None:
            self._add(node, "tags are not supported", "remove the `!` tag, and quote a value that is text")
        if isinstance(event, yaml.ScalarEvent):
            return (self._plain(event.value, node) if event.implicit[0] else event.value), node
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(node, depth), node
        return self._sequence(node, depth), node

    def _sequence(self, node: Node, depth: int) -> list[PlainValue]:
        values: list[PlainValue] = []
        node.children = {}
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            value, child = self._value(event, depth + 1)
            node.children[len(values)] = child
            values.append(value)
        return values

    def _mapping(self, node: Node, depth: int) -> dict[str, PlainValue]:
        values: dict[str, PlainValue] = {}
        node.children = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key_node = Node(event.start_mark.line + 1, event.start_mark.column + 1)
            key = sys.intern(event.value) if isinstance(event, yaml.ScalarEvent) else None
            if key is None:
                self._add(key_node, "a key must be plain text", "write `key: value`")
                self._value(event, depth + 1)
            elif event.anchor is not None or event.tag is not None:
                self._add(key_node, "anchors and tags are not supported", "write the key alone")
            value, child = self._value(self._next(), depth + 1)
            if key is None:
                continue
            if key in values:
                first = node.children[key]
                self._add(
                    key_node,
                    f"the key {shown(key)} is here twice, first in line {first.key_line}",
                    "keep one of the two",
                )
                continue
            child.key_line, child.key_column = key_node.line, key_node.column
            node.children[key] = child
            values[key] = value
        return values

    def _plain(self, text: str, node: Node) -> PlainValue:
        """An unquoted scalar by the core schema."""
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if text[0] in _NUMBER_START:
            return self._number(text, node)
        return text

    def _number(self, text: str, node: Node) -> PlainValue:
        if _NOT_FINITE.fullmatch(text):
            self._add(node, f"{shown(text)} is not a finite number", "write a number, or quote it if it is text")
            return None
        is_integer = _INTEGER.fullmatch(text) is not None
        if not is_integer and _FLOAT.fullmatch(text) is None:
            return text
        if len(text) > MAX_NUMBER_CHARACTERS:
            self._add(node, f"a number of more than {MAX_NUMBER_CHARACTERS} digits", "quote it if it is text")
            return None
        if is_integer:
            if text.lstrip("+-").startswith("0") and text.lstrip("+-").isdigit() and len(text.lstrip("+-")) > 1:
                self._add(
                    node, f"{shown(text)} is octal to some parsers", "drop the leading zero, or quote it if it is text"
                )
                return None
            return int(text, 0)
        number = float(text)
        if math.isinf(number):
            self._add(node, f"{shown(text)} is too large", "write a smaller number, or quote it if it is text")
            return None
        return number

    def _add(self, node: Node, wrong: str, instead: str) -> None:
        self._problems.add(Place(self._file, node.line, node.column), "", wrong, instead)
