"""A server with several workers as real processes, called by real gRPC clients."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.check_requests import check_request
from support.jwks_endpoint import JwksEndpoint
from support.pki import authority, ec_key
from support.server import HEALTH_METHOD, ServerProcess, check_over, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, access_token, jwks, signing_key
from support.workers import connections, is_alive, serving, worker_pids

from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

WORKERS = 3
PUBLIC = {"name": "public", "matches": [{"path": {"type": "Exact", "value": "/public"}}], "public": True}
OTHER = {"name": "other", "matches": [{"path": {"type": "Exact", "value": "/other"}}], "public": True}
TOKEN = {
    "name": "token",
    "matches": [{"path": {"value": "/token"}}],
    "require": {"token": {"issuers": ["corp"]}, "binding": {"mode": "when-present"}},
}
ALLOWED = 'ext_authz_checks_total{decision="allow",reason="public_route"}'
CRASHED = 'ext_authz_worker_restarts_total{reason="crashed"}'


def spec(**parts: Any) -> dict[str, Any]:
    listener = {"address": "127.0.0.1:0", "workers": WORKERS, "lame_duck_seconds": 0, "drain_seconds": 5}
    return server_spec(**{"policies": ["policy.yaml"], **parts, "listener": listener | parts.get("listener", {})})


@contextlib.contextmanager
def running(folder: Path, **parts: Any) -> Iterator[ServerProcess]:
    policy = parts.pop("policy", route_policy(PUBLIC))
    files = parts.pop("files", {})
    with ServerProcess(folder, spec(**parts), policy__yaml=policy, **files) as server:
        yield server


@contextlib.contextmanager
def channels(server: ServerProcess, count: int) -> Iterator[list[grpc.Channel]]:
    """So many connections, each used once."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = stack.enter_context(grpc.insecure_channel(server.address, options=options))
            assert status_of(check_over(channel, check_request(path="/public"))) == 200
            opened.append(channel)
        yield opened


def status_of(response: CheckResponse) -> int:
    assert response.HasField("status")
    return response.denied_response.status.code if response.status.code else 200


def statuses(opened: list[grpc.Channel], path: str) -> set[int]:
    return {status_of(check_over(channel, check_request(path=path))) for channel in opened}


def all_serve(server: ServerProcess) -> None:
    server.wait_for(lambda: serving(server) == len(worker_pids(server)) == WORKERS, "whole")


def kill_one(server: ServerProcess, number: int = 1, signal_number: int = signal.SIGKILL) -> int:
    all_serve(server)
    pid = worker_pids(server)[number]
    os.kill(pid, signal_number)
    return pid


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.mark.parametrize("count", [3, 4, 8])
def test_connections_are_spread_evenly(server: ServerProcess, count: int) -> None:
    all_serve(server)
    server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")
    with channels(server, count):
        held = connections(server)
        assert sum(held) == count
        assert max(held) - min(held) <= 1
    server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")


def test_each_line_of_the_log_is_whole_and_says_whose_it_is(server: ServerProcess) -> None:
    before = len(server.decisions())
    # lines beyond what a pipe takes in one piece: the path is cut at 1,024 characters, each of which is escaped
    requests = [check_request(path="/" + "\u00fc" * 1_000, host="\u00fc" * 256) for _ in range(30)]
    with channels(server, 6) as opened, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda channel: [check_over(channel, request) for request in requests], opened))
    server.wait_for(lambda: len(server.decisions()) >= before + 6 + 180, "logging")
    decisions = server.decisions()[before:]
    assert set(Counter(record["worker"] for record in decisions)) == {1, 2, 3}
    assert len({record["decision_id"] for record in decisions}) == len(decisions)
    assert any(len(line) > 4_096 for line in server.lines)
    for line in server.lines:
        json.loads(line)
    assert all("worker" not in event for event in server.events("listening"))


def test_what_all_workers_count_is_one_sum(server: ServerProcess) -> None:
    before = server.metric(ALLOWED) or 0.0
    with channels(server, 5) as opened:
        assert statuses(opened, "/public") == {200}
    assert server.metric(ALLOWED) == before + 10
    assert (server.metric('ext_authz_check_duration_seconds_count{waited="false"}') or 0.0) >= before + 10
    assert server.metric("ext_authz_configuration_generation") == 1
    assert server.metric('ext_authz_reloads_total{result="success"}') == 1
    pages = server.admin("/metrics")[1]
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "ext_authz_build_info", "python_info"):
        assert f"\n{name}" in pages


def test_health_is_answered_by_each_worker(server: ServerProcess) -> None:
    with channels(server, 3) as opened:
        for channel in opened:
            assert channel.unary_unary(HEALTH_METHOD, None, None)(b"", timeout=5) == b"\x08\x01"
    assert server.admin("/readyz?verbose") == (200, "ok\n")
    assert server.admin("/livez")[0] == 200


def test_a_worker_that_crashes_is_replaced_while_the_others_serve(server: ServerProcess) -> None:
    all_serve(server)
    server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")
    crashes = server.metric(CRASHED) or 0.0
    with channels(server, 3) as opened:
        # each count has been told before one dies
        counted = server.metric(ALLOWED) or 0.0
        cpu = server.metric("process_cpu_seconds_total") or 0.0
        killed = kill_one(server, 2)
        answers: Counter[int | str] = Counter()
        for _ in range(20):
            for channel in opened:
                try:
                    answers[status_of(check_over(channel, check_request(path="/public"), timeout=5))] += 1
                except grpc.RpcError:
                    answers["failed"] += 1
        # the client's one connection to the worker that died fails one call at most, then it connects to another one
        assert answers["failed"] <= 1
        assert answers[200] >= 59
        all_serve(server)
        assert server.metric(CRASHED) == crashes + 1
        assert server.metric(ALLOWED) == counted + answers[200]
        assert (server.metric("process_cpu_seconds_total") or 0.0) >= cpu
    (event,) = [event for event in server.events("a worker ended and is replaced") if event["pid"] == killed]
    assert (event["ended_worker"], event["reason"], event["exit_code"], event["level"]) == (2, "crashed", -9, "error")
    assert worker_pids(server)[2] != killed


@pytest.mark.slow
def test_clients_of_a_worker_that_died_are_spread_again(server: ServerProcess) -> None:
    all_serve(server)
    server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")
    with channels(server, 6) as opened:
        kill_one(server, 3)

        def even() -> bool:
            # a client that was sent away connects when it has something to say
            with contextlib.suppress(grpc.RpcError):
                statuses(opened, "/public")
            held = connections(server)
            return len(held) == WORKERS and sum(held) == 6 and max(held) - min(held) <= 1

        server.wait_for(even, "spread")


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(server: ServerProcess) -> None:
    left = 'ext_authz_worker_restarts_total{reason="left"}'
    before = server.metric(left) or 0.0
    pid = kill_one(server, 1, signal.SIGTERM)
    server.wait_for(lambda: not is_alive(pid), "rid of it")
    all_serve(server)
    assert server.metric(left) == before + 1


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, listener={"worker_timeout_seconds": 1}) as server:
        hung = kill_one(server, 1, signal.SIGSTOP)
        with channels(server, 4):
            pass
        # it does not hold up who asks for metrics
        assert server.metric("ext_authz_workers") is not None
        server.wait_for(lambda: server.metric('ext_authz_worker_restarts_total{reason="hung"}') == 1, "rid of it")
        assert not is_alive(hung)
        all_serve(server)


@pytest.mark.slow
def test_workers_go_on_when_what_starts_them_ends(tmp_path: Path) -> None:
    with running(tmp_path) as server, channels(server, 3) as opened:
        all_serve(server)
        nursery = int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(worker_pids(server)[1])]))
        os.kill(nursery, signal.SIGKILL)
        server.wait_for(lambda: server.events("the process that starts workers has ended and is started anew"), "aware")
        assert statuses(opened, "/public") == {200}
        kill_one(server)
        all_serve(server)


def test_a_reload_reaches_all_and_a_broken_one_none(tmp_path: Path) -> None:
    with running(tmp_path) as server, channels(server, 6) as opened:
        assert statuses(opened, "/other") == {403}
        server.write("policy.yaml", route_policy(PUBLIC, OTHER))
        server.wait_for(lambda: server.events("configuration loaded"), "reloading")
        # once it says so, all decide by it
        assert statuses(opened, "/other") == {200}
        generations = [f'ext_authz_worker_configuration_generation{{worker="{number}"}}' for number in (1, 2, 3)]
        assert [server.metric(sample) for sample in generations] == [2, 2, 2]

        server.write("policy.yaml", "nonsense")
        failed = "the configuration could not be loaded and the one before stays in force"
        server.wait_for(lambda: server.events(failed), "complaining")
        assert statuses(opened, "/other") == {200}
        assert server.admin("/readyz")[0] == 200
        assert "reload failed" in server.admin("/readyz?verbose")[1]

        # one that is started now decides as the others do
        kill_one(server, 1)
        all_serve(server)
        with channels(server, 6) as more:
            assert min(connections(server)) > 0
            assert statuses(more, "/other") == {200}
        assert [server.metric(sample) for sample in generations] == [2, 2, 2]
        server.write("policy.yaml", route_policy(PUBLIC))
        server.signal(signal.SIGHUP)
        server.wait_for(lambda: len(server.events("configuration loaded")) == 2, "reloading")
        with channels(server, 6) as more:
            assert statuses(more, "/other") == {403}


def corp(url: str) -> list[dict[str, object]]:
    return [{"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": url}}]


def with_token() -> bytes:
    return check_request(path="/token", headers={"authorization": f"Bearer {access_token(now=time.time())}"})


@pytest.mark.slow
def test_keys_that_one_worker_fetched_serve_in_those_that_come_when_they_cannot_be_fetched(tmp_path: Path) -> None:
    with (
        JwksEndpoint(jwks(signing_key())) as endpoint,
        running(tmp_path, issuers=corp(endpoint.url), policy=route_policy(PUBLIC, TOKEN)) as server,
    ):
        assert endpoint.requests <= WORKERS
        fetched = 'ext_authz_key_fetches_total{issuer="corp",result="success"}'
        server.wait_for(lambda: server.metric(fetched) == endpoint.requests, "done with fetching")
        endpoint.status = 500
        kill_one(server, 1)
        all_serve(server)
        with channels(server, 6) as opened:
            assert {status_of(check_over(channel, with_token())) for channel in opened} == {200}
        assert server.metric('ext_authz_key_source_state{issuer="corp",state="unavailable"}') == 0
        assert server.metric('ext_authz_key_set_keys{issuer="corp"}') == 1


@pytest.mark.slow
def test_readiness_waits_for_keys_and_a_call_in_flight_is_answered_while_all_drain(tmp_path: Path) -> None:
    with JwksEndpoint(jwks(signing_key())) as endpoint, ThreadPoolExecutor(3) as pool:
        endpoint.delay = 1.5
        folder_spec = spec(issuers=corp(endpoint.url))
        server = ServerProcess(tmp_path, folder_spec, policy__yaml=route_policy(PUBLIC, TOKEN))
        try:
            server.start(ready=False)
            server.wait_for(lambda: serving(server) == WORKERS, "serving")
            assert server.admin("/readyz") == (503, "keys of issuer corp are not loaded\n")
            with channels(server, 3) as opened:
                calls = [pool.submit(check_over, channel, with_token()) for channel in opened]
                server.wait_for(lambda: server.metric("ext_authz_checks_waiting") == 3, "waiting")
                pids = worker_pids(server)
                server.signal(signal.SIGTERM)
                assert {status_of(call.result(10)) for call in calls} == {200}
            assert server.stop(None) == 0
            assert not any(is_alive(pid) for pid in pids.values())
            # what workers had to say is said
            assert len([record for record in server.decisions() if record.get("issuer") == "corp"]) == 3
            assert server.events("stopped")
        finally:
            server.stop(signal.SIGKILL)


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    fetch = {"unknown_key_cooldown_seconds": 0.1, "timeout_seconds": 30}
    with (
        JwksEndpoint(jwks(signing_key())) as endpoint,
        ThreadPoolExecutor(1) as pool,
        running(tmp_path, issuers=corp(endpoint.url), policy=route_policy(PUBLIC, TOKEN), key_fetch=fetch) as server,
        channels(server, 1) as (channel,),
    ):
        all_serve(server)
        # what one worker has just fetched is not fetched again by another
        time.sleep(0.3)
        endpoint.delay = 30
        other = access_token(now=time.time(), key=signing_key(index=1))
        request = check_request(path="/token", headers={"authorization": f"Bearer {other}"})
        call = pool.submit(check_over, channel, request, 20)
        server.wait_for(lambda: server.metric("ext_authz_checks_waiting") == 1, "waiting")
        pids = worker_pids(server)
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: server.events("draining"), "draining")
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3
        with pytest.raises(grpc.RpcError):
            call.result(10)
        workers_are_gone(pids, seconds=3)


def workers_are_gone(pids: dict[int, int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids.values()):
        assert time.monotonic() < until, f"workers live on: {pids}"
        time.sleep(0.02)


@pytest.mark.slow
def test_no_worker_outlives_its_supervisor(tmp_path: Path) -> None:
    with running(tmp_path, listener={"drain_seconds": 1}) as server, channels(server, 3):
        all_serve(server)
        pids = worker_pids(server)
        # one of them cannot end by itself
        os.kill(pids[3], signal.SIGSTOP)
        server.stop(signal.SIGKILL)
        workers_are_gone({1: pids[1], 2: pids[2]}, seconds=5)
        workers_are_gone({3: pids[3]}, seconds=15)


def test_tls_with_client_certificates_over_a_unix_socket_and_its_renewal_reach_all(tmp_path: Path) -> None:
    roots, renewed_roots, clients = authority("server roots"), authority("other server roots"), authority("envoys")
    leaf, envoy = roots.leaf(dns_sans=["server.test"]), clients.leaf(key=ec_key("envoy"))
    files = {"chain__pem": leaf.pem, "key__pem": leaf.key_pem, "ca__pem": clients.pem}
    tls = {"certificate_file": "chain.pem", "key_file": "key.pem", "client_ca_file": "ca.pem"}

    def call(server: ServerProcess, root: bytes, times: int = 6) -> None:
        credentials = grpc.ssl_channel_credentials(root, envoy.key_pem, envoy.pem)
        options = (("grpc.ssl_target_name_override", "server.test"), ("grpc.use_local_subchannel_pool", 1))
        with contextlib.ExitStack() as stack:
            for _ in range(times):
                channel = stack.enter_context(grpc.secure_channel(server.address, credentials, options))
                assert status_of(check_over(channel, check_request(path="/public"), timeout=5)) == 200
            assert connections(server) == [times // WORKERS] * WORKERS

    listener = {"address": f"unix:{tmp_path}/check.sock", "tls": tls}
    with running(tmp_path, listener=listener, files=files) as server:
        call(server, roots.pem)
        with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError):
            check_over(plain, check_request(path="/public"), timeout=2)
        server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")
        renewed = renewed_roots.leaf(key=ec_key("renewed"), dns_sans=["server.test"])
        server.write("chain.pem", renewed.pem)
        server.write("key.pem", renewed.key_pem)
        server.wait_for(lambda: server.events("configuration loaded"), "reloading")
        call(server, renewed_roots.pem)
        server.wait_for(lambda: sum(connections(server)) == 0, "free of connections")
        # and one that starts anew
        kill_one(server, 1)
        all_serve(server)
        call(server, renewed_roots.pem)
    assert not (tmp_path / "check.sock").exists()


def test_more_connections_than_allowed_are_closed_whoever_would_have_them(tmp_path: Path) -> None:
    with running(tmp_path, listener={"maximum_connections": 4}) as server, channels(server, 4):
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        with grpc.insecure_channel(server.address, options=options) as channel, pytest.raises(grpc.RpcError):
            check_over(channel, check_request(path="/public"), timeout=1)
        assert sum(connections(server)) == 4
        assert (server.metric("ext_authz_connections_refused_total") or 0) >= 1


@pytest.mark.slow
def test_a_worker_that_hangs_holds_up_the_end_of_the_server_by_a_second_at_most(tmp_path: Path) -> None:
    with running(tmp_path, listener={"drain_seconds": 1, "worker_timeout_seconds": 60}) as server:
        stopped = kill_one(server, 1, signal.SIGSTOP)
        # it takes heartbeats to know
        time.sleep(2)
        began = time.monotonic()
        assert server.stop() == 0
        # a second to drain, one for a sign of life, and what a busy machine takes
        assert time.monotonic() - began < 6
        assert not is_alive(stopped)
