"""What a decision lacks that only I/O can give."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["KeysNeeded", "Need"]


@dataclass(frozen=True, slots=True)
class KeysNeeded:
    """A signing key that the snapshot does not hold.

    Attributes:
        issuer_name: the issuer's name in our configuration.
        key_id: the token's `kid`, bounded and printable; None when the token names no key.
    """

    issuer_name: str
    key_id: str | None


Need: TypeAlias = KeysNeeded
"""The runtime fulfils it, then asks again; closed, so that a new kind of need is a type error where it is not met."""
