"""A CheckRequest of a real Envoy, captured, and what `doctor` makes of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.envoys import INSTALLED, require_binary
from support.server import document, route_policy

pytestmark = [pytest.mark.envoy]

BOUND = {"name": "all", "matches": [{"path": {"value": "/"}}], "require": {"token": {"issuers": ["corp"]}}}
SPEC = {
    "evidence": {"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "proxy"},
    "issuers": [{"name": "corp", "issuer": "https://corp.example", "audiences": ["api"], "keys": {"discovery": True}}],
    "policies": ["policy.yaml"],
}


def test_what_an_envoy_sends_is_captured_and_shows_what_its_setup_lacks(tmp_path: Path) -> None:
    from ext_authz.demo.bootstrap import bootstrap  # noqa: PLC0415
    from ext_authz.demo.envoy import EnvoyProcess  # noqa: PLC0415
    from ext_authz.demo.proxy import CheckFilter, ProxyCluster, ProxyListener  # noqa: PLC0415

    (tmp_path / "server.yaml").write_text(document("Server", "test", SPEC))
    (tmp_path / "policy.yaml").write_text(route_policy(BOUND, name="policy"))
    command = [sys.executable, "-m", "ext_authz", "capture", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as capture:
        assert capture.stderr is not None
        address = capture.stderr.readline().partition("request at ")[2].partition(";")[0]
        check = CheckFilter(
            include_peer_certificate=False, include_tls_session=False, encode_raw_headers=False, timeout=600.0
        )
        clusters = (ProxyCluster("ext_authz", address, http2=True), ProxyCluster("upstream", "127.0.0.1:1"))
        config: Any = bootstrap((ProxyListener("edge", check=check),), clusters)
        (tmp_path / "envoy").mkdir()
        with EnvoyProcess(require_binary(INSTALLED), config, tmp_path / "envoy") as envoy:
            url = f"http://127.0.0.1:{envoy.ports['edge']}/orders?q=1"
            headers = {
                "host": "api.example.com",
                "authorization": "Bearer sesame",
                "x-envoy-auth-failure-mode-allowed": "true",
            }
            answer = httpx.get(url, headers=headers, trust_env=False, timeout=15)
        captured, _ = capture.communicate(timeout=20)
    assert answer.status_code == 403
    assert "sesame" not in captured
    doctor = [sys.executable, "-m", "ext_authz", "doctor", "--config", str(tmp_path / "server.yaml"), "--request", "-"]
    done = subprocess.run(doctor, input=captured, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    for words in (
        "Nothing says who is on the connection",
        "Headers are not sent byte by byte",
        "The proxy waits 600 seconds for a decision",
        "A proxy let this request pass without a decision",
    ):
        assert words in done.stdout
    assert "include_peer_certificate: true" in done.stdout
