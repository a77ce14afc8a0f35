"""A bounded memory of results; never an authority."""

from typing import Generic, NamedTuple, TypeVar

__all__ = ["BoundedCache", "CacheCounts"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class CacheCounts(NamedTuple):
    """How a cache does.

    Attributes:
        entries: held now.
        hits: look-ups that found a result, since the cache was made.
        misses: look-ups that did not.
    """

    entries: int
    hits: int
    misses: int


class BoundedCache(Generic[Key, Value]):
    """At most `capacity` results, each until its own time; what is in use stays, what is not is dropped.

    Two generations of half the capacity each: a full young generation becomes the old one and the old one leaves; a hit in
    the old one moves the entry back. Every operation is one or two dictionary look-ups, whatever the size, and a flood of
    distinct keys can only push out entries that were not asked for since. Those that leave are let go two at a time, as others
    come: fifty thousand tokens at once would take twenty milliseconds of everyone's time.
    """

    __slots__ = ("_half", "_hits", "_leaving", "_misses", "_old", "_young")

    def __init__(self, capacity: int) -> None:
        """Remember at most `capacity` (2 or more) results."""
        if capacity < 2:
            raise ValueError("a cache holds at least two entries")
        self._half = capacity // 2
        self._hits = 0
        self._misses = 0
        self._young: dict[Key, tuple[float, Value]] = {}
        self._old: dict[Key, tuple[float, Value]] = {}
        self._leaving: dict[Key, tuple[float, Value]] = {}

    def get(self, key: Key, now: float) -> Value | None:
        """The result for `key`, or None when there is none or `now` (seconds) has reached its end."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._insert(key, entry)
        if now >= entry[0]:
            self._misses += 1
            return None
        self._hits += 1
        return entry[1]

    def put(self, key: Key, value: Value, expires_at: float) -> None:
        """Remember `value` for `key` until `expires_at` (seconds since the epoch, exclusive)."""
        self._insert(key, (expires_at, value))

    def _insert(self, key: Key, entry: tuple[float, Value]) -> None:
        if len(self._young) >= self._half:
            self._leaving = self._old
            self._old = self._young
            self._young = {}
        self._young[key] = entry
        leaving = self._leaving
        # two for each that comes: all are gone before the next generation leaves, and all together stay within the capacity
        if leaving:
            leaving.popitem()
            if leaving:
                leaving.popitem()

    @property
    def counts(self) -> CacheCounts:
        """For metrics; may be read by another thread."""
        return CacheCounts(len(self), self._hits, self._misses)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
