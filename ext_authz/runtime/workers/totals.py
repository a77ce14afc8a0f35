"""What all workers have counted, as one process would show it.

Workers send what they counted since they last did; it is added up here. So a sum never falls: what a worker that died had
sent stays in it, and at most the last second of that worker is lost. (`prometheus_client`'s own multiprocess mode keeps a file
for each process and metric, writes to it at every count, knows no exemplars, and needs the files of dead processes cleared.)
What is no count is taken as it stands: the worst of keys, the sum of what is held or waits.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ext_authz.cache import CacheCounts
from ext_authz.telemetry.metrics import KeySource, Metrics

__all__ = ["Totals", "standing"]


def standing(metrics: Metrics) -> dict[str, Any]:
    """What a worker sends besides its counts, as JSON values."""
    return {
        "waiting": metrics.waiting,
        "caches": {name: list(counts) for name, counts in metrics.caches().items()},
        "log_dropped": metrics.log_dropped(),
        "spans": dict(metrics.spans()),
        "keys": [list(source) for source in metrics.key_sources()],
    }


class Totals:
    """Feeds the supervisor's `Metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        """Add to `metrics`, which keep what they already tell of the log."""
        self._metrics = metrics
        self._standing: dict[int, Mapping[str, Any]] = {}
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._spans: Counter[str] = Counter()
        self._dropped = 0
        # a scrape, in a thread of its own, must not see a worker's counts between where it was and where they go, or twice
        self._moving = threading.Lock()
        dropped_here = metrics.log_dropped
        metrics.caches = self._caches
        metrics.spans = self._all_spans
        metrics.key_sources = self._key_sources
        metrics.log_dropped = lambda: dropped_here() + self._all_dropped()

    def add(self, process: int, counted: Mapping[str, Any], stands: Mapping[str, Any]) -> None:
        """Take what the worker with process id `process` has sent."""
        self._metrics.add(counted)
        self._standing[process] = stands
        self._update_waiting()

    def ended(self, process: int) -> None:
        """Keep what the worker had counted; what it held is gone."""
        with self._moving:
            last = self._standing.pop(process, None)
            if last is None:
                return
            for name, (_, hits, misses) in last["caches"].items():
                self._hits[name] += hits
                self._misses[name] += misses
            self._spans.update(last["spans"])
            self._dropped += last["log_dropped"]
        self._update_waiting()

    def _workers(self) -> list[Mapping[str, Any]]:
        # a copy: a scrape runs in a thread of its own
        return list(self._standing.values())

    def _update_waiting(self) -> None:
        self._metrics.waiting = sum(stands["waiting"] for stands in self._workers())

    def _all_dropped(self) -> int:
        with self._moving:
            return self._dropped + sum(int(stands["log_dropped"]) for stands in self._workers())

    def _caches(self) -> Mapping[str, CacheCounts]:
        with self._moving:
            workers = self._workers()
            names = dict.fromkeys((*(name for stands in workers for name in stands["caches"]), *self._hits.copy()))
            return {name: self._cache(name, [s["caches"].get(name, (0, 0, 0)) for s in workers]) for name in names}

    def _cache(self, name: str, counts: Iterable[tuple[int, int, int]]) -> CacheCounts:
        entries, hits, misses = (sum(values) for values in zip((0, 0, 0), *counts, strict=True))
        return CacheCounts(entries, hits + self._hits[name], misses + self._misses[name])

    def _all_spans(self) -> Mapping[str, int]:
        with self._moving:
            spans = self._spans.copy()
            for stands in self._workers():
                spans.update(stands["spans"])
            return spans

    def _key_sources(self) -> tuple[KeySource, ...]:
        by_issuer: dict[str, list[KeySource]] = {}
        for stands in self._workers():
            for issuer, age, keys, failures in stands["keys"]:
                by_issuer.setdefault(issuer, []).append(KeySource(issuer, age, keys, failures))
        return tuple(_worst(sources) for sources in by_issuer.values())


def _worst(sources: list[KeySource]) -> KeySource:
    ages = [source.age for source in sources if source.age is not None]
    return KeySource(
        sources[0].issuer,
        # one worker without keys denies its part of the tokens
        max(ages) if len(ages) == len(sources) else None,
        min(source.keys for source in sources),
        max(source.failures for source in sources),
    )
