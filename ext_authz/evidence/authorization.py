"""How a token is presented: `Authorization: Bearer` (RFC 6750 §2.1) or a header of the operator's choice.

One answer for each way to get it wrong. `Bearer` in any case is accepted. A tab, two spaces or a trailing space are
AUTHORIZATION_MALFORMED: RFC 6750 has exactly one space, and two parsers must not read two different tokens. The query
parameter of RFC 6750 §2.3 is refused, form bodies (§2.2) and cookies are never looked at.
"""

import re
from functools import lru_cache
from urllib.parse import unquote

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import TokenSource
from ext_authz.facts import Headers

__all__ = ["MAX_TOKEN_LENGTH", "find_token"]

MAX_TOKEN_LENGTH = 16_384
"""Characters of the header value. Access tokens are 1 to 4 KB; what is larger is refused before it is read."""

_LONGEST_REMEMBERED = 2_048
"""Characters of a header value whose reading is kept: an access token with what is usual in it."""

# credentials = auth-scheme 1SP b64token                                                    (RFC 6750 §2.1)
# auth-scheme = token                                                                       (RFC 9110 §11.1)
# b64token    = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_SCHEME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]++)(?:[ \t].*+)?", re.DOTALL)
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]++=*+")
_B64TOKEN_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/-"
# two header lines that were joined: a credential after a comma
_SECOND_BEARER = re.compile(r".*,[ \t]*bearer[ \t].*", re.DOTALL | re.IGNORECASE)

_QUERY_PARAMETER = "access_token"
# some upstreams split parameters at `;` as well
_SEPARATOR = re.compile(r"[&;]")


def find_token(headers: Headers, query: str, sources: tuple[TokenSource, ...]) -> str | None:
    """The one token that the request presents, unverified; None when it presents none.

    Args:
        headers: of the request.
        query: the raw query string, without `?`.
        sources: where a token may be.

    Raises:
        Refusal: MULTIPLE_CREDENTIALS, TOKEN_IN_QUERY, TOKEN_TOO_LARGE, AUTHORIZATION_MALFORMED,
            AUTHORIZATION_SCHEME_NOT_SUPPORTED, HEADER_MALFORMED.
    """
    found: TokenSource | None = None
    values: tuple[str, ...] = ()
    for source in sources:
        present = headers.get_all(source.header)
        if present:
            if found is not None:
                raise Refusal(Reason.MULTIPLE_CREDENTIALS, "a token in two places")
            found, values = source, present
    if query and _has_token(query):
        if found is not None:
            raise Refusal(Reason.MULTIPLE_CREDENTIALS, "a token in a header and one in the query")
        raise Refusal(Reason.TOKEN_IN_QUERY, "a token in the query, where logs and referrers carry it on")
    if found is None:
        return None
    if len(values) > 1:
        raise Refusal(Reason.MULTIPLE_CREDENTIALS, "two values in the header that carries the token")
    value = values[0]
    return (_remembered_token if len(value) <= _LONGEST_REMEMBERED else _token)(value, found.scheme)


def _token(value: str, scheme: str | None) -> str:
    if len(value) > MAX_TOKEN_LENGTH:
        raise Refusal(Reason.TOKEN_TOO_LARGE, f"longer than {MAX_TOKEN_LENGTH} characters")
    if scheme is None:
        text = value
    else:
        start = len(scheme) + 1
        text = value[start:]
        if value[:start].lower() == f"{scheme} " and text and text.isascii() and not _beyond_alphabet(text):
            # the usual credential: two passes in C instead of two expressions over a kilobyte
            return text
        presented = _SCHEME.fullmatch(value)
        if presented is None:
            raise Refusal(Reason.AUTHORIZATION_MALFORMED, "no authentication scheme")
        if presented[1].lower() != scheme:
            if _SECOND_BEARER.fullmatch(value):
                raise Refusal(Reason.MULTIPLE_CREDENTIALS, "two credentials in one header")
            raise Refusal(Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED, "another authentication scheme")
        if value[len(scheme) : len(scheme) + 1] != " ":
            raise Refusal(Reason.AUTHORIZATION_MALFORMED, "not one space and a token after the scheme")
    if not _B64TOKEN.fullmatch(text):
        if "," in text:
            raise Refusal(Reason.MULTIPLE_CREDENTIALS, "two credentials in one header")
        raise Refusal(Reason.AUTHORIZATION_MALFORMED, "not exactly one token in the alphabet of RFC 6750")
    return text


# a caller's credential comes again with each of its requests; at most some 16 MB
_remembered_token = lru_cache(maxsize=4096)(_token)


def _beyond_alphabet(text: str) -> bytes:
    """What is left of ASCII `text` without the characters a b64token may have anywhere."""
    return text.encode("ascii").translate(None, _B64TOKEN_BYTES)


def _has_token(query: str) -> bool:
    if "%" not in query and _QUERY_PARAMETER not in query.lower():
        return False
    # names are compared decoded and without case: what an upstream might take for the parameter is the parameter
    # decoding never makes a name longer, and a query can hold ten thousand short ones
    return any(
        unquote(parameter.partition("=")[0]).lower() == _QUERY_PARAMETER
        for parameter in _SEPARATOR.split(query)
        if len(parameter) >= len(_QUERY_PARAMETER)
    )
