"""SPIFFE ID patterns: an exact ID, `*` for one whole segment, a trailing `/**` for any depth of at least one."""

import re
from dataclasses import dataclass, field

from ext_authz.errors import Refusal
from ext_authz.spiffe import SpiffeId, TrustDomain

__all__ = ["SpiffePattern"]

_SCHEME = "spiffe://"
_SEGMENT = "[^/]+"


@dataclass(frozen=True, slots=True)
class SpiffePattern:
    """A set of SPIFFE IDs of one trust domain. The trust domain is never a wildcard.

    Attributes:
        text: as written.
        prefix: `spiffe://<trust domain>/`.
        segments: of the path, `*` among them; without the trailing `**`.
        any_depth: the pattern ends in `/**`.
    """

    text: str
    prefix: str = field(init=False)
    segments: tuple[str, ...] = field(init=False)
    any_depth: bool = field(init=False)
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a pattern that is not a SPIFFE ID apart from its wildcards (ValueError)."""
        advice = "write `spiffe://trust.domain/path`, with `*` for one whole segment and `/**` only at the end"
        if not self.text.startswith(_SCHEME):
            raise ValueError(f"`{self.text}` does not begin with `spiffe://`; {advice}")
        name, _, path = self.text[len(_SCHEME) :].partition("/")
        segments = path.split("/") if path else []
        any_depth = bool(segments) and segments[-1] == "**"
        if any_depth:
            segments.pop()
        try:
            # a wildcard stands where one plain segment could
            SpiffeId(TrustDomain(name), "".join(f"/{'x' if segment == '*' else segment}" for segment in segments))
        except Refusal as refusal:
            raise ValueError(f"`{self.text}` is not a SPIFFE ID pattern: {refusal.detail}; {advice}") from None
        if self.text.endswith("/"):
            raise ValueError(f"`{self.text}` ends in `/`; {advice}")
        object.__setattr__(self, "prefix", f"{_SCHEME}{name}/")
        object.__setattr__(self, "segments", tuple(segments))
        object.__setattr__(self, "any_depth", any_depth)
        # every repetition ends at a `/`, which it cannot hold: linear in the text
        steps = [f"/{_SEGMENT if segment == '*' else re.escape(segment)}" for segment in segments]
        tail = f"(?:/{_SEGMENT})+" if any_depth else ""
        object.__setattr__(self, "_expression", re.compile(f"{re.escape(_SCHEME + name)}{''.join(steps)}{tail}"))

    @property
    def is_exact(self) -> bool:
        """Whether it stands for one ID only."""
        return not self.any_depth and "*" not in self.segments

    def matches(self, text: str) -> bool:
        """Whether `text`, a SPIFFE ID, is in the set."""
        return self._expression.fullmatch(text) is not None
