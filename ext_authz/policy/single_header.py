"""Headers that rules read have one value; one that a request gives several is refused, as among query parameters."""

from collections.abc import Iterable
from typing import Final

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Headers
from ext_authz.policy.header_name import dashed
from ext_authz.policy.model import HeaderMatch, ValueMatchType

__all__ = ["SingleHeaders"]

_OPTIONAL_WHITESPACE: Final = " \t"  # RFC 9110 §5.6.3


class SingleHeaders:
    """The headers that the rules of one table read."""

    __slots__ = ("_read", "_spellings", "_values")

    def __init__(self, matches: Iterable[HeaderMatch]) -> None:
        """Gather names and values of `matches`."""
        values: dict[str, set[str]] = {}
        for match in matches:
            values.setdefault(match.name, set())
            if match.type is ValueMatchType.EXACT:
                values[match.name].add(match.value)
        self._values = tuple((name, frozenset(exact)) for name, exact in values.items())
        self._read = frozenset(values)
        self._spellings = frozenset(map(dashed, values))

    def __bool__(self) -> bool:
        """Whether any rule reads a header."""
        return bool(self._values)

    def check(self, headers: Headers) -> None:
        """Refuse what an upstream could read otherwise than the rules do.

        A header that comes twice is one value to the rules and the first or the last to many upstreams. Where Envoy has
        joined them, `a,b` may be one value as well, so it is refused only when a part is a value that some rule asks for;
        an expression has no values to compare with. For `x_mode` and `x.mode` see `header_name.dashed`.

        Raises:
            Refusal: HEADER_MALFORMED.
        """
        is_raw = headers.is_raw
        for name, exact in self._values:
            # a header without a comma has one value in either form
            value = headers.joined(name)
            if (
                value is not None
                and "," in value
                and (len(headers.get_all(name)) > 1 if is_raw else _lists(value, exact))
            ):
                raise Refusal(Reason.HEADER_MALFORMED, "a header that a rule asks for has several values")
        if headers.has_other_dashes:
            for name in headers.names():
                if name not in self._read and (plain := dashed(name)) != name and plain in self._spellings:
                    raise Refusal(
                        Reason.HEADER_MALFORMED, "a header that a rule asks for is spelled with `_` or `.` for `-`"
                    )


def _lists(joined: str, values: frozenset[str]) -> bool:
    return not values.isdisjoint(part.strip(_OPTIONAL_WHITESPACE) for part in joined.split(","))
