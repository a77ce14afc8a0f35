"""The judge of custom resources finds what the API server would find."""

import copy
from typing import Any

import jsonschema
import pytest
from support.custom_resources import MAY_BUILD, judge
from support.manifests import check, is_described_here

from ext_authz.integrate.contour import extension_service, http_proxy
from ext_authz.integrate.gateway_api import (
    client_traffic_policy,
    external_auth_route,
    gateway_extension,
    reference_grant,
    security_policy,
    traffic_policy,
)
from ext_authz.integrate.istio import authorization_policy, peer_authentication, peer_certificate_filter, waypoint
from ext_authz.integrate.platform import Document
from ext_authz.integrate.setup import Setup

pytestmark = MAY_BUILD

SETUP = Setup()
LABELS = {"selector": {"matchLabels": {"app": "api"}}}


def changed(document: Document, path: str, value: Any) -> dict[str, Any]:
    """The document with one value set; numbers in the path are indexes."""
    made: Any = copy.deepcopy(dict(document))
    *parents, last = path.split(".")
    place = made
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    result: dict[str, Any] = made
    return result


WRONG: list[tuple[Document, str, Any, str]] = [
    (security_policy(SETUP), "spec.extAuth.grpcs", {}, "spec.extAuth.grpcs: unknown field"),
    (security_policy(SETUP), "spec.extAuth.http", {"backendRefs": []}, "only one of grpc or http"),
    (security_policy(SETUP), "spec.extAuth.failOpen", "no", "must be of type boolean"),
    (security_policy(SETUP), "metadata.namespaces", "a", 'metadata: json: unknown field "namespaces"'),
    (security_policy(SETUP), "metadata.name", "A", "lowercase RFC 1123 subdomain"),
    (
        client_traffic_policy(SETUP),
        "spec.headers.xForwardedClientCert.mode",
        "Sanitize",
        "certDetailsToAdd can only be set when mode is AppendForward or SanitizeSet",
    ),
    (client_traffic_policy(SETUP), "spec.headers.xForwardedClientCert.certDetailsToAdd", ["Key"], "Unsupported value"),
    (authorization_policy(SETUP, LABELS), "spec.action", "ASK", "Unsupported value"),
    (
        authorization_policy(SETUP, LABELS),
        "spec.targetRefs",
        [{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "a"}],
        "only one of targetRefs or selector can be set",
    ),
    (peer_authentication(SETUP), "spec.mtls.mode", "ALWAYS", "Unsupported value"),
    (peer_certificate_filter(SETUP, "GATEWAY"), "spec.configPatches.0.applyTo", "FILTERS", "Unsupported value"),
    (peer_certificate_filter(SETUP, "GATEWAY"), "spec.configPatches.0.match.listener.chain", {}, "unknown field"),
    (waypoint(SETUP), "spec.listeners.0.port", 70000, "should be less than or equal to 65535"),
    (external_auth_route(SETUP), "spec.rules.0.filters.0.type", "CORS", "must be specified for CORS"),
    (external_auth_route(SETUP), "spec.rules.0.filters.0.externalAuth.protocol", "HTTP", "http must be specified"),
    (reference_grant(SETUP, "a.example", "A"), "spec.from", [], "should have at least 1 items"),
    (extension_service(SETUP), "spec.protocol", "grpc", "Unsupported value"),
    (extension_service(SETUP), "spec.services", [], "should have at least 1 items"),
    (http_proxy(SETUP), "spec.virtualhost.authorization.failopen", False, "unknown field"),
    (gateway_extension(SETUP), "spec.extAuth.timeout", "1s", "Additional properties"),
    (traffic_policy(SETUP), "spec.extAuth.context", {}, "Additional properties"),
]


@pytest.mark.parametrize(
    ("document", "path", "value", "words"), WRONG, ids=[f"{d['kind']} {p}" for d, p, _, _ in WRONG]
)
def test_what_the_api_server_would_refuse_is_refused(document: Document, path: str, value: Any, words: str) -> None:
    check(dict(document))
    with pytest.raises(jsonschema.ValidationError) as refusal:
        check(changed(document, path, value))
    assert words in refusal.value.message


def test_a_kind_that_nobody_defines_is_told_from_one_that_fits() -> None:
    assert judge({"apiVersion": "nobody.example/v1", "kind": "A"}) is None
    assert judge(dict(security_policy(SETUP))) == []


def test_only_what_is_not_to_be_had_elsewhere_is_described_here() -> None:
    for document in (gateway_extension(SETUP), traffic_policy(SETUP)):
        assert judge(dict(document)) is None
        assert is_described_here(dict(document))
