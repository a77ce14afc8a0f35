"""Certificate-bound tokens: RFC 8705, with SPIFFE and with self-signed certificates."""

from ext_authz.demo.caller import Answer, Call
from ext_authz.demo.scenario import Scenario, Stage, upstream_saw
from ext_authz.errors import Reason

__all__ = ["BINDING"]

_WEBSITE = "spiffe://cluster.local/ns/applications/sa/mywebsite"


def _batch_introspection(stage: Stage) -> Call:
    """Introspection shows the binding too (RFC 8705 §3.2)."""
    token = stage.token("batch", "batch")
    return stage.oauth.form("/introspect", "operator", client_id="operator", token=token)


def _revoked(stage: Stage) -> Call:
    token = stage.oauth.client_credentials("batch", "batch")
    stage.oauth.post("/revoke", "batch", client_id="batch", token=token)
    return stage.oauth.form("/introspect", "operator", client_id="operator", token=token)


def _is_active_and_bound(answer: Answer) -> str | None:
    seen = answer.json()
    return None if seen.get("active") is True and "cnf" in seen else f"introspection says {seen}"


def _is_inactive(answer: Answer) -> str | None:
    seen = answer.json()
    return None if seen == {"active": False} else f"introspection says {seen}"


BINDING = (
    Scenario(
        "right certificate",
        lambda stage: stage.call("/invoices", certificate="mywebsite", token=stage.token()),
        200,
        Reason.OK,
        upstream_saw(x_subject="mywebsite", x_caller=_WEBSITE, authorization=None),
    ),
    Scenario(
        "stolen token, certificate of another workload",
        lambda stage: stage.call("/invoices", certificate="reporting", token=stage.token()),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "stolen token, self-signed certificate with that name",
        lambda stage: stage.call("/invoices", certificate="impostor", token=stage.token()),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "stolen token, no certificate",
        lambda stage: stage.call("/reports", token=stage.token()),
        401,
        Reason.BINDING_CERTIFICATE_MISSING,
    ),
    Scenario(
        "stolen token, listener without mutual TLS",
        lambda stage: stage.call("/invoices", at="edge", token=stage.token()),
        401,
        Reason.BINDING_CERTIFICATE_MISSING,
    ),
    Scenario(
        "bound token where an unbound one may pass",
        lambda stage: stage.call("/feed", at="edge", token=stage.token()),
        401,
        Reason.BINDING_CERTIFICATE_MISSING,
    ),
    Scenario(
        "unbound token where binding is required",
        lambda stage: stage.call("/invoices", at="edge", token=stage.token("legacy-unbound")),
        401,
        Reason.BINDING_MISSING,
    ),
    Scenario(
        "unbound token where it may pass by name",
        lambda stage: stage.call("/feed", at="edge", token=stage.token("legacy-unbound")),
        200,
        Reason.OK,
        upstream_saw(x_subject="legacy-unbound", authorization=None),
    ),
    Scenario(
        "self-signed binding: alice in an app",
        lambda stage: stage.call("/account", certificate="app", token=stage.app_tokens()["access_token"]),
        200,
        Reason.OK,
        upstream_saw(x_subject="alice", x_caller=None, authorization=None),
    ),
    Scenario(
        "alice's token, another self-signed certificate",
        lambda stage: stage.call("/account", certificate="batch", token=stage.app_tokens()["access_token"]),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "app renews its certificate and refreshes: new token",
        lambda stage: stage.call(
            "/account", certificate="app-renewed", token=stage.renewed_app_tokens()["access_token"]
        ),
        200,
        Reason.OK,
        upstream_saw(x_subject="alice"),
    ),
    Scenario(
        "app renews its certificate and keeps the old token",
        lambda stage: stage.call("/account", certificate="app-renewed", token=stage.app_tokens()["access_token"]),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "workload certificate renewed, bound to thumbprint",
        lambda stage: stage.call("/invoices", certificate="mywebsite-renewed", token=stage.token()),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "workload certificate renewed, spiffe-id accepted",
        lambda stage: stage.call("/reports", certificate="mywebsite-renewed", token=stage.token()),
        200,
        Reason.OK,
        upstream_saw(x_subject="mywebsite", x_caller=_WEBSITE),
    ),
    Scenario(
        "another workload where spiffe-id is accepted",
        lambda stage: stage.call("/reports", certificate="reporting", token=stage.token()),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "token endpoint: wrong certificate",
        lambda stage: stage.oauth.form("/token", "impostor", client_id="mywebsite", grant_type="client_credentials"),
        401,
        None,
    ),
    Scenario("introspection endpoint: shows the binding", _batch_introspection, 200, None, _is_active_and_bound),
    Scenario("introspection endpoint: revoked token is inactive", _revoked, 200, None, _is_inactive),
)
