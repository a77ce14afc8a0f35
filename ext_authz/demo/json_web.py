"""Keys and JWTs that the demo's authorization server signs, and the few encodings around them."""

import base64
import json
from dataclasses import dataclass
from typing import Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["SigningKey", "base64url", "base64url_decode"]

_RSA_BITS = 2048


def base64url(data: bytes) -> str:
    """RFC 7515 §2: base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_decode(text: str) -> bytes:
    """The bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key that signs with RS256, and its id."""

    key_id: str
    private_key: rsa.RSAPrivateKey

    @classmethod
    def generate(cls, key_id: str) -> Self:
        """A new key."""
        return cls(key_id, rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))

    @property
    def public_jwk(self) -> dict[str, object]:
        """The public key as a JWK (RFC 7517)."""
        jwk: dict[str, object] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private_key.public_key()))
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.key_id, "use": "sig", "alg": "RS256"}

    def sign(self, claims: dict[str, object], token_type: str) -> str:
        """A JWT with this `typ`."""
        return jwt.encode(claims, self.private_key, algorithm="RS256", headers={"typ": token_type, "kid": self.key_id})
