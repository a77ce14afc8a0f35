"""What the caches of the snapshots have done, added up over the snapshots that came and went."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ext_authz.cache import CacheCounts
from ext_authz.snapshot import Snapshot

__all__ = ["CacheReport"]

_NONE = CacheCounts(0, 0, 0)

# the cache itself, to tell it from the next, and how to ask it
_Cache: TypeAlias = tuple[object, Callable[[], CacheCounts]]


class CacheReport:
    """Told of each snapshot that comes into force; asked by whoever scrapes, in a thread of its own."""

    def __init__(self) -> None:
        """There is no snapshot yet."""
        self._caches: Mapping[str, _Cache] = {}
        self._retired: Mapping[str, CacheCounts] = {}

    def published(self, snapshot: Snapshot) -> None:
        """`snapshot` decides from now on; counts of a cache that went with the one before are kept."""
        caches = _caches_of(snapshot)
        retired = dict(self._retired)
        for name, (cache, counts) in self._caches.items():
            if cache is not caches[name][0]:
                retired[name] = _added(counts(), retired.get(name, _NONE))
        self._caches, self._retired = caches, retired

    def counts(self) -> Mapping[str, CacheCounts]:
        """By name: the entries of the cache in force, and the hits and misses of it and of all before it."""
        retired = self._retired
        return {name: _added(counts(), retired.get(name, _NONE)) for name, (_, counts) in self._caches.items()}


def _caches_of(snapshot: Snapshot) -> Mapping[str, _Cache]:
    tokens, certificates = snapshot.issuers.cache, snapshot.certificates
    return {
        "token": (tokens, lambda: tokens.token_counts),
        "token_refusal": (tokens, lambda: tokens.refusal_counts),
        "certificate": (certificates, lambda: certificates.counts),
    }


def _added(counts: CacheCounts, before: CacheCounts) -> CacheCounts:
    return CacheCounts(counts.entries, counts.hits + before.hits, counts.misses + before.misses)
