"""The whole server as a process of its own, called by a real gRPC client."""

import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.check_requests import check_request
from support.jwks_endpoint import JwksEndpoint
from support.pki import authority, ec_key, self_signed, xfcc
from support.server import CHECK_METHOD, HEALTH_METHOD, ServerProcess, check_over, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, access_token, cnf_for, jwks, signing_key

from ext_authz.runtime.transport import message_ceiling
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

MAXIMUM = 65_536
CALLER = self_signed()
STRANGER = self_signed(key=ec_key("stranger"), subject="stranger")
PUBLIC = {"name": "public", "matches": [{"path": {"type": "Exact", "value": "/public"}}], "public": True}
BOUND = {
    "name": "bound",
    "matches": [{"path": {"value": "/bound"}}],
    "require": {"token": {"issuers": ["corp"]}},
    "inject": {"request_headers": {"x-subject": "${token.sub}"}},
}
EVIDENCE = {"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "nobody"}


def issuer(url: str) -> dict[str, object]:
    return {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": url}}


def bound_request(path: str = "/bound", leaf: Any = CALLER, **token: Any) -> bytes:
    text = access_token(now=time.time(), cnf=cnf_for(CALLER.der), **token)
    headers = {"authorization": f"Bearer {text}", "x-forwarded-client-cert": xfcc(leaf)}
    return check_request(path=path, headers=headers)


def status_of(response: CheckResponse) -> int:
    assert response.HasField("status")
    return response.denied_response.status.code if response.status.code else 200


@pytest.fixture(scope="module")
def endpoint() -> Iterator[JwksEndpoint]:
    with JwksEndpoint(jwks(signing_key())) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endpoint: JwksEndpoint) -> Iterator[ServerProcess]:
    spec = server_spec(
        listener={"address": "127.0.0.1:0", "maximum_message_bytes": MAXIMUM},
        evidence=EVIDENCE,
        issuers=[issuer(endpoint.url)],
        policies=["policy.yaml"],
        key_fetch={"unknown_key_cooldown_seconds": 60},
    )
    with ServerProcess(tmp_path_factory.mktemp("server"), spec, policy__yaml=route_policy(PUBLIC, BOUND)) as process:
        yield process


MARKS = (f"mark-{number}" for number in itertools.count())


def settle(server: ServerProcess) -> None:
    """Wait until everything decided so far is logged: the log is in order."""
    mark = next(MARKS)
    server.check(check_request(path="/public", request_id=mark))
    server.wait_for(lambda: server.decisions()[-1:] and server.decisions()[-1].get("request_id") == mark, "logging")


def next_decision(server: ServerProcess, request: bytes) -> tuple[CheckResponse, dict[str, Any]]:
    settle(server)
    before = len(server.decisions())
    response = server.check(request)
    server.wait_for(lambda: len(server.decisions()) > before, "logging the decision")
    after = server.decisions()
    assert len(after) == before + 1
    return response, after[-1]


def test_a_token_on_its_own_connection_is_allowed_and_on_another_denied(server: ServerProcess) -> None:
    response, record = next_decision(server, bound_request())
    assert status_of(response) == 200
    headers = {option.header.key: option.header.value for option in response.ok_response.headers}
    assert headers["x-subject"] == "alice"
    assert (record["decision"], record["rule"], record["subject"]) == ("allow", "bound", "alice")
    assert record["thumbprint"] == CALLER.x5t_s256

    response, record = next_decision(server, bound_request(leaf=STRANGER))
    assert status_of(response) == 401
    assert record["reason"] == "binding_thumbprint_mismatch"
    assert not any("eyJ" in line for line in server.lines)


def test_decisions_are_counted(server: ServerProcess) -> None:
    sample = 'ext_authz_checks_total{decision="allow",reason="public_route"}'
    before = server.metric(sample) or 0.0
    server.check(check_request(path="/public"))
    assert server.metric(sample) == before + 1
    assert server.metric("ext_authz_configuration_generation") == 2.0  # the second has the keys
    assert server.metric('ext_authz_key_fetches_total{issuer="corp",result="success"}') == 1.0
    assert server.metric('ext_authz_key_set_age_seconds{issuer="corp"}') is not None


def test_health_is_serving(server: ServerProcess) -> None:
    check = server.channel.unary_unary(HEALTH_METHOD, None, None)
    assert check(b"", timeout=5) == b"\x08\x01"
    assert check(b"\n\x23envoy.service.auth.v3.Authorization", timeout=5) == b"\x08\x01"


@pytest.mark.parametrize("data", [b"\xff" * 50, b"", b"\x00" * (MAXIMUM + 1), b"\n\xff\xff\xff\xff\x0f"])
def test_bytes_that_are_no_request_are_denied_and_the_next_request_is_fine(server: ServerProcess, data: bytes) -> None:
    response, record = next_decision(server, data)
    assert status_of(response) == 400
    assert record["decision"] == "deny"
    assert status_of(server.check(check_request(path="/public"))) == 200


def test_a_message_above_the_ceiling_is_a_grpc_error_and_the_next_request_is_fine(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError) as error:
        server.check(b"\x00" * (message_ceiling(MAXIMUM) + 1))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(server.check(check_request(path="/public"))) == 200


@pytest.mark.parametrize(
    "text",
    ['"}\n{"decision":"allow"}', "\r\n\r\n", "\x1b[2J", "\x7f\x85\u2028\u2029", "a" * 20_000, "\x00"],
)
def test_text_that_would_forge_log_lines_is_one_line(server: ServerProcess, text: str) -> None:
    settle(server)
    before = len(server.lines)
    _, record = next_decision(
        server, check_request(method=text, path="/" + text, host=text, request_id=text, pseudo_headers=False)
    )
    assert record["decision"] == "deny"
    assert len(server.lines) == before + 2  # one of them `settle`
    assert server.lines[-1].isprintable()


def test_a_flood_of_unknown_key_ids_is_one_fetch_and_known_keys_are_unaffected(
    server: ServerProcess, endpoint: JwksEndpoint
) -> None:
    before = endpoint.requests
    for number in range(50):
        unknown = bound_request(header={"kid": f"unknown-{number}"})
        assert status_of(server.check(unknown)) == 401
    assert endpoint.requests <= before + 1
    assert status_of(server.check(bound_request())) == 200


@pytest.mark.parametrize("target", ["/livez", "/readyz", "/metrics"])
def test_the_admin_listener_answers(server: ServerProcess, target: str) -> None:
    assert server.admin(target)[0] == 200


def test_a_second_server_on_the_same_port_fails_in_plain_words(server: ServerProcess, tmp_path: Path) -> None:
    second = ServerProcess(tmp_path, server_spec(listener={"address": server.address}))
    with pytest.raises(AssertionError, match="is not listening"):
        second.start()
    assert second.stop() == 2
    assert "is it in use" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_configuration_that_cannot_be_used_ends_the_start_with_its_problems(tmp_path: Path) -> None:
    broken = ServerProcess(tmp_path, server_spec(policies=["missing.yaml"], listenr={}))
    with pytest.raises(AssertionError, match="is not listening"):
        broken.start()
    assert broken.stop() == 2
    assert "listenr" in broken.stderr
    assert "missing.yaml" in broken.stderr


def test_a_thousand_first_sights_of_one_issuer_are_one_fetch_and_readiness_waits_for_it(tmp_path: Path) -> None:
    with JwksEndpoint(jwks(signing_key())) as endpoint:
        endpoint.delay = 1.5
        spec = server_spec(evidence=EVIDENCE, issuers=[issuer(endpoint.url)], policies=["policy.yaml"])
        server = ServerProcess(tmp_path, spec, policy__yaml=route_policy(PUBLIC, BOUND))
        server.start(ready=False)
        try:
            assert server.admin("/readyz") == (503, "keys of issuer corp are not loaded\n")
            health = server.channel.unary_unary(HEALTH_METHOD, None, None)
            assert health(b"", timeout=5) == b"\x08\x02"
            # what needs no keys is served meanwhile
            assert status_of(server.check(check_request(path="/public"))) == 200
            request = bound_request()
            check = server.channel.unary_unary(CHECK_METHOD, None, None)
            calls = [check.future(request, timeout=15) for _ in range(1_000)]
            assert {status_of(CheckResponse.FromString(call.result())) for call in calls} == {200}
            assert endpoint.requests == 1
            assert server.admin("/readyz")[0] == 200
            assert health(b"", timeout=5) == b"\x08\x01"
            waited = 'ext_authz_check_duration_seconds_count{waited="true"}'
            assert (server.metric(waited) or 0) > 0
        finally:
            assert server.stop() == 0


def test_a_jwks_endpoint_that_hangs_denies_in_time_and_a_drain_lets_the_call_finish(tmp_path: Path) -> None:
    with JwksEndpoint(jwks(signing_key())) as endpoint:
        endpoint.delay = 60.0
        spec = server_spec(
            listener={"address": "127.0.0.1:0", "default_deadline_seconds": 0.8, "drain_seconds": 5},
            evidence=EVIDENCE,
            issuers=[issuer(endpoint.url)],
            policies=["policy.yaml"],
        )
        server = ServerProcess(tmp_path, spec, policy__yaml=route_policy(PUBLIC, BOUND))
        server.start(ready=False)
        # the client's own deadline, shorter than any fetch; on a busy machine the client may miss the answer once
        for attempt in range(3):
            try:
                response = server.check(bound_request(), timeout=0.6)
            except grpc.RpcError:
                assert attempt < 2
            else:
                assert status_of(response) == 503
                break

        # no deadline of the client: ours; the drain begins while the call waits
        check = server.channel.unary_unary(CHECK_METHOD, None, None)
        call = check.future(bound_request())
        time.sleep(0.1)
        watch = iter(server.channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b""))
        assert next(watch) == b"\x08\x02"
        server.signal(signal.SIGTERM)
        assert status_of(CheckResponse.FromString(call.result())) == 503
        assert list(watch) == []
        assert server.stop(None) == 0
        assert [event["message"] for event in server.events()][-2:] == ["draining", "stopped"]
        assert [fields["reason"] for fields in server.decisions()][-1] == "deadline_exceeded"


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with JwksEndpoint(b"{}") as endpoint:
        endpoint.delay = 60.0
        spec = server_spec(
            listener={"address": "127.0.0.1:0", "default_deadline_seconds": 30, "drain_seconds": 30},
            evidence=EVIDENCE,
            issuers=[issuer(endpoint.url)],
            policies=["policy.yaml"],
            key_fetch={"timeout_seconds": 30},
        )
        server = ServerProcess(tmp_path, spec, policy__yaml=route_policy(BOUND))
        server.start(ready=False)
        call = server.channel.unary_unary(CHECK_METHOD, None, None).future(bound_request())
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: server.events("draining"), "draining")
        assert server.admin("/readyz")[0] == 503
        started = time.monotonic()
        server.signal(signal.SIGINT)
        # before the channel is closed, which would end the call and with it the drain
        assert call.exception() is not None
        assert server.stop(None) == 128 + signal.SIGINT
        assert time.monotonic() - started < 2.0


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of which tests change everything; each leaves a working configuration with PUBLIC."""
    folder = tmp_path_factory.mktemp("changing")
    clients, roots = authority("envoy clients"), authority("server roots")
    leaf = roots.leaf(dns_sans=["server.test"])
    spec = server_spec(
        listener={
            "address": f"unix:{folder}/check.sock",
            "tls": {"certificate_file": "chain.pem", "key_file": "key.pem", "client_ca_file": "ca.pem"},
        },
        policies=["policy*.yaml"],
    )
    files: dict[str, str | bytes] = {
        "chain__pem": leaf.pem,
        "key__pem": leaf.key_pem,
        "ca__pem": clients.pem,
        "policy__yaml": route_policy(PUBLIC),
    }
    with ServerProcess(folder, spec, **files) as process:
        yield process


def secure_call(server: ServerProcess, root: bytes, client: Any, path: str = "/public") -> int:
    credentials = grpc.ssl_channel_credentials(root, client.key_pem, client.pem)
    options = (("grpc.ssl_target_name_override", "server.test"), ("grpc.use_local_subchannel_pool", 1))
    with grpc.secure_channel(server.address, credentials, options) as channel:
        return status_of(check_over(channel, check_request(path=path), timeout=5))


ENVOY = authority("envoy clients").leaf(key=ec_key("envoy"), dns_sans=["envoy.test"])
ROOT = authority("server roots").pem


def test_certificates_rotate_while_serving_over_a_unix_socket(changing: ServerProcess) -> None:
    assert secure_call(changing, ROOT, ENVOY) == 200
    other_roots = authority("other server roots")
    renewed = other_roots.leaf(key=ec_key("renewed"), dns_sans=["server.test"])
    loaded = len(changing.events("configuration loaded"))
    # one after the other: between the two the files do not fit together, and nothing breaks
    changing.write("chain.pem", renewed.pem)
    changing.wait_for(
        lambda: any("listener.tls.key_file" in json.dumps(event) for event in changing.events()), "complaining", 10.0
    )
    assert secure_call(changing, ROOT, ENVOY) == 200
    changing.write("key.pem", renewed.key_pem)
    changing.wait_for(lambda: len(changing.events("configuration loaded")) > loaded, "reloading", 10.0)
    assert secure_call(changing, other_roots.pem, ENVOY) == 200
    with pytest.raises(grpc.RpcError):
        secure_call(changing, ROOT, ENVOY)
    original = authority("server roots").leaf(dns_sans=["server.test"])
    changing.write("chain.pem", original.pem)
    changing.write("key.pem", original.key_pem)
    changing.signal(signal.SIGHUP)
    changing.wait_for(lambda: len(changing.events("configuration loaded")) > loaded + 1, "reloading", 10.0)
    assert secure_call(changing, ROOT, ENVOY) == 200


def test_a_good_change_counts_and_a_bad_one_leaves_what_was_and_says_why(changing: ServerProcess) -> None:
    def loaded() -> int:
        return len(changing.events("configuration loaded"))

    before = loaded()
    more = {"name": "more", "matches": [{"path": {"value": "/more"}}], "public": True}
    assert secure_call(changing, ROOT, ENVOY, "/more") == 403
    changing.write("policy.yaml", route_policy(PUBLIC, more))
    changing.wait_for(lambda: loaded() > before, "reloading", 10.0)
    assert secure_call(changing, ROOT, ENVOY, "/more") == 200

    failures = changing.metric('ext_authz_reloads_total{result="failure"}') or 0.0
    changing.write("policy.yaml", route_policy({"name": "unsafe", "matches": [{}]}))
    changing.wait_for(
        lambda: (changing.metric('ext_authz_reloads_total{result="failure"}') or 0.0) > failures, "failing", 10.0
    )
    assert secure_call(changing, ROOT, ENVOY, "/more") == 200
    status, body = changing.admin("/readyz?verbose")
    assert status == 200
    assert "reload failed" in body
    assert "policy.yaml" in body

    # a file that the pattern finds for the first time
    before = loaded()
    changing.write("policy.yaml", route_policy(PUBLIC))
    changing.wait_for(lambda: loaded() > before, "reloading", 10.0)
    before = loaded()
    changing.write("policy-2.yaml", route_policy(more, name="second"))
    changing.wait_for(lambda: loaded() > before, "reloading", 10.0)
    assert secure_call(changing, ROOT, ENVOY, "/more") == 200
    assert "reload failed" not in changing.admin("/readyz?verbose")[1]


def test_a_change_of_address_counts_after_a_restart_and_says_so(changing: ServerProcess) -> None:
    text = changing.config.read_text()
    spec = json.loads(text)["spec"]
    changing.configure({**spec, "admin": "none", "log": {"allowed": False}})
    changing.wait_for(lambda: changing.events("a change counts only after a restart"), "saying so", 10.0)
    assert changing.admin("/livez")[0] == 200
    assert changing.events("a change counts only after a restart")[0]["section"] == "admin"
    before = len(changing.decisions())
    assert secure_call(changing, ROOT, ENVOY) == 200
    assert secure_call(changing, ROOT, ENVOY, "/nowhere") == 403
    changing.wait_for(lambda: len(changing.decisions()) > before, "logging", 5.0)
    assert [fields["decision"] for fields in changing.decisions()[before:]] == ["deny"]
    loaded = len(changing.events("configuration loaded"))
    changing.write("server.yaml", text)
    changing.wait_for(lambda: len(changing.events("configuration loaded")) > loaded, "reloading", 10.0)


def test_reloads_under_load_lose_no_request(changing: ServerProcess) -> None:
    ended = threading.Event()
    credentials = grpc.ssl_channel_credentials(ROOT, ENVOY.key_pem, ENVOY.pem)
    options = (("grpc.ssl_target_name_override", "server.test"), ("grpc.use_local_subchannel_pool", 1))

    def load(channel: grpc.Channel) -> list[int]:
        seen = []
        while not ended.wait(0.002):
            seen.append(status_of(check_over(channel, check_request(path="/public"))))
        return seen

    with (
        grpc.secure_channel(changing.address, credentials, options) as channel,
        ThreadPoolExecutor(1) as pool,
    ):
        worker = pool.submit(load, channel)
        try:
            for _ in range(4):
                loaded = len(changing.events("configuration loaded"))
                changing.signal(signal.SIGHUP)
                changing.wait_for(lambda: len(changing.events("configuration loaded")) > loaded, "reloading", 10.0)  # noqa: B023 - called at once
        finally:
            ended.set()
        assert set(worker.result()) == {200}
