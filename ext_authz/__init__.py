"""Authorization server for Envoy and Istio: certificate-bound tokens, SPIFFE identities, policy per route."""

__version__ = "0.1.0"
