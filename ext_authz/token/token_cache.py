"""Results of verifications, kept beside the snapshot they depend on."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ext_authz.cache import BoundedCache, CacheCounts
from ext_authz.errors import Reason
from ext_authz.need import KeysNeeded
from ext_authz.principal import VerifiedToken

__all__ = ["REFUSAL_SECONDS", "CachedNeed", "CachedRefusal", "CachedToken", "TokenCache"]

TOKEN_CAPACITY = 100_000
"""About 1.3 KiB each: a busy gateway's working set in less than 150 MB."""

REFUSAL_CAPACITY = 4_096
"""A client that retries with one bad token is served from here; a flood of distinct ones turns this over, nothing else."""

REFUSAL_SECONDS = 10.0
"""Long enough to make retries cheap, short enough that a mended key set or configuration is seen at once."""


class CachedToken(NamedTuple):
    """A verified token.

    Attributes:
        token: the token.
        origin: what it was verified under; another object means verify again.
        valid_from: `max(nbf, iat) - skew`.
        valid_until: `exp + skew`, exclusive.
    """

    token: VerifiedToken
    origin: object
    valid_from: float
    valid_until: float


@dataclass(frozen=True, slots=True)
class CachedRefusal:
    """Why a token was refused, as values: an exception raised twice would gather tracebacks.

    Attributes:
        iss: whose terms it was refused under.
        origin: as in `CachedToken`.
        reason: of the refusal.
        detail: of the refusal.
        since: the refusal holds from this time on; `exp + skew` for an expired token, as clocks can be set back.
    """

    iss: str
    origin: object
    reason: Reason
    detail: str
    since: float = -inf


class CachedNeed(NamedTuple):
    """The key that a token needs and its issuer does not publish, or not yet.

    Attributes:
        iss: whose terms it was read under.
        origin: as in `CachedToken`; with it the keys among which there was none.
        need: the key.
    """

    iss: str
    origin: object
    need: KeysNeeded


class TokenCache:
    """Verified tokens and, for a short time, refusals and needs; each counts only for the origin it was reached under.

    The key is the SHA-256 digest of the full token text, header and signature included. Two texts with one digest
    would need a collision in the function that the signatures and thumbprints themselves rest on; and a digest takes
    65 bytes where a text takes a thousand.

    Valid and refused are kept apart: whoever can make refusals in numbers cannot push out a valid token. Times are the
    caller's to check at each use.
    """

    __slots__ = ("_refusals", "_tokens")

    def __init__(self, capacity: int = TOKEN_CAPACITY, refusal_capacity: int = REFUSAL_CAPACITY) -> None:
        """Remember at most `capacity` verified tokens and `refusal_capacity` refusals."""
        self._tokens: BoundedCache[bytes, CachedToken] = BoundedCache(capacity)
        self._refusals: BoundedCache[bytes, CachedRefusal | CachedNeed] = BoundedCache(refusal_capacity)

    def token(self, digest: bytes, now: float) -> CachedToken | None:
        """The verified token of this digest, or None; an expired one too, until it is pushed out."""
        return self._tokens.get(digest, now)

    def refusal(self, digest: bytes, now: float) -> CachedRefusal | CachedNeed | None:
        """The refusal or need of this digest, or None when there was none in the last REFUSAL_SECONDS."""
        found = self._refusals.get(digest, now)
        return None if isinstance(found, CachedRefusal) and now < found.since else found

    def keep_token(self, digest: bytes, token: VerifiedToken, origin: object) -> None:
        """Remember a token whose signature, claims and times are verified."""
        earliest = max(token.not_before or 0.0, token.issued_at or 0.0)
        entry = CachedToken(token, origin, earliest - token.skew, token.expires_at + token.skew)
        # not until `exp`: an entry that says "expired" spares the signature of a client that keeps sending it
        self._tokens.put(digest, entry, inf)

    def keep_refusal(self, digest: bytes, refusal: CachedRefusal | CachedNeed, now: float) -> None:
        """Remember a refusal for REFUSAL_SECONDS."""
        self._refusals.put(digest, refusal, now + REFUSAL_SECONDS)

    @property
    def token_counts(self) -> CacheCounts:
        """Of verified tokens, for metrics."""
        return self._tokens.counts

    @property
    def refusal_counts(self) -> CacheCounts:
        """Of refused tokens, which are looked for only where no verified one was found."""
        return self._refusals.counts

    def __len__(self) -> int:
        return len(self._tokens) + len(self._refusals)
