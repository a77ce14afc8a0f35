"""What the chart hands to the server is what the server takes, and a swapped ConfigMap is seen."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.charts import manifests, mount, of_kind
from support.pki import authority
from support.server import ServerProcess, route_policy, server_spec

from ext_authz.config.settings import Configuration
from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import assemble, assemble_watched

HERE = Path(__file__).parent
ROOT = authority("cluster.local")
SERVING = ROOT.svid("spiffe://cluster.local/ns/security/sa/authz")
PUBLIC = route_policy({"name": "all", "matches": [{"path": {"value": "/"}}], "public": True}, name="public")
OTHERS = {
    "istio-ca-root-cert": {"root-cert.pem": ROOT.pem.decode()},
    "partner-ca": {"ca.crt": authority("partner.example").pem.decode()},
    "team-a": {"public.yaml": PUBLIC},
    "team-b": {},
    "extra-policies": {"extra.yaml": PUBLIC.replace('"public"', '"extra"').replace("RoutePolicy", "RoutePolicy", 1)},
    "edge-authz-tls": {
        "tls.crt": SERVING.pem.decode(),
        "tls.key": SERVING.key_pem.decode(),
        "ca.crt": ROOT.pem.decode(),
    },
    "authz-serving": {"tls.crt": SERVING.pem.decode(), "tls.key": SERVING.key_pem.decode()},
}
OTHERS["extra-policies"]["extra.yaml"] = yaml.safe_dump(
    {
        "apiVersion": "ext-authz/v1alpha1",
        "kind": "RoutePolicy",
        "metadata": {"name": "extra"},
        "spec": {
            "hostnames": ["extra.example.com"],
            "rules": [{"name": "all", "matches": [{"path": {"value": "/"}}], "public": True}],
        },
    }
)


def values(case: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((HERE / "values" / f"{case}.yaml").read_text())
    return loaded


def loaded(given: dict[str, Any], root: Path) -> Configuration:
    """What the server makes of a pod's files."""
    return assemble(str(mount(manifests(given), OTHERS, root))).configuration


def test_the_defaults_are_a_server_that_denies_everything(tmp_path: Path) -> None:
    configuration = loaded(values("default"), tmp_path)
    assert configuration.listener.address == "0.0.0.0:9000"
    assert configuration.admin.address == "0.0.0.0:9001"
    assert configuration.policies == ()
    assert configuration.warnings == ()


def test_values_for_a_mesh_are_a_server_without_warnings(tmp_path: Path) -> None:
    configuration = loaded(values("mesh"), tmp_path)
    assert {policy.name for policy in configuration.policies} == {"billing", "health"}
    assert configuration.listener.drain_seconds == 22.5
    assert configuration.listener.maximum_message_bytes == 2_097_152
    assert configuration.key_fetch.stale_seconds == 43_200
    assert configuration.evidence.chain_verified_by_proxy
    assert configuration.canonical_paths == {"merge_slashes"}
    assert not configuration.log.allowed
    assert configuration.warnings == ()


def test_values_for_an_edge_bring_certificates_bundles_and_policies_of_others(tmp_path: Path) -> None:
    configuration = loaded(values("edge"), tmp_path)
    assert {policy.name for policy in configuration.policies} == {"public", "extra"}
    assert [str(bundle.trust_domain) for bundle in configuration.bundles] == ["cluster.local", "partner.example"]
    assert configuration.listener.address == "[::]:9443"
    assert configuration.listener.tls is not None
    assert configuration.listener.tls.client_ca_file == f"{tmp_path}/etc/ext-authz/tls/ca.crt"


def test_a_certificate_of_cert_manager_is_served_without_asking_for_clients(tmp_path: Path) -> None:
    configuration = loaded(values("cert-manager"), tmp_path)
    assert configuration.listener.tls is not None
    assert configuration.listener.tls.client_ca_file is None


def with_policy(text: str) -> dict[str, Any]:
    return {"policies": {"files": {"policy.yaml": text}}}


def test_a_policy_that_changes_in_its_config_map_is_seen_and_loaded(tmp_path: Path) -> None:
    file = str(mount(manifests(with_policy(PUBLIC)), {}, tmp_path))
    assembly, watch = assemble_watched(file)
    assert [policy.name for policy in assembly.configuration.policies] == ["public"]
    assert watch.changed() == ()
    mount(manifests(with_policy(PUBLIC.replace('"public"', '"open"', 1))), {}, tmp_path)
    assert watch.changed() != ()


def test_a_policy_that_comes_later_is_seen_and_loaded(tmp_path: Path) -> None:
    given = {"policies": {"configMaps": ["team"]}}
    file = str(mount(manifests(given), {"team": {}}, tmp_path))
    assembly, watch = assemble_watched(file)
    assert assembly.configuration.policies == ()
    mount(manifests(given), {"team": {"first.yaml": PUBLIC}}, tmp_path)
    assert watch.changed() != ()
    assert [policy.name for policy in assemble(file).configuration.policies] == ["public"]


def test_a_policy_with_a_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    file = str(mount(manifests(with_policy(PUBLIC.replace('"public": true', '"public": "yes"'))), {}, tmp_path))
    with pytest.raises(ConfigurationError) as error:
        assemble(file)
    assert f"{tmp_path}/etc/ext-authz/policies/files/policy.yaml:" in error.value.problems[0]


def test_helm_test_passes_against_a_server_that_serves_and_fails_without_one(tmp_path: Path) -> None:
    (container,) = of_kind(manifests(), "Pod")["spec"]["containers"]
    assert container["command"][:2] == ["python", "-c"]
    script = container["command"][2]
    given = {item["name"]: item["value"] for item in container["env"]}

    def run(check: str, admin: str, **others: str) -> subprocess.CompletedProcess[str]:
        ports = {"HOST": "127.0.0.1", "CHECK_PORT": check.rpartition(":")[2], "ADMIN_PORT": admin.rpartition(":")[2]}
        environment = {**os.environ, **given, **ports, **others}
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    with ServerProcess(tmp_path, server_spec(policies=["policy.yaml"]), policy__yaml=PUBLIC) as server:
        listening = server.events("listening")[0]
        check, admin = listening["check"], listening["admin"]
        done = run(check, admin)
        assert (done.returncode, done.stdout) == (0, "ok\nthe Check service is serving\n"), done.stderr
        assert run(check, admin, PLAIN="false").stdout == "ok\nthe Check service takes connections\n"
        # a port where nobody speaks gRPC
        assert run(admin, admin).returncode != 0
    assert run(check, admin).returncode != 0
