"""What the chart renders, by the real Helm engine: its form, against schemas and golden files, and that all is used.

`EXT_AUTHZ_UPDATE_GOLDEN=1` writes the golden files and the schema of values anew.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from support.charts import CHART, CHARTS, Manifest, manifests, notes, of_kind, pod_of, render
from support.custom_resources import MAY_BUILD, judge
from support.manifests import check, is_custom

from ext_authz import __version__

pytestmark = MAY_BUILD

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
UPDATE = os.environ.get("EXT_AUTHZ_UPDATE_GOLDEN") == "1"


def values(case: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((HERE / "values" / f"{case}.yaml").read_text())
    return loaded


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths of a tree of mappings; an empty mapping or a list is a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


@pytest.mark.parametrize("case", CASES)
def test_every_rendered_object_of_kubernetes_fits_the_schema_of_its_kind(case: str) -> None:
    for manifest in manifests(values(case)):
        if not is_custom(manifest):
            check(manifest)


@pytest.mark.parametrize("case", CASES)
def test_every_rendered_custom_resource_fits_the_definition_of_its_kind(case: str) -> None:
    for manifest in manifests(values(case)):
        if is_custom(manifest):
            check(manifest)


def shortened(rendered: str) -> str:
    """Without empty lines, and without the alerts and dashboards, which have files of their own."""
    kept = []
    for document in re.split(r"^---$", rendered, flags=re.MULTILINE):
        lines = [line for line in document.splitlines() if line.strip()]
        if "kind: PrometheusRule" in lines or any("-dashboard-" in line for line in lines):
            end = next(number for number, line in enumerate(lines) if line in {"spec:", "data:"})
            lines = lines[: end + 1]
        kept.append("\n".join(lines))
    return "\n---\n".join(kept)


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_was_reviewed(case: str) -> None:
    text = "".join(f"##### {name}\n{shortened(rendered)}\n" for name, rendered in render(values(case)).items())
    golden = HERE / "golden" / f"{case}.txt"
    if UPDATE:
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_the_chart_has_no_findings_of_helm_lint(case: str) -> None:
    report = helm_python.lint(CHART, values(case), strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_every_value_is_set_to_something_else_in_one_of_the_cases() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    cases = [values(case) for case in CASES]
    unused = [
        ".".join(path)
        for path, default in leaves(defaults)
        if all((given := at(case, path)) is None or given == default for case in cases)
    ]
    assert unused == []


def test_every_value_has_a_place_in_the_schema_and_every_place_a_value() -> None:
    schema = _chart_generator().yaml.safe_load((CHARTS / "values.schema.yaml").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults)
    for name, part in schema["properties"].items():
        if "properties" in part and name != "global":
            assert set(part["properties"]) == set(defaults[name]), name


def test_the_schema_of_values_holds_that_of_the_servers_configuration() -> None:
    generator = _chart_generator()
    if UPDATE:
        generator.main()
    assert generator.TARGET.read_text() == generator.text()


def _chart_generator() -> Any:
    spec = importlib.util.spec_from_file_location("charts_generate", CHARTS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_chart_installs_the_version_it_comes_with() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"repilcas": 2}, "additional properties 'repilcas' not allowed"),
    ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    ({"kind": "StatefulSet"}, "at '/kind': value must be one of 'Deployment', 'DaemonSet'"),
    ({"service": {"port": 80}}, "at '/service/port': minimum: got 80, want 1,024"),
    ({"image": {"digest": "sha256:1"}}, "at '/image/digest'"),
    ({"config": {"log": {"level": "loud"}}}, "value must be one of 'debug', 'info', 'warning', 'error'"),
    ({"config": {"admin": "none"}}, "additional properties 'admin' not allowed"),
    ({"config": {"listener": {"address": "0.0.0.0:1"}}}, "additional properties 'address' not allowed"),
    ({"config": {"issuers": [{"name": "corp"}]}}, "missing properties 'issuer', 'keys'"),
    ({"config": {"evidence": {"certificate_sources": [{"type": "xfcc"}]}}}, "missing property 'trusted_hops'"),
    ({"policies": {"files": {"billing.json": "{}"}}}, "'billing.json'"),
    ({"trustBundles": [{"trustDomain": "a", "key": "b"}]}, "missing property 'configMap'"),
    ({"istio": {"workloads": [{"name": "a", "namespace": "b"}]}}, "missing property 'labels'"),
    ({"istio": {"workloads": [{"name": "a", "namespace": "b", "labels": {}}]}}, "at '/istio/workloads/0/labels'"),
    ({"istio": {"timeoutSeconds": 600}}, "at '/istio/timeoutSeconds': maximum: got 600, want 10"),
    ({"shutdown": {"marginSeconds": 0}}, "at '/shutdown/marginSeconds'"),
    ({"tls": {"enabled": True}}, "tls.enabled: there is no certificate; set tls.secretName"),
    ({"tls": {"enabled": True, "certificate": "a"}}, "set both tls.certificate and tls.privateKey"),
    ({"tls": {"enabled": True, "secretName": "a", "ca": "b"}}, "not both"),
    (
        {"tls": {"enabled": True, "certificate": "a", "privateKey": "b", "clientAuthentication": True}},
        "set tls.ca to the PEM certificates",
    ),
    ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "name the Issuer or ClusterIssuer"),
    (
        {"tls": {"enabled": True, "certificate": "a", "certManager": {"enabled": True}}},
        "cert-manager writes the Secret",
    ),
    ({"kind": "DaemonSet", "autoscaling": {"enabled": True}}, "a DaemonSet has one pod on each node"),
    ({"autoscaling": {"enabled": True, "minReplicas": 11}}, "minReplicas is more than autoscaling.maxReplicas"),
    (
        {
            "trustBundles": [
                {"trustDomain": "a", "key": "b", "secret": "c"},
                {"trustDomain": "a", "key": "b", "secret": "d"},
            ]
        },
        "the trust domain a is there twice",
    ),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_value_is_refused_and_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refusal:
        render(given)
    assert words in str(refusal.value)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_within_the_restricted_profile(case: str) -> None:
    objects = manifests(values(case))
    specs = [pod_of(objects)["spec"], *(item["spec"] for item in objects if item["kind"] == "Pod")]
    for spec in specs:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(volume.keys() & {"configMap", "secret"} for volume in spec.get("volumes", ()))
        for container in spec["containers"]:
            assert (
                container["securityContext"].items()
                >= {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }.items()
            )


@pytest.mark.parametrize("case", CASES)
def test_a_namespace_that_enforces_the_restricted_profile_takes_every_pod(case: str) -> None:
    objects = manifests(values(case))
    template = pod_of(objects)
    metadata = {"name": "a", "namespace": "b", **template["metadata"]}
    pods = [item for item in objects if item["kind"] == "Pod"]
    for pod in ({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, *pods):
        assert judge(pod) == []
        assert pod["spec"]["securityContext"].pop("runAsNonRoot")
        for container in pod["spec"]["containers"]:
            container["securityContext"].pop("runAsNonRoot", None)
        (wrong,) = judge(pod) or [""]
        assert wrong.startswith("runAsNonRoot != true")


@pytest.mark.parametrize("case", CASES)
def test_the_service_sends_checks_to_the_servers_and_to_nothing_else(case: str) -> None:
    objects = manifests(values(case))
    container = pod_of(objects)["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [item["spec"] for item in objects if item["kind"] == "Service"]
    assert services
    for service in services:
        selector = service["selector"].items()
        assert selector <= pod_of(objects)["metadata"]["labels"].items()
        for item in objects:
            if item["kind"] == "Pod":
                assert not selector <= item["metadata"]["labels"].items()
        for port in service["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize(
    ("case", "seconds"), [("default", 5 + 6 + 10 + 5), ("mesh", 10 + 6 + 23 + 7), ("edge", 0 + 6 + 10 + 5)]
)
def test_a_pod_has_the_time_it_needs_to_end(case: str, seconds: int) -> None:
    assert pod_of(manifests(values(case)))["spec"]["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(
    "change",
    [
        {"policies": {"files": {"other.yaml": "kind: RoutePolicy"}}},
        {"config": {"reload_seconds": 2}},
        {"config": {"listener": {"lame_duck_seconds": 6, "drain_seconds": 10}}},
    ],
    ids=["a policy", "a setting", "draining"],
)
def test_what_the_server_reads_while_it_runs_makes_no_new_pods(change: dict[str, Any]) -> None:
    before = {"policies": {"files": {"other.yaml": "kind: Other"}}}
    assert pod_of(manifests({**before, **change})) == pod_of(manifests(before))


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"listener": {"maximum_concurrent_streams": 2000}}},
        {"service": {"adminPort": 9002}},
        {"bindAddress": "[::]"},
    ],
    ids=["a limit", "the admin port", "the address"],
)
def test_what_the_server_reads_at_start_alone_makes_new_pods(change: dict[str, Any]) -> None:
    annotation = "ext-authz/listener"
    changed, unchanged = (pod_of(manifests(given))["metadata"]["annotations"][annotation] for given in (change, {}))
    assert changed != unchanged


def test_no_file_is_mounted_by_itself() -> None:
    for case in CASES:
        container = pod_of(manifests(values(case)))["spec"]["containers"][0]
        assert not any("subPath" in place for place in container["volumeMounts"])


def test_the_sidecar_snippet_is_a_part_of_a_pod() -> None:
    objects = manifests(values("edge"))
    snippet = yaml.safe_load(of_kind(objects, "ConfigMap", "edge-authz-sidecar")["data"]["pod.yaml"])
    pod: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, **snippet}
    check(pod)
    assert pod["spec"] == {key: pod_of(objects)["spec"][key] for key in ("containers", "volumes")}


def test_the_notes_say_what_to_do_next() -> None:
    text = notes({})
    assert "kubectl --namespace security rollout status deployment/edge-ext-authz\n" in text
    assert "helm --namespace security test edge\n" in text
    assert "every request is denied" in text
    assert "tokens cannot be bound" in text


def test_the_notes_of_a_mesh_have_the_provider_and_what_a_waypoint_cannot_do() -> None:
    text = notes(values("mesh"))
    assert "every request is denied" not in text
    assert "waypoint waypoint" in text
    assert "cannot check x5t#S256" in text


def test_alerts_and_dashboards_are_the_charts_files() -> None:
    given = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True, "files": {"own.json": "{}"}}}
    objects = manifests({"monitoring": given})
    files = CHART / "files"
    assert of_kind(objects, "PrometheusRule")["spec"] == yaml.safe_load((files / "alerts.yaml").read_text())
    dashboards = {
        name: text
        for item in objects
        if "grafana_dashboard" in item["metadata"]["labels"]
        for name, text in item["data"].items()
    }
    assert dashboards == {"own.json": "{}"} | {path.name: path.read_text() for path in files.glob("*.json")}


PAGE = CHARTS.parent / "docs" / "install-helm.md"
BLOCKS = re.findall(r"^```yaml values\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_values_that_the_documentation_shows_are_accepted(block: str) -> None:
    given = yaml.safe_load(block)
    for manifest in manifests(given):
        check(manifest)
    assert manifests(given) != manifests({})
