"""The bounded cache: a bound, a lifetime, and what survives a flood."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.cache import BoundedCache


def test_a_result_is_served_until_its_time_and_not_at_it() -> None:
    cache: BoundedCache[str, int] = BoundedCache(4)
    cache.put("k", 1, expires_at=100.0)
    assert cache.get("k", 99.999) == 1
    assert cache.get("k", 100.0) is None


def test_an_unknown_key_has_no_result() -> None:
    assert BoundedCache[str, int](4).get("k", 0.0) is None


@given(st.lists(st.integers(0, 200)), st.integers(2, 50))
def test_it_never_holds_more_than_its_capacity(keys: list[int], capacity: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(capacity)
    for key in keys:
        cache.put(key, key, expires_at=1.0)
        cache.get(key // 2, 0.0)
        assert len(cache) <= capacity


def test_an_entry_in_use_survives_a_flood_of_distinct_keys() -> None:
    cache: BoundedCache[int, str] = BoundedCache(10)
    cache.put(-1, "in use", expires_at=1.0)
    for key in range(1000):
        cache.put(key, "flood", expires_at=1.0)
        assert cache.get(-1, 0.0) == "in use"


def test_an_entry_not_in_use_is_dropped_by_a_flood() -> None:
    cache: BoundedCache[int, str] = BoundedCache(10)
    cache.put(-1, "idle", expires_at=1.0)
    for key in range(20):
        cache.put(key, "flood", expires_at=1.0)
    assert cache.get(-1, 0.0) is None


def test_a_cache_of_one_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        BoundedCache[str, str](1)


class Held:
    """A result that counts how many of its kind are held."""

    alive = 0

    def __init__(self) -> None:
        Held.alive += 1

    def __del__(self) -> None:
        Held.alive -= 1


@given(capacity=st.integers(2, 41), count=st.integers(0, 200))
def test_what_leaves_is_let_go_a_little_at_a_time_and_counts_as_long_as_it_is_held(capacity: int, count: int) -> None:
    Held.alive = 0
    cache: BoundedCache[int, Held] = BoundedCache(capacity)
    before = 0
    for key in range(count):
        cache.put(key, Held(), inf)
        assert Held.alive <= capacity
        # one has come
        assert before + 1 - Held.alive <= 2
        before = Held.alive
