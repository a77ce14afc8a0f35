"""`ext-authz integrate`: what it prints, and what it refuses."""

from typing import Any

import pytest
from support.manifests import documents

from ext_authz.cli.main import main


def test_kubernetes_manifests_alone_can_be_applied(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--namespace", "security", "--service", "authz", "--port", "9443", "--timeout", "0.1"]
    selection = ["--target-namespace", "shop", "--selector", "app=shop,tier=front"]
    assert main(["integrate", "istio-sidecar", "--only", "kubernetes", *options, *selection]) == 0
    printed = documents(capsys.readouterr().out)
    assert [manifest["kind"] for manifest in printed] == ["PeerAuthentication", "AuthorizationPolicy", "EnvoyFilter"]
    assert {manifest["metadata"]["namespace"] for manifest in printed} == {"shop"}
    assert printed[1]["spec"]["selector"]["matchLabels"] == {"app": "shop", "tier": "front"}


def test_everything_is_printed_unless_a_reader_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["integrate", "contour", "--host", "shop.example.com"]) == 0
    printed = documents(capsys.readouterr().out)
    assert [manifest["kind"] for manifest in printed] == ["ExtensionService", "HTTPProxy", "Server"]
    assert printed[1]["spec"]["virtualhost"]["fqdn"] == "shop.example.com"


def test_a_gateway_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["integrate", "kgateway", "--gateway", "edge"]) == 0
    assert "name: edge\n" in capsys.readouterr().out


def test_a_wrong_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["integrate", "envoy", "--namespace", "No"]) == 2
    assert capsys.readouterr().err == "ext-authz: the namespace is not lowercase letters, digits and `-`\n"


@pytest.mark.parametrize("arguments", [["nginx"], ["envoy", "--selector", "app"], ["envoy", "--only", "apache"], []])
def test_what_cannot_be_understood_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["integrate", *arguments])
    assert "usage:" in capsys.readouterr().err


def test_an_ingress_gateway_is_looked_for_where_istio_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    def policy(*options: str) -> dict[str, Any]:
        assert main(["integrate", "istio-gateway", "--only", "kubernetes", *options]) == 0
        (found,) = [
            document for document in documents(capsys.readouterr().out) if document["kind"] == "AuthorizationPolicy"
        ]
        return found

    usual = policy()
    assert usual["metadata"]["namespace"] == "istio-system"
    assert usual["spec"]["selector"] == {"matchLabels": {"istio": "ingressgateway"}}
    other = policy("--target-namespace", "edge", "--selector", "gateway.networking.k8s.io/gateway-name=edge")
    assert other["metadata"]["namespace"] == "edge"
    assert other["spec"]["selector"] == {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "edge"}}


@pytest.mark.parametrize("platform", ["istio-sidecar", "envoy"])
def test_another_domain_of_the_cluster_is_in_the_names_of_services(
    platform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["integrate", platform, "--cluster-domain", "example.internal"]) == 0
    printed = capsys.readouterr().out
    assert "ext-authz.ext-authz.svc.example.internal" in printed
    assert "cluster.local" not in printed
    assert main(["integrate", platform, "--cluster-domain", "No"]) == 2
    assert "the cluster domain is not" in capsys.readouterr().err
