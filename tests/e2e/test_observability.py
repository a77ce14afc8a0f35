"""One request through a real Envoy, found again by one string wherever anyone wrote about it."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.envoys import INSTALLED, require_binary
from support.jwks_endpoint import JwksEndpoint
from support.otlp_receiver import OtlpReceiver, ReceivedSpan
from support.server import Json, ServerProcess, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, access_token, jwks, signing_key

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

DOCUMENT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
OPEN = {"name": "open", "matches": [{"path": {"value": "/open"}}], "public": True}
MARKED = {
    "name": "marked",
    "matches": [{"path": {"value": "/marked"}}],
    "public": True,
    "inject": {"dynamic_metadata": {"team": "billing", "decision_id": "not this one"}},
}
PEER = {"name": "peer", "matches": [{"path": {"value": "/peer"}}], "require": {"peer": {"trust_domains": ["a.b"]}}}
TOKEN = {
    "name": "token",
    "matches": [{"path": {"value": "/token"}}],
    "require": {"token": {"issuers": ["corp"]}, "binding": "when-present"},
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def block(kind: str) -> Any:
    """The YAML block of the documentation that is written for Envoy."""
    (text,) = re.findall(rf"^```yaml envoy {kind}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)


@dataclass
class World:
    """An Envoy that traces and logs as the documentation says, and what is around it."""

    envoy: Any
    server: ServerProcess
    receiver: OtlpReceiver
    keys: JwksEndpoint
    transport: str

    def send(self, path: str, **headers: str) -> httpx.Response:
        """One request through Envoy."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.envoy.ports['edge']}{path}"
        return httpx.get(url, headers={"host": "api.example.com", **names}, trust_env=False, timeout=15)

    def access_log(self, path: str) -> Json:
        """Envoy's line about it."""
        found: list[Json] = []

        def is_there() -> bool:
            found[:] = [dict(line) for line in self.envoy.access_log() if line.get("path") == path]
            return bool(found)

        self.server.wait_for(is_there, f"followed by a line of Envoy about {path}")
        (line,) = found
        return line

    def record(self, path: str) -> Json:
        """Our line about it."""
        self.server.wait_for(lambda: [r for r in self.server.decisions() if r["path"] == path], "logging")
        (record,) = [r for r in self.server.decisions() if r["path"] == path]
        return record

    def span(self, decision_id: str) -> ReceivedSpan:
        """Our span about it."""
        return self.receiver.wait_for(lambda span: span.attributes.get("ext_authz.decision_id") == decision_id)


def configuration(check: str, upstream: str, receiver: str) -> Any:
    """Envoy's bootstrap: the snippets of the documentation in a listener of plain text."""
    from envoy_data_plane.envoy.config.bootstrap.v3 import LayeredRuntime, RuntimeLayer  # noqa: PLC0415
    from envoy_data_plane.google.protobuf import Struct  # noqa: PLC0415

    from ext_authz.demo.bootstrap import bootstrap  # noqa: PLC0415
    from ext_authz.demo.proxy import CheckFilter, ProxyCluster, ProxyListener  # noqa: PLC0415

    listener = ProxyListener("edge", check=CheckFilter(include_peer_certificate=False, include_tls_session=False))
    clusters = (
        ProxyCluster("ext_authz", check, http2=True),
        ProxyCluster("upstream", upstream),
        ProxyCluster("otel-collector", receiver),
    )
    config = bootstrap((listener,), clusters)
    # spans leave at once, not after five seconds
    layer = RuntimeLayer(name="test", static_layer=Struct.from_dict({"tracing.opentelemetry.min_flush_spans": 1}))
    config.layered_runtime = LayeredRuntime(layers=[layer])
    written = config.to_dict()
    chain = written["staticResources"]["listeners"][0]["filterChains"][0]
    chain["filters"][0]["typedConfig"] |= {"accessLog": block("access-log"), "tracing": block("tracing")}
    return written


class _Written:
    """A configuration that is a dictionary already, for the process that starts Envoy."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def to_json(self, **_: object) -> str:
        return json.dumps(self._value)


@pytest.fixture(scope="module", params=["grpcio", "h2"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything started; `h2` and `grpcio` are the server's transports."""
    from e2e.upstream import Upstream  # noqa: PLC0415

    from ext_authz.demo.envoy import EnvoyProcess  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("observed")
    with (
        OtlpReceiver() as receiver,
        Upstream() as upstream,
        JwksEndpoint(jwks(signing_key())) as keys,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        spec = server_spec(
            listener={"address": "127.0.0.1:0", "transport": request.param},
            evidence={"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "proxy"},
            issuers=[{"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": keys.url}}],
            key_fetch={"unknown_key_cooldown_seconds": 0.1},
            policies=["policy.yaml"],
            telemetry={"traces": {"endpoint": receiver.endpoint}, "stage_interval": 1},
        )
        with ServerProcess(folder, spec, policy__yaml=route_policy(OPEN, MARKED, PEER, TOKEN)) as server:
            (folder / "envoy").mkdir()
            config: Any = _Written(configuration(server.address, upstream.address, receiver.address))
            with EnvoyProcess(require_binary(INSTALLED), config, folder / "envoy") as envoy:
                yield World(envoy, server, receiver, keys, request.param)


def unique(prefix: str) -> str:
    return f"{prefix}/{uuid.uuid4().hex[:12]}"


@pytest.mark.envoy
def test_one_string_joins_all_that_is_written_about_a_denied_request(world: World) -> None:
    path = unique("/peer")
    chosen = str(uuid.uuid4())
    response = world.send(path, x_request_id=chosen, traceparent=TRACEPARENT)
    assert response.status_code == 403
    decision_id = response.json()["decision_id"]
    assert re.fullmatch("[0-9a-f]{32}", decision_id)
    line, record = world.access_log(path), world.record(path)
    assert line["decision_id"] == record["decision_id"] == decision_id
    assert line["reason"] == record["reason"] == "peer_missing"
    # Envoy marks in it whether the trace is recorded
    assert line["request_id"] == record["x_request_id"]
    assert record["x_request_id"].partition("-")[0] == chosen.partition("-")[0]
    assert line["trace_id"] == record["trace_id"] == TRACE
    span = world.span(decision_id)
    assert (span.trace_id, span.service, span.kind) == (TRACE, "ext-authz", 2)
    assert span.attributes["ext_authz.reason"] == "peer_missing"
    assert span.attributes["ext_authz.rule"] == "peer"
    assert not span.is_error


@pytest.mark.envoy
def test_one_string_joins_all_that_is_written_about_an_allowed_request(world: World) -> None:
    path = unique("/open")
    assert world.send(path, traceparent=TRACEPARENT).status_code == 200
    line, record = world.access_log(path), world.record(path)
    assert line["decision_id"] == record["decision_id"]
    assert line["reason"] == record["reason"] == "public_route"
    assert line["request_id"] == record["x_request_id"]
    assert world.span(record["decision_id"]).attributes["ext_authz.decision"] == "allow"


@pytest.mark.envoy
def test_the_names_that_are_ours_hold_what_is_ours_beside_the_metadata_of_a_rule(world: World) -> None:
    path = unique("/marked")
    assert world.send(path).status_code == 200
    line, record = world.access_log(path), world.record(path)
    assert line["decision_id"] == record["decision_id"]
    metadata = dict(line["metadata"])
    # Envoy adds how long it waited for us, in milliseconds
    metadata.pop("ext_authz_duration", None)
    assert metadata == {"team": "billing", "reason": "public_route", "decision_id": record["decision_id"]}


@pytest.mark.envoy
def test_a_trace_that_envoy_begins_is_continued(world: World) -> None:
    path = unique("/open")
    assert world.send(path).status_code == 200
    record, line = world.record(path), world.access_log(path)
    span = world.span(record["decision_id"])
    assert span.trace_id == line["trace_id"] == record["trace_id"]
    parent = world.receiver.wait_for(lambda other: other.span_id == span.parent_id)
    assert parent.service == "edge"


@pytest.mark.envoy
def test_a_trace_that_is_not_recorded_is_joined_in_the_log_and_has_no_span(world: World) -> None:
    path = unique("/open")
    other = "0af7651916cd43dd8448eb211c80319c"
    assert world.send(path, traceparent=f"00-{other}-b7ad6b7169203331-00").status_code == 200
    assert world.record(path)["trace_id"] == other
    after = unique("/open")
    world.send(after, traceparent=TRACEPARENT)
    world.span(world.record(after)["decision_id"])
    assert not [span for span in world.receiver.spans if span.trace_id == other and span.service == "ext-authz"]


@pytest.mark.envoy
def test_everything_that_the_documentation_lists_is_exported_after_some_traffic(world: World) -> None:
    world.send(unique("/open"), traceparent=TRACEPARENT)
    world.send(unique("/peer"))
    token = access_token(now=time.time())
    assert world.send(unique("/token"), authorization=f"Bearer {token}").status_code == 200
    assert world.send(unique("/token"), authorization=f"Bearer {token}").status_code == 200
    world.keys.status = 500
    time.sleep(0.2)  # the cool-down after the first fetch
    unknown = access_token(now=time.time(), header={"kid": "unknown"})
    assert world.send(unique("/token"), authorization=f"Bearer {unknown}").status_code == 401
    world.keys.status = 200
    text = world.server.admin("/metrics")[1]
    rows = re.findall(r"^\| `(ext_authz_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    assert len(rows) > 20
    for name, kind, labels in rows:
        suffix = "_bucket" if kind == "histogram" else ""
        sample = re.search(rf"^{name}{suffix}(?:\{{(.*)\}})? [0-9.e+-]+$", text, re.MULTILINE)
        if name.startswith("ext_authz_worker"):
            assert sample is None, f"{name} without workers"
            continue
        assert sample is not None, name
        shown = set(re.findall(r'(\w+)="', sample[1] or "")) - {"le"}
        assert shown == set(re.findall(r"`(\w+)`", labels)), name
    metric = world.server.metric
    assert metric('ext_authz_cache_hits_total{cache="token"}') == 1
    assert metric('ext_authz_cache_entries{cache="token"}') == 1
    assert metric('ext_authz_issuer_checks_total{decision="allow",issuer="corp"}') == 2
    assert metric('ext_authz_key_fetch_faults_total{fault="status_not_ok",issuer="corp"}') == 1
    assert metric('ext_authz_check_stage_duration_seconds_count{stage="parse"}') == metric(
        'ext_authz_check_duration_seconds_count{waited="false"}'
    )


@pytest.mark.envoy
def test_an_exemplar_leads_to_the_decision(world: World) -> None:
    path = unique("/open")
    world.send(path, traceparent=TRACEPARENT)
    decision_id = world.record(path)["decision_id"]
    host = world.server.events("listening")[0]["admin"]
    text = httpx.get(
        f"http://{host}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}, trust_env=False
    )
    assert text.headers["content-type"].startswith("application/openmetrics-text")
    assert f'decision_id="{decision_id}",trace_id="{TRACE}"' in text.text
    assert "decision_id" not in world.server.admin("/metrics")[1]


def series(text: str) -> set[str]:
    """Names and labels of what is exported, without values, and without buckets that no request needs to fill."""
    return {line.rpartition(" ")[0].partition(" # ")[0] for line in text.splitlines() if line and line[0] != "#"}


@pytest.mark.envoy
@pytest.mark.slow
def test_nothing_that_a_client_chooses_becomes_a_label_or_a_series(world: World) -> None:
    def flood(mark: str) -> None:
        now = time.time()
        tokens = [
            access_token(now=now, sub=mark, client_id=mark, jti=mark, scope=mark),
            access_token(now=now, iss=f"https://{mark}.example"),
            access_token(now=now, header={"kid": mark}),
            access_token(now=now - 9_000, sub=mark),
            mark,
        ]
        for path in ("/open", "/peer", "/token", "/elsewhere", "/open//"):
            for token in tokens:
                url = f"{path}/{mark}?q={mark}"
                world.send(url, host=f"{mark}.example.com", authorization=f"Bearer {token}", user_agent=mark)
        world.send(f"/open/{mark}", traceparent=f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-00")

    def exported() -> str:
        return world.server.admin("/metrics")[1]

    flood("chosen0")
    before = exported()
    for number in range(4):
        flood(f"chosen1{number}")
    after = exported()
    assert series(after) == series(before)
    assert "chosen" not in after
