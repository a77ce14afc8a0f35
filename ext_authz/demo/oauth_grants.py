"""What the authorization server remembers: codes, refresh tokens, access tokens, its signing keys. All in memory."""

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ext_authz.demo.json_web import SigningKey, base64url

__all__ = ["Authorization", "Grants", "SigningKeys", "code_challenge"]

_Entry = TypeVar("_Entry")

CODE_SECONDS = 60
"""RFC 6749 §4.1.2 recommends at most ten minutes; nobody types here."""

REFRESH_SECONDS = 3_600

MAXIMUM_ENTRIES = 10_000
"""Of each kind; the oldest goes first, so that a loop of requests cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What was granted, and to whom; codes, refresh tokens and access tokens all stand for one.

    Attributes:
        client_id: the client.
        subject: `sub`: the user, or the client itself.
        scope: granted.
        resource: the audience.
        family: shared by every refresh token that descends from one code.
        redirect_uri: of the code.
        code_challenge: of the code (RFC 7636, S256).
        expires_at: seconds since the epoch.
    """

    client_id: str
    subject: str
    scope: frozenset[str]
    resource: str
    family: str = ""
    redirect_uri: str = ""
    code_challenge: str = ""
    expires_at: float = 0.0


@dataclass(slots=True)
class Grants:
    """Codes and tokens by SHA-256, so that a look into memory shows none of them."""

    _codes: dict[bytes, Authorization] = field(default_factory=dict)
    _refresh: dict[bytes, Authorization] = field(default_factory=dict)
    _used_refresh: dict[bytes, str] = field(default_factory=dict)
    _access: dict[bytes, dict[str, object]] = field(default_factory=dict)

    def new_code(self, authorization: Authorization, now: float) -> str:
        """A code, good for one use."""
        code = secrets.token_urlsafe(32)
        _remember(self._codes, code, replace(authorization, expires_at=now + CODE_SECONDS))
        return code

    def take_code(self, code: str, now: float) -> Authorization | None:
        """What the code stands for, the first time it is asked for and while it lasts."""
        return _current(self._codes.pop(_digest(code), None), now)

    def new_refresh_token(self, authorization: Authorization, now: float) -> str:
        """A refresh token, good for one use (RFC 9700 §4.14.2: rotation)."""
        token = secrets.token_urlsafe(32)
        family = authorization.family or secrets.token_urlsafe(8)
        _remember(self._refresh, token, replace(authorization, family=family, expires_at=now + REFRESH_SECONDS))
        return token

    def take_refresh_token(self, token: str, now: float) -> Authorization | None:
        """What the token stands for; a token shown twice revokes all that descend from the same code."""
        digest = _digest(token)
        authorization = self._refresh.pop(digest, None)
        if authorization is not None:
            self._used_refresh[digest] = authorization.family
            _bound(self._used_refresh)
        elif digest in self._used_refresh:
            self._revoke_family(self._used_refresh[digest])
        return _current(authorization, now)

    def put_back(self, token: str, authorization: Authorization) -> None:
        """Undo `take_refresh_token`: another client showed it, which is no use of it."""
        digest = _digest(token)
        self._used_refresh.pop(digest, None)
        self._refresh[digest] = authorization

    def remember_access_token(self, token: str, claims: dict[str, object]) -> None:
        """For introspection."""
        _remember(self._access, token, claims)

    def introspect(self, token: str, now: float) -> dict[str, object] | None:
        """The claims of an access token that is neither unknown, expired nor revoked."""
        claims = self._access.get(_digest(token))
        if claims is None:
            return None
        expires_at = claims["exp"]
        return claims if isinstance(expires_at, int) and now < expires_at else None

    def revoke(self, token: str, client_id: str) -> None:
        """Forget an access token or a family of refresh tokens of this client (RFC 7009); another's stays."""
        digest = _digest(token)
        claims = self._access.get(digest)
        if claims is not None and claims["client_id"] == client_id:
            del self._access[digest]
        authorization = self._refresh.get(digest)
        if authorization is not None and authorization.client_id == client_id:
            self._revoke_family(authorization.family)

    def _revoke_family(self, family: str) -> None:
        for digest in [digest for digest, found in self._refresh.items() if found.family == family]:
            del self._refresh[digest]


class SigningKeys:
    """The key that signs now, and the ones before it that are still published."""

    PUBLISHED = 3
    """Tokens live minutes: two rotations later nothing valid is signed with an older key."""

    def __init__(self) -> None:
        """Start with one key."""
        self._keys = [SigningKey.generate("demo-1")]
        self._generated = 1

    @property
    def current(self) -> SigningKey:
        """Signs new tokens."""
        return self._keys[-1]

    def rotate(self) -> SigningKey:
        """A new key signs from now on; the old ones stay published."""
        self._generated += 1
        self._keys = [*self._keys, SigningKey.generate(f"demo-{self._generated}")][-self.PUBLISHED :]
        return self.current

    @property
    def jwks(self) -> dict[str, object]:
        """The JWK Set, newest first."""
        return {"keys": [key.public_jwk for key in reversed(self._keys)]}


def code_challenge(verifier: str) -> str:
    """RFC 7636 §4.2, S256."""
    return base64url(hashlib.sha256(verifier.encode()).digest())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _current(authorization: Authorization | None, now: float) -> Authorization | None:
    return authorization if authorization is not None and now < authorization.expires_at else None


def _remember(entries: dict[bytes, _Entry], token: str, value: _Entry) -> None:
    entries[_digest(token)] = value
    _bound(entries)


def _bound(entries: dict[bytes, _Entry]) -> None:
    while len(entries) > MAXIMUM_ENTRIES:
        del entries[next(iter(entries))]
