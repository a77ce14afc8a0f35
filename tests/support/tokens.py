"""Builders of issuer keys, key sets and access tokens, right ones and every kind of wrong one.

A token is right unless a test says otherwise: `access_token(aud="https://other.example")` is wrong in one way only.
Keys are made once per process.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

from ext_authz.token.issuer import InlineKeys, Issuer

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
AUDIENCE = "https://api.example"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
_PYJWT: Mapping[str, Algorithm] = get_default_algorithms()


class _Unset:
    """Leaves a claim or header out: `access_token(sub=OMIT)`."""


OMIT = _Unset()


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def json_bytes(value: object) -> bytes:
    """Compact UTF-8 JSON; lone surrogates and NaN pass, as a test may want them."""
    return json.dumps(value, separators=(",", ":")).encode()


@lru_cache(maxsize=64)
def _private_key(family: str, index: int) -> PrivateKey:
    """A key of the family (`RSA-<bits>`, `ES256`, `ES384`, `ES512`, `EdDSA`); another for another index."""
    del index
    if family.startswith("RSA-"):
        return rsa.generate_private_key(public_exponent=65_537, key_size=int(family[4:]))
    if family == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[family])


@dataclass(frozen=True)
class SigningKey:
    """An issuer's private key and the name it is published under."""

    algorithm: str
    kid: str
    private: PrivateKey

    def sign(self, message: bytes, *, algorithm: str | None = None) -> bytes:
        """The JWS signature of `message`, by this key's algorithm or another of the same family."""
        return _PYJWT[algorithm or self.algorithm].sign(message, self.private)

    def jwk(self, **changes: object) -> dict[str, Any]:
        """The public JWK with `kid`, `alg` and `use: sig`; `changes` add, replace or (OMIT) remove members."""
        pyjwt: Any = _PYJWT[self.algorithm]
        members: dict[str, Any] = pyjwt.to_jwk(self.private.public_key(), as_dict=True)
        members.pop("key_ops", None)
        members |= {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        return _changed(members, changes)

    def private_jwk(self) -> dict[str, Any]:
        """The whole private JWK, which must never be published."""
        pyjwt: Any = _PYJWT[self.algorithm]
        members: dict[str, Any] = pyjwt.to_jwk(self.private, as_dict=True)
        members.pop("key_ops", None)
        return members | {"kid": self.kid, "alg": self.algorithm, "use": "sig"}


def signing_key(algorithm: str = "ES256", *, kid: str | None = None, index: int = 0, bits: int = 2048) -> SigningKey:
    """The issuer's key for `algorithm`; the same one for the same arguments, another for another `index`."""
    family = f"RSA-{bits}" if algorithm[:2] in {"RS", "PS"} else algorithm
    name = kid if kid is not None else f"{algorithm.lower()}-{index}"
    return SigningKey(algorithm, name, _private_key(family, index))


def jwks(*keys: SigningKey | Mapping[str, object]) -> bytes:
    """A JWK Set document of signing keys (their public JWKs) and of JWKs given as they are."""
    return json_bytes({"keys": [key.jwk() if isinstance(key, SigningKey) else key for key in keys]})


def compact(header: object, payload: object, signature: SigningKey | bytes = b"") -> str:
    """Three segments, whatever they hold: bytes go in as they are, anything else as JSON.

    Args:
        header: the JOSE header.
        payload: the claims.
        signature: a key signs what precedes (by the header's `alg` where it can); bytes are taken as the signature.
    """
    head = header if isinstance(header, bytes) else json_bytes(header)
    body = payload if isinstance(payload, bytes) else json_bytes(payload)
    signing_input = f"{base64url(head)}.{base64url(body)}"
    if isinstance(signature, SigningKey):
        signature = signature.sign(signing_input.encode())
    return f"{signing_input}.{base64url(signature)}"


def claims(now: float = NOW, /, **changes: object) -> dict[str, Any]:
    """The claims of a right access token (RFC 9068 §2.2) issued a minute before `now`, for five minutes more."""
    return _changed(
        {
            "iss": ISSUER,
            "sub": "alice",
            "aud": AUDIENCE,
            "exp": int(now) + 300,
            "iat": int(now) - 60,
            "jti": "4f2a7c1e-token",
            "client_id": "website",
            "scope": "invoices.read invoices.write",
        },
        changes,
    )


def access_token(
    key: SigningKey | None = None,
    now: float = NOW,
    *,
    header: Mapping[str, object] | None = None,
    **changes: object,
) -> str:
    """A signed access token.

    Args:
        key: who signs; `signing_key()` (ES256) by default.
        now: when the test takes place.
        header: members to add, replace or (OMIT) remove.
        **changes: claims to add, replace or (OMIT) remove; `cnf=cnf_for(der)` binds it.
    """
    key = key or signing_key()
    members = _changed({"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid}, header or {})
    return compact(members, claims(now, **changes), key)


def cnf_for(der: bytes) -> dict[str, str]:
    """The `cnf` claim that binds a token to the certificate `der` (RFC 8705 §3.1)."""
    return {"x5t#S256": base64url(hashlib.sha256(der).digest())}


def issuer(name: str = "corp", *keys: SigningKey, **changes: Any) -> Issuer:
    """One issuer's terms, with inline keys (`signing_key()` by default); `changes` replace any field."""
    fields: dict[str, Any] = {
        "name": name,
        "issuer": ISSUER,
        "audiences": frozenset({AUDIENCE}),
        "keys": InlineKeys(jwks(*(keys or (signing_key(),))).decode()),
    }
    return Issuer(**(fields | changes))


def _changed(members: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not OMIT}
