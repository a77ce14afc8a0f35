"""The chart's objects for proxies are those that `ext-authz integrate` prints, and a real Envoy reads them."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.charts import NAMESPACE, Manifest, manifests, notes, of_kind
from support.envoys import require_binary, versions
from support.pki import authority

from ext_authz.integrate.contour import extension_service, http_proxy
from ext_authz.integrate.gateway_api import (
    client_traffic_policy,
    external_auth_route,
    gateway_extension,
    listener_policy,
    reference_grant,
    security_policy,
    traffic_policy,
)
from ext_authz.integrate.istio import authorization_policy, mesh_provider, peer_certificate_filter
from ext_authz.integrate.plain_envoy import check_cluster, check_filter
from ext_authz.integrate.platform import Document
from ext_authz.integrate.setup import Setup

SERVICE = "authz"
ROOT = authority("cluster.local")
SETUP = Setup(
    namespace=NAMESPACE,
    service=SERVICE,
    port=9443,
    timeout=0.125,
    target_namespace="shop",
    selector={"app": "shop"},
    gateway="public",
)


def rendered(**values: Any) -> list[Manifest]:
    return manifests({"fullnameOverride": SERVICE, "service": {"port": 9443}, **values})


def spec(document: Document) -> Any:
    return document["spec"]


@pytest.mark.parametrize(("gateway", "context"), [(False, "SIDECAR_INBOUND"), (True, "GATEWAY")])
def test_a_workload_of_istio(gateway: bool, context: str) -> None:
    workload = {"name": "shop", "namespace": "shop", "labels": {"app": "shop"}, "gateway": gateway}
    objects = rendered(istio={"enabled": True, "workloads": [workload]})
    policy, patch = of_kind(objects, "AuthorizationPolicy"), of_kind(objects, "EnvoyFilter")
    selector = {"selector": {"matchLabels": {"app": "shop"}}}
    assert policy["spec"] == spec(authorization_policy(SETUP, selector))
    assert patch["spec"] == spec(peer_certificate_filter(SETUP, context))
    assert {policy["metadata"]["namespace"], patch["metadata"]["namespace"]} == {"shop"}


def test_a_waypoint_has_no_certificate_to_send() -> None:
    objects = rendered(istio={"enabled": True, "workloads": [{"name": "a", "namespace": "shop", "waypoint": "public"}]})
    references = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"}]}
    assert of_kind(objects, "AuthorizationPolicy")["spec"] == spec(authorization_policy(SETUP, references))
    assert not any(item["kind"] == "EnvoyFilter" for item in objects)


def test_nothing_of_istio_is_there_unless_it_is_enabled() -> None:
    workload = {"name": "shop", "namespace": "shop", "labels": {"app": "shop"}}
    objects = rendered(
        istio={"workloads": [workload], "peerAuthentication": {"enabled": True}, "destinationRule": {"enabled": True}}
    )
    assert not any(item["apiVersion"].split("/")[0].endswith("istio.io") for item in objects)


def test_the_providers_entry_in_the_notes() -> None:
    given = {
        "fullnameOverride": SERVICE,
        "service": {"port": 9443},
        "istio": {"enabled": True, "timeoutSeconds": 0.125},
    }
    text = notes(given)
    entry = re.search(r"^  meshConfig:\n(?:    .*\n)+", text, re.MULTILINE)
    assert entry is not None, text
    assert yaml.safe_load(entry[0]) == yaml.safe_load(yaml.safe_dump(mesh_provider(SETUP)))


def test_a_gateway_of_envoy_gateway() -> None:
    gateway = {"name": "public", "namespace": "shop", "clientCaSecret": "client-ca"}
    objects = rendered(envoyGateway={"timeoutSeconds": 0.125, "gateways": [gateway]})
    assert of_kind(objects, "SecurityPolicy")["spec"] == spec(security_policy(SETUP))
    assert of_kind(objects, "ClientTrafficPolicy")["spec"] == spec(client_traffic_policy(SETUP))
    grant = reference_grant(SETUP, "gateway.envoyproxy.io", "SecurityPolicy")
    assert of_kind(objects, "ReferenceGrant")["spec"] == spec(grant)


def test_a_gateway_in_the_servers_own_namespace_needs_no_grant() -> None:
    objects = rendered(envoyGateway={"gateways": [{"name": "public", "namespace": NAMESPACE}]})
    assert not any(item["kind"] == "ReferenceGrant" for item in objects)


def test_a_gateway_of_kgateway() -> None:
    objects = rendered(kgateway={"timeoutSeconds": 0.125, "gateways": [{"name": "public", "namespace": "shop"}]})
    extension, policy = of_kind(objects, "GatewayExtension"), of_kind(objects, "TrafficPolicy")
    assert extension["spec"] == spec(gateway_extension(SETUP))
    assert of_kind(objects, "ListenerPolicy")["spec"] == spec(listener_policy(SETUP))
    # the chart may serve several Gateways of one namespace, so the extension has the Gateway in its name
    assert policy["spec"]["extAuth"]["extensionRef"] == {"name": extension["metadata"]["name"]}
    renamed = {**policy["spec"]["extAuth"], "extensionRef": {"name": "ext-authz"}}
    assert {**policy["spec"], "extAuth": renamed} == spec(traffic_policy(SETUP))
    grant = reference_grant(SETUP, "gateway.kgateway.dev", "GatewayExtension")
    assert of_kind(objects, "ReferenceGrant")["spec"] == spec(grant)


def test_a_kgateway_that_cannot_pass_on_the_certificate_is_not_asked_to() -> None:
    gateways = [{"name": "public", "namespace": "shop"}]
    objects = rendered(kgateway={"forwardClientCertDetails": False, "gateways": gateways})
    assert not any(item["kind"] == "ListenerPolicy" for item in objects)


def test_contour() -> None:
    given = {"contour": {"enabled": True, "timeoutSeconds": 0.125}}
    assert of_kind(rendered(**given), "ExtensionService")["spec"] == spec(extension_service(SETUP))
    text = notes({"fullnameOverride": SERVICE, **given})
    snippet = yaml.safe_load(text[text.index("  spec:\n    virtualhost:") : text.index("\nCheck is plain")])
    expected = dict(spec(http_proxy(SETUP))["virtualhost"]["authorization"])
    expected.pop("authPolicy")
    expected["extensionRef"] = {**expected["extensionRef"], "name": SERVICE}
    assert snippet["spec"]["virtualhost"]["authorization"] == expected


def test_the_filter_of_the_gateway_api() -> None:
    given = {"gatewayApi": {"namespaces": ["shop"]}}
    grant = reference_grant(SETUP, "gateway.networking.k8s.io", "HTTPRoute")
    assert of_kind(rendered(**given), "ReferenceGrant")["spec"] == spec(grant)
    text = notes({"fullnameOverride": SERVICE, "service": {"port": 9443}, **given})
    snippet = yaml.safe_load(text[text.index("  filters:") : text.index("\nCheck is plain")])
    assert snippet["filters"] == spec(external_auth_route(SETUP))["rules"][0]["filters"]


def test_a_plain_envoy() -> None:
    objects = rendered(envoy={"enabled": True, "timeoutSeconds": 0.125})
    data = of_kind(objects, "ConfigMap", f"{SERVICE}-envoy")["data"]
    assert yaml.safe_load(data["http-filter.yaml"]) == check_filter(SETUP)
    # by itself it balances over the address of each pod
    headless = replace(SETUP, service=f"{SERVICE}-headless")
    assert yaml.safe_load(data["cluster.yaml"]) == check_cluster(headless)


@pytest.mark.envoy
@pytest.mark.parametrize("tls", [{}, {"secretName": "tls"}, {"secretName": "tls", "clientAuthentication": True}])
@pytest.mark.parametrize("version", versions()[:1])
def test_a_real_envoy_accepts_filter_and_cluster(version: str, tls: dict[str, Any], tmp_path: Path) -> None:
    objects = rendered(envoy={"enabled": True}, tls={"enabled": bool(tls), **tls})
    data = of_kind(objects, "ConfigMap", f"{SERVICE}-envoy")["data"]
    cluster = yaml.safe_load(data["cluster.yaml"])
    assert ("transport_socket" in cluster) is bool(tls)
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"name": "test"},
        "http_filters": [
            yaml.safe_load(data["http-filter.yaml"]),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [network]}],
    }
    leaf = ROOT.svid("spiffe://cluster.local/ns/gateways/sa/envoy")
    for name, content in (("tls.crt", leaf.pem), ("tls.key", leaf.key_pem), ("ca.crt", ROOT.pem)):
        (tmp_path / name).write_bytes(content)
    text = yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    file = tmp_path / "envoy.yaml"
    file.write_text(text.replace("/etc/envoy/ext-authz/", f"{tmp_path}/"))
    command = [str(require_binary(version)), "--mode", "validate", "--config-path", str(file), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
