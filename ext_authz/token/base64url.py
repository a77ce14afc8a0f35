"""base64url without padding, in its one canonical form (RFC 7515 §2, RFC 4648 §3.5)."""

from binascii import a2b_base64

__all__ = ["decode_base64url"]

# RFC 4648 §5: to the alphabet of §4, whose own two characters and padding have no place here and become none at all
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")

# by the number of characters beyond a multiple of four; one alone encodes nothing
_PADDING = {0: b"", 2: b"==", 3: b"="}

# RFC 4648 §3.5: the bits beyond the last whole byte are zero, so only these characters can come last
_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def decode_base64url(text: str) -> bytes | None:
    """The bytes, or None when `text` is not the one text that encodes them (padding, other characters, loose bits)."""
    rest = len(text) % 4
    if rest == 1 or (rest and text[-1] not in _LAST[rest]):
        return None
    try:
        # strict: a character outside the alphabet is an error and not passed over
        return a2b_base64(text.encode("ascii").translate(_TO_BASE64) + _PADDING[rest], strict_mode=True)
    except ValueError:
        # binascii.Error and UnicodeEncodeError are both
        return None
