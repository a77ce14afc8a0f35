"""The text form of `x-forwarded-client-cert` (XFCC), by grammar alone.

Source: Envoy, "HTTP header manipulation", x-forwarded-client-cert; what Envoy really writes is stricter than what it
documents, and `ext_authz.evidence.trusted_hop` builds on that. The JSON form (2026) is refused by name.
"""

import re
from dataclasses import dataclass

from ext_authz.errors import Reason, Refusal

__all__ = ["MAX_XFCC_ELEMENTS", "MAX_XFCC_LENGTH", "MAX_XFCC_PAIRS", "XfccElement", "parse_xfcc"]

MAX_XFCC_LENGTH = 65_536
"""Characters. Envoy's default limit for all request headers is 60 KiB, so a longer value never went through one."""

MAX_XFCC_ELEMENTS = 64
"""A request passes a handful of proxies; the number bounds what one header can make us allocate."""

MAX_XFCC_PAIRS = 1_024
"""Of all elements together: ten certificates with a hundred names each. A client can send ten thousand empty ones, and each
takes 3 µs to read."""

_HASH_LENGTH = 64  # SHA-256 in hex

# xfcc    = element *( "," element )
# element = OWS pair *( ";" pair )              ; OWS: proxies that join header lines write `, `
# pair    = key "=" value
# key     = "By" / "Hash" / "Cert" / "Chain" / "Subject" / "URI" / "DNS"     ; any case
# value   = plain / quoted
# plain   = *( %x20-21 / %x23-2B / %x2D-3A / %x3C-7E )                ; printable, without DQUOTE, `,` and `;`
# quoted  = DQUOTE *( %x20-21 / %x23-5B / %x5D-7E / "\" %x20-7E ) DQUOTE
# A backslash in a quoted value always takes the next character with it: Envoy writes the subject as RFC 2253 text,
# in which `\` escapes.
_PAIR = re.compile(
    r"""
    (?P<ows>[ \t]*+)
    (?P<key>[A-Za-z]++) =
    (?: " (?P<quoted>(?:[\x20\x21\x23-\x5B\x5D-\x7E]++|\\[\x20-\x7E])*) "
      | (?P<plain>[\x20\x21\x23-\x2B\x2D-\x3A\x3C-\x7E]*+)
    )
    (?P<end>[,;]|\Z)
    """,
    re.VERBOSE,
)
_HASH = re.compile(r"[0-9A-Fa-f]{64}")

_ONCE = frozenset({"hash", "cert", "chain", "subject"})
_REPEATED = frozenset({"by", "uri", "dns"})

# What every element that Envoy writes begins with. No value may contain either: then no quote in front of it, neither
# one that the client sent nor one in a SAN, can swallow the beginning of the element that a proxy wrote.
_BEGINNINGS = ("By=", "Hash=")


@dataclass(frozen=True, slots=True)
class XfccElement:
    """What one proxy said about its client, unverified.

    Attributes:
        keys: the keys in order, lowercase.
        quoted_keys: those whose value was quoted.
        by: URI SANs of the proxy's own certificate.
        hash: SHA-256 of the DER leaf, 32 bytes.
        cert: URL-encoded PEM of the leaf.
        chain: URL-encoded PEM of the chain, leaf first.
        subject: RFC 2253 text.
        uris: URI SANs; None when the proxy does not report them, empty when it reports that there are none (`URI=`).
        dns: DNS SANs.
    """

    keys: tuple[str, ...]
    quoted_keys: frozenset[str] = frozenset()
    by: tuple[str, ...] = ()
    hash: bytes | None = None
    cert: str | None = None
    chain: str | None = None
    subject: str | None = None
    uris: tuple[str, ...] | None = None
    dns: tuple[str, ...] = ()


def parse_xfcc(text: str) -> tuple[XfccElement, ...]:
    """Text to elements, leftmost (farthest) first.

    Several header lines are one text, joined with `,` in order, as Envoy joins them.

    Raises:
        Refusal: XFCC_JSON_NOT_SUPPORTED for the JSON form; XFCC_MALFORMED for anything else that the grammar does not
            have: unknown keys, unmatched quotes, empty elements, a second Hash, Cert, Chain or Subject in one element,
            a Hash that is not 64 hex digits, values that contain `By=` or `Hash=`.
    """
    if len(text) > MAX_XFCC_LENGTH:
        raise Refusal(Reason.XFCC_MALFORMED, f"longer than {MAX_XFCC_LENGTH} characters")
    if text.startswith(("{", "[")):
        raise Refusal(Reason.XFCC_JSON_NOT_SUPPORTED, "the header is in the JSON form, the text form is read")
    elements: list[XfccElement] = []
    pairs: list[tuple[str, str]] = []
    quoted_keys: set[str] = set()
    position, end, count = 0, ",", 0
    while end:
        if count == MAX_XFCC_PAIRS:
            raise Refusal(Reason.XFCC_MALFORMED, f"more than {MAX_XFCC_PAIRS} pairs")
        count += 1
        # each match begins where the last one ended and must end at a delimiter or at the end: the whole text matches
        pair = _PAIR.match(text, position)
        if pair is None:
            raise Refusal(Reason.XFCC_MALFORMED, "not key=value pairs with matched quotes")
        if pair["ows"] and pairs:
            raise Refusal(Reason.XFCC_MALFORMED, "white space in front of a key within an element")
        key = pair["key"].lower()
        if pair["quoted"] is not None:
            quoted_keys.add(key)
        pairs.append((key, _value(pair["quoted"], pair["plain"])))
        position, end = pair.end(), pair["end"]
        if end != ";":
            if len(elements) == MAX_XFCC_ELEMENTS:
                raise Refusal(Reason.XFCC_MALFORMED, f"more than {MAX_XFCC_ELEMENTS} elements")
            elements.append(_element(pairs, frozenset(quoted_keys)))
            pairs, quoted_keys = [], set()
    return tuple(elements)


def _value(quoted: str | None, plain: str) -> str:
    value = plain if quoted is None else quoted.replace('\\"', '"')
    for beginning in _BEGINNINGS:
        if beginning in value:
            raise Refusal(Reason.XFCC_MALFORMED, "a value contains the beginning of an element")
    return value


def _element(pairs: list[tuple[str, str]], quoted_keys: frozenset[str]) -> XfccElement:
    once: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for key, value in pairs:
        if key in _REPEATED:
            repeated.setdefault(key, []).append(value)
        elif key not in _ONCE:
            raise Refusal(Reason.XFCC_MALFORMED, "an unknown key")
        elif key in once:
            raise Refusal(Reason.XFCC_MALFORMED, "a key that may not be repeated is repeated")
        else:
            once[key] = value
    digest = once.get("hash")
    if digest is not None and not _HASH.fullmatch(digest):
        raise Refusal(Reason.XFCC_MALFORMED, f"`Hash` is not {_HASH_LENGTH} hex digits")
    uris = repeated.get("uri")
    return XfccElement(
        keys=tuple(key for key, _ in pairs),
        quoted_keys=quoted_keys,
        by=tuple(repeated.get("by", ())),
        hash=None if digest is None else bytes.fromhex(digest),
        cert=once.get("cert"),
        chain=once.get("chain"),
        subject=once.get("subject"),
        # an empty URI beside others is kept: they are two, and an SVID has one
        uris=None if uris is None else () if uris == [""] else tuple(uris),
        dns=tuple(repeated.get("dns", ())),
    )
