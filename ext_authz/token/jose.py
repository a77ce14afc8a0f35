"""Strict compact JWS (RFC 7515 §3.1, §7.1): text to parts, and the one place that verifies a signature.

What PyJWT leaves open is closed here before it sees anything; PyJWT's algorithm objects do the signature step alone.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, get_default_algorithms

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.token.base64url import decode_base64url
from ext_authz.token.i_json import parse_object

__all__ = [
    "MAX_KEY_ID_CHARACTERS",
    "MAX_TOKEN_CHARACTERS",
    "SUPPORTED_ALGORITHMS",
    "CompactJws",
    "PublicKey",
    "is_key_id",
    "parse_compact",
    "verify_signature",
]

MAX_TOKEN_CHARACTERS = 16_384
"""Twice the 8 KiB that most servers allow a whole header line; real access tokens have 0.5 to 4 KiB."""

MAX_KEY_ID_CHARACTERS = 256
"""Key ids in use are thumbprints, UUIDs or URLs."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

SUPPORTED_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
)
"""RFC 7518 §3.1 without `none` and HS*; RFC 8037 `EdDSA` with Ed25519 only (no issuer in use signs with Ed448)."""

# RFC 7518 §3.4: R and S, each as long as the curve's order
_ECDSA_SIGNATURE_BYTES: Mapping[str, int] = {"ES256": 64, "ES384": 96, "ES512": 132}

_PYJWT: Mapping[str, Algorithm] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in SUPPORTED_ALGORITHMS
}

# A key or the address of one in the header lets the sender choose who vouches for it (RFC 8725 §3.10); `crit`, `b64`
# and `zip` change what is signed or how it reads (RFC 7797, RFC 7516 §4.1.3); `cty` announces a nested token
# (RFC 7519 §5.2). None has a place in an access token.
_FORBIDDEN_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "cty"})

# `x5t` and `x5t#S256` are hints without key material that several servers send beside `kid`; they are not looked at
_KNOWN_HEADERS = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})

_KEY_ID = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_ID_CHARACTERS}}}")


_LONGEST_REMEMBERED = 512
"""Characters of a header that is kept: those in use have 60 to 150."""


class JoseHeader(NamedTuple):
    """A JOSE header (RFC 7515 §4) without anything that has no place in an access token.

    Attributes:
        algorithm: `alg`, one of SUPPORTED_ALGORITHMS.
        type: `typ` as sent, or None.
        key_id: `kid`, printable ASCII, or None.
        other_headers: names of header members that this module neither knows nor forbids.
    """

    algorithm: str
    type: str | None
    key_id: str | None
    other_headers: frozenset[str]


class CompactJws(NamedTuple):
    """A JWS whose form is right and whose signature nobody has verified yet.

    Attributes:
        algorithm: as in `JoseHeader`.
        type: as in `JoseHeader`.
        key_id: as in `JoseHeader`.
        other_headers: as in `JoseHeader`.
        unverified_payload: the payload, decoded.
        signing_input: the ASCII bytes that are signed.
        signature: the signature, decoded.
    """

    algorithm: str
    type: str | None
    key_id: str | None
    other_headers: frozenset[str]
    unverified_payload: bytes
    signing_input: bytes
    signature: bytes


def is_key_id(value: object) -> bool:
    """Whether `value` can be a `kid`: a string of 1 to MAX_KEY_ID_CHARACTERS printable ASCII characters."""
    return isinstance(value, str) and _KEY_ID.fullmatch(value) is not None


def parse_compact(text: str) -> CompactJws:
    """Text to parts; no cryptography.

    Raises:
        Refusal: TOKEN_TOO_LARGE above MAX_TOKEN_CHARACTERS; TOKEN_MALFORMED for anything but three segments of
            canonical unpadded base64url with a strict JSON header; TOKEN_HEADER_NOT_ALLOWED for a header member that
            brings a key or changes how the token reads; TOKEN_ALGORITHM_NOT_ALLOWED for `none`, HS* and all others
            outside SUPPORTED_ALGORITHMS.
    """
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise Refusal(Reason.TOKEN_TOO_LARGE, f"the token is longer than {MAX_TOKEN_CHARACTERS} characters")
    segments = text.split(".")
    if len(segments) != 3:
        raise Refusal(Reason.TOKEN_MALFORMED, "the token has not exactly three segments")
    head, payload, signature = segments[0], _decoded(segments[1]), _decoded(segments[2])
    header = (_remembered_header if len(head) <= _LONGEST_REMEMBERED else _header)(head)
    signing_input = text[: len(head) + 1 + len(segments[1])].encode("ascii")
    return CompactJws(*header, payload, signing_input, signature)


def _decoded(segment: str) -> bytes:
    octets = decode_base64url(segment)
    if octets is None:
        raise Refusal(Reason.TOKEN_MALFORMED, "a segment is not canonical unpadded base64url")
    return octets


def _header(segment: str) -> JoseHeader:
    """The header in the first segment. Raises as `parse_compact`."""
    members = parse_object(_decoded(segment), Reason.TOKEN_MALFORMED)
    if not _FORBIDDEN_HEADERS.isdisjoint(members):
        raise Refusal(
            Reason.TOKEN_HEADER_NOT_ALLOWED,
            "the header brings a key, a critical extension, compression or a nested token",
        )
    return JoseHeader(
        _algorithm(members), _type(members), _key_id(members), other_headers=frozenset(members) - _KNOWN_HEADERS
    )


# an issuer's tokens under one key have one header; at most some 1 MB
_remembered_header = lru_cache(maxsize=256)(_header)


def verify_signature(jws: CompactJws, key: PublicKey) -> None:
    """Verify the signature with `key`, which the caller has matched to `jws.algorithm` (see `jwks.KeySet.find`).

    Raises:
        Refusal: SIGNATURE_INVALID, whatever is wrong with the signature or the key.
    """
    length = _ECDSA_SIGNATURE_BYTES.get(jws.algorithm)
    if length is not None:
        half = length // 2
        signature = jws.signature
        # CVE-2022-21449: r = s = 0 satisfied a verifier that did not look; DER signatures have another length
        if len(signature) != length or not any(signature[:half]) or not any(signature[half:]):
            raise Refusal(Reason.SIGNATURE_INVALID, "the ECDSA signature has another length, or a zero half")
    try:
        # refuses a key of another family or curve
        algorithm = _PYJWT[jws.algorithm]
        valid = algorithm.verify(jws.signing_input, algorithm.prepare_key(key), jws.signature)
    except Exception:  # noqa: BLE001 - whatever a library does with hostile bytes, the signature is not valid
        valid = False
    if valid is not True:
        raise Refusal(Reason.SIGNATURE_INVALID, "the signature does not verify")


def _algorithm(header: Mapping[str, JsonValue]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Refusal(Reason.TOKEN_MALFORMED, "the header has no `alg` string")
    if algorithm not in SUPPORTED_ALGORITHMS:
        raise Refusal(Reason.TOKEN_ALGORITHM_NOT_ALLOWED, "the header's `alg` is not an algorithm for access tokens")
    return algorithm


def _type(header: Mapping[str, JsonValue]) -> str | None:
    if "typ" not in header:
        return None
    type_ = header["typ"]
    # an empty string would be a second way to send no type
    if not isinstance(type_, str) or not type_:
        raise Refusal(Reason.TOKEN_MALFORMED, "the header's `typ` is not a string, or empty")
    return type_


def _key_id(header: Mapping[str, JsonValue]) -> str | None:
    if "kid" not in header:
        return None
    key_id = header["kid"]
    if not isinstance(key_id, str) or not is_key_id(key_id):
        raise Refusal(
            Reason.TOKEN_MALFORMED,
            f"the header's `kid` is not a string of 1 to {MAX_KEY_ID_CHARACTERS} printable characters",
        )
    return key_id
