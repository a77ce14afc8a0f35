"""A certificate and its key as files."""

from dataclasses import dataclass

__all__ = ["KeyPair"]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain, leaf first, and its private key: two PEM files."""

    certificate_file: str
    key_file: str
