"""The outcome: allow or deny, with everything Envoy is to change and everything an operator is to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from ext_authz.errors import Reason
from ext_authz.principal import JsonValue

__all__ = ["Allow", "Decision", "Deny", "Diagnostics", "Mutations"]

_NO_METADATA: Mapping[str, JsonValue] = MappingProxyType({})


class Mutations(NamedTuple):
    """What an allowed request is to look like upstream, and its response downstream.

    Header names are lowercase. Every name in `set_request_headers` overwrites what the client sent; no name is in
    both `set_request_headers` and `remove_request_headers`. Names and values in `set_query_parameters` are percent-encoded
    already: Envoy writes them as they are, and compares `remove_query_parameters` with the query string as it was sent.
    """

    set_request_headers: tuple[tuple[str, str], ...] = ()
    remove_request_headers: tuple[str, ...] = ()
    set_response_headers: tuple[tuple[str, str], ...] = ()
    set_query_parameters: tuple[tuple[str, str], ...] = ()
    remove_query_parameters: tuple[str, ...] = ()


class Diagnostics(NamedTuple):
    """Who and what a decision was about, for the decision log; never sent to the client and never a token."""

    policy: str | None = None
    rule: str | None = None
    issuer: str | None = None
    subject: str | None = None
    client_id: str | None = None
    token_id: str | None = None
    spiffe_id: str | None = None
    thumbprint: bytes | None = None
    provenance: tuple[str, ...] = ()
    detail: str = ""


class Allow(NamedTuple):
    """Let the request through with these changes.

    Attributes:
        reason: the stable code.
        mutations: the changes.
        dynamic_metadata: for Envoy's access log and later filters.
        diagnostics: for our decision log.
        recurring: the same answer is given to every such request of the same caller, so what is made of it is worth keeping.
    """

    reason: Reason
    mutations: Mutations = Mutations()
    dynamic_metadata: Mapping[str, JsonValue] = _NO_METADATA
    diagnostics: Diagnostics = Diagnostics()
    recurring: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse the request.

    Attributes:
        reason: the stable code; not for the client.
        http_status: 400, 401, 403 or 503 by the table of `ext_authz.denials`.
        headers: response headers to the client, names lowercase (`www-authenticate`, `content-type`, ...).
        body: response body, UTF-8.
        identified_body: the body that tells the decision id, which stands between each two of these parts; empty where the
            client is not told.
        dynamic_metadata: for Envoy's access log.
        diagnostics: for our decision log.
    """

    reason: Reason
    http_status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    dynamic_metadata: Mapping[str, JsonValue] = field(default_factory=lambda: _NO_METADATA)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    identified_body: tuple[str, ...] = ()


Decision: TypeAlias = Allow | Deny
