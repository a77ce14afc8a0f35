"""Conditions on the path: what a policy writes, read in the same one way as a request's path."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from ext_authz.errors import Refusal
from ext_authz.policy.expression import compile_expression
from ext_authz.policy.path import canonicalise

__all__ = ["PathMatch", "PathType"]

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")


class PathType(StrEnum):
    """How a path is compared (Gateway API `HTTPPathMatch.type`, and templates)."""

    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    TEMPLATE = "Template"
    REGULAR_EXPRESSION = "RegularExpression"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """One condition on the path.

    Attributes:
        type: how `value` is compared with the canonical path.
        value: a path (`/orders`), a template (`/orders/{id}`, a variable is one whole segment, not empty) or an RE2
            expression that must match the whole percent-decoded path.
        segments: decoded, None for a variable; of a prefix without trailing `/`; empty for an expression.
        variables: names of a template's variables with the index of their segment.
    """

    type: PathType = PathType.PATH_PREFIX
    value: str = "/"
    segments: tuple[str | None, ...] = field(init=False, repr=False, compare=False)
    variables: tuple[tuple[str, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a value that no request could match (ValueError)."""
        segments: tuple[str | None, ...] = ()
        variables: tuple[tuple[str, int], ...] = ()
        match self.type:
            case PathType.REGULAR_EXPRESSION:
                compile_expression(self.value)
            case PathType.TEMPLATE:
                segments, variables = _template(self.value)
            case PathType.EXACT | PathType.PATH_PREFIX:
                segments = _literal(self.value)
                if self.type is PathType.PATH_PREFIX and segments[-1:] == ("",):
                    segments = segments[:-1]  # Gateway API: `/abc/` as a prefix is `/abc`
            case _:
                assert_never(self.type)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "variables", variables)


def _literal(value: str) -> tuple[str, ...]:
    if "{" in value or "}" in value:
        raise ValueError(f"the path `{value}` has braces; for a variable write `type: Template`, else `%7B` and `%7D`")
    if not value.startswith("/"):
        raise ValueError(f"the path `{value}` does not begin with `/`; write `/{value}`")
    try:
        canonical = canonicalise(value)
    except Refusal as refusal:
        raise ValueError(
            f"no request can have the path `{value}`: {refusal.detail}; write it as it is to match, percent-encoded "
            "where a URL must be"
        ) from None
    if "?" in value:
        raise ValueError(f"the path `{value}` has a query; write it under `query`")
    return canonical.segments


def _template(value: str) -> tuple[tuple[str | None, ...], tuple[tuple[str, int], ...]]:
    plain = "/".join("*" if _VARIABLE.fullmatch(segment) else segment for segment in value.split("/"))
    if "{" in plain or "}" in plain:
        raise ValueError(f"`{value}` has braces that are no variable; write a whole segment in lowercase, as `{{id}}`")
    segments = _literal(plain)
    written = value[1:].split("/")
    variables = tuple((written[i][1:-1], i) for i in range(len(segments)) if _VARIABLE.fullmatch(written[i]))
    if not variables:
        raise ValueError(f"the template `{value}` has no variable; write `type: Exact`, or `/orders/{{id}}`")
    if len({name for name, _ in variables}) != len(variables):
        raise ValueError(f"the template `{value}` has a variable twice; give each its own name")
    at = {index for _, index in variables}
    return tuple(None if index in at else segment for index, segment in enumerate(segments)), variables
