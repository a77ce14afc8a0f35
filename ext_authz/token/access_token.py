"""JWT access tokens (RFC 9068 §4): text to a verified token, or to the key that is lacking."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from ext_authz.errors import Reason, Refusal
from ext_authz.need import KeysNeeded
from ext_authz.principal import JsonValue, VerifiedToken
from ext_authz.token.claims import check_times, verify_claims
from ext_authz.token.i_json import parse_object
from ext_authz.token.issuer import Issuer
from ext_authz.token.issuer_directory import IssuerDirectory, TrustedIssuer
from ext_authz.token.jose import MAX_TOKEN_CHARACTERS, CompactJws, parse_compact, verify_signature
from ext_authz.token.jwks import KeyMatch, VerificationKey
from ext_authz.token.token_cache import CachedNeed, CachedRefusal

__all__ = ["verify_access_token"]

_LONGEST_REMEMBERED = 2_048
"""Characters of a token whose digest is kept beside it."""


def verify_access_token(text: str, issuers: IssuerDirectory, now: float) -> VerifiedToken | KeysNeeded:
    """Verify a token as presented.

    A token that this directory has verified before is a look-up; its times are compared with `now` at every use.

    Args:
        text: the credential, without its scheme.
        issuers: who may issue tokens, with their keys and the cache.
        now: seconds since the epoch.

    Returns:
        The token, or the key it needs that the directory does not hold.

    Raises:
        Refusal: TOKEN_*, ISSUER_UNKNOWN, SIGNING_KEY_UNKNOWN, SIGNATURE_INVALID, CLAIM_*, AUDIENCE_MISMATCH,
            BINDING_MALFORMED, BINDING_METHOD_NOT_SUPPORTED.
    """
    digest = (_remembered_digest if len(text) <= _LONGEST_REMEMBERED else _digest)(text)
    cached = issuers.cache.token(digest, now)
    if cached is not None and issuers.get(cached.token.issuer) is cached.origin:
        if not cached.valid_from <= now < cached.valid_until:
            check_times(cached.token, now)
        return cached.token
    refused = issuers.cache.refusal(digest, now)
    if refused is not None and issuers.get(refused.iss) is refused.origin:
        if isinstance(refused, CachedNeed):
            return refused.need
        raise Refusal(refused.reason, refused.detail)
    return _verify(text, digest, issuers, now)


def _digest(text: str) -> bytes:
    """What a token is remembered by.

    Raises:
        Refusal: TOKEN_TOO_LARGE, or TOKEN_MALFORMED for a character outside ASCII.
    """
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise Refusal(Reason.TOKEN_TOO_LARGE, f"the token is longer than {MAX_TOKEN_CHARACTERS} characters")
    if not text.isascii():
        raise Refusal(Reason.TOKEN_MALFORMED, "the token has a character outside ASCII")
    return hashlib.sha256(text.encode("ascii")).digest()


# a caller's token comes again with each of its requests; at most some 9 MB
_remembered_digest = lru_cache(maxsize=4096)(_digest)


def _verify(text: str, digest: bytes, issuers: IssuerDirectory, now: float) -> VerifiedToken | KeysNeeded:
    jws = parse_compact(text)
    claims = parse_object(jws.unverified_payload, Reason.TOKEN_MALFORMED)
    trusted = _trusted_issuer(claims, issuers)
    try:
        key = _verification_key(jws, trusted)
        if isinstance(key, KeysNeeded):
            # whoever presents it again while the key is lacking need not be read again
            issuers.cache.keep_refusal(digest, CachedNeed(trusted.issuer.issuer, trusted, key), now)
            return key
        verify_signature(jws, key.public_key)
        token = verify_claims(claims, trusted.issuer)
    except Refusal as refusal:
        # decided by the text, the terms and the keys alone: the same until one of them changes
        entry = CachedRefusal(trusted.issuer.issuer, trusted, refusal.reason, refusal.detail)
        issuers.cache.keep_refusal(digest, entry, now)
        raise
    try:
        check_times(token, now)
    except Refusal as refusal:
        if refusal.reason is Reason.TOKEN_EXPIRED:
            until = token.expires_at + token.skew
            entry = CachedRefusal(trusted.issuer.issuer, trusted, refusal.reason, refusal.detail, since=until)
            issuers.cache.keep_refusal(digest, entry, now)
        raise
    issuers.cache.keep_token(digest, token, trusted)
    return token


def _trusted_issuer(unverified_claims: Mapping[str, JsonValue], issuers: IssuerDirectory) -> TrustedIssuer:
    """Whose keys to look among. The claim is believed only as far as a signature of that issuer then confirms it."""
    iss = unverified_claims.get("iss")
    if iss is None:
        raise Refusal(Reason.CLAIM_MISSING, "the claim `iss` is missing")
    if not isinstance(iss, str):
        raise Refusal(Reason.CLAIM_MALFORMED, "the claim `iss` is not a string")
    trusted = issuers.get(iss)
    if trusted is None:
        raise Refusal(Reason.ISSUER_UNKNOWN, "the claim `iss` names no configured issuer")
    return trusted


def _verification_key(jws: CompactJws, trusted: TrustedIssuer) -> VerificationKey | KeysNeeded:
    issuer = trusted.issuer
    _check_header(jws, issuer)
    if trusted.keys is None:
        return KeysNeeded(issuer.name, jws.key_id)
    key = trusted.keys.find(jws.key_id, jws.algorithm)
    if key is KeyMatch.UNKNOWN:
        return KeysNeeded(issuer.name, jws.key_id)
    if isinstance(key, KeyMatch):
        raise Refusal(
            Reason.SIGNING_KEY_UNKNOWN,
            "the key of the token's `kid` is refused or of another `alg`; or without `kid` more than one fits",
        )
    return key


def _check_header(jws: CompactJws, issuer: Issuer) -> None:
    if not jws.other_headers <= issuer.ignored_headers:
        raise Refusal(
            Reason.TOKEN_HEADER_NOT_ALLOWED,
            "the header has a member that is neither known nor among the issuer's ignored ones",
        )
    # RFC 7515 §4.1.9: a media type, so without case and with `application/` understood
    type_ = "" if jws.type is None else jws.type.lower().removeprefix("application/") or "application/"
    if type_ not in issuer.types:
        raise Refusal(Reason.TOKEN_TYPE_NOT_ALLOWED, "the header's `typ` is not one the issuer's access tokens have")
    if jws.algorithm not in issuer.algorithms:
        raise Refusal(Reason.TOKEN_ALGORITHM_NOT_ALLOWED, "the header's `alg` is not among the issuer's")
