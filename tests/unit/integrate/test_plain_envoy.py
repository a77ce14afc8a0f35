"""A real Envoy accepts the bootstrap that is printed."""

import subprocess
from pathlib import Path

import pytest
from support.envoys import require_binary, versions
from support.pki import authority

from ext_authz.integrate.catalogue import PLATFORMS, as_text
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
