"""A bounded memory of results; never an authority."""

from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """At most `capacity` results, each until its own time; what is in use stays, what is not is dropped.

    Two generations of half the capacity each: a full young generation becomes the old one and the old one is
    dropped whole; a hit in the old one moves the entry back. Every operation is one or two dictionary look-ups,
    whatever the size, and a flood of distinct keys can only push out entries that were not asked for since.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, capacity: int) -> None:
        """Remember at most `capacity` (2 or more) results."""
        if capacity < 2:
            raise ValueError("a cache holds at least two entries")
        self._half = capacity // 2
        self._young: dict[Key, tuple[float, Value]] = {}
        self._old: dict[Key, tuple[float, Value]] = {}

    def get(self, key: Key, now: float) -> Value | None:
        """The result for `key`, or None when there is none or `now` (seconds) has reached its end."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            self._insert(key, entry)
        if now >= entry[0]:
            return None
        return entry[1]

    def put(self, key: Key, value: Value, expires_at: float) -> None:
        """Remember `value` for `key` until `expires_at` (seconds since the epoch, exclusive)."""
        self._insert(key, (expires_at, value))

    def _insert(self, key: Key, entry: tuple[float, Value]) -> None:
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = entry

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
