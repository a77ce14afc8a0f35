"""Timing of functions in batches: warmed up, on one core, the garbage collector told when."""

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["cores", "first_in_line", "pinned", "time_batches"]


def cores() -> tuple[int, int]:
    """The core that what is measured runs on, and another one for what causes the load (the same where there is one)."""
    if not hasattr(os, "sched_getaffinity"):
        return 0, 0
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[1 % len(available)]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process on `core` only, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def first_in_line() -> Iterator[None]:
    """This thread before all others of its core, where we may: what it measures is then not its own waiting.

    Only for a thread that sleeps most of the time.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    try:
        # processes that it starts are not
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before & ~os.SCHED_RESET_ON_FORK, os.sched_param(0))


def time_batches(
    batches: Mapping[str, Callable[[], int]],
    *,
    rounds: int,
    warm_up: int = 3,
    collector: bool = False,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Sequence[float]]:
    """Microseconds per operation, one sample for each batch and round.

    The batches take turns, so that whatever else the machine does in one second hits all of them alike and the ratio of
    two samples of one round is of the same moment.

    Args:
        batches: by name; each runs some operations and returns how many.
        rounds: samples of each.
        warm_up: rounds before those, not counted.
        collector: leave the garbage collector on, as a server has it.
        prepare: by name, what to do before each batch, not timed.
    """
    samples: dict[str, list[float]] = {name: [] for name in batches}
    with pinned(cores()[0]):
        gc.collect()
        # what was set up is not garbage and need not be looked at again
        gc.freeze()
        try:
            for number in range(-warm_up, rounds):
                for name, batch in batches.items():
                    if prepare is not None and name in prepare:
                        prepare[name]()
                    elapsed = _timed(batch, collector=collector)
                    if number >= 0:
                        samples[name].append(elapsed)
        finally:
            gc.unfreeze()
            gc.enable()
    return dict(samples)


def _timed(batch: Callable[[], int], *, collector: bool) -> float:
    gc.collect()
    if collector:
        gc.enable()
    else:
        gc.disable()
    started = time.perf_counter_ns()
    count = batch()
    return (time.perf_counter_ns() - started) / 1_000 / count
