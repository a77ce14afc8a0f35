"""Structured fields (RFC 8941), the subset behind RFC 9440: an item, or a list of items, that are byte sequences.

A library was weighed. `http-sf` follows the specification well, but it reads RFC 9651, which has types that RFC 8941
has not, takes byte sequences without padding or with stray bits in it (so that one certificate has several texts),
has no limit on length, and is a dependency for a hundred lines of which we need thirty. Items of other types are
refused here in any case, so the subset is a grammar of one page.

Strict where RFC 8941 §4.2.7 leaves a choice: padding must be there and its bits must be zero.
"""

import base64
import binascii
import re

from ext_authz.errors import Reason, Refusal

__all__ = ["MAX_FIELD_LENGTH", "parse_byte_sequence", "parse_byte_sequences"]

MAX_FIELD_LENGTH = 65_536
"""Characters; Envoy's default limit for all request headers is 60 KiB."""

# sf-list       = list-member *( OWS "," OWS list-member )
# sf-item       = bare-item parameters
# parameters    = *( ";" *SP parameter )
# parameter     = key [ "=" bare-item ]
# key           = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )
# bare-item     = sf-integer / sf-decimal / sf-string / sf-token / sf-binary / sf-boolean
# sf-integer    = ["-"] 1*15DIGIT
# sf-decimal    = ["-"] 1*12DIGIT "." 1*3DIGIT
# sf-string     = DQUOTE *( %x20-21 / %x23-5B / %x5D-7E / "\" ( DQUOTE / "\" ) ) DQUOTE
# sf-token      = ( ALPHA / "*" ) *( tchar / ":" / "/" )
# sf-binary     = ":" *( ALPHA / DIGIT / "+" / "/" / "=" ) ":"
# sf-boolean    = "?" ( "0" / "1" )
_BINARY = r":[A-Za-z0-9+/=]*+:"
_BARE_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}"
    r"|-?[0-9]{1,15}"
    r'|"(?:[\x20\x21\x23-\x5B\x5D-\x7E]++|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"
    rf"|{_BINARY}"
    r"|\?[01])"
)
_PARAMETERS = rf"(?:; *+[a-z*][a-z0-9_.*-]*+(?:={_BARE_ITEM})?)*"
_ITEM = rf"({_BINARY}){_PARAMETERS}"
# RFC 8941 §4.2: spaces around the whole field are discarded (tabs are not)
_FIELD_ITEM = re.compile(rf" *+{_ITEM} *+")
_FIELD_LIST = re.compile(rf" *+{_ITEM}(?:[ \t]*+,[ \t]*+{_ITEM})* *+")
_EACH_ITEM = re.compile(rf"{_ITEM}(?:[ \t]*+,[ \t]*+| *+\Z)")


def parse_byte_sequence(text: str) -> bytes:
    """An sf-item that is a byte sequence; parameters are read by grammar and ignored (RFC 8941 §2.1: none is defined).

    Raises:
        Refusal: CERTIFICATE_HEADER_MALFORMED.
    """
    _bound(text)
    item = _FIELD_ITEM.fullmatch(text)
    if item is None:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, "not one byte sequence (RFC 8941)")
    return _decoded(item[1])


def parse_byte_sequences(text: str) -> tuple[bytes, ...]:
    """An sf-list whose members are byte sequences; empty text is the empty list (RFC 8941 §4.2.1).

    Several header lines are one text joined with `,` (RFC 8941 §4.2).

    Raises:
        Refusal: CERTIFICATE_HEADER_MALFORMED.
    """
    _bound(text)
    if not text.strip(" "):
        return ()
    if not _FIELD_LIST.fullmatch(text):
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, "not a list of byte sequences (RFC 8941)")
    # the same grammar again, item by item from the left: a match cannot begin inside a parameter
    return tuple(_decoded(item[1]) for item in _EACH_ITEM.finditer(text.lstrip(" ")))


def _bound(text: str) -> None:
    if len(text) > MAX_FIELD_LENGTH:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, f"longer than {MAX_FIELD_LENGTH} characters")


def _decoded(binary: str) -> bytes:
    encoded = binary[1:-1].encode()
    try:
        value = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, "a byte sequence is not base64") from None
    if base64.b64encode(value) != encoded:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, "a byte sequence is not canonical base64")
    return value
