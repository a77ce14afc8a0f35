"""JWK Sets (RFC 7517 §5) as immutable sets of keys that may verify signatures, and why the others may not."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.token.i_json import parse_object
from ext_authz.token.jose import PublicKey, is_key_id
from ext_authz.token.jwk import KeyFault, KeyFaultError, parse_key

__all__ = ["MAX_KEYS", "MAX_KEY_SET_BYTES", "KeyMatch", "KeySet", "RefusedKey", "VerificationKey"]

MAX_KEY_SET_BYTES = 524_288
"""A key with its certificate chain (`x5c`) has 2 to 8 KiB; sets in use have 1 to 20 keys."""

MAX_KEYS = 100
"""Many times what an issuer in rotation publishes."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and what it may verify.

    Attributes:
        key_id: `kid`, or None when the key has none.
        algorithms: the key's own `alg` alone, or every algorithm of its type and curve.
        public_key: the key.
    """

    key_id: str | None
    algorithms: frozenset[str]
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A member of `keys` that verifies nothing, for the operator.

    Attributes:
        position: in the document, from 0.
        key_id: `kid` where it is one, else None.
        fault: what is wrong.
    """

    position: int
    key_id: str | None
    fault: KeyFault


class KeyMatch(StrEnum):
    """Why a key set has no key for a token."""

    UNKNOWN = "unknown"
    """No key of that `kid`: fetching the set again may help."""

    UNUSABLE = "unusable"
    """The set says what that `kid` is, and it does not verify this token: fetching again is no use."""


class KeySet:
    """One issuer's verification keys; immutable.

    Attributes:
        keys: usable keys in document order.
        refused: the others, with the reason.
        fingerprint: SHA-256 over the usable keys, whatever their order: equal when the same keys verify the same.
    """

    __slots__ = ("_by_id", "_refused_ids", "fingerprint", "keys", "refused")

    def __init__(self, keys: tuple[VerificationKey, ...], refused: tuple[RefusedKey, ...]) -> None:
        """Use `from_json` instead."""
        self.keys = keys
        self.refused = refused
        self.fingerprint = _fingerprint(keys, refused)
        self._by_id: Mapping[str, VerificationKey] = MappingProxyType(
            {key.key_id: key for key in keys if key.key_id is not None},
        )
        self._refused_ids = frozenset(key.key_id for key in refused if key.key_id is not None)

    @classmethod
    def from_json(cls, data: bytes) -> "KeySet":
        """Read a JWK Set document. A faulty key is left out and recorded; it does not spoil the others.

        An empty `keys` is a set that verifies nothing: that is what its issuer says.

        Raises:
            Refusal: SIGNING_KEYS_UNAVAILABLE when it is no JWK Set at all: above MAX_KEY_SET_BYTES or MAX_KEYS, not
                strict JSON, or without an array `keys`.
        """
        if len(data) > MAX_KEY_SET_BYTES:
            raise Refusal(Reason.SIGNING_KEYS_UNAVAILABLE, f"the key set is larger than {MAX_KEY_SET_BYTES} bytes")
        members = parse_object(data, Reason.SIGNING_KEYS_UNAVAILABLE).get("keys")
        if not isinstance(members, tuple):
            raise Refusal(Reason.SIGNING_KEYS_UNAVAILABLE, "the key set has no array `keys`")
        if len(members) > MAX_KEYS:
            raise Refusal(Reason.SIGNING_KEYS_UNAVAILABLE, f"the key set has more than {MAX_KEYS} keys")
        # counted over all members, also the faulty: a `kid` that names two things names nothing
        uses = Counter(key_id for member in members if (key_id := _key_id(member)) is not None)
        keys: list[VerificationKey] = []
        refused: list[RefusedKey] = []
        for position, member in enumerate(members):
            key_id = _key_id(member)
            if key_id is not None and uses[key_id] > 1:
                refused.append(RefusedKey(position, key_id, KeyFault.DUPLICATE_KEY_ID))
                continue
            try:
                keys.append(_verification_key(member, key_id))
            except KeyFaultError as error:
                refused.append(RefusedKey(position, key_id, error.fault))
        return cls(tuple(keys), tuple(refused))

    def find(self, key_id: str | None, algorithm: str) -> VerificationKey | KeyMatch:
        """The one key that may verify a token with this `kid` and `alg`.

        A token without `kid` (RFC 7515 §4.1.4 leaves it optional) has a key only when exactly one of the set fits its
        algorithm. A key without `kid` verifies such tokens only.
        """
        if key_id is not None:
            key = self._by_id.get(key_id)
            if key is None:
                return KeyMatch.UNUSABLE if key_id in self._refused_ids else KeyMatch.UNKNOWN
            return key if algorithm in key.algorithms else KeyMatch.UNUSABLE
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if len(fitting) == 1:
            return fitting[0]
        return KeyMatch.UNUSABLE if fitting else KeyMatch.UNKNOWN


def _key_id(member: JsonValue) -> str | None:
    key_id = member.get("kid") if isinstance(member, Mapping) else None
    return key_id if isinstance(key_id, str) and is_key_id(key_id) else None


def _verification_key(member: JsonValue, key_id: str | None) -> VerificationKey:
    if not isinstance(member, Mapping) or ("kid" in member and key_id is None):
        raise KeyFaultError(KeyFault.MALFORMED)
    public_key, algorithms = parse_key(member)
    return VerificationKey(key_id, algorithms, public_key)


def _fingerprint(keys: tuple[VerificationKey, ...], refused: tuple[RefusedKey, ...]) -> bytes:
    parts = [
        b"\0".join(
            (
                b"" if key.key_id is None else b"=" + key.key_id.encode(),
                " ".join(sorted(key.algorithms)).encode(),
                key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            ),
        )
        for key in keys
    ]
    parts += [f"{key.key_id}\0{key.fault}".encode() for key in refused]
    # each part by its own digest: no boundary between two parts can be read two ways
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(part).digest() for part in parts))).digest()
