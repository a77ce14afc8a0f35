"""`ext-authz doctor`: a captured request for each thing that can be missing, and what it says to change."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from support.check_requests import check_request_message, envoy_certificate
from support.custom_resources import MAY_BUILD
from support.manifests import check, documents, is_custom
from support.pki import authority, self_signed, xfcc
from support.server import document, route_policy

from ext_authz.cli.main import main

pytestmark = MAY_BUILD

ROOT = authority("cluster.local")
CALLER_ID = "spiffe://cluster.local/ns/shop/sa/web"
WORKLOAD = "spiffe://cluster.local/ns/billing/sa/api"
CALLER = ROOT.svid(CALLER_ID)
XFCC = xfcc(CALLER, by=WORKLOAD)
CERTIFICATE = envoy_certificate(CALLER.pem)
MESH: dict[str, Any] = {"source_principal": CALLER_ID, "destination_principal": WORKLOAD}
"""What an Istio sidecar always says."""

SOURCE: dict[str, object] = {"type": "source-certificate"}
HEADER: dict[str, object] = {"type": "xfcc", "trusted_hops": 1}
PRINCIPAL: dict[str, object] = {"type": "source-principal"}
TWO_HOPS: dict[str, object] = {
    "type": "xfcc",
    "trusted_hops": 2,
    "via": ["spiffe://cluster.local/ns/edge/sa/gateway"],
}
BOUND: dict[str, object] = {"token": {"issuers": ["corp"]}}
IDENTIFIED: dict[str, object] = {"peer": {}}


def configuration(folder: Path, require: dict[str, object] | None, *sources: dict[str, object], **parts: Any) -> str:
    """A server with one rule; `parts` are of the policy, `chain_verified_by` and `trust_bundles` of the server."""
    rule: dict[str, object] = {"name": "all", "matches": [{"path": {"value": "/"}}]}
    rule |= {"public": True} if require is None else {"require": require}
    evidence: dict[str, object] = {"certificate_sources": list(sources)}
    if sources:
        evidence["chain_verified_by"] = parts.pop("chain_verified_by", "proxy")
    spec: dict[str, object] = {
        "evidence": evidence,
        "issuers": [
            {"name": "corp", "issuer": "https://corp.example", "audiences": ["api"], "keys": {"discovery": True}}
        ],
        "policies": ["policy.yaml"],
    }
    if "trust_bundles" in parts:
        (folder / "bundle.pem").write_bytes(ROOT.pem)
        spec["trust_bundles"] = parts.pop("trust_bundles")
    (folder / "policy.yaml").write_text(route_policy(rule, name="policy", **parts))
    file = folder / "server.yaml"
    file.write_text(document("Server", "test", spec))
    return str(file)


def captured(folder: Path, metadata: dict[str, str] | None = None, **parts: Any) -> str:
    """A request; headers come byte by byte unless `headers` are given."""
    if "headers" not in parts:
        parts.setdefault("raw_headers", ())
    content = json.loads(json_format.MessageToJson(check_request_message(**parts)))
    if metadata is not None:
        content["metadata"] = metadata
    file = folder / "request.json"
    file.write_text(json.dumps(content))
    return str(file)


def doctor(config: str, request: str | None = None, *options: str) -> int:
    asked = [] if request is None else ["--request", request]
    return main(["doctor", "--config", config, *asked, *options])


def with_xfcc(text: str = XFCC) -> tuple[tuple[str, str], ...]:
    return (("x-forwarded-client-cert", text),)


COMPLETE: dict[str, Any] = {
    **MESH,
    "source_certificate": CERTIFICATE,
    "raw_headers": with_xfcc(),
    "sni": "api.example.com",
}
"""All that a proxy can say."""


def test_a_complete_request_leaves_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path, {**BOUND, **IDENTIFIED}, SOURCE, HEADER)
    assert doctor(config, captured(tmp_path, {"x-envoy-expected-rq-timeout-ms": "250"}, **COMPLETE)) == 0
    assert capsys.readouterr().out.endswith("\nNothing to say.\n")


def test_a_configuration_alone_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(configuration(tmp_path, BOUND, SOURCE)) == 0
    assert capsys.readouterr().out == "Nothing to say.\n"


def test_a_warning_of_the_configuration_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(configuration(tmp_path, IDENTIFIED)) == 1
    assert "there are no certificate sources" in capsys.readouterr().out


def test_a_name_alone_can_never_show_a_thumbprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(configuration(tmp_path, BOUND, PRINCIPAL)) == 1
    assert "Bound tokens can never be checked" in capsys.readouterr().out


def test_a_name_alone_is_enough_where_only_the_name_counts(tmp_path: Path) -> None:
    assert doctor(configuration(tmp_path, IDENTIFIED, PRINCIPAL)) == 0
    binding = {"accept": ["spiffe-id"], "spiffe_id_claim": "sub"}
    assert doctor(configuration(tmp_path, {**BOUND, "binding": binding}, PRINCIPAL)) == 0


FINDINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "nothing at all": (
        {"require": BOUND, "sources": [SOURCE]},
        {"destination_principal": WORKLOAD},
        "1. Nothing says who is on the connection",
        "include_peer_certificate: true",
    ),
    "a certificate that is not sent": (
        {"require": BOUND, "sources": [SOURCE]},
        MESH,
        "1. The connection has a client certificate, and neither it nor its hash is sent",
        "include_peer_certificate: true",
    ),
    "evidence that is not read": (
        {"require": BOUND, "sources": [{"type": "pem-header", "header": "x-cert"}]},
        COMPLETE,
        "1. The request says who is calling, and the configuration does not read it",
        "add `{type: source-certificate}` or `{type: xfcc, trusted_hops: 1}`",
    ),
    "a certificate beside what is read": (
        {"require": BOUND, "sources": [HEADER]},
        COMPLETE,
        "1. The certificate is sent and not read",
        "add `{type: source-certificate}`",
    ),
    "one of two sources": (
        {"require": BOUND, "sources": [SOURCE, HEADER]},
        {**MESH, "raw_headers": with_xfcc()},
        "1. The certificate is read and was not sent",
        "include_peer_certificate: true",
    ),
    "the other of two sources": (
        {"require": BOUND, "sources": [SOURCE, HEADER]},
        {**MESH, "source_certificate": CERTIFICATE},
        "1. x-forwarded-client-cert is read and was not sent",
        "have the proxy set it (`SANITIZE_SET`)",
    ),
    "an empty principal": (
        {"require": IDENTIFIED, "sources": [SOURCE, PRINCIPAL]},
        {"destination_principal": WORKLOAD, "source_certificate": CERTIFICATE},
        "1. The principal is read and is empty",
        "(mutual TLS)",
    ),
    "a header of ours": (
        {"require": BOUND, "sources": [SOURCE, {"type": "pem-header", "header": "x-cert"}]},
        {**MESH, "source_certificate": CERTIFICATE},
        "1. `x-cert` is read and was not sent",
        "have the proxy set it, and remove a client's own",
    ),
    "RFC 9440": (
        {"require": BOUND, "sources": [SOURCE, {"type": "client-cert"}]},
        {**MESH, "source_certificate": CERTIFICATE},
        "1. `client-cert` is read and was not sent",
        "have the proxy set it, and remove a client's own",
    ),
    "no hash": (
        {"require": BOUND, "sources": [HEADER]},
        {**MESH, "raw_headers": with_xfcc(f"By={WORKLOAD};URI={CALLER_ID}")},
        "1. The caller has a name, and no certificate or hash",
        "bind by `accept: [spiffe-id]`",
    ),
    "no URI": (
        {"require": IDENTIFIED, "sources": [HEADER]},
        {**MESH, "raw_headers": with_xfcc(f"By={WORKLOAD};Hash={'0' * 64}")},
        "1. The caller's SPIFFE ID is not sent",
        "`set_current_client_cert_details: {uri: true}`",
    ),
    "a principal that is no SPIFFE ID": (
        {"require": IDENTIFIED, "sources": [PRINCIPAL]},
        {**MESH, "source_principal": "CN=web"},
        "1. The caller's SPIFFE ID is not sent",
        "hold exactly one",
    ),
    "nothing to verify": (
        {
            "require": IDENTIFIED,
            "sources": [HEADER],
            "chain_verified_by": "bundles",
            "trust_bundles": [{"trust_domain": "cluster.local", "files": ["bundle.pem"]}],
        },
        {**MESH, "raw_headers": with_xfcc()},
        "1. The bundles have nothing to verify",
        "or write `chain_verified_by: proxy`",
    ),
    "the JSON form": (
        {"require": BOUND, "sources": [HEADER]},
        {**MESH, "raw_headers": with_xfcc('{"hash": "00"}')},
        "1. x-forwarded-client-cert is in the JSON form",
        "have the proxy write the text form",
    ),
    "too few elements": (
        {"require": BOUND, "sources": [TWO_HOPS]},
        {**MESH, "raw_headers": with_xfcc()},
        "1. x-forwarded-client-cert has 1 element(s), and `trusted_hops` is 2",
        "count the proxies of yours",
    ),
    "too many elements": (
        {"require": BOUND, "sources": [HEADER]},
        {**MESH, "raw_headers": with_xfcc(f"{XFCC},{xfcc(CALLER, by='spiffe://cluster.local/ns/a/sa/b')}")},
        "1. x-forwarded-client-cert has 2 element(s), and `trusted_hops` is 1",
        "or name the proxies whose elements count",
    ),
    "another proxy in front": (
        {"require": BOUND, "sources": [TWO_HOPS]},
        {**MESH, "raw_headers": with_xfcc(f"{XFCC},{XFCC}")},
        "1. x-forwarded-client-cert has 2 element(s), and `trusted_hops` is 2",
        "(xfcc_via_mismatch)",
    ),
    "a malformed element": (
        {"require": BOUND, "sources": [HEADER]},
        {**MESH, "raw_headers": with_xfcc("Hash")},
        "1. What the proxy says about the caller cannot be used",
        "compare the source",
    ),
    "joined headers": (
        {"require": None, "sources": []},
        {**MESH, "headers": {}},
        "1. Headers are not sent byte by byte",
        "encode_raw_headers: true",
    ),
    "a proxy that fails open": (
        {"require": None, "sources": []},
        {**MESH, "raw_headers": (("x-envoy-auth-failure-mode-allowed", "true"),)},
        "1. A proxy let this request pass without a decision",
        "set `failure_mode_allow: false`",
    ),
    "no destination": (
        {"require": None, "sources": [], "targets": [{"destination_principal": WORKLOAD}]},
        {"source_principal": CALLER_ID},
        "1. The destination has no principal",
        "have the proxy itself serve TLS",
    ),
    "no server name": (
        {"require": None, "sources": [], "targets": [{"sni": "api.example.com"}]},
        MESH,
        "1. The TLS server name is not sent",
        "include_tls_session: true",
    ),
    "no context extensions": (
        {"require": None, "sources": [], "targets": [{"context_extensions": {"workload": "a"}}]},
        MESH,
        "1. The route has no context extensions",
        "policies look for `workload`",
    ),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_each_thing_that_is_missing_is_told_with_what_to_change(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, request, title, change = FINDINGS[case]
    settings = dict(server)
    config = configuration(tmp_path, settings.pop("require"), *settings.pop("sources"), **settings)
    assert doctor(config, captured(tmp_path, **request)) == 1
    printed = capsys.readouterr().out
    assert title in printed
    assert change in printed
    assert "\n2. " not in printed
    for manifest in manifests_in(printed):
        if is_custom(manifest):
            check(manifest)


def manifests_in(printed: str) -> list[dict[str, Any]]:
    """The indented YAML below findings, as Kubernetes objects."""
    blocks = [block for block in printed.split("\n\n") if block.startswith("     ")]
    found = [item for block in blocks for item in documents(block)]
    return [item for item in found if {"apiVersion", "kind"} <= item.keys()]


@pytest.mark.parametrize(
    ("platform", "seen"),
    [
        ("istio-sidecar", "timeout: 0.250s"),
        ("kgateway", "requestTimeout: 250ms"),
        ("envoy", "timeout: 0.250s"),
        ("envoy-gateway", "timeout: 250ms"),
        ("contour", "response: 250ms"),
        ("gateway-api", "Change: set a timeout"),
    ],
)
def test_a_proxy_that_waits_for_ten_minutes_is_told_where_to_say_less(
    platform: str, seen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = captured(tmp_path, {"X-Envoy-Expected-Rq-Timeout-Ms": "600000"}, **COMPLETE)
    assert doctor(configuration(tmp_path, None), request, "--platform", platform) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("1. The proxy waits 600 seconds for a decision\n")
    assert seen in printed


@pytest.mark.parametrize(
    ("metadata", "seen"),
    [
        # Envoy 1.40 writes ten seconds into its header whatever it waits
        ({"grpc-timeout": "600S", "x-envoy-expected-rq-timeout-ms": "10000"}, "waits 600 seconds"),
        ({"grpc-timeout": "600000m"}, "waits 600 seconds"),
        ({"grpc-timeout": "10M"}, "waits 600 seconds"),
        ({"x-envoy-expected-rq-timeout-ms": "10000"}, "waits 10 seconds or more"),
        ({"grpc-timeout": "10S", "x-envoy-expected-rq-timeout-ms": "10000"}, None),
        ({"grpc-timeout": "250m", "x-envoy-expected-rq-timeout-ms": "250"}, None),
        ({"grpc-timeout": "soon"}, None),
    ],
)
def test_the_deadline_of_the_call_counts_before_what_envoy_writes_of_it(
    metadata: dict[str, str], seen: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor(configuration(tmp_path, None), captured(tmp_path, metadata, **COMPLETE))
    assert code == (0 if seen is None else 1)
    assert seen is None or seen in capsys.readouterr().out


def test_a_header_about_a_certificate_that_the_proxy_has_not_seen_is_anothers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path, {**BOUND, **IDENTIFIED}, HEADER)
    request = captured(tmp_path, raw_headers=with_xfcc(), destination_principal=WORKLOAD)
    assert doctor(config, request, "--platform", "envoy") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("1. x-forwarded-client-cert is there, and the connection has no client certificate\n")
    assert "forward_client_cert_details: SANITIZE_SET" in printed
    # a waypoint writes it from what ztunnel told
    assert doctor(config, request, "--platform", "istio-ambient") == 0


def test_the_manifest_is_for_the_namespace_that_the_request_was_sent_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, request = configuration(tmp_path, BOUND, SOURCE), captured(tmp_path, **MESH)
    assert doctor(config, request) == 1
    assert "\n       namespace: billing\n" in capsys.readouterr().out
    assert doctor(config, request, "--target-namespace", "shop") == 1
    assert "\n       namespace: shop\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "ten", "9999", "-1", "²", "9" * 13])
def test_a_short_deadline_or_none_is_no_finding(text: str, tmp_path: Path) -> None:
    request = captured(tmp_path, {"x-envoy-expected-rq-timeout-ms": text}, **COMPLETE)
    assert doctor(configuration(tmp_path, None), request) == 0


@pytest.mark.parametrize(
    ("platform", "change"),
    [
        ("envoy-gateway", "kind: ClientTrafficPolicy"),
        ("contour", "kind: HTTPProxy"),
        ("istio-ambient", "ambient.istio.io/xfcc-include-client-identity"),
        ("istio-gateway", "context: GATEWAY"),
        ("kgateway", "kind: ListenerPolicy"),
        ("gateway-api", "this one cannot"),
        ("envoy", "name: envoy.filters.http.ext_authz"),
    ],
)
def test_the_manifest_is_that_of_the_platform(
    platform: str, change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path, BOUND, SOURCE)
    assert doctor(config, captured(tmp_path), "--platform", platform, "--target-namespace", "shop") == 1
    assert change in capsys.readouterr().out


NAME_ALONE = with_xfcc(f"By={WORKLOAD};URI={CALLER_ID}")
TWO_ELEMENTS = with_xfcc(f"{XFCC},{xfcc(CALLER, by='spiffe://cluster.local/ns/a/sa/b')}")
FAILED_OPEN = (("x-envoy-auth-failure-mode-allowed", "true"),)
WITH_MANIFEST: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str]]] = {
    "no certificate": (
        {"require": BOUND, "sources": [SOURCE]},
        {
            "istio-sidecar": "include_peer_certificate: true",
            "istio-gateway": "include_peer_certificate: true",
            "istio-ambient": "ambient.istio.io/xfcc-include-client-identity: 'true'",
            "envoy-gateway": "xForwardedClientCert:",
            "contour": "clientValidation:",
            "kgateway": "forwardClientCertDetails:",
            "envoy": "include_peer_certificate: true",
        },
        {},
    ),
    "no Hash": (
        {"require": BOUND, "sources": [HEADER], "raw_headers": NAME_ALONE},
        {
            "istio-sidecar": "include_peer_certificate: true",
            "istio-gateway": "include_peer_certificate: true",
            "envoy-gateway": "mode: SanitizeSet",
            "kgateway": "mode: SanitizeSet",
            "envoy": "include_peer_certificate: true",
        },
        {},
    ),
    "wrong XFCC mode": (
        {"require": BOUND, "sources": [HEADER], "raw_headers": TWO_ELEMENTS},
        {
            "istio-sidecar": "forwardClientCertDetails: SANITIZE_SET",
            "istio-gateway": "forwardClientCertDetails: SANITIZE_SET",
            "istio-ambient": "kind: Gateway",
            "envoy-gateway": "mode: SanitizeSet",
            "kgateway": "mode: SanitizeSet",
            "envoy": "forward_client_cert_details: SANITIZE_SET",
        },
        {},
    ),
    "a deadline of 600 s": (
        {"require": None, "sources": []},
        {
            "istio-sidecar": "timeout: 0.250s",
            "istio-gateway": "timeout: 0.250s",
            "istio-ambient": "timeout: 0.250s",
            "envoy-gateway": "timeout: 250ms",
            "contour": "response: 250ms",
            "kgateway": "requestTimeout: 250ms",
            "envoy": "timeout: 0.250s",
        },
        {"x-envoy-expected-rq-timeout-ms": "600000"},
    ),
    "failure_mode_allow": (
        {"require": None, "sources": [], "raw_headers": FAILED_OPEN},
        {
            "istio-sidecar": "failOpen: false",
            "istio-gateway": "failOpen: false",
            "istio-ambient": "failOpen: false",
            "envoy-gateway": "failOpen: false",
            "contour": "failOpen: false",
            "kgateway": "failOpen: false",
            "envoy": "failure_mode_allow: false",
        },
        {},
    ),
    "raw headers off": (
        {"require": None, "sources": [], "headers": {}},
        {
            "istio-sidecar": "encode_raw_headers: true",
            "istio-gateway": "encode_raw_headers: true",
            "envoy": "encode_raw_headers: true",
        },
        {},
    ),
    "no context extensions": (
        {"require": None, "sources": [], "targets": [{"context_extensions": {"gateway": "a"}}]},
        {
            "envoy-gateway": "contextExtensions:",
            "contour": "authPolicy:",
            "kgateway": "contextExtensions:",
            "envoy": "check_settings:",
        },
        {},
    ),
}


@pytest.mark.parametrize(
    ("case", "platform"), [(case, platform) for case, (_, seen, _) in WITH_MANIFEST.items() for platform in seen]
)
def test_a_finding_shows_the_manifest_that_changes_it(
    case: str, platform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, seen, metadata = WITH_MANIFEST[case]
    server = dict(parts)
    sent = {name: server.pop(name) for name in ("headers", "raw_headers") if name in server}
    config = configuration(tmp_path, server.pop("require"), *server.pop("sources"), **server)
    assert doctor(config, captured(tmp_path, metadata, **sent), "--platform", platform) == 1
    printed = capsys.readouterr().out
    indented = "\n".join(line for line in printed.splitlines() if line.startswith("     "))
    assert seen[platform] in indented, printed
    for manifest in manifests_in(printed):
        if is_custom(manifest):
            check(manifest)


def test_a_platform_that_cannot_send_the_server_name_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path, None, targets=[{"sni": "api.example.com"}])
    assert doctor(config, captured(tmp_path, headers={}, **MESH), "--platform", "contour") == 1
    printed = capsys.readouterr().out
    assert "this platform cannot send it" in printed
    assert "byte by byte" not in printed


def test_a_manifest_that_helps_twice_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(configuration(tmp_path, BOUND, SOURCE), captured(tmp_path, headers={}, **MESH)) == 1
    printed = capsys.readouterr().out
    assert "\n2. Headers are not sent byte by byte" in printed
    assert printed.count("kind: EnvoyFilter") == 1
    assert "\n   The manifest above does this as well.\n" in printed


@pytest.mark.parametrize(
    ("parts", "title"), [(MESH, "Istio with sidecars"), ({}, "Envoy without a control plane")], ids=["mesh", "envoy"]
)
def test_the_platform_is_guessed_from_the_destination(
    parts: dict[str, Any], title: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(configuration(tmp_path, None), captured(tmp_path, **parts)) == 0
    assert f"The request looks like one of {title};" in capsys.readouterr().out


def test_a_caller_that_nobody_asks_about_needs_no_evidence(tmp_path: Path) -> None:
    assert doctor(configuration(tmp_path, None), captured(tmp_path, **COMPLETE)) == 0


def test_configured_sources_that_say_nothing_are_told_even_if_no_rule_needs_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(configuration(tmp_path, None, SOURCE), captured(tmp_path, destination_principal=WORKLOAD)) == 1
    assert "Nothing says who is on the connection" in capsys.readouterr().out


def test_a_self_signed_certificate_binds_and_is_nothing_to_talk_about(tmp_path: Path) -> None:
    config = configuration(tmp_path, BOUND, SOURCE, chain_verified_by="nobody")
    request = captured(tmp_path, source_certificate=envoy_certificate(self_signed().pem), source_principal="CN=self")
    assert doctor(config, request) == 0


def test_one_of_two_context_extensions_is_enough(tmp_path: Path) -> None:
    targets = [
        {"context_extensions": {"workload": "a", "zone": "c"}},
        {"context_extensions": {"workload": "b", "zone": "c"}},
    ]
    request = captured(tmp_path, context_extensions={"zone": "c"})
    assert doctor(configuration(tmp_path, None, targets=targets), request) == 0


def test_a_message_about_a_connection_is_of_the_wrong_filter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tcp.json").write_text('{"attributes": {"source": {}}}')
    assert doctor(configuration(tmp_path, None), str(tmp_path / "tcp.json")) == 1
    assert "1. The message is not about an HTTP request" in capsys.readouterr().out


def test_a_message_that_the_server_refuses_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = captured(tmp_path, headers={"host": "other.example.com"})
    assert doctor(configuration(tmp_path, None), request) == 1
    assert "1. The server refuses the message\n   a pseudo header contradicts" in capsys.readouterr().out


def test_a_request_can_come_on_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(captured(tmp_path, **COMPLETE)).read_text()))
    assert doctor(configuration(tmp_path, None), "-") == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("{"))
    assert doctor(configuration(tmp_path, None), "-") == 2
    assert "standard input: not a CheckRequest in protobuf JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not a mapping"),
        ("{", "not a CheckRequest in protobuf JSON"),
        ('{"attribute": {}}', "not a CheckRequest in protobuf JSON"),
        ('{"metadata": []}', "`metadata` is not a mapping of names to texts"),
        ('{"metadata": {"a": 1}}', "`metadata` is not a mapping of names to texts"),
    ],
)
def test_a_file_that_is_no_request_is_a_usage_error(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "request.json").write_text(text)
    assert doctor(configuration(tmp_path, None), str(tmp_path / "request.json")) == 2
    assert words in capsys.readouterr().err


def test_missing_files_and_wrong_names_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path, None)
    assert doctor(config, str(tmp_path / "none.json")) == 2
    assert doctor(str(tmp_path / "none.yaml")) == 2
    assert doctor(config, None, "--namespace", "No") == 2
    assert "the namespace is not" in capsys.readouterr().err


def test_what_is_printed_for_a_waypoint_is_what_integrate_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--gateway", "waypoint", "--target-namespace", "shop"]
    assert (
        doctor(configuration(tmp_path, IDENTIFIED, HEADER), captured(tmp_path), "--platform", "istio-ambient", *options)
        == 1
    )
    (manifest,) = manifests_in(capsys.readouterr().out)
    assert main(["integrate", "istio-ambient", "--only", "kubernetes", *options]) == 0
    assert manifest in list(yaml.safe_load_all(capsys.readouterr().out))
