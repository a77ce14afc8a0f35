"""Contour: an ExtensionService for the server, and a virtual host that refers to it."""

from ext_authz.integrate.platform import Destination, Document, Part, Platform, metadata
from ext_authz.integrate.setup import Setup

__all__ = ["CONTOUR", "extension_service", "http_proxy"]


def extension_service(setup: Setup) -> Document:
    """Contour knows the server; `h2c` is HTTP/2 without TLS."""
    return {
        "apiVersion": "projectcontour.io/v1alpha1",
        "kind": "ExtensionService",
        "metadata": metadata("ext-authz", setup.namespace),
        "spec": {
            "protocol": "h2c",
            "services": [{"name": setup.service, "port": setup.port}],
            "timeoutPolicy": {"response": setup.milliseconds},
        },
    }


def http_proxy(setup: Setup) -> Document:
    """A virtual host that verifies client certificates and asks about every request."""
    reference = {
        "apiVersion": "projectcontour.io/v1alpha1",
        "namespace": setup.namespace,
        "name": "ext-authz",
    }
    return {
        "apiVersion": "projectcontour.io/v1",
        "kind": "HTTPProxy",
        "metadata": metadata("api", setup.target_namespace),
        "spec": {
            "virtualhost": {
                "fqdn": setup.host,
                "tls": {"secretName": "api-tls", "clientValidation": {"caSecret": "client-ca"}},
                "authorization": {
                    "extensionRef": reference,
                    "failOpen": False,
                    "responseTimeout": setup.milliseconds,
                    "authPolicy": {"context": {"virtualhost": setup.host}},
                },
            },
            "routes": [{"conditions": [{"prefix": "/"}], "services": [{"name": "api", "port": 8080}]}],
        },
    }


def _parts(setup: Setup) -> tuple[Part, ...]:
    return (
        Part(Destination.KUBERNETES, "where the server is", extension_service(setup)),
        Part(
            Destination.KUBERNETES,
            "ask about every request of the virtual host; replace names, Secrets and backend by your own",
            http_proxy(setup),
        ),
    )


CONTOUR = Platform(
    name="contour",
    title="Contour",
    proves=(
        "the client's key: Contour always sends the certificate, and `x5t#S256` is checked against it",
        "the client's SPIFFE ID, where its certificate holds one and the CA in `caSecret` signed it",
        "the virtual host: `targets` with `context_extensions`",
    ),
    cannot=(
        "send the TLS server name or headers byte by byte: no `targets` with `sni`; repeated headers arrive as one",
        "ask on virtual hosts without TLS: Contour refuses `authorization` there",
    ),
    evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "proxy"},
    parts=_parts,
    ignores_host_port=True,
)
