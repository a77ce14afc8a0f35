"""Configuration that is wrong, and files that are missing, as they come in Kubernetes: what a real server does and says.

ConfigMaps and Secrets are laid out as the kubelet does it: symlinks into `..data`, itself a symlink that is swapped.
"""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import pki
from support.charts import project_files
from support.check_requests import check_request, envoy_certificate
from support.server import START_SECONDS, ServerProcess, document, route_policy, server_spec

CA = pki.authority()
SERVING = CA.leaf(dns_sans=["localhost"])
LATER = CA.leaf(key=pki.ec_key("later"), dns_sans=["localhost"])
KEYS = json.dumps(
    {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
)
ISSUER = {
    "name": "corp",
    "issuer": "https://login.example.com",
    "audiences": ["https://api.example.com"],
    "keys": {"file": "keys/jwks.json"},
}
SWAPPED = "the configuration could not be loaded and the one before stays in force"


def policy(path: str) -> str:
    return route_policy({"name": "open", "matches": [{"path": {"value": path}}], "public": True})


MISTAKES = [
    pytest.param(policy("/new").replace('"public": true', '"public": "yes"'), "yaml:", "true", id="a value of another type"),
    pytest.param(policy("/new")[:-20], "policy.yaml:", "", id="cut off"),
    pytest.param(policy("/new").replace('"public"', '"publik"'), "publik", "public", id="an unknown key"),
    pytest.param(policy("/new").replace("/new", "new"), "policy.yaml:", "/", id="a path that is none"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project_files(tmp_path / "policies", {"policy.yaml": policy("/old")})
    project_files(tmp_path / "keys", {"jwks.json": KEYS})
    project_files(tmp_path / "bundles", {"cluster.local.pem": CA.pem.decode()})
    project_files(tmp_path / "tls", {"tls.crt": SERVING.chain_pem.decode(), "tls.key": SERVING.key_pem.decode()})
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ServerProcess]:
    spec = server_spec(
        policies=["policies/*.yaml"],
        issuers=[ISSUER],
        trust_bundles=[{"trust_domain": "cluster.local", "files": ["bundles/cluster.local.pem"]}],
        evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
    )
    with ServerProcess(folder, spec) as process:
        yield process


def allows(server: ServerProcess, path: str) -> bool:
    return server.check(check_request(path=path)).status.code == 0


def notes(server: ServerProcess) -> str:
    status, body = server.admin("/readyz?verbose")
    # what is wrong with files that are not in force is nothing that another pod would do better
    assert status == 200
    assert body.startswith("ok\n")
    return body.removeprefix("ok\n")


@pytest.mark.parametrize(("mistake", "place", "words"), MISTAKES)
def test_a_config_map_with_a_mistake_leaves_the_old_policy_in_force_and_a_repaired_one_replaces_it(
    server: ServerProcess, folder: Path, mistake: str, place: str, words: str
) -> None:
    assert notes(server) == ""
    project_files(folder / "policies", {"policy.yaml": mistake})
    server.wait_for(lambda: server.events(SWAPPED), "saying that a reload failed")
    said = server.events(SWAPPED)[0]
    assert said["level"] == "error"
    assert place in said["problems"][0]
    assert words in said["problems"][0]
    assert said["problems"][0] in notes(server)
    assert server.metric("ext_authz_configuration_reload_failed") == 1
    assert allows(server, "/old")
    assert not allows(server, "/new")
    project_files(folder / "policies", {"policy.yaml": policy("/new")})
    server.wait_for(lambda: allows(server, "/new"), "deciding by the repaired policy")
    assert not allows(server, "/old")
    server.wait_for(lambda: notes(server) == "", "content again")
    assert server.metric("ext_authz_configuration_reload_failed") == 0


def test_all_mistakes_of_a_swap_are_told_at_once_and_none_of_it_counts(server: ServerProcess, folder: Path) -> None:
    project_files(
        folder / "policies",
        {
            "policy.yaml": policy("/new"),
            "second.yaml": policy("/second").replace('"test"', '"second"').replace('"matches"', '"match"'),
            "third.yaml": document("RoutePolicies", "third", {}),
        },
    )
    server.wait_for(lambda: server.events(SWAPPED), "saying that a reload failed")
    problems = "\n".join(server.events(SWAPPED)[0]["problems"])
    assert "second.yaml:" in problems
    assert "third.yaml:" in problems
    assert allows(server, "/old")
    assert not allows(server, "/new")


def test_a_config_map_that_is_emptied_denies_everything_and_the_log_says_that_there_is_no_policy(
    server: ServerProcess, folder: Path
) -> None:
    project_files(folder / "policies", {"policy.yaml": ""})
    server.wait_for(lambda: not allows(server, "/old"), "denying")
    # what is in force is told after it is
    server.wait_for(lambda: server.events("configuration warning"), "warning")
    (loaded,) = server.events("configuration loaded")
    assert loaded["policies"] == 0
    (warning,) = server.events("configuration warning")
    assert f"{folder}/policies/policy.yaml: the file holds no policy" in warning["detail"]
    server.wait_for(lambda: server.decisions()[-1]["reason"] == "no_policy", "telling why")


@pytest.mark.parametrize(
    ("files", "place"),
    [
        pytest.param({}, "policies/*.yaml", id="no file"),
        pytest.param({"policy.yaml": ""}, "policies/policy.yaml", id="an empty file"),
    ],
)
def test_under_strict_a_config_map_without_policies_is_a_mistake_and_the_old_policy_stays(
    server: ServerProcess, folder: Path, files: dict[str, str], place: str
) -> None:
    written = json.loads((folder / "server.yaml").read_text())
    server.configure({**written["spec"], "strict": True})
    server.wait_for(lambda: server.events("configuration loaded"), "taking over the new setting")
    project_files(folder / "policies", files)
    server.wait_for(lambda: server.events(SWAPPED), "saying that a reload failed")
    assert place in notes(server)
    assert allows(server, "/old")


GONE = [
    pytest.param("keys", "jwks.json", id="the keys of an issuer"),
    pytest.param("bundles", "cluster.local.pem", id="a trust bundle"),
]


@pytest.mark.parametrize(("directory", "name"), GONE)
def test_a_file_that_disappears_while_the_server_runs_changes_no_decision_and_is_told(
    server: ServerProcess, folder: Path, directory: str, name: str
) -> None:
    before = (folder / directory / name).read_text()
    project_files(folder / directory, {})
    server.wait_for(lambda: name in notes(server), "telling what is missing")
    assert allows(server, "/old")
    project_files(folder / directory, {name: before})
    server.wait_for(lambda: notes(server) == "", "content again")


def start(folder: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """A server that cannot start."""
    (folder / "server.yaml").write_text(document("Server", "test", spec))
    command = [sys.executable, "-m", "ext_authz", "serve", "--config", str(folder / "server.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)


MISSING = [
    pytest.param(
        {"listener": {"address": "127.0.0.1:0", "tls": {"certificate_file": "tls/tls.crt", "key_file": "tls/tls.key"}}},
        "tls", "tls.key", id="the private key of a TLS Secret",
    ),
    pytest.param(
        {"trust_bundles": [{"trust_domain": "cluster.local", "files": ["bundles/cluster.local.pem"]}]},
        "bundles", "cluster.local.pem", id="a trust bundle",
    ),
    pytest.param({"issuers": [ISSUER]}, "keys", "jwks.json", id="the keys of an issuer"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "directory", "name"), MISSING)
def test_a_secret_that_is_missing_at_start_ends_the_process_with_the_name_of_the_file(
    folder: Path, parts: dict[str, Any], directory: str, name: str
) -> None:
    present = {file.name: file.read_text() for file in (folder / directory).iterdir() if file.is_file()}
    del present[name]
    project_files(folder / directory, present)
    ended = start(folder, server_spec(policies=["policies/*.yaml"], **parts))
    assert ended.returncode == 2
    assert f"{folder}/{directory}/{name}" in ended.stderr
    assert "cannot be read: no such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_tls_secret_that_disappears_leaves_the_old_certificate_and_a_new_one_is_served(folder: Path) -> None:
    spec = server_spec(
        listener={
            "address": "127.0.0.1:0",
            "tls": {"certificate_file": "tls/tls.crt", "key_file": "tls/tls.key"},
        },
        policies=["policies/*.yaml"],
    )
    with ServerProcess(folder, spec) as server:

        def serves() -> bool:
            credentials = grpc.ssl_channel_credentials(CA.pem)
            options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1))
            with grpc.secure_channel(server.address, credentials, options) as channel:
                call = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check", None, None)
                return bool(call(check_request(path="/old"), timeout=10))

        assert serves()
        project_files(folder / "tls", {})
        server.wait_for(lambda: "tls.crt" in notes(server), "telling what is missing")
        assert serves()
        # a key that belongs to another certificate is a half-written Secret
        project_files(folder / "tls", {"tls.crt": LATER.chain_pem.decode(), "tls.key": SERVING.key_pem.decode()})
        server.wait_for(lambda: "reload failed" in notes(server) and "tls.crt: " not in notes(server), "telling more")
        assert serves()
        project_files(folder / "tls", {"tls.crt": LATER.chain_pem.decode(), "tls.key": LATER.key_pem.decode()})
        server.wait_for(lambda: notes(server) == "", "content again")
        assert serves()


def hostile(number: int) -> str:
    """A certificate whose serial number is negative, which RFC 5280 forbids and a library warns of."""
    leaf = CA.leaf(serial=(1 << 158) + number, subject=f"client {number}")
    der = bytearray(leaf.der)
    # INTEGER of 20 bytes, the first INTEGER with that many
    der[der.index(b"\x02\x14") + 2] |= 0x80
    return ssl.DER_cert_to_PEM_cert(bytes(der))


def test_certificates_that_a_library_warns_of_leave_the_log_json_and_standard_error_empty(tmp_path: Path) -> None:
    spec = server_spec(
        policies=["policy.yaml"],
        trust_bundles=[{"trust_domain": "cluster.local", "files": ["ca.pem"]}],
        evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
    )
    rule = {"name": "a", "matches": [{}], "require": {"peer": {"spiffe": ["spiffe://cluster.local/ns/a/sa/b"]}}}
    with ServerProcess(tmp_path, spec, policy__yaml=route_policy(rule), ca__pem=CA.pem) as server:
        for number in range(20):
            request = check_request(path="/", source_certificate=envoy_certificate(hostile(number)))
            assert server.check(request).status.code != 0
        server.wait_for(lambda: len(server.decisions()) == 20, "telling of each denial")
        assert 1 <= len(server.events("a library warned, and is not told again")) <= 5
        assert server.stderr == ""
        assert all(json.loads(line) for line in server.lines)
