"""One thing found in policies that are each valid, and the words to tell it with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ext_authz.policy.model import PathType, RouteMatch
from ext_authz.policy.route_table import Candidate

__all__ = ["Finding", "PathKey", "Severity", "described", "named", "path_key", "warning"]

PathKey: TypeAlias = tuple[PathType, tuple[str | None, ...], str]


class Severity(StrEnum):
    """ERROR: the policies must not be used. WARNING: probably not what was meant. INFO: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        severity: what to do with it.
        policy: name.
        rule: name, or None when it concerns the whole policy.
        text: what is wrong and what to write instead.
    """

    severity: Severity
    policy: str
    rule: str | None
    text: str


def path_key(match: RouteMatch) -> PathKey:
    """Equal for paths that match the same requests, whatever a template calls its variables."""
    path = match.path
    return path.type, path.segments, path.value if path.type is PathType.REGULAR_EXPRESSION else ""


def warning(candidate: Candidate, text: str) -> Finding:
    """A warning of the rule that `candidate` belongs to."""
    return Finding(Severity.WARNING, candidate.rule.policy, candidate.rule.name, text)


def named(candidate: Candidate) -> str:
    """The rule, for a text."""
    return f"rule `{candidate.rule.name}` of policy `{candidate.rule.policy}`"


def described(match: RouteMatch) -> str:
    """Method and path, for a text."""
    return f"{match.method or 'any method'} {match.path.type} `{match.path.value}`"
