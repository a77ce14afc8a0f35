"""Every platform's documents fit the schemas of their kinds, and the server's configuration beside them."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.custom_resources import MAY_BUILD, judge
from support.manifests import check, documents, is_custom

from ext_authz.config.load import load
from ext_authz.integrate.catalogue import PLATFORMS, as_text
from ext_authz.integrate.platform import Destination, Platform
from ext_authz.integrate.setup import Setup

pytestmark = MAY_BUILD

NAMES = sorted(PLATFORMS)
SETUP = Setup(namespace="security", service="authz", port=9443, timeout=0.1, target_namespace="shop", gateway="edge")


def of(platform: Platform, destination: Destination, setup: Setup = SETUP) -> list[dict[str, Any]]:
    return documents(as_text(platform, setup, [destination]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "setup", [SETUP, Setup(), Setup(namespace="default")], ids=["elsewhere", "defaults", "together"]
)
def test_every_manifest_fits_the_schema_of_its_kind(name: str, setup: Setup) -> None:
    for manifest in of(PLATFORMS[name], Destination.KUBERNETES, setup):
        assert is_custom(manifest)
        check(manifest)


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_field_would_be_noticed_in_every_manifest(name: str) -> None:
    for manifest in of(PLATFORMS[name], Destination.KUBERNETES):
        broken = copy.deepcopy(manifest)
        broken["spec"]["misspelt"] = True
        with pytest.raises(jsonschema.ValidationError):
            check(broken)


@pytest.mark.parametrize("name", NAMES)
def test_the_servers_part_loads_without_warnings(name: str, tmp_path: Path) -> None:
    (document,) = of(PLATFORMS[name], Destination.SERVER)
    file = tmp_path / "server.yaml"
    file.write_text(yaml.safe_dump(document))
    configuration = load(file)
    assert configuration.warnings == ()
    assert len(configuration.evidence.certificate_sources) == len(document["spec"]["evidence"]["certificate_sources"])


@pytest.mark.parametrize("name", NAMES)
def test_the_output_begins_with_what_can_and_cannot_be_proved(name: str) -> None:
    text = as_text(PLATFORMS[name], SETUP)
    preface = text[: text.index("---\n")]
    assert all(line.startswith("#") for line in preface.splitlines())
    assert "# A request can prove:\n# - " in preface
    assert "# It cannot:\n# - " in preface


@pytest.mark.parametrize("name", NAMES)
def test_comments_and_documents_stay_within_the_page(name: str) -> None:
    assert max(map(len, as_text(PLATFORMS[name], SETUP).splitlines())) <= 120


@pytest.mark.parametrize("name", ["istio-ambient"])
def test_a_platform_that_shows_no_certificate_says_that_it_cannot_check_the_thumbprint(name: str) -> None:
    platform = PLATFORMS[name]
    assert any("check `x5t#S256`" in sentence for sentence in platform.cannot)
    assert not any("x5t#S256" in sentence for sentence in platform.proves)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("istio")])
def test_istio_waits_for_a_decision_as_long_as_was_said_and_never_lets_through_without_one(name: str) -> None:
    fragments = of(PLATFORMS[name], Destination.ISTIOD)
    ((provider,),) = [
        document["meshConfig"]["extensionProviders"]
        for document in fragments
        if "extensionProviders" in document["meshConfig"]
    ]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": "authz.security.svc.cluster.local",
        "port": 9443,
        "timeout": "0.100s",
        "failOpen": False,
        "statusOnError": "503",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("istio")])
def test_istio_asks_about_every_request(name: str) -> None:
    policies = [item for item in of(PLATFORMS[name], Destination.KUBERNETES) if item["kind"] == "AuthorizationPolicy"]
    assert [(policy["spec"]["action"], policy["spec"]["rules"]) for policy in policies] == [("CUSTOM", [{}])]


def test_contour_asks_on_a_virtual_host_with_tls_alone() -> None:
    # Contour's controller refuses others; its schema does not
    for manifest in of(PLATFORMS["contour"], Destination.KUBERNETES):
        if manifest["kind"] == "HTTPProxy":
            assert manifest["spec"]["virtualhost"].keys() >= {"tls", "authorization"}


@pytest.mark.parametrize("name", NAMES)
def test_the_port_in_host_is_ignored_where_the_platform_ignores_it(name: str) -> None:
    (document,) = of(PLATFORMS[name], Destination.SERVER)
    # Envoy compares the whole of Host unless it is told otherwise; every control plane tells it
    assert document["spec"].get("canonical_paths", []) == ([] if name == "envoy" else ["ignore_host_port"])


@pytest.mark.parametrize("name", NAMES)
def test_no_platform_lets_requests_through_while_the_server_is_away(name: str) -> None:
    text = as_text(PLATFORMS[name], SETUP)
    for word in ("failOpen: true", "failure_mode_allow: true"):
        assert word not in text


@pytest.mark.parametrize("name", ["envoy-gateway", "kgateway", "gateway-api"])
def test_a_grant_is_printed_where_the_server_is_in_another_namespace(name: str) -> None:
    def kinds(setup: Setup) -> set[str]:
        return {manifest["kind"] for manifest in of(PLATFORMS[name], Destination.KUBERNETES, setup)}

    assert "ReferenceGrant" in kinds(SETUP)
    assert "ReferenceGrant" not in kinds(Setup(namespace="default", target_namespace="default"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"namespace": "No"}, "the namespace is not"),
        ({"service": ""}, "the service is not"),
        ({"target_namespace": "a.b"}, "the target namespace is not"),
        ({"gateway": "-"}, "the gateway is not"),
        ({"host": "https://a"}, "the host is not"),
        ({"port": 0}, "the port is not"),
        ({"port": 65536}, "the port is not"),
        ({"timeout": 0.0}, "the timeout is not"),
        ({"timeout": float("nan")}, "the timeout is not"),
        ({"timeout": 600.0}, "the timeout is not"),
        ({"selector": {}}, "the selector is empty"),
        ({"selector": {"a b": "c"}}, "the selector is not"),
        ({"selector": {"app": "a b"}}, "the selector is not"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Setup(**arguments)


def mesh_configs() -> list[tuple[str, dict[str, Any]]]:
    return [(name, document) for name in NAMES for document in of(PLATFORMS[name], Destination.ISTIOD)]


@pytest.mark.parametrize(("name", "document"), mesh_configs(), ids=[name for name, _ in mesh_configs()])
def test_istiod_would_read_what_is_to_be_merged_into_its_configuration(name: str, document: dict[str, Any]) -> None:
    assert document.keys() == {"meshConfig"}, name
    assert judge({"kind": "MeshConfig", **document}) == []
    misspelt = copy.deepcopy(document)
    for provider in misspelt["meshConfig"].get("extensionProviders", ()):
        provider["envoyExtAuthzGrpc"]["failsOpen"] = False
    misspelt["meshConfig"].setdefault("defaultConfig", {})["gatewaysTopology"] = {}
    wrong = judge({"kind": "MeshConfig", **misspelt})
    assert wrong is not None
    assert "unknown field" in wrong[0]
