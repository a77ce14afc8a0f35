"""Every regular expression of the package means the same on all Pythons that the package runs on."""

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from re import _constants as opcodes  # type: ignore[attr-defined]  # not public, and only read by this test
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import ext_authz

_SINGLE = {opcodes.IN, opcodes.LITERAL, opcodes.NOT_LITERAL, opcodes.ANY}


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Those that modules keep, with their names."""
    for found in pkgutil.walk_packages(ext_authz.__path__, "ext_authz."):
        if not found.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, re.Pattern):
                    yield f"{found.name}.{name}", value


def possessive_groups(items: Iterable[Any]) -> Iterator[object]:
    """Possessive repetitions of more than one character, in a parsed pattern."""
    for item in items:
        if isinstance(item, tuple) and len(item) == 2 and item[0] is opcodes.POSSESSIVE_REPEAT:
            _, _, repeated = item[1]
            if [opcode for opcode, _ in repeated if opcode not in _SINGLE] or len(repeated) != 1:
                yield item
        if isinstance(item, (tuple, list, parser.SubPattern)):
            yield from possessive_groups(item)


PATTERNS = dict(patterns())


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 50


@pytest.mark.parametrize("name", PATTERNS)
def test_no_group_is_repeated_possessively(name: str) -> None:
    """Before Python 3.11.5 one that matches in part and then fails leaves the text behind it taken: `(?:,a)*+` takes `,`."""
    assert not list(possessive_groups(parser.parse(PATTERNS[name].pattern, PATTERNS[name].flags)))


@pytest.mark.parametrize(
    ("pattern", "found"), [(r"(?:,a)*+", 1), (r"(?:a|b%)++", 1), (r"x(?:(?:,a){2,}+)?", 1), (r"[ab]*+c++.?+[^d]++", 0)]
)
def test_a_group_that_is_repeated_possessively_is_seen(pattern: str, found: int) -> None:
    assert len(list(possessive_groups(parser.parse(pattern)))) == found
