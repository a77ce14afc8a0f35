"""A configuration in a temporary directory, and what is wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from ext_authz.config.load import load
from ext_authz.errors import ConfigurationError

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "server.yaml").write_text(SERVER)
    (tmp_path / "policies/billing.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def problems_of(folder: Path) -> Problems:
    """What `load` says, with file names relative to the folder; `[]` when it loads."""

    def problems(server: str | None = None, policy: str | None = None) -> list[str]:
        if server is not None:
            (folder / "server.yaml").write_text(server)
        if policy is not None:
            (folder / "policies/billing.yaml").write_text(policy)
        try:
            load(folder / "server.yaml")
        except ConfigurationError as error:
            return [line.replace(f"{folder}/", "") for line in error.problems]
        return []

    return problems
