"""What the rendered objects say of each other: selectors that select, ports that exist, targets that are there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.charts import Manifest, manifests, of_kind, pod_of

HERE = Path(__file__).parent
CASES = {path.stem: manifests(yaml.safe_load(path.read_text())) for path in sorted((HERE / "values").glob("*.yaml"))}
EVERYTHING = {
    *("Deployment", "DaemonSet", "Service", "ServiceAccount", "ConfigMap", "Secret"),
    *("PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
    *("ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate"),
    *("AuthorizationPolicy", "EnvoyFilter", "PeerAuthentication", "DestinationRule"),
    *("SecurityPolicy", "ClientTrafficPolicy", "ReferenceGrant"),
    *("ExtensionService", "GatewayExtension", "TrafficPolicy", "ListenerPolicy"),
    "Pod",  # `helm test`
}


def every(kind: str) -> Iterator[tuple[str, Manifest]]:
    """Each object of a kind, with its case; at least one."""
    found = [(case, item) for case, objects in CASES.items() for item in objects if item["kind"] == kind]
    assert found, kind
    yield from found


def labels_of_pods(case: str) -> dict[str, str]:
    labels: dict[str, str] = pod_of(CASES[case])["metadata"]["labels"]
    return labels


def ports_of_pods(case: str) -> set[str]:
    return {port["name"] for port in pod_of(CASES[case])["spec"]["containers"][0]["ports"]}


def test_the_cases_render_everything_that_the_chart_can() -> None:
    assert {item["kind"] for objects in CASES.values() for item in objects} == EVERYTHING


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Service", ("selector",)),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
        ("PodMonitor", ("selector", "matchLabels")),
    ],
)
def test_a_selector_selects_the_servers(kind: str, path: tuple[str, ...]) -> None:
    for case, item in every(kind):
        selected: Any = item["spec"]
        for name in path:
            selected = selected[name]
        assert selected
        assert selected.items() <= labels_of_pods(case).items()


def test_the_autoscaler_scales_the_deployment_which_then_says_no_number() -> None:
    for case, item in every("HorizontalPodAutoscaler"):
        target = item["spec"]["scaleTargetRef"]
        deployment = of_kind(CASES[case], target["kind"], target["name"])
        assert deployment["apiVersion"] == target["apiVersion"]
        assert "replicas" not in deployment["spec"]
        # a share of nothing is nothing
        container = pod_of(CASES[case])["spec"]["containers"][0]
        assert "cpu" in container["resources"]["requests"]


def test_replicas_are_spread_over_zones_and_nodes_and_never_held_up() -> None:
    spread = [case for case, _ in every("Deployment") if "topologySpreadConstraints" in pod_of(CASES[case])["spec"]]
    assert spread
    for case in spread:
        constraints = pod_of(CASES[case])["spec"]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for one in constraints:
            assert one["labelSelector"]["matchLabels"].items() <= labels_of_pods(case).items()
    for case, _ in every("DaemonSet"):
        assert "topologySpreadConstraints" not in pod_of(CASES[case])["spec"]


def test_an_update_takes_no_server_away_before_the_new_one_is_ready() -> None:
    for kind, name in (("Deployment", "strategy"), ("DaemonSet", "updateStrategy")):
        for _, item in every(kind):
            assert item["spec"][name]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_istio_reads_the_protocol_of_the_check_port() -> None:
    for _, item in every("Service"):
        (port,) = [port for port in item["spec"]["ports"] if port["targetPort"] == "grpc-check"]
        # `<protocol>[-suffix]`, and appProtocol where it is there
        assert port["name"].partition("-")[0] == "grpc"
        assert port["appProtocol"] in {"grpc", "kubernetes.io/h2c"}


def test_monitors_scrape_ports_and_services_that_are_there() -> None:
    for case, item in every("ServiceMonitor"):
        service = of_kind(CASES[case], "Service")
        assert item["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert {one["port"] for one in item["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
        assert item["spec"]["namespaceSelector"]["matchNames"] == [service["metadata"]["namespace"]]
    for case, item in every("PodMonitor"):
        assert {one["port"] for one in item["spec"]["podMetricsEndpoints"]} <= ports_of_pods(case)


def test_a_network_policy_opens_the_ports_that_there_are() -> None:
    for case, item in every("NetworkPolicy"):
        opened = {port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]}
        # besides those of the mesh, where there is one
        assert opened - {15008, 15020, 15090} == ports_of_pods(case)


def test_what_a_pod_mounts_is_rendered_or_named_by_the_values() -> None:
    for case, objects in CASES.items():
        values = yaml.safe_load((HERE / "values" / f"{case}.yaml").read_text())
        spec = pod_of(objects)["spec"]
        rendered = {item["metadata"]["name"] for item in objects if item["kind"] in {"ConfigMap", "Secret"}}
        certificates = {item["spec"]["secretName"] for item in objects if item["kind"] == "Certificate"}
        given = set(values.get("policies", {}).get("configMaps", ()))
        given |= {bundle.get("configMap") or bundle["secret"] for bundle in values.get("trustBundles", ())}
        given |= {values.get("tls", {}).get("secretName")}
        given |= {
            volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
            for volume in values.get("extraVolumes", ())
        }
        for volume in spec["volumes"]:
            name = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
            assert name in rendered | certificates | given, (case, volume)
        mounted = {place["name"] for place in spec["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_pods_run_as_the_account_that_is_made() -> None:
    for case, item in every("ServiceAccount"):
        assert pod_of(CASES[case])["spec"]["serviceAccountName"] == item["metadata"]["name"]


def test_grants_let_every_reference_across_namespaces_through() -> None:
    referring = {"SecurityPolicy", "GatewayExtension"}
    for case, objects in CASES.items():
        # the one that has an address
        (service,) = [
            item["metadata"]
            for item in objects
            if item["kind"] == "Service" and not item["metadata"]["name"].endswith("-headless")
        ]
        grants = [item["spec"] for item in objects if item["kind"] == "ReferenceGrant"]
        allowed = {(one["kind"], one["namespace"]) for grant in grants for one in grant["from"]}
        for item in objects:
            if item["kind"] in referring and item["metadata"]["namespace"] != service["namespace"]:
                assert (item["kind"], item["metadata"]["namespace"]) in allowed, case
        for grant in grants:
            assert grant["to"] == [{"group": "", "kind": "Service", "name": service["name"]}]
