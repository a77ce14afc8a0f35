"""What every benchmark decides: the same kind of request under the same kind of configuration.

A CheckRequest of 2 KiB, as Envoy sends it for a client with an ES256 certificate whose chain is verified here, with an
RS256 access token bound to that certificate (RFC 8705). One rule matches; it requires the token with a scope and the
binding, and sets four headers.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.check_requests import check_request
from support.pki import Authority, Leaf, authority, ec_key
from support.server import document, server_spec
from support.tokens import AUDIENCE, ISSUER, SigningKey, access_token, cnf_for, signing_key

from ext_authz.runtime.assembly import Assembly, assemble
from ext_authz.snapshot import Snapshot
from ext_authz.token.issuer import InlineKeys
from ext_authz.token.jwks import KeySet
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

__all__ = [
    "HOST",
    "INJECTED",
    "REQUEST_BYTES",
    "Route",
    "check_allowed",
    "configure",
    "deployment",
    "request",
    "routes",
    "server_document",
    "snapshot_of",
    "token",
]

REQUEST_BYTES = 2_048
HOST = "billing.example.com"
BILLING = "spiffe://cluster.local/ns/billing/sa/api"
SCOPE = "invoices.read"
CALLERS = 16
LIFETIME_SECONDS = 6 * 3600
"""Of tokens: longer than any run."""

INJECTED = {
    "x-subject": "${token.sub}",
    "x-client": "${token.client_id}",
    "x-scopes": "${token.scope}",
    "x-caller": "${peer.spiffe_id}",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One rule and a way to be matched by it.

    Attributes:
        destination: the workload's SPIFFE ID.
        path: as in a policy file.
        example: a path that it matches, with `{}` for what may vary.
    """

    destination: str
    path: dict[str, str]
    example: str


def routes(count: int, *, destinations: int = 1) -> tuple[Route, ...]:
    """`count` routes of three kinds, spread over `destinations` workloads."""
    made = []
    for number in range(count):
        place = number % destinations
        destination = BILLING if place == 0 else f"spiffe://cluster.local/ns/tenant-{place}/sa/api"
        kind = number // destinations % 3
        name = f"service-{number}"
        if kind == 0:
            made.append(Route(destination, {"value": f"/{name}/invoices"}, f"/{name}/invoices/{{}}"))
        elif kind == 1:
            template = {"type": "Template", "value": f"/{name}/orders/{{id}}/lines"}
            made.append(Route(destination, template, f"/{name}/orders/{{}}/lines"))
        else:
            made.append(Route(destination, {"type": "Exact", "value": f"/{name}/status"}, f"/{name}/status"))
    return tuple(made)


def server_document(**spec: object) -> dict[str, object]:
    """`spec` of the server of this workload; keyword arguments replace members."""
    key = signing_key("RS256")
    members: dict[str, object] = {
        "evidence": {"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
        "trust_bundles": [{"trust_domain": "cluster.local", "files": ["cluster.local.pem"]}],
        "issuers": [
            {
                "name": "corp",
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "algorithms": ["RS256", "ES256"],
                "keys": {"inline": {"keys": [key.jwk(), signing_key("ES256").jwk()]}},
            }
        ],
        "policies": ["policies/*.yaml"],
    }
    return server_spec(**(members | spec))


def configure(folder: Path, table: Sequence[Route], **spec: object) -> Path:
    """Write a whole configuration into `folder` and return its server file."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    (folder / "cluster.local.pem").write_bytes(_authority().pem)
    by_destination: dict[str, list[Route]] = {}
    for route in table:
        by_destination.setdefault(route.destination, []).append(route)
    for number, (destination, own) in enumerate(by_destination.items()):
        rules = [
            {
                "name": f"rule-{position}",
                "matches": [{"path": route.path, "method": "GET"}],
                "require": {"token": {"issuers": ["corp"], "scopes": {"all": [SCOPE]}}},
                "inject": {"request_headers": INJECTED},
            }
            for position, route in enumerate(own)
        ]
        policy = {"targets": [{"destination_principal": destination}], "hostnames": [HOST], "rules": rules}
        (folder / "policies" / f"policy-{number}.yaml").write_text(document("RoutePolicy", f"policy-{number}", policy))
    file = folder / "server.yaml"
    file.write_text(document("Server", "bench", server_document(**spec)))
    return file


def deployment(folder: Path, table: Sequence[Route], **spec: object) -> Assembly:
    """The configuration as a server has it in memory."""
    return assemble(str(configure(folder, table, **spec)))


def snapshot_of(assembly: Assembly) -> Snapshot:
    """The snapshot with the inline keys."""
    keys = {
        name: KeySet.from_json(issuer.keys.jwks.encode())
        for name, issuer in assembly.configuration.issuers.items()
        if isinstance(issuer.keys, InlineKeys)
    }
    return assembly.snapshot(keys, generation=1)


def token(number: int = 0, *, key: SigningKey | None = None, caller: Leaf | None = None, **claims: object) -> str:
    """A right access token, another one for each `number`, bound to `caller`."""
    leaf = caller or callers()[number % CALLERS]
    members: dict[str, Any] = {
        "cnf": _cnf(leaf),
        "sub": f"user-{number:07d}",
        "jti": f"token-{number:07d}",
        "scope": f"{SCOPE} invoices.write profile",
        "exp": int(time.time()) + LIFETIME_SECONDS,
    }
    return access_token(key or signing_key("RS256"), time.time(), **(members | claims))


def request(number: int = 0, route: Route | None = None, *, text: str | None = None, **parts: Any) -> bytes:  # noqa: ANN401 - as `check_request`
    """The bytes of an allowed request, another one for each `number`; `text` is its token, `parts` as `check_request`.

    It is filled up to REQUEST_BYTES with a long `user-agent`, unless it is longer already.
    """
    route = route or routes(1)[0]
    leaf = callers()[number % CALLERS]
    headers = {
        "authorization": f"Bearer {token(number) if text is None else text}",
        "accept": "application/json",
        "x-forwarded-proto": "https",
        "x-request-id": f"5f0e1c9e-8a1b-4a6e-9d3c-{number:012d}",
        **parts.pop("headers", {}),
    }
    arguments: dict[str, Any] = {
        "path": route.example.format(number),
        "host": HOST,
        "request_id": f"{number:019d}",
        "source_principal": caller_id(number % CALLERS),
        "source_certificate": _url_encoded(leaf),
        "destination_principal": route.destination,
        **parts,
    }
    shortest = check_request(headers=headers | {"user-agent": ""}, **arguments)
    # a length above 127 takes a second byte, in the header's value and in the entry that holds it
    padding = max(0, REQUEST_BYTES - len(shortest) - 2)
    return check_request(headers=headers | {"user-agent": ("bench " * 100)[:padding]}, **arguments)


def check_allowed(response: bytes) -> None:
    """Raise AssertionError unless `response` lets the request through with the four headers."""
    message = CheckResponse.FromString(response)
    if not message.HasField("status") or message.status.code != 0:
        raise AssertionError(f"the request of the benchmark is denied: {message}")
    names = {option.header.key.lower() for option in message.ok_response.headers}
    if not names >= INJECTED.keys():
        raise AssertionError(f"headers are missing: {sorted(INJECTED.keys() - names)}")


@functools.cache
def callers() -> tuple[Leaf, ...]:
    """The clients: workloads with certificates of their own."""
    return tuple(_authority().svid(caller_id(number), key=ec_key(f"caller {number}")) for number in range(CALLERS))


def caller_id(number: int) -> str:
    """The SPIFFE ID of a client."""
    return f"spiffe://cluster.local/ns/applications/sa/website-{number}"


@functools.cache
def _authority() -> Authority:
    return authority()


@functools.cache
def _cnf(leaf: Leaf) -> dict[str, str]:
    return cnf_for(leaf.der)


@functools.cache
def _url_encoded(leaf: Leaf) -> str:
    return leaf.url_encoded_pem
