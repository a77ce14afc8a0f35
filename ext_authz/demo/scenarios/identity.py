"""The caller's SPIFFE ID: proved by a chain to its own trust domain, never claimed."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ext_authz.demo.scenario import Scenario, Stage, upstream_saw
from ext_authz.errors import Reason

__all__ = ["IDENTITY"]

_WEBSITE = "spiffe://cluster.local/ns/applications/sa/mywebsite"
_PARTNER = "spiffe://partner.example/ns/orders/sa/gateway"


def _forged_xfcc(stage: Stage, by: str = "spiffe://cluster.local/ns/billing/sa/api") -> tuple[tuple[str, str], ...]:
    """The header that Envoy would write for mywebsite, in the client's own hand."""
    pem = stage.stack.credential("mywebsite").certificate_file
    return (("X-Forwarded-Client-Cert", f"By={by};Hash={_sha256(pem)};URI={_WEBSITE}"),)


def _sha256(pem_file: str) -> str:
    certificate = x509.load_pem_x509_certificate(Path(pem_file).read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


IDENTITY = (
    Scenario(
        "mutual TLS alone, no token asked",
        lambda stage: stage.call("/status", certificate="mywebsite"),
        200,
        Reason.OK,
        upstream_saw(x_caller=_WEBSITE, x_subject=None),
    ),
    Scenario(
        "no certificate where a workload is required", lambda stage: stage.call("/status"), 403, Reason.PEER_MISSING
    ),
    Scenario(
        "self-signed certificate with a workload's name",
        lambda stage: stage.call("/status", certificate="impostor"),
        403,
        Reason.CERTIFICATE_UNTRUSTED,
    ),
    Scenario(
        "a workload's name under the partner's authority",
        lambda stage: stage.call("/status", certificate="partner-impostor"),
        403,
        Reason.CERTIFICATE_UNTRUSTED,
    ),
    Scenario(
        "self-signed certificate, own token: still no identity",
        lambda stage: stage.call("/invoices", certificate="batch", token=stage.token("batch", "batch")),
        401,
        Reason.SPIFFE_ID_MISSING,
    ),
    Scenario(
        "partner of another trust domain, on its route",
        lambda stage: stage.call("/partner/orders/7", certificate="partner", token=stage.token("partner", "partner")),
        200,
        Reason.OK,
        upstream_saw(x_subject="partner", x_caller=_PARTNER),
    ),
    Scenario(
        "partner of another trust domain, on ours",
        lambda stage: stage.call("/invoices", certificate="partner", token=stage.token("partner", "partner")),
        403,
        Reason.PEER_SPIFFE_ID_NOT_ALLOWED,
    ),
    Scenario(
        "forged X-Forwarded-Client-Cert: not the last element",
        lambda stage: stage.call(
            "/invoices",
            certificate="reporting",
            token=stage.token(),
            headers=_forged_xfcc(stage, by="spiffe://cluster.local/ns/other/sa/proxy"),
        ),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    ),
    Scenario(
        "forged X-Forwarded-Client-Cert in our Envoy's name",
        lambda stage: stage.call(
            "/invoices", certificate="reporting", token=stage.token(), headers=_forged_xfcc(stage)
        ),
        401,
        Reason.XFCC_BY_MISMATCH,
    ),
    Scenario(
        "forged X-Forwarded-Client-Cert without a certificate",
        lambda stage: stage.call("/invoices", token=stage.token(), headers=_forged_xfcc(stage)),
        401,
        Reason.BINDING_CERTIFICATE_MISSING,
    ),
    Scenario(
        "forged X-Forwarded-Client-Cert in plain text",
        lambda stage: stage.call("/invoices", at="plain", token=stage.token(), headers=_forged_xfcc(stage)),
        401,
        Reason.BINDING_CERTIFICATE_MISSING,
    ),
    Scenario(
        "client writes identity headers: overwritten",
        lambda stage: stage.call(
            "/invoices",
            certificate="mywebsite",
            token=stage.token(),
            headers=(("X-Subject", "admin"), ("X_Subject", "admin"), ("X-Caller", "spiffe://cluster.local/admin")),
        ),
        200,
        Reason.OK,
        upstream_saw(x_subject="mywebsite", x_caller=_WEBSITE),
    ),
    Scenario(
        "client writes identity headers on a public route",
        lambda stage: stage.call("/healthz", headers=(("X-Subject", "admin"), ("X-Client-Certificate", "forged"))),
        200,
        Reason.PUBLIC_ROUTE,
        upstream_saw(x_subject=None, x_client_certificate=None),
    ),
)
