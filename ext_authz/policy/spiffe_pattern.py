"""SPIFFE ID patterns: an exact ID, `*` for one whole segment, a trailing `/**` for any depth of at least one."""

from dataclasses import dataclass, field

from ext_authz.errors import Refusal
from ext_authz.spiffe import SpiffeId, TrustDomain

__all__ = ["SpiffePattern"]

_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class SpiffePattern:
    """A set of SPIFFE IDs of one trust domain. The trust domain is never a wildcard.

    Attributes:
        text: as written.
        segments: of the path, `*` among them; without the trailing `**`.
        any_depth: the pattern ends in `/**`.
    """

    text: str
    prefix: str = field(init=False)
    segments: tuple[str, ...] = field(init=False)
    any_depth: bool = field(init=False)

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
        if self.text.endswith("/") and not path:
            raise ValueError(f"`{self.text}` ends in `/`; {advice}")
        object.__setattr__(self, "prefix", f"{_SCHEME}{name}/")
        object.__setattr__(self, "segments", tuple(segments))
        object.__setattr__(self, "any_depth", any_depth)

    @property
    def is_exact(self) -> bool:
        """Whether it stands for one ID only."""
        return not self.any_depth and "*" not in self.segments

    @property
    def specificity(self) -> tuple[bool, int, int]:
        """Greater is more specific: a fixed depth before any depth, then literal segments, then depth."""
        literal = sum(segment != "*" for segment in self.segments)
        return not self.any_depth, literal, len(self.segments)

    def matches(self, text: str) -> bool:
        """Whether `text`, a SPIFFE ID, is in the set."""
        if self.is_exact:
            return text == self.text
        if not text.startswith(self.prefix):
            return False
        actual = text[len(self.prefix) :].split("/")
        wanted = self.segments
        if len(actual) <= len(wanted) if self.any_depth else len(actual) != len(wanted):
            return False
        return all(one in {"*", other} for one, other in zip(wanted, actual, strict=False))
