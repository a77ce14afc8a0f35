"""A real Envoy accepts the bootstrap that is printed."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.envoys import require_binary, versions
from support.pki import authority

from ext_authz.integrate.catalogue import PLATFORMS, as_text
from ext_authz.integrate.finding import Remedies
from ext_authz.integrate.istio import peer_certificate_filter
from ext_authz.integrate.plain_envoy import bootstrap
from ext_authz.integrate.platform import Destination
from ext_authz.integrate.setup import Setup


def validate(version: str, text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    root = authority("cluster.local")
    server = root.svid("spiffe://cluster.local/ns/edge/sa/gateway")
    for name, content in (("tls.crt", server.pem), ("tls.key", server.key_pem), ("ca.crt", root.pem)):
        (directory / name).write_bytes(content)
    file = directory / "envoy.yaml"
    file.write_text(text.replace("/etc/envoy/tls/", f"{directory}/"))
    command = [str(require_binary(version)), "--mode", "validate", "--config-path", str(file), "--log-level", "error"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.envoy
@pytest.mark.parametrize("version", versions())
def test_envoy_accepts_the_printed_bootstrap(version: str, tmp_path: Path) -> None:
    text = as_text(PLATFORMS["envoy"], Setup(), [Destination.ENVOY])
    done = validate(version, text, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout


@pytest.mark.envoy
@pytest.mark.parametrize("version", versions()[:1])
def test_envoy_would_refuse_a_misspelt_field(version: str, tmp_path: Path) -> None:
    text = as_text(PLATFORMS["envoy"], Setup(), [Destination.ENVOY])
    done = validate(version, text.replace("include_peer_certificate", "include_peer_certificates"), tmp_path)
    assert done.returncode != 0


@pytest.mark.envoy
@pytest.mark.parametrize("version", versions()[:1])
@pytest.mark.parametrize("context", ["SIDECAR_INBOUND", "GATEWAY"])
def test_envoy_accepts_the_filter_that_istio_makes_with_the_patch_merged_in(
    version: str, context: str, tmp_path: Path
) -> None:
    document: Any = peer_certificate_filter(Setup(), context)
    (patch,) = document["spec"]["configPatches"]
    assert patch["patch"]["operation"] == "MERGE"
    merged = patch["patch"]["value"]["typed_config"]
    whole: Any = yaml.safe_load(yaml.safe_dump(bootstrap(Setup())))
    manager = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    named = patch["match"]["listener"]["filterChain"]["filter"]
    assert named["subFilter"]["name"] == manager["http_filters"][0]["name"]
    own = {
        "@type": merged["@type"],
        "transport_api_version": "V3",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "ext-authz", "authority": "ext-authz.ext-authz.svc.cluster.local"},
            "timeout": "0.250s",
        },
        "status_on_error": {"code": "ServiceUnavailable"},
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz-ext-authz"}},
        },
    }
    manager["http_filters"][0]["typed_config"] = {**own, **merged}
    done = validate(version, yaml.safe_dump(whole), tmp_path)
    assert done.returncode == 0, done.stderr
    manager["http_filters"][0]["typed_config"]["include_peer_certificates"] = True
    assert validate(version, yaml.safe_dump(whole), tmp_path).returncode != 0


def test_what_doctor_shows_of_envoy_stands_in_the_printed_bootstrap() -> None:
    listener = yaml.safe_load(yaml.safe_dump(bootstrap(Setup())))["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    remedies = Remedies("envoy", Setup())
    assert remedies.xfcc is not None
    assert remedies.xfcc.items() <= manager.items()
    assert remedies.extensions is not None
    assert remedies.extensions.items() <= manager["route_config"]["virtual_hosts"][0].items()
