"""The cyclic collector looks at nothing while requests are answered, and finds every cycle once in a long while."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support.raw_h2 import PREFACE, http2_frame

from ext_authz.runtime import collector as module
from ext_authz.runtime import server
from ext_authz.runtime.collector import (
    GROWTH_BYTES,
    GROWTH_SECONDS,
    THRESHOLDS,
    TICK_SECONDS,
    WHOLE_SECONDS,
    Collector,
    resident_bytes,
    without_collector,
)
from ext_authz.runtime.h2_calls import ServedCalls
from ext_authz.runtime.h2_connection import Connection
from ext_authz.runtime.health import Health
from ext_authz.telemetry.line_sink import LineSink


class Cycle:
    """Garbage once nobody holds it, which only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


class World:
    """A collector whose clock and memory are a test's to say."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.size: int | None = 100
        self.collector = Collector(clock=lambda: self.now, resident=lambda: self.size)

    def tick(self, seconds: float = TICK_SECONDS) -> None:
        self.now += seconds
        self.collector.tick()


@pytest.fixture(autouse=True)
def by_hand() -> Iterator[None]:
    """Python collects nothing by itself meanwhile, and nothing stays set aside."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1_000_000, 1_000, 1_000)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def kept(count: int) -> list[list[int]]:
    """So many objects that the collector knows of."""
    return [[number] for number in range(count)]


def is_looked_at(value: object) -> bool:
    """Whether the collector would look at it again."""
    return any(found is value for found in gc.get_objects())


def test_what_is_new_is_set_aside_at_the_next_tick_and_not_looked_at() -> None:
    world = World()
    found = weakref.ref(Cycle())
    stays = kept(1_000)
    assert is_looked_at(stays)
    world.tick()
    assert not is_looked_at(stays)
    assert found() is not None


def test_what_was_set_aside_goes_with_its_last_reference() -> None:
    world = World()
    stays = kept(1_000)
    alone = Cycle()
    found = weakref.ref(alone)
    world.tick()
    assert not is_looked_at(alone)
    del alone.itself, alone
    assert found() is None
    assert stays


@pytest.mark.parametrize(("seconds", "size"), [(WHOLE_SECONDS, 100), (GROWTH_SECONDS, 100 + GROWTH_BYTES)])
def test_everything_is_looked_over_in_an_hour_or_when_memory_has_grown(seconds: float, size: int) -> None:
    world = World()
    cycle = Cycle()
    found = weakref.ref(cycle)
    stays = kept(1_000)
    world.tick()
    del cycle
    world.tick(GROWTH_SECONDS)
    assert found() is not None
    world.size = size
    world.tick(seconds)
    assert found() is None
    assert not is_looked_at(stays)


def test_a_system_that_does_not_say_its_memory_looks_everything_over_in_an_hour() -> None:
    world = World()
    world.size = None
    world.collector = Collector(clock=lambda: world.now, resident=lambda: world.size)
    cycle = Cycle()
    found = weakref.ref(cycle)
    stays = kept(1_000)
    world.tick()
    del cycle
    world.tick(2 * GROWTH_SECONDS)
    assert found() is not None
    world.tick(WHOLE_SECONDS)
    assert found() is None
    assert stays


@pytest.mark.parametrize("is_at_work", [True, False])
def test_nothing_is_looked_at_while_something_is_loaded(monkeypatch: pytest.MonkeyPatch, is_at_work: bool) -> None:
    monkeypatch.setattr(Collector, "is_at_work", is_at_work)
    world = World()
    with without_collector():
        stays = kept(1_000)
        world.tick(WHOLE_SECONDS)
        assert is_looked_at(stays)
    assert is_looked_at(stays) is not is_at_work
    assert gc.isenabled()


def test_who_has_switched_the_collector_off_finds_it_off() -> None:
    gc.disable()
    try:
        with without_collector():
            stays = kept(1)
        assert not gc.isenabled()
        assert is_looked_at(stays)
    finally:
        gc.enable()


def test_it_runs_beside_requests_and_leaves_python_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(module, "WHOLE_SECONDS", 0.0)
    before = gc.get_threshold()

    async def scenario() -> None:
        task = asyncio.create_task(Collector().run())
        await asyncio.sleep(0)
        assert gc.get_threshold() == THRESHOLDS
        found = weakref.ref(Cycle())
        for _ in range(1_000):
            await asyncio.sleep(0.001)
            if found() is None:
                break
        assert found() is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert gc.get_threshold() == before


def test_the_memory_of_this_process_is_known_where_there_is_proc() -> None:
    size = resident_bytes()
    assert size is None or 1_000_000 < size < 100_000_000_000


def test_where_there_is_no_proc_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert resident_bytes() is None


def test_a_connection_that_has_ended_goes_without_the_collector() -> None:
    calls = ServedCalls(lambda *_: b"", Health())
    connection = Connection(calls, 1_000, 10, set(), lambda: None)
    connection.data_received(PREFACE + http2_frame(4, 0, 0, b""))
    connection.connection_lost(None)
    found = weakref.ref(connection)
    del connection
    assert found() is None


@pytest.mark.parametrize(
    ("transport", "loop", "collected"),
    [("h2", "uvloop", True), ("grpcio", "uvloop", False), ("h2", "asyncio", False)],
)
def test_where_calls_or_connections_leave_cycles_behind_python_collects_by_itself(
    monkeypatch: pytest.MonkeyPatch, transport: str, loop: str, collected: bool
) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    listener, log = SimpleNamespace(transport=transport), SimpleNamespace(level="info")
    assembly = SimpleNamespace(configuration=SimpleNamespace(listener=listener, log=log))
    thresholds: list[tuple[int, int, int]] = []

    async def start(*_: object) -> None:
        await asyncio.sleep(0)
        thresholds.append(gc.get_threshold())

    monkeypatch.setattr(server, "assemble_watched", lambda _: (assembly, None))
    monkeypatch.setattr(server.Server, "_start", start)
    before = gc.get_threshold()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(server.Server("unread", cast("LineSink", None)).run())
    assert thresholds == [THRESHOLDS if collected else before]
    assert gc.get_threshold() == before
    assert not Collector.is_at_work
