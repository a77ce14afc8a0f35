"""One JSON Web Key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2): which public key it is, and for which algorithms."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from ext_authz.errors import ExtAuthzError
from ext_authz.principal import JsonValue
from ext_authz.token.base64url import decode_base64url
from ext_authz.token.jose import PublicKey

__all__ = ["MAX_RSA_BITS", "MIN_RSA_BITS", "KeyFault", "KeyFaultError", "parse_key"]

MIN_RSA_BITS = 2048
"""RFC 7518 §3.3: a key of 2048 bits or larger must be used."""

MAX_RSA_BITS = 8192
"""Verification time grows with the square of the size; no issuer in use has more than 4096."""

_MIN_RSA_EXPONENT = 65_537
"""NIST FIPS 186-5 §5.4: 2^16 < e."""

_MAX_RSA_EXPONENT = 2**32
"""Verification time grows with the exponent's length."""

_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

_CURVES: Mapping[str, tuple[ec.EllipticCurve, int, str]] = {
    "P-256": (ec.SECP256R1(), 32, "ES256"),
    "P-384": (ec.SECP384R1(), 48, "ES384"),
    "P-521": (ec.SECP521R1(), 66, "ES512"),
}
"""Curve, bytes of a coordinate (RFC 7518 §6.2.1.2), and the one algorithm that goes with it (§3.4)."""

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2."""

_Parsed: TypeAlias = tuple[PublicKey, frozenset[str]]


class KeyFault(StrEnum):
    """Why a key verifies nothing; stable, for log and metrics."""

    MALFORMED = "malformed"
    DUPLICATE_KEY_ID = "duplicate_key_id"
    TYPE_NOT_SUPPORTED = "type_not_supported"
    SYMMETRIC = "symmetric"
    PRIVATE = "private"
    USE_NOT_SIGNATURE = "use_not_signature"
    ALGORITHM_MISMATCH = "algorithm_mismatch"
    CURVE_NOT_SUPPORTED = "curve_not_supported"
    RSA_SIZE = "rsa_size"
    RSA_EXPONENT = "rsa_exponent"
    RSA_WEAK_PRIMES = "rsa_weak_primes"


class KeyFaultError(ExtAuthzError):
    """A key that verifies nothing.

    Attributes:
        fault: why.
    """

    def __init__(self, fault: KeyFault) -> None:
        super().__init__(fault)
        self.fault = fault


def parse_key(member: Mapping[str, JsonValue]) -> tuple[PublicKey, frozenset[str]]:
    """The public key of a JWK and the algorithms it may verify (its own `alg` alone where it names one).

    Raises:
        KeyFaultError: for a key that is malformed, private, symmetric, weak, or not meant for signatures.
    """
    kty = member.get("kty")
    if kty == "oct":
        raise KeyFaultError(KeyFault.SYMMETRIC)
    # published by mistake: whoever read the set can sign with it
    if not _PRIVATE_MEMBERS.isdisjoint(member):
        raise KeyFaultError(KeyFault.PRIVATE)
    _check_use(member)
    match kty:
        case "RSA":
            public_key, algorithms = _rsa(member)
        case "EC":
            public_key, algorithms = _ec(member)
        case "OKP":
            public_key, algorithms = _okp(member)
        case str():
            raise KeyFaultError(KeyFault.TYPE_NOT_SUPPORTED)
        case _:
            raise KeyFaultError(KeyFault.MALFORMED)
    if "alg" not in member:
        return public_key, algorithms
    algorithm = member["alg"]
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise KeyFaultError(KeyFault.ALGORITHM_MISMATCH)
    return public_key, frozenset({algorithm})


def _check_use(member: Mapping[str, JsonValue]) -> None:
    # RFC 7517 §4.2, §4.3: what the key is for, where it says so
    if "use" in member and member["use"] != "sig":
        raise KeyFaultError(KeyFault.USE_NOT_SIGNATURE)
    if "key_ops" in member:
        operations = member["key_ops"]
        if not isinstance(operations, tuple):
            raise KeyFaultError(KeyFault.MALFORMED)
        if "verify" not in operations:
            raise KeyFaultError(KeyFault.USE_NOT_SIGNATURE)


def _octets(member: Mapping[str, JsonValue], name: str) -> bytes:
    text = member.get(name)
    octets = decode_base64url(text) if isinstance(text, str) else None
    if not octets:
        raise KeyFaultError(KeyFault.MALFORMED)
    return octets


def _rsa(member: Mapping[str, JsonValue]) -> _Parsed:
    # a leading zero octet (RFC 7518 §6.3.1.1 tells of it) changes nothing about the number
    modulus = int.from_bytes(_octets(member, "n"))
    exponent = int.from_bytes(_octets(member, "e"))
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise KeyFaultError(KeyFault.RSA_SIZE)
    if exponent % 2 == 0 or not _MIN_RSA_EXPONENT <= exponent < _MAX_RSA_EXPONENT:
        raise KeyFaultError(KeyFault.RSA_EXPONENT)
    if modulus % 2 == 0 or _has_roca_fingerprint(modulus):
        raise KeyFaultError(KeyFault.RSA_WEAK_PRIMES)
    return RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _ec(member: Mapping[str, JsonValue]) -> _Parsed:
    name = member.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise KeyFaultError(KeyFault.CURVE_NOT_SUPPORTED)
    curve, length, algorithm = _CURVES[name]
    x, y = _octets(member, "x"), _octets(member, "y")
    if len(x) != length or len(y) != length:
        raise KeyFaultError(KeyFault.MALFORMED)
    try:
        public_key = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except ValueError:  # not a point of the curve
        raise KeyFaultError(KeyFault.MALFORMED) from None
    return public_key, frozenset({algorithm})


def _okp(member: Mapping[str, JsonValue]) -> _Parsed:
    # Ed448 and the key-agreement curves X25519 and X448 verify nothing here
    if member.get("crv") != "Ed25519":
        raise KeyFaultError(KeyFault.CURVE_NOT_SUPPORTED)
    x = _octets(member, "x")
    if len(x) != 32:
        raise KeyFaultError(KeyFault.MALFORMED)
    return Ed25519PublicKey.from_public_bytes(x), frozenset({"EdDSA"})


def _has_roca_fingerprint(modulus: int) -> bool:
    """Whether the modulus is of the form that one vendor's chips produced (CVE-2017-15361), which can be factored.

    Their primes are powers of 65537 modulo the product of the small primes, so the modulus is one modulo each of them;
    a random modulus passes all of them once in 2^27 or more.
    """
    return all(modulus % prime in powers for prime, powers in _ROCA_POWERS)


def _powers_of_65537(prime: int) -> frozenset[int]:
    powers = {1}
    power = 65_537 % prime
    while power not in powers:
        powers.add(power)
        power = power * 65_537 % prime
    return frozenset(powers)


_ROCA_POWERS = tuple(
    (prime, _powers_of_65537(prime))
    for prime in range(3, 168, 2)
    if all(prime % divisor for divisor in range(3, prime, 2))
)
