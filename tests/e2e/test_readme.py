"""What the README says to paste into Envoy and Istio."""

import json
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from ext_authz.demo.envoy import envoy_binary

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(kind: str) -> list[Any]:
    """The YAML blocks of one kind, read."""
    found = re.findall(rf"^ *```yaml {kind}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(dedent(text)) for text in found]


@pytest.mark.envoy
def test_envoy_accepts_the_filter(tmp_path: Path) -> None:
    (http_filter,) = blocks("envoy")
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {},
        "http_filters": [http_filter, {"name": "router", "typed_config": {"@type": router}}],
    }
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    bootstrap = {
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "ext-authz",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
                    },
                }
            ],
        }
    }
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(bootstrap))
    run = subprocess.run(
        [str(envoy_binary()), "--mode", "validate", "-c", str(config)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_istio_manifests_name_one_provider_and_an_explicit_timeout() -> None:
    install, policy = blocks("istio")
    (provider,) = install["spec"]["meshConfig"]["extensionProviders"]
    assert policy["spec"]["provider"]["name"] == provider["name"]
    assert policy["spec"]["action"] == "CUSTOM"
    grpc = provider["envoyExtAuthzGrpc"]
    # the fields that Istio's MeshConfig knows
    assert set(grpc) <= {
        "service", "port", "timeout", "failOpen", "clearRouteCache", "statusOnError", "includeRequestBodyInCheck",
    }  # fmt: skip
    assert grpc["timeout"] == "0.25s"
    assert grpc["failOpen"] is False
