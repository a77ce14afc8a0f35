"""Which policy decides: chosen by the destination's own identity, never by the client."""

from ext_authz.demo.scenario import Scenario, upstream_saw
from ext_authz.errors import Reason

__all__ = ["ROUTES"]

ROUTES = (
    Scenario("public route, nothing shown", lambda stage: stage.call("/healthz"), 200, Reason.PUBLIC_ROUTE),
    Scenario(
        "public workload",
        lambda stage: stage.call("/books", at="catalog"),
        200,
        Reason.PUBLIC_ROUTE,
        upstream_saw(x_subject=None),
    ),
    Scenario(
        "Host of the public workload sent to billing",
        lambda stage: stage.call("/invoices", host="catalog.example.com"),
        403,
        Reason.NO_POLICY,
    ),
    Scenario(
        "unknown route",
        lambda stage: stage.call("/internal", certificate="mywebsite", token=stage.token()),
        403,
        Reason.NO_RULE,
    ),
    Scenario(
        "known route, method without a rule",
        lambda stage: stage.call("/healthz", method="DELETE"),
        403,
        Reason.NO_RULE,
    ),
    Scenario("HEAD is not implied by GET", lambda stage: stage.call("/healthz", method="HEAD"), 403, Reason.NO_RULE),
    Scenario(
        "unknown host",
        lambda stage: stage.call("/invoices", host="unknown.example.com", certificate="mywebsite", token=stage.token()),
        403,
        Reason.NO_POLICY,
    ),
    Scenario(
        "policy chosen by TLS server name",
        lambda stage: stage.call("/", at="edge", host="tenant-a.example.com", server_name="tenant-a.example.com"),
        200,
        Reason.PUBLIC_ROUTE,
    ),
    Scenario(
        "TLS server name of one tenant, Host of another",
        lambda stage: stage.call("/", at="edge", host="api.example.com", server_name="tenant-a.example.com"),
        403,
        Reason.HOST_SNI_MISMATCH,
    ),
)
