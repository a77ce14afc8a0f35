"""Histograms of seconds, with the last decision of each bucket as its exemplar."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from prometheus_client.samples import Exemplar

__all__ = ["BUCKETS", "STAGE_BUCKETS", "Bucket", "Durations", "TakenDurations"]

BUCKETS = (
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,  # Envoy's default timeout for the filter
    0.5,
    1.0,
    5.0,
)
"""Upper bounds in seconds: from a warm decision to a fetch that takes as long as it may."""

STAGE_BUCKETS = (0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01)
"""A stage takes a part of that and never waits."""

Bucket: TypeAlias = tuple[str, float] | tuple[str, float, Exemplar]

TakenDurations: TypeAlias = tuple[list[int], float, list[tuple[str, str, float, float] | None]]
"""Counts and last decisions by bucket, and the sum between them; JSON holds it."""


class _Seen(NamedTuple):
    """The last decision that fell into a bucket."""

    decision_id: str
    trace_id: str
    seconds: float
    at: float

    def exemplar(self) -> Exemplar:
        labels = {"decision_id": self.decision_id}
        if self.trace_id:
            labels["trace_id"] = self.trace_id
        return Exemplar(labels, self.seconds, self.at)


class Durations:
    """One histogram's counts; `bisect_left` because a bucket's upper bound is inclusive."""

    __slots__ = ("_bounds", "_counts", "_seen", "_total")

    def __init__(self, bounds: Sequence[float] = BUCKETS) -> None:
        """Count by these upper bounds, in seconds, ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seen: list[tuple[str, str, float, float] | None] = [None] * (len(bounds) + 1)
        self._total = 0.0

    @property
    def total(self) -> float:
        """The sum of everything observed, in seconds."""
        return self._total

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def observe_decision(self, seconds: float, decision_id: str, trace_id: str, now: float) -> None:
        """Count one and remember whose it was; `now` is in seconds since the epoch."""
        bucket = bisect_left(self._bounds, seconds)
        self._counts[bucket] += 1
        self._total += seconds
        self._seen[bucket] = (decision_id, trace_id, seconds, now)

    def take(self) -> "TakenDurations":
        """What was observed since this was last asked; it begins at zero again."""
        taken: TakenDurations = (self._counts.copy(), self._total, self._seen.copy())
        self._counts[:] = [0] * len(self._counts)
        self._seen[:] = [None] * len(self._seen)
        self._total = 0.0
        return taken

    def add(self, taken: "TakenDurations") -> None:
        """Add what `take` of another process with the same bounds gave; JSON may have made lists of its tuples."""
        counts, total, seen = taken
        for bucket, count in enumerate(counts):
            self._counts[bucket] += count
        self._total += total
        for bucket, newer in enumerate(seen):
            own = self._seen[bucket]
            if newer is not None and (own is None or own[3] <= newer[3]):
                decision_id, trace_id, seconds, at = newer
                self._seen[bucket] = (decision_id, trace_id, seconds, at)

    def cumulative(self) -> list[Bucket]:
        """Upper bound, count so far and exemplar of each bucket, as the exposition wants them."""
        bounds = [*map(repr, self._bounds), "+Inf"]
        buckets: list[Bucket] = []
        for bound, count, seen in zip(bounds, accumulate(self._counts.copy()), self._seen.copy(), strict=True):
            if seen is None or not seen[0]:
                buckets.append((bound, float(count)))
            else:
                buckets.append((bound, float(count), _Seen(*seen).exemplar()))
        return buckets
