"""The small parts of the supervisor, one by one."""

import asyncio
import errno
import os
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from support.pki import authority
from support.server import document, route_policy, server_spec

from ext_authz.cache import CacheCounts
from ext_authz.decision import Allow, Diagnostics
from ext_authz.errors import Reason
from ext_authz.runtime.assembly import assemble
from ext_authz.runtime.workers.channel import Channel, Message
from ext_authz.runtime.workers.cores import usable_cores
from ext_authz.runtime.workers.forking import Forking
from ext_authz.runtime.workers.member import Member, State, fewest
from ext_authz.runtime.workers.packing import pack, unpack
from ext_authz.runtime.workers.processes import ProcessesCollector
from ext_authz.runtime.workers.restarts import LONGEST_PAUSE, Restarts
from ext_authz.runtime.workers.totals import Totals, standing
from ext_authz.telemetry.metrics import KeySource, Metrics


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("1600000 100000", 8), ("", 8)],
)
def test_a_limit_of_time_is_a_limit_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == expected
    assert usable_cores(tmp_path / "missing") == 8


def test_without_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path / "missing") == 1


def test_a_worker_that_served_is_replaced_at_once_and_others_after_growing_pauses() -> None:
    restarts = Restarts()
    assert restarts.pause(5.0) == 0
    assert [restarts.pause(0.0) for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert [restarts.pause(0.9) for _ in range(20)][-1] == LONGEST_PAUSE
    assert restarts.pause(1.0) == 0
    assert restarts.pause(0.0) == 0.1


def member(number: int, state: State = State.SERVING, silent: int = 0) -> Member:
    made = Member(number, number)
    made.state, made.silent = state, silent
    return made


def test_the_worker_with_the_fewest_connections_gets_the_next() -> None:
    members = [member(1), member(2), member(3, State.STARTING), member(4, State.LEAVING)]
    pairs = [socket.socketpair() for _ in range(5)]
    for number, (one, _) in enumerate(pairs):
        chosen = fewest(members)
        assert chosen is not None
        chosen.hand(number, one)
    assert [one.connections for one in members] == [3, 2, 0, 0]
    members[0].taken(0)
    members[0].taken(2)
    members[0].ended()
    assert members[0].connections == 2
    # what it never took is given to others, with everything that came on it
    pairs[4][1].send(b"waits")
    (given_back,) = members[0].given_back()
    assert given_back.recv(10) == b"waits"
    assert members[0].connections == 1
    for one, other in pairs:
        one.close()
        other.close()


def test_a_worker_that_does_not_answer_gets_none_while_another_does() -> None:
    quiet, busy = member(1, silent=2), member(2)
    one, other = socket.socketpair()
    busy.hand(1, one)
    assert fewest([quiet, busy]) is busy
    assert fewest([quiet]) is quiet
    assert fewest([member(1, State.STARTING)]) is None
    for end in (one, other):
        end.close()


def test_a_worker_that_has_no_process_yet_is_not_killed() -> None:
    starting = member(1, State.STARTING)
    starting.kill()
    starting.send("ping", number=1)
    assert starting.served_seconds == 0


def test_a_connection_that_cannot_be_kept_for_a_worker_is_closed() -> None:
    class Full:
        def send(self, message: Message) -> None:
            raise OSError(errno.EMFILE, message.kind)

    one, other = socket.socketpair()
    busy = member(1)
    busy.channel = cast("Channel", Full())
    busy.hand(1, one)
    assert busy.connections == 0
    assert other.recv(1) == b""
    other.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fault", ["no process", "no nursery"])
def test_a_worker_that_cannot_be_started_leaves_no_file_behind(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no")

    async def scenario() -> None:
        forking = Forking(lambda *_: None, lambda *_: None)
        if fault == "no process":
            monkeypatch.setattr(subprocess, "Popen", refuse)
        else:
            monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        before = open_files()
        for _ in range(3):
            with pytest.raises(OSError, match="no"):
                forking.fork(1, 1, 1.0, lambda _: None)
        # the lock
        assert open_files() <= before + 1
        forking.kill()
        forking.close()

    asyncio.run(scenario())


def test_an_assembly_is_the_same_on_the_other_side(tmp_path: Path) -> None:
    root = authority("cluster.local")
    (tmp_path / "bundle.pem").write_bytes(root.pem)
    (tmp_path / "empty.pem").write_bytes(b"")
    rule = {"name": "public", "matches": [{"path": {"value": "/public"}}], "public": True}
    (tmp_path / "policy.yaml").write_text(route_policy(rule))
    spec = server_spec(
        policies=["policy.yaml"],
        issuers=[{"name": "a", "issuer": "https://a.example", "audiences": ["b"], "keys": {"discovery": True}}],
        trust_bundles=[
            {"trust_domain": "cluster.local", "files": ["bundle.pem"]},
            {"trust_domain": "empty.example", "files": ["empty.pem"]},
        ],
        evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
    )
    (tmp_path / "server.yaml").write_text(document("Server", "test", spec))
    assembly = assemble(str(tmp_path / "server.yaml"))
    other = unpack(pack(assembly))
    assert other.configuration == assembly.configuration
    assert [(bundle.trust_domain, bundle.certificates) for bundle in other.bundles] == [
        (bundle.trust_domain, bundle.certificates) for bundle in assembly.bundles
    ]
    with pytest.raises(TypeError):
        other.configuration.issuers["c"] = other.configuration.issuers["a"]  # type: ignore[index]


def test_processes_are_one_process_to_who_scrapes() -> None:
    pids = [os.getpid(), os.getppid(), 2**22 + 1]
    registry = CollectorRegistry()
    registry.register(ProcessesCollector(lambda: pids))
    both = registry.get_sample_value("process_resident_memory_bytes")
    cpu = registry.get_sample_value("process_cpu_seconds_total")
    assert both is not None
    assert cpu is not None
    del pids[1:]
    own = registry.get_sample_value("process_resident_memory_bytes")
    assert own is not None
    assert 0 < own < both
    # what the other has used is still in the sum
    assert (registry.get_sample_value("process_cpu_seconds_total") or 0) >= cpu
    pids.clear()
    assert registry.get_sample_value("process_cpu_seconds_total") is None


def worker_metrics(allowed: int, *, age: float | None = 10.0, failures: int = 0, waiting: int = 0) -> Metrics:
    metrics = Metrics()
    decision = Allow(Reason.PUBLIC_ROUTE, diagnostics=Diagnostics(policy="p", rule="r"))
    for number in range(allowed):
        metrics.check(decision, 0.001, waited=False, decision_id=f"{number:032x}", now=float(number))
    metrics.waiting = waiting
    metrics.caches = lambda: {"token": CacheCounts(5, 10, 2)}
    metrics.spans = lambda: {"exported": 3}
    metrics.log_dropped = lambda: 4
    metrics.key_sources = lambda: (KeySource("corp", age, 2, failures),)
    return metrics


def tell(totals: Totals, process: int, metrics: Metrics) -> None:
    totals.add(process, metrics.take(), standing(metrics))


def test_sums_of_workers_never_fall() -> None:
    metrics = Metrics()
    metrics.log_dropped = lambda: 1
    totals = Totals(metrics)
    registry = CollectorRegistry()
    registry.register(metrics)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    one, other = worker_metrics(3, waiting=1), worker_metrics(4, age=30.0, failures=1, waiting=2)
    tell(totals, 1, one)
    tell(totals, 2, other)
    for _ in range(2):
        assert value("ext_authz_checks_total", decision="allow", reason="public_route") == 7
        assert value("ext_authz_check_duration_seconds_count", waited="false") == 7
        assert value("ext_authz_cache_hits_total", cache="token") == 20
        assert value("ext_authz_spans_total", result="exported") == 6
        assert value("ext_authz_log_dropped_total") == 9
        # nothing is counted twice
        tell(totals, 1, one)
    assert value("ext_authz_checks_waiting") == 3
    assert value("ext_authz_cache_entries", cache="token") == 10
    assert value("ext_authz_key_set_age_seconds", issuer="corp") == 30
    assert value("ext_authz_key_source_failures", issuer="corp") == 1
    totals.ended(2)
    totals.ended(2)
    assert value("ext_authz_checks_total", decision="allow", reason="public_route") == 7
    assert value("ext_authz_cache_hits_total", cache="token") == 20
    assert value("ext_authz_spans_total", result="exported") == 6
    assert value("ext_authz_log_dropped_total") == 9
    assert value("ext_authz_checks_waiting") == 1
    assert value("ext_authz_cache_entries", cache="token") == 5
    tell(totals, 3, worker_metrics(0, age=None))
    # one without keys denies its part
    assert value("ext_authz_key_source_state", issuer="corp", state="unavailable") == 1
    totals.ended(1)
    totals.ended(3)
    assert value("ext_authz_cache_hits_total", cache="token") == 30
    assert value("ext_authz_cache_entries", cache="token") == 0


def test_a_scrape_while_a_worker_ends_sees_its_counts_once() -> None:
    metrics = Metrics()
    totals = Totals(metrics)
    tell(totals, 1, worker_metrics(3))

    class Slow(dict[str, int]):
        """Spans of a worker that are read while its end is being told."""

        def items(self) -> Any:
            # between where they were and where they go
            scraping.start()
            scraping.join(0.05)
            return super().items()

    seen: list[float] = []
    scraping = threading.Thread(target=lambda: seen.extend((metrics.caches()["token"].hits, metrics.log_dropped())))
    totals._spans["exported"] = 0
    totals._standing[1] = {**totals._standing[1], "spans": Slow(exported=3)}
    totals.ended(1)
    scraping.join()
    assert seen == [10, 4]


def test_the_newest_decision_of_all_workers_is_the_exemplar() -> None:
    metrics = Metrics()
    totals = Totals(metrics)
    for process, allowed in ((1, 9), (2, 3)):
        tell(totals, process, worker_metrics(allowed))
    (family,) = [family for family in metrics.collect() if family.name == "ext_authz_check_duration_seconds"]
    exemplars = [sample.exemplar for sample in family.samples if sample.exemplar]
    assert [exemplar.labels["decision_id"] for exemplar in exemplars] == [f"{8:032x}"]
