"""A server's configuration and a policy as people write them."""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["POLICY", "SERVER", "Problems"]

Problems: TypeAlias = Callable[..., list[str]]

SERVER = """\
apiVersion: ext-authz/v1alpha1
kind: Server
spec:
  evidence:
    certificate_sources: [{type: xfcc, trusted_hops: 1}]
    chain_verified_by: proxy
  issuers:
    - name: corp
      issuer: https://login.example.com
      audiences: [https://api.example.com]
      keys: {discovery: true}
  policies: [policies/*.yaml]
"""

POLICY = """\
apiVersion: ext-authz/v1alpha1
kind: RoutePolicy
metadata: {name: billing}
spec:
  targets: [{destination_principal: "spiffe://cluster.local/ns/billing/sa/api"}]
  hostnames: [billing.example.com]
  defaults: {token: {issuers: [corp]}, binding: required}
  rules:
    - name: read-invoices
      matches: [{path: {type: PathPrefix, value: /invoices}, method: GET}]
      require:
        peer: {spiffe: ["spiffe://cluster.local/ns/applications/sa/*"]}
        token: {scopes: {all: [invoices.read]}, clients: [mywebsite]}
        source_ips: [10.0.0.0/8]
      inject:
        request_headers: {x-subject: "${token.sub}", x-caller: "${peer.spiffe_id}"}
        remove_request_headers: [authorization]
    - name: health
      matches: [{path: {type: Exact, value: /healthz}}]
      public: true
"""
