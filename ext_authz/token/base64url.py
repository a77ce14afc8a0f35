"""base64url without padding, in its one canonical form (RFC 7515 §2, RFC 4648 §3.5)."""

import base64
import re

__all__ = ["decode_base64url"]

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")

# RFC 4648 §3.5: the bits beyond the last whole byte are zero, so only these characters can come last
_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def decode_base64url(text: str) -> bytes | None:
    """The bytes, or None when `text` is not the one text that encodes them (padding, other characters, loose bits)."""
    if not _ALPHABET.fullmatch(text):
        return None
    rest = len(text) % 4
    if rest == 0:
        return base64.urlsafe_b64decode(text)
    if rest == 1 or text[-1] not in _LAST[rest]:
        return None
    return base64.urlsafe_b64decode(text + "=="[: 4 - rest])
