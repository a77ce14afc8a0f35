"""The request path, read once and in one way; what two parsers could read differently is refused.

RFC 3986 §3.3 for the grammar; CVE-2021-29492, CVE-2021-31920 (`%2F`, `%5C`, `//`), CVE-2021-32779 (fragment) and the
`..;x` family for what differs between parsers.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ext_authz.errors import Reason, Refusal

__all__ = ["MAX_PATH_LENGTH", "CanonicalPath", "Leniency", "canonicalise", "leniencies_from"]

MAX_PATH_LENGTH: Final = 8192
"""Characters before the query. RFC 9110 §4.1 asks for 8000; a longer path is no route anyone writes a rule for."""


class Leniency(StrEnum):
    """Ambiguities that an operator may accept by name, each with the reading that is then used."""

    MERGE_SLASHES = "merge_slashes"
    """`//` is read as `/`."""

    ALLOW_PATH_PARAMETERS = "allow_path_parameters"
    """From `;` (or `%3b`) to the end of a segment nothing counts."""

    ALLOW_ENCODED_SLASH = "allow_encoded_slash"
    """`%2f` is a character of its segment, never a separator."""

    RESOLVE_DOT_SEGMENTS = "resolve_dot_segments"
    """`.` and `..`, encoded or not, are resolved (RFC 3986 §5.2.4); above the root is refused still."""

    ALLOW_DOUBLE_ENCODING = "allow_double_encoding"
    """`%25xx` is the text `%xx`."""

    CASE_SENSITIVE = "case_sensitive"
    """A path that differs from a more specific rule by letter case alone is another path, not an ambiguous one."""

    ALLOW_EXCLAMATION_MARK = "allow_exclamation_mark"
    """`!` is itself also where Envoy may have written it in place of a byte that it sends on."""

    IGNORE_HOST_PORT = "ignore_host_port"
    """The proxy, too, chooses between hosts without looking at the port in Host."""


class CanonicalPath(NamedTuple):
    """A path with one reading.

    Attributes:
        text: begins with `/`; percent-encoded where RFC 3986 demands it, nowhere else; ASCII.
        segments: percent-decoded, without the leading `/`: `/` is `()`, `/a/` is `("a", "")`.
        query: everything after the first `?`, as sent.
    """

    text: str
    segments: tuple[str, ...]
    query: str

    @property
    def decoded(self) -> str:
        """The segments as one text, for expressions."""
        return "/" + "/".join(self.segments)


_PLAIN = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*+")  # pchar (RFC 3986 §3.3) without `%`
_PATH_CHARACTERS = re.compile(r"[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]+")  # visible ASCII without `#`, `?` and `\`
_BAD_QUERY_CHARACTER = re.compile(r"[\x00-\x20\x7f#\ud800-\udfff]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_STILL_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEPT = "!$&'()*+,=:@"  # sub-delims without `;`, and the rest of pchar; `quote` itself keeps the unreserved


def leniencies_from(names: Iterable[str]) -> frozenset[Leniency]:
    """Names from configuration to values.

    Raises:
        ValueError: for a name that is not a leniency.
    """
    known = {leniency.value for leniency in Leniency}
    names = frozenset(names)
    for name in sorted(names - known):
        raise ValueError(f"there is no leniency `{name}`; write one of {', '.join(sorted(known))}")
    return frozenset(Leniency(name) for name in names)


def canonicalise(path: str, leniencies: frozenset[Leniency] = frozenset()) -> CanonicalPath:
    """The one reading of `:path`.

    Args:
        path: as Envoy sends it: not normalised, with query.
        leniencies: ambiguities to accept.

    Raises:
        Refusal: PATH_MALFORMED for everything that has no reading, or more than one.
    """
    text, _, query = path.partition("?")
    if query and _BAD_QUERY_CHARACTER.search(query):
        raise _malformed("the query has a space, a control character or a fragment")
    if len(text) > MAX_PATH_LENGTH:
        raise _malformed(f"the path is longer than {MAX_PATH_LENGTH} characters")
    if "//" not in text and "/." not in text and _PLAIN.fullmatch(text):
        # the usual path, which nothing can read differently
        return CanonicalPath(text, tuple(text[1:].split("/")) if len(text) > 1 else (), query)
    return _canonicalise_rare(text, query, leniencies)


def _canonicalise_rare(text: str, query: str, leniencies: frozenset[Leniency]) -> CanonicalPath:
    if not text.startswith("/"):
        raise _malformed("the path does not begin with `/`")
    if not _PATH_CHARACTERS.fullmatch(text):
        raise _malformed("the path has a character that must be percent-encoded, a backslash or a fragment")
    if _BAD_PERCENT.search(text):
        raise _malformed("the path has a `%` without two hexadecimal digits")
    segments = [_decoded(segment, leniencies) for segment in text[1:].split("/")]
    segments = _without_ambiguity(segments, leniencies)
    if segments == [""]:
        segments = []
    return CanonicalPath("/" + "/".join(quote(segment, safe=_KEPT) for segment in segments), tuple(segments), query)


def _decoded(segment: str, leniencies: frozenset[Leniency]) -> str:
    try:
        # strict UTF-8: overlong forms (`%c0%af` for `/`) and surrogates are errors
        decoded = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise _malformed("the path is not UTF-8 when percent-decoded") from None
    if _CONTROL.search(decoded):
        raise _malformed("the path has an encoded control character")
    if "\\" in decoded:
        raise _malformed("the path has an encoded backslash")
    if _STILL_ENCODED.search(decoded) and Leniency.ALLOW_DOUBLE_ENCODING not in leniencies:
        raise _malformed("the path is percent-encoded twice")
    if "/" in decoded:
        _check_encoded_slash(decoded, leniencies)
    if ";" in decoded:
        return _without_parameter(decoded, leniencies)
    return decoded


def _check_encoded_slash(decoded: str, leniencies: frozenset[Leniency]) -> None:
    if Leniency.ALLOW_ENCODED_SLASH not in leniencies:
        raise _malformed("the path has an encoded slash")
    if not {"", ".", ".."}.isdisjoint(part.partition(";")[0] for part in decoded.split("/")):
        # `..%2fadmin` is a step up for whoever decodes it
        raise _malformed("the path has an encoded slash beside an empty or dot segment")


def _without_parameter(decoded: str, leniencies: frozenset[Leniency]) -> str:
    if Leniency.ALLOW_PATH_PARAMETERS not in leniencies:
        raise _malformed("the path has a parameter")
    name = decoded.partition(";")[0]
    if not name:
        raise _malformed("the path has a segment that is only a parameter")
    return name


def _without_ambiguity(segments: list[str], leniencies: frozenset[Leniency]) -> list[str]:
    has_empty = "" in segments[:-1]
    has_dots = "." in segments or ".." in segments
    if has_empty and has_dots:
        # merging before or after resolving gives two answers
        raise _malformed("the path has both empty and dot segments")
    if has_empty:
        if Leniency.MERGE_SLASHES not in leniencies:
            raise _malformed("the path has an empty segment")
        return [segment for segment in segments[:-1] if segment] + segments[-1:]
    if has_dots:
        if Leniency.RESOLVE_DOT_SEGMENTS not in leniencies:
            raise _malformed("the path has a dot segment")
        return _resolved(segments)
    return segments


def _resolved(segments: list[str]) -> list[str]:
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            if not resolved:
                raise _malformed("the path leads above the root")
            resolved.pop()
        elif segment != ".":
            resolved.append(segment)
    if segments[-1] in {".", ".."}:
        resolved.append("")  # RFC 3986 §5.2.4: `/a/.` is `/a/`
    return resolved


def _malformed(detail: str) -> Refusal:
    return Refusal(Reason.PATH_MALFORMED, detail)
