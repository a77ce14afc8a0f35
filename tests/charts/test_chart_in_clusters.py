"""What comes out for values that are right and unusual, where a cluster would refuse it, or take it and not work."""

import json
from typing import Any

import helm_python
import pytest
import yaml
from support.charts import NAMESPACE, Manifest, manifests, notes, of_kind, pod_of, render
from support.manifests import check, is_custom

from ext_authz.integrate.plain_envoy import check_cluster
from ext_authz.integrate.setup import Setup

METRICS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
PROXIES = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}


def network_policy(values: dict[str, Any]) -> Any:
    spec = of_kind(
        manifests({**values, "networkPolicy": {"enabled": True, **values.get("networkPolicy", {})}}), "NetworkPolicy"
    )
    check(spec)
    return spec["spec"]


def rule_for(rules: Any, port: object) -> Any:
    (rule,) = [rule for rule in rules if port in [one["port"] for one in rule["ports"]]]
    return rule


@pytest.mark.parametrize(
    "values",
    [
        {"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}},
        {
            "commonLabels": {"release": "a"},
            "monitoring": {
                "serviceMonitor": {"enabled": True, "labels": {"release": "b"}},
                "prometheusRule": {"enabled": True, "labels": {"release": "b"}},
            },
        },
        {
            "commonLabels": {"release": "a"},
            "monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "b"}}},
        },
    ],
    ids=["pods", "a service's monitor and the rules", "a pods' monitor"],
)
def test_the_more_special_of_two_labels_of_one_name_counts(values: dict[str, Any]) -> None:
    # each name once: `manifests` refuses one that is there twice, as the API server does
    objects = manifests(values)
    if "podLabels" in values:
        assert pod_of(objects)["metadata"]["labels"]["team"] == "b"
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        for item in (item for item in objects if item["kind"] == kind):
            assert item["metadata"]["labels"]["release"] == "b"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"podLabels": {"app.kubernetes.io/name": "other"}},
            "podLabels: the chart itself writes app.kubernetes.io/name",
        ),
        ({"commonLabels": {"helm.sh/chart": "a"}}, "commonLabels: the chart itself writes helm.sh/chart"),
        (
            {"monitoring": {"podMonitor": {"labels": {"app.kubernetes.io/instance": "a"}}}},
            "monitoring.podMonitor.labels: the chart itself writes app.kubernetes.io/instance",
        ),
        ({"commonLabels": {"team": "a b"}}, "at '/commonLabels/team'"),
        ({"service": {"port": 9001}}, "service.adminPort is the same as service.port"),
        ({"workers": 2, "config": {"listener": {"workers": 4}}}, "config.listener.workers says how many already"),
        (
            {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "every server is scraped, and counted, twice",
        ),
        (
            {"autoscaling": {"enabled": True}, "resources": {"requests": None}},
            "measured against resources.requests.cpu",
        ),
        (
            {
                "tls": {"enabled": True, "secretName": "a"},
                "istio": {"enabled": True, "destinationRule": {"enabled": True}},
            },
            "set SIMPLE or MUTUAL",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_what_to_write(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refusal:
        render(values)
    assert words in str(refusal.value)


def test_a_limit_of_processors_is_enough_for_the_autoscaler() -> None:
    # Kubernetes takes a limit for the request where none is set
    of_kind(
        manifests({"autoscaling": {"enabled": True}, "resources": {"requests": None, "limits": {"cpu": "2"}}}),
        "HorizontalPodAutoscaler",
    )


def test_names_as_long_as_they_may_be_fit_into_labels() -> None:
    for manifest in manifests({"nameOverride": "a" * 63}):
        check(manifest)
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
        assert len(manifest["metadata"]["name"]) <= 63


def test_objects_of_others_may_have_dots_in_their_names() -> None:
    objects = manifests(
        {
            "tls": {"enabled": True, "secretName": "authz.example.com"},
            "policies": {"configMaps": ["billing.policies"]},
            "trustBundles": [{"trustDomain": "a.example", "secret": "a.example.ca", "key": "ca.crt"}],
        }
    )
    sources = json.dumps(pod_of(objects)["spec"]["volumes"])
    for name in ("authz.example.com", "billing.policies", "a.example.ca"):
        assert f'"{name}"' in sources


def test_a_daemon_set_has_no_disruption_budget_because_nothing_could_be_counted_from_it() -> None:
    kinds = {item["kind"] for item in manifests({"kind": "DaemonSet"})}
    assert "PodDisruptionBudget" not in kinds
    assert "PodDisruptionBudget" in {item["kind"] for item in manifests()}


def test_one_replica_can_be_drained() -> None:
    budget = of_kind(manifests({"replicas": 1}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_a_network_policy_lets_the_pod_of_helm_test_in() -> None:
    objects = manifests({"networkPolicy": {"enabled": True, "checkFrom": [PROXIES], "metricsFrom": [METRICS]}})
    labels = of_kind(objects, "Pod")["metadata"]["labels"]
    ingress = of_kind(objects, "NetworkPolicy")["spec"]["ingress"]
    for port, others in (("grpc-check", PROXIES), ("http-admin", METRICS)):
        peers = rule_for(ingress, port)["from"]
        assert others in peers
        (test,) = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
        assert test.items() <= labels.items()
    without = network_policy({"tests": {"enabled": False}, "networkPolicy": {"checkFrom": [PROXIES]}})
    assert rule_for(without["ingress"], "grpc-check")["from"] == [PROXIES]


def test_a_network_policy_lets_everyone_in_where_nobody_is_named() -> None:
    for rule in network_policy({"istio": {"enabled": True}})["ingress"]:
        assert "from" not in rule


def test_a_network_policy_in_a_mesh_lets_through_what_the_mesh_needs() -> None:
    outside = network_policy({})
    assert {port["port"] for rule in outside["ingress"] for port in rule["ports"]} == {"grpc-check", "http-admin"}
    given: dict[str, Any] = {
        "checkFrom": [PROXIES],
        "metricsFrom": [METRICS],
        "egress": [{"ports": [{"port": 8443, "protocol": "TCP"}]}],
    }
    inside = network_policy({"istio": {"enabled": True}, "tests": {"enabled": False}, "networkPolicy": given})
    # an ambient mesh brings both kinds of connections on one port, and the kubelet's probes from an address of its own
    assert rule_for(inside["ingress"], 15008)["from"] == [PROXIES, METRICS]
    probes = [
        peer["ipBlock"]["cidr"] for peer in rule_for(inside["ingress"], "http-admin")["from"] if "ipBlock" in peer
    ]
    assert probes == ["169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"]
    # Prometheus reads a sidecar's port where metrics are merged
    assert rule_for(inside["ingress"], 15020)["from"] == [METRICS]
    # a sidecar that cannot ask istiod never becomes ready, whatever was named as the place of keys
    assert rule_for(inside["egress"], 15012) == rule_for(inside["egress"], 15008)
    assert rule_for(inside["egress"], 8443) == given["egress"][0]


def test_a_network_policy_opens_the_ports_that_the_configuration_names() -> None:
    def issuer(name: str, issuer: str, **keys: object) -> dict[str, Any]:
        return {"name": name, "issuer": issuer, "audiences": ["a"], "keys": keys, "insecure_allow_http": True}

    config = {
        "issuers": [
            issuer("a", "https://a.example.com:8443/realms/a", discovery=True),
            issuer("b", "https://b.example.com:9999", url="http://keycloak.iam.svc:8080/certs"),
            issuer("c", "https://c.example.com", metadata_url="http://c.example.com/metadata"),
            issuer("d", "urn:d", inline={"keys": []}),
            issuer("e", "https://[2001:db8::1]/", discovery=True),
        ],
        "telemetry": {"traces": {"endpoint": "http://otel-collector:4318/v1/traces"}},
    }
    egress = network_policy({"config": config})["egress"]
    assert [port["port"] for port in egress[1]["ports"]] == [443, 8443, 8080, 80, 4318]
    assert [port["port"] for port in network_policy({})["egress"][1]["ports"]] == [443]


def test_a_sidecar_of_istio_is_there_before_the_server_asks_for_keys_and_as_long_as_it_answers() -> None:
    shutdown = {"delaySeconds": 7, "marginSeconds": 3}
    listener = {"lame_duck_seconds": 4, "drain_seconds": 9.5}
    values: dict[str, Any] = {"istio": {"enabled": True}, "shutdown": shutdown, "config": {"listener": listener}}
    pod = pod_of(manifests(values))
    # without it a sidecar ends five seconds after the pod is told to, and the server behind it cannot be reached
    sidecar = yaml.safe_load(pod["metadata"]["annotations"]["proxy.istio.io/config"])
    assert sidecar == {"holdApplicationUntilProxyStarts": True, "terminationDrainDuration": "21s"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 24
    own = pod_of(manifests({**values, "podAnnotations": {"proxy.istio.io/config": "{}"}}))
    assert own["metadata"]["annotations"]["proxy.istio.io/config"] == "{}"
    assert "proxy.istio.io/config" not in pod_of(manifests())["metadata"]["annotations"]


def test_the_container_is_restricted_by_itself_beside_an_envoy_that_is_not() -> None:
    objects = manifests({"sidecar": {"enabled": True}})
    snippet = yaml.safe_load(of_kind(objects, "ConfigMap", "edge-ext-authz-sidecar")["data"]["pod.yaml"])
    (container,) = snippet["spec"]["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("headless", [False, True])
def test_a_plain_envoy_gets_the_address_of_each_pod(headless: bool) -> None:
    objects = manifests({"envoy": {"enabled": True}, "service": {"headless": headless}})
    files = of_kind(objects, "ConfigMap", "edge-ext-authz-envoy")["data"]
    cluster = yaml.safe_load(files["cluster.yaml"])
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]["address"]
    service = of_kind(objects, "Service", address.partition(".")[0])
    assert address == f"{service['metadata']['name']}.{NAMESPACE}.svc.cluster.local"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod_of(objects)["metadata"]["labels"].items()
    assert cluster == check_cluster(Setup(namespace=NAMESPACE, service=service["metadata"]["name"], timeout=0.25))


def test_a_plain_envoy_that_shall_ask_on_its_own_node_gets_one_address() -> None:
    service = {"internalTrafficPolicy": "Local"}
    objects = manifests({"kind": "DaemonSet", "envoy": {"enabled": True}, "service": service})
    cluster = of_kind(objects, "ConfigMap", "edge-ext-authz-envoy")["data"]["cluster.yaml"]
    assert of_kind(objects, "Service")["spec"]["internalTrafficPolicy"] == "Local"
    assert f"address: edge-ext-authz.{NAMESPACE}.svc.cluster.local," in cluster


def test_nobody_is_scraped_twice_because_of_a_second_service() -> None:
    objects = manifests({"envoy": {"enabled": True}, "monitoring": {"serviceMonitor": {"enabled": True}}})
    monitor = of_kind(objects, "ServiceMonitor")["spec"]
    (port,) = [one["port"] for one in monitor["endpoints"]]
    scraped = [
        item["metadata"]["name"]
        for item in objects
        if item["kind"] == "Service" and port in {one["name"] for one in item["spec"]["ports"]}
    ]
    assert scraped == ["edge-ext-authz"]


def test_another_domain_of_the_cluster_is_in_every_name() -> None:
    values = {
        "clusterDomain": "example.internal",
        "tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "a"}}},
        "istio": {"enabled": True, "destinationRule": {"enabled": True, "tlsMode": "SIMPLE"}},
        "envoy": {"enabled": True},
    }
    text = "".join(render(values).values())
    assert "cluster.local" not in text
    assert text.count(f"edge-ext-authz.{NAMESPACE}.svc.example.internal") >= 5


def test_istio_is_told_more_about_the_servers_certificate() -> None:
    tls = {"caCertificates": "/etc/ext-authz/ca.crt", "subjectAltNames": ["authz.example.com"]}
    rule = of_kind(
        manifests(
            {
                "tls": {"enabled": True, "secretName": "a"},
                "istio": {"enabled": True, "destinationRule": {"enabled": True, "tlsMode": "SIMPLE", "tls": tls}},
            }
        ),
        "DestinationRule",
    )
    assert is_custom(rule)
    check(rule)
    assert rule["spec"]["trafficPolicy"]["tls"] == {"mode": "SIMPLE", **tls}


def test_the_alert_of_old_keys_comes_before_they_are_dropped() -> None:
    def expression(config: dict[str, Any]) -> str:
        given = {"config": config, "monitoring": {"prometheusRule": {"enabled": True}}}
        (group,) = of_kind(manifests(given), "PrometheusRule")["spec"]["groups"]
        (rule,) = [rule for rule in group["rules"] if rule["alert"] == "ExtAuthzKeysOld"]
        return str(rule["expr"])

    assert expression({}).endswith(" > 43200")
    assert expression({"key_fetch": {"stale_seconds": 43_200}}).endswith(" > 21600")
    assert expression({"key_fetch": {"stale_seconds": 7200.5}}).endswith(" > 3600")


def test_the_pod_of_helm_test_goes_where_the_servers_go() -> None:
    values: dict[str, Any] = {
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    }
    pod: Manifest = of_kind(manifests(values), "Pod")
    check(pod)
    assert pod["spec"]["nodeSelector"] == values["nodeSelector"]
    assert pod["spec"]["tolerations"] == values["tolerations"]
    # Istio reads labels; the annotation of the same name is deprecated
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


def test_the_notes_say_that_an_image_without_a_registry_is_on_no_node() -> None:
    assert "names no registry" in notes()
    assert "names no registry" not in notes({"image": {"repository": "registry.example.com/ext-authz"}})


def test_the_notes_say_what_istio_must_know_of_a_server_with_tls() -> None:
    tls = {"enabled": True, "secretName": "a"}
    assert "tlsMode SIMPLE" in notes({"tls": tls, "istio": {"enabled": True}})
    rule = {"enabled": True, "tlsMode": "SIMPLE"}
    assert "tlsMode SIMPLE" not in notes({"tls": tls, "istio": {"enabled": True, "destinationRule": rule}})
