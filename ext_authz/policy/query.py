"""Query parameters as far as a rule asks for them; what two parsers could read differently is refused."""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.letter_case import fold

__all__ = ["parse_query", "readings"]

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_query(query: str, names: frozenset[str]) -> Mapping[str, str]:
    """The values of those `names` that the query has, decoded as `application/x-www-form-urlencoded`.

    Args:
        query: after the `?`.
        names: the only ones that are looked at.

    Raises:
        Refusal: PATH_AMBIGUOUS for one of `names` with two different values (parsers take the first or the last) and
            for `;` (a separator to some); PATH_MALFORMED for percent-encoding that is not UTF-8.
    """
    if not query:
        return {}
    if ";" in query:
        raise Refusal(Reason.PATH_AMBIGUOUS, "the query has a `;`, which could separate parameters")
    if _BAD_PERCENT.search(query):
        raise Refusal(Reason.PATH_MALFORMED, "the query has a `%` without two hexadecimal digits")
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        name = _decoded(name)
        if name in names:
            value = _decoded(value)
            if values.setdefault(name, value) != value:
                raise Refusal(Reason.PATH_AMBIGUOUS, "a query parameter that a rule asks for has two values")
    return values


def readings(name: str) -> frozenset[str]:
    """What upstreams make of a decoded parameter name, in one spelling: two names that share one may be one parameter.

    ASP.NET compares names without letter case. PHP leaves out spaces in front and what follows a NUL, writes `_` for `.` and
    for a space, and takes `a[b]` for a part of `a`, as Rack does; a `[` that nothing closes is `_` as well.
    """
    read = fold(name.partition("\0")[0].lstrip(" ")).replace(".", "_").replace(" ", "_")
    return frozenset({read.partition("[")[0], read.replace("[", "_", 1)})


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise Refusal(Reason.PATH_MALFORMED, "the query is not UTF-8 when percent-decoded") from None
