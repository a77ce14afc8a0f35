"""What caches have done is added up over the snapshots that come and go."""

from typing import Any, cast

from ext_authz.cache import BoundedCache, CacheCounts
from ext_authz.identity.peer import CertificateCache
from ext_authz.runtime.cache_report import CacheReport
from ext_authz.snapshot import Snapshot
from ext_authz.token.token_cache import TokenCache


class Part:
    """As much of a snapshot as has caches."""

    def __init__(self, cache: TokenCache, certificates: CertificateCache) -> None:
        self.issuers = cast("Any", type("Issuers", (), {"cache": cache}))
        self.certificates = certificates


def published(report: CacheReport, cache: TokenCache, certificates: CertificateCache) -> None:
    report.published(cast("Snapshot", Part(cache, certificates)))


def test_a_cache_counts_its_entries_hits_and_misses() -> None:
    cache: BoundedCache[str, int] = BoundedCache(4)
    assert cache.get("a", 0.0) is None
    cache.put("a", 1, 10.0)
    assert cache.get("a", 5.0) == 1
    assert cache.get("a", 10.0) is None
    assert cache.counts == CacheCounts(entries=1, hits=1, misses=2)


def test_before_the_first_snapshot_there_is_nothing() -> None:
    assert CacheReport().counts() == {}


def test_counts_never_fall_when_a_cache_is_replaced_and_none_counts_twice() -> None:
    report, tokens, certificates = CacheReport(), TokenCache(), CertificateCache()
    published(report, tokens, certificates)
    tokens.token(b"x", 0.0)
    certificates.get(("a",), 0.0)
    certificates.get(("a",), 0.0)
    # new keys: both caches go on
    published(report, tokens, certificates)
    assert report.counts()["certificate"] == CacheCounts(0, 0, 2)
    for misses in (3, 4):
        fresh = CertificateCache()
        published(report, tokens, fresh)
        fresh.get(("b",), 0.0)
        assert report.counts()["certificate"].misses == misses
    assert report.counts()["token"] == CacheCounts(0, 0, 1)
    assert report.counts()["token_refusal"] == CacheCounts(0, 0, 0)
