"""The cache of verified tokens: its bound, its lifetime, and what it never does."""

import sys
import tracemalloc
from typing import Any

import pytest
from support.tokens import ISSUER, NOW, access_token, claims, cnf_for, issuer, json_bytes, jwks, signing_key

from ext_authz.errors import Reason, Refusal
from ext_authz.need import KeysNeeded
from ext_authz.principal import VerifiedToken
from ext_authz.token import access_token as module
from ext_authz.token import jose
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.claims import verify_claims
from ext_authz.token.i_json import parse_object
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jose import CompactJws, PublicKey
from ext_authz.token.jwks import KeySet
from ext_authz.token.token_cache import REFUSAL_SECONDS, CachedRefusal, TokenCache

KEYS = KeySet.from_json(jwks(signing_key()))
OTHER = "https://other.example"


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each signature that was really verified."""
    done: list[str] = []
    verify = jose.verify_signature

    def counting(jws: CompactJws, key: PublicKey) -> None:
        done.append(jws.algorithm)
        verify(jws, key)

    monkeypatch.setattr(module, "verify_signature", counting)
    return done


def directory(**changes: Any) -> IssuerDirectory:
    return IssuerDirectory([issuer(**changes)], {"corp": KEYS})


def refuse(text: str, issuers: IssuerDirectory, now: float = NOW) -> Reason:
    with pytest.raises(Refusal) as caught:
        verify_access_token(text, issuers, now)
    return caught.value.reason


def test_a_token_is_verified_once(verifications: list[str]) -> None:
    issuers = directory()
    text = access_token()
    first = verify_access_token(text, issuers, NOW)
    assert verify_access_token(text, issuers, NOW + 1) is first
    assert len(verifications) == 1


def test_another_text_of_the_same_token_is_verified_again(verifications: list[str]) -> None:
    # ECDSA signatures differ each time; the cache knows texts, not tokens
    issuers = directory()
    one, two = access_token(), access_token()
    assert one != two
    verify_access_token(one, issuers, NOW)
    verify_access_token(two, issuers, NOW)
    assert len(verifications) == 2


def test_a_cached_token_whose_signature_is_cut_or_changed_is_refused() -> None:
    issuers = directory()
    text = access_token()
    verify_access_token(text, issuers, NOW)
    for changed in (text[:-1], text[:-4], text + "AAAA", text.rpartition(".")[0] + "."):
        assert refuse(changed, issuers) in {Reason.SIGNATURE_INVALID, Reason.TOKEN_MALFORMED}


def test_an_expired_token_is_refused_without_a_verification(verifications: list[str]) -> None:
    issuers = directory()
    seen, unseen = access_token(), access_token()
    verify_access_token(seen, issuers, NOW)
    late = NOW + 330
    for _ in range(3):
        assert refuse(seen, issuers, late) is Reason.TOKEN_EXPIRED
        assert refuse(unseen, issuers, late) is Reason.TOKEN_EXPIRED
    assert len(verifications) == 2


def test_a_refusal_is_remembered_for_a_short_time(verifications: list[str]) -> None:
    issuers = directory()
    text = access_token(aud=OTHER)
    for now in (NOW, NOW + 1, NOW + REFUSAL_SECONDS - 0.001):
        assert refuse(text, issuers, now) is Reason.AUDIENCE_MISMATCH
    assert len(verifications) == 1
    assert refuse(text, issuers, NOW + REFUSAL_SECONDS) is Reason.AUDIENCE_MISMATCH
    assert len(verifications) == 2


def test_a_refusal_gathers_no_tracebacks() -> None:
    issuers = directory()
    text = access_token(aud=OTHER)
    refuse(text, issuers)
    caught = []
    for _ in range(2):
        with pytest.raises(Refusal) as info:
            verify_access_token(text, issuers, NOW)
        caught.append(info.value)
    assert caught[0] is not caught[1]


def test_a_token_that_is_not_valid_yet_is_not_remembered_as_refused() -> None:
    issuers = directory()
    text = access_token(nbf=NOW + 31)
    assert refuse(text, issuers, NOW) is Reason.TOKEN_NOT_YET_VALID
    assert isinstance(verify_access_token(text, issuers, NOW + 1), VerifiedToken)


def test_new_keys_end_what_the_old_ones_verified() -> None:
    before = directory()
    text = access_token()
    verify_access_token(text, before, NOW)
    rotated = KeySet.from_json(jwks(signing_key(kid="next", index=1)))
    after = IssuerDirectory([issuer()], {"corp": rotated}, previous=before)
    assert after.cache is before.cache
    assert verify_access_token(text, after, NOW) == KeysNeeded("corp", "es256-0")
    # a request that still holds the old snapshot is decided by it to its end
    assert isinstance(verify_access_token(text, before, NOW), VerifiedToken)


def test_new_keys_end_what_the_old_ones_refused() -> None:
    before = directory()
    new = signing_key(index=1, kid="es256-0")
    text = access_token(new)
    assert refuse(text, before) is Reason.SIGNATURE_INVALID
    after = IssuerDirectory([issuer()], {"corp": KeySet.from_json(jwks(new))}, previous=before)
    assert isinstance(verify_access_token(text, after, NOW), VerifiedToken)


def test_new_terms_and_a_removed_issuer_end_what_the_old_ones_allowed() -> None:
    before = directory()
    text = access_token()
    verify_access_token(text, before, NOW)
    stricter = IssuerDirectory([issuer(audiences=frozenset({OTHER}))], {"corp": KEYS}, previous=before)
    assert refuse(text, stricter) is Reason.AUDIENCE_MISMATCH
    removed = IssuerDirectory([], {}, previous=stricter)
    assert refuse(text, removed) is Reason.ISSUER_UNKNOWN
    keyless = IssuerDirectory([issuer()], {}, previous=before)
    assert verify_access_token(text, keyless, NOW) == KeysNeeded("corp", "es256-0")


def test_an_issuer_that_stays_the_same_keeps_its_cached_tokens(verifications: list[str]) -> None:
    before = directory()
    text = access_token()
    token = verify_access_token(text, before, NOW)
    other = issuer("other", issuer=OTHER)
    after = IssuerDirectory([issuer(), other], {"corp": KEYS, "other": KEYS}, previous=before)
    assert verify_access_token(text, after, NOW) is token
    assert len(verifications) == 1
    assert after.get(ISSUER) is before.get(ISSUER)
    assert [trusted.issuer.name for trusted in after] == ["corp", "other"]


def test_two_directories_that_share_a_cache_share_no_results() -> None:
    cache = TokenCache()
    one = IssuerDirectory([issuer()], {"corp": KEYS}, cache=cache)
    two = IssuerDirectory([issuer(audiences=frozenset({OTHER}))], {"corp": KEYS}, cache=cache)
    text = access_token()
    for _ in range(2):
        assert isinstance(verify_access_token(text, one, NOW), VerifiedToken)
        assert refuse(text, two) is Reason.AUDIENCE_MISMATCH


@pytest.mark.parametrize(
    "issuers", [[issuer(), issuer(name="twin")], [issuer(), issuer(issuer=OTHER)]], ids=["same iss", "same name"]
)
def test_two_issuers_with_one_identifier_or_one_name_are_a_mistake(issuers: list[Any]) -> None:
    with pytest.raises(ValueError, match="two issuers"):
        IssuerDirectory(issuers, {})


def test_a_token_whose_key_is_lacking_is_read_once_and_verified_when_the_key_has_come(
    monkeypatch: pytest.MonkeyPatch, verifications: list[str]
) -> None:
    read: list[str] = []
    parse = jose.parse_compact

    def counting(text: str) -> CompactJws:
        read.append(text)
        return parse(text)

    monkeypatch.setattr(module, "parse_compact", counting)
    new = signing_key(index=1)
    text = access_token(new)
    without = directory()
    for _ in range(3):
        assert verify_access_token(text, without, NOW) == KeysNeeded("corp", new.kid)
    assert len(read) == 1
    others = IssuerDirectory([issuer()], {}, cache=without.cache)
    assert verify_access_token(text, others, NOW) == KeysNeeded("corp", new.kid)
    assert len(read) == 2
    with_key = IssuerDirectory([issuer()], {"corp": KeySet.from_json(jwks(signing_key(), new))}, previous=without)
    assert isinstance(verify_access_token(text, with_key, NOW), VerifiedToken)
    assert len(verifications) == 1


def test_a_flood_of_refused_tokens_pushes_out_no_valid_one(verifications: list[str]) -> None:
    issuers = IssuerDirectory([issuer()], {"corp": KEYS}, cache=TokenCache(capacity=10, refusal_capacity=10))
    text = access_token()
    verify_access_token(text, issuers, NOW)
    head, body, _ = access_token().split(".")
    for number in range(100):
        refuse(f"{head}.{body}.{'A' * 82}{number:04d}", issuers)
    before = len(verifications)
    assert isinstance(verify_access_token(text, issuers, NOW), VerifiedToken)
    assert len(verifications) == before
    assert len(issuers.cache) <= 11


def test_the_cache_is_bounded_in_entries() -> None:
    cache = TokenCache(capacity=100, refusal_capacity=10)
    issuers = IssuerDirectory([issuer()], {"corp": KEYS}, cache=cache)
    token = verify_access_token(access_token(), issuers, NOW)
    assert isinstance(token, VerifiedToken)
    for number in range(1_000):
        digest = number.to_bytes(32)
        cache.keep_token(digest, token, issuers)
        cache.keep_refusal(digest, CachedRefusal(ISSUER, issuers, Reason.SIGNATURE_INVALID, "x"), NOW)
    assert len(cache) <= 110


def test_a_hundred_thousand_cached_tokens_fit_in_150_megabytes() -> None:
    # values that tokens share are remembered too, and as many as that are not the tokens' own
    remembered, sample = 6_000, 2_000
    terms = issuer()
    cache = TokenCache()
    tracemalloc.start()
    try:
        for number in range(remembered + sample):
            if number == remembered:
                before, _ = tracemalloc.get_traced_memory()
            digest = number.to_bytes(32)
            content = claims(jti=f"0b1d2c3e-1111-4222-8333-{number:012d}", sub=f"user-{number}", cnf=cnf_for(digest))
            payload = parse_object(json_bytes(content), Reason.TOKEN_MALFORMED)
            cache.keep_token(digest, verify_claims(payload, terms), terms)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # a dictionary grows by jumps, none of which is in the sample: 52 bytes an entry for 50,000
    assert ((after - before) / sample + 52) * 100_000 < 150_000_000
    assert sys.getsizeof(cache) < 1_000


def test_tokens_of_one_caller_hold_what_they_share_once() -> None:
    directory = IssuerDirectory([issuer()], {"corp": KEYS})
    one, two = (
        verify_access_token(access_token(sub=name, cnf={"x5t#S256": "A" * 43}), directory, NOW)
        for name in ("one", "two")
    )
    assert isinstance(one, VerifiedToken)
    assert isinstance(two, VerifiedToken)
    assert one.subject != two.subject
    assert one.confirmation is two.confirmation
    for claim in ("iss", "aud", "client_id", "cnf"):
        assert one.claims[claim] is two.claims[claim]
