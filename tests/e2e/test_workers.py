"""Several workers behind a real Envoy: no request fails when one is killed, and the load spreads over them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterPreconnectPolicy
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.google.protobuf import Any as Packed
from support.envoys import versions
from support.mesh import Mesh, mesh_policy, mesh_spec, wait_for
from support.server import ServerProcess
from support.steady_load import SteadyLoad
from support.workers import connections, serving, worker_pids

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

WORKERS = 3


def spec(**listener: object) -> dict[str, object]:
    return mesh_spec(listener={"address": "127.0.0.1:0", "workers": WORKERS, "lame_duck_seconds": 0, **listener})


def edit_check(change: Callable[[ExtAuthz], None]) -> Callable[[Bootstrap], None]:
    def edit(config: Bootstrap) -> None:
        assert config.static_resources is not None
        (http_filter,) = config.static_resources.listeners[0].filter_chains[0].filters
        assert http_filter.typed_config is not None
        manager = http_filter.typed_config.unpack()
        assert isinstance(manager, HttpConnectionManager)
        packed = manager.http_filters[0].typed_config
        assert packed is not None
        check = packed.unpack()
        assert isinstance(check, ExtAuthz)
        change(check)
        manager.http_filters[0].typed_config = Packed.pack(check)
        http_filter.typed_config = Packed.pack(manager)

    return edit


def without_retries(check: ExtAuthz) -> None:
    assert check.grpc_service is not None
    check.grpc_service.retry_policy = None


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One for a server, one for Envoy."""
    server, envoy = tmp_path / "server", tmp_path / "envoy"
    server.mkdir()
    envoy.mkdir()
    return server, envoy


def busiest(server: ServerProcess) -> int:
    """The process id of the worker that has most connections."""
    counts = connections(server)
    return worker_pids(server)[counts.index(max(counts)) + 1]


def all_serve(server: ServerProcess) -> None:
    wait_for(lambda: serving(server) == len(worker_pids(server)) == WORKERS, "all workers serve")


def kill_every_second(server: ServerProcess, load: SteadyLoad, times: int) -> None:
    for _ in range(times):
        all_serve(server)
        load.wait_for_answers(30)
        pid = busiest(server)
        # calls that come in this moment are in it when it ends, however quickly it answers
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.03)
        os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    all_serve(server)
    assert server.metric('ext_authz_worker_restarts_total{reason="crashed"}') == times


@pytest.mark.parametrize("version", versions())
def test_a_worker_that_is_killed_every_second_fails_no_request(folders: tuple[Path, Path], version: str) -> None:
    with (
        ServerProcess(folders[0], spec(), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], version=version) as mesh,
        mesh.load() as load,
    ):
        kill_every_second(server, load, 8)
        # what would have failed
        assert mesh.stat("upstream_rq_retry") == mesh.stat("upstream_rq_retry_success") > 0
    load.report.verify(at_least=500)


def test_without_retries_the_calls_in_a_killed_worker_fail(folders: tuple[Path, Path]) -> None:
    with (
        ServerProcess(folders[0], spec(), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], edit=edit_check(without_retries)) as mesh,
        mesh.load() as load,
    ):
        kill_every_second(server, load, 8)
    assert 0 < load.report.unexpected.total() <= 8 * load.report.asked / 100


def test_all_calls_that_wait_in_a_worker_that_is_killed_are_made_again(folders: tuple[Path, Path]) -> None:
    """More than the three that Envoy makes at the same time if it is not told otherwise."""
    with (
        ServerProcess(folders[0], spec(), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address]) as mesh,
        mesh.load() as load,
    ):
        load.wait_for_answers(30)
        pid = busiest(server)
        # it hangs while calls come, and then ends
        os.kill(pid, signal.SIGSTOP)
        # for a moment, on a busy machine, also calls wait that workers will answer
        wait_for(lambda: stays(lambda: mesh.stat("upstream_rq_active") >= 20), "calls wait")
        os.kill(pid, signal.SIGKILL)
        load.wait_for_answers(60)
        assert mesh.stat("upstream_rq_retry") > 3
        assert mesh.stat("upstream_rq_retry_overflow") == 0
    load.report.verify(at_least=100)


def stays(condition: Callable[[], bool]) -> bool:
    for _ in range(3):
        if not condition():
            return False
        time.sleep(0.05)
    return True


def test_a_worker_that_hangs_is_replaced_and_its_calls_are_answered(folders: tuple[Path, Path]) -> None:
    with (
        ServerProcess(folders[0], spec(worker_timeout_seconds=1), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address]) as mesh,
        # no more connections than the load may have wait for the worker that hangs
        mesh.load(rate=20) as load,
    ):
        load.wait_for_answers(10)
        os.kill(busiest(server), signal.SIGSTOP)
        wait_for(lambda: server.metric('ext_authz_worker_restarts_total{reason="hung"}') == 1, "it is replaced")
        load.wait_for_answers(20)
    load.report.verify(at_least=30)


def settled(server: ServerProcess, mesh: Mesh, load: SteadyLoad, threads: int) -> None:
    """Until each thread of Envoy has had a request, and what it opened connections for has been asked."""
    wait_for(lambda: mesh.stat("upstream_cx_active") >= threads, "each thread of Envoy has a connection")
    load.wait_for_answers(100)
    assert sum(connections(server)) == mesh.stat("upstream_cx_active")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_workers_have_as_many_connections_as_envoy_has_threads_and_share_them_evenly(
    folders: tuple[Path, Path], threads: int
) -> None:
    with (
        ServerProcess(folders[0], spec(workers=2), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], concurrency=threads) as mesh,
        mesh.load(rate=250) as load,
    ):
        settled(server, mesh, load, threads)
        held = connections(server)
        # one that has no connection has nothing to do: an Envoy with one thread keeps one worker busy
        assert sorted(held) == [threads // 2, threads - threads // 2]
    load.report.verify(at_least=100)
    deciding = {record["worker"] for record in server.decisions()}
    assert len(deciding) == min(threads, 2)


def test_fewer_streams_for_each_connection_have_one_thread_of_envoy_open_several(folders: tuple[Path, Path]) -> None:
    with (
        ServerProcess(folders[0], spec(workers=2, maximum_concurrent_streams=1), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address]) as mesh,
        mesh.load(rate=250) as load,
    ):
        # as soon as two requests are checked at the same time
        settled(server, mesh, load, threads=2)
        held = connections(server)
        assert max(held) - min(held) <= 1
        load.wait_for_answers(200)
    load.report.verify(at_least=300)
    assert {record["worker"] for record in server.decisions()} == {1, 2}


def test_connecting_ahead_does_nothing_by_itself(folders: tuple[Path, Path]) -> None:
    def connect_ahead(cluster: Cluster) -> None:
        cluster.preconnect_policy = ClusterPreconnectPolicy(per_upstream_preconnect_ratio=3.0)

    with (
        ServerProcess(folders[0], spec(workers=2), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], edit_cluster=connect_ahead) as mesh,
        mesh.load(rate=250) as load,
    ):
        settled(server, mesh, load, threads=1)
        assert sum(connections(server)) == 1
    load.report.verify(at_least=100)


def test_requests_are_spread_over_pods_even_by_one_thread_of_envoy(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other", "envoy")]
    for folder in folders:
        folder.mkdir()
    with (
        ServerProcess(folders[0], spec(workers=1), policy__yaml=mesh_policy()) as one,
        ServerProcess(folders[1], spec(workers=1), policy__yaml=mesh_policy()) as other,
        Mesh(folders[2], [one.address, other.address]) as mesh,
        mesh.load(rate=250) as load,
    ):
        load.wait_for_answers(400)
    load.report.verify(at_least=400)
    counts = [len(server.decisions()) for server in (one, other)]
    assert max(counts) <= 1.2 * min(counts)
