"""One decision in words: what each step of the straight path found, and where it ended."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from ext_authz.authorizer import Examination
from ext_authz.decision import Allow, Decision
from ext_authz.facts import RequestFacts
from ext_authz.principal import Peer, VerifiedToken

__all__ = ["explanation"]

_WIDTH = 10


def explanation(facts: RequestFacts, seen: Examination, decision: Decision) -> list[str]:
    """Lines for a person. Text that came with the request is quoted, its control characters escaped.

    Args:
        facts: what Envoy said.
        seen: how far the request came.
        decision: how it ended.
    """
    steps = [
        ("request", f"{_quoted(facts.method)} {_quoted(facts.host)} {_quoted(facts.path.partition('?')[0])}"),
        ("from", _origin(facts)),
        ("rule", _rule(seen)),
        *_peer(seen),
        *_token(seen),
        *_outcome(decision),
    ]
    return [f"{name:<{_WIDTH}}{text}" for name, text in steps]


def _origin(facts: RequestFacts) -> str:
    origin = facts.source_address or "an address that is not IP"
    if facts.destination_principal:
        origin += f" to {_quoted(facts.destination_principal)}"
    return origin


def _rule(seen: Examination) -> str:
    if seen.selection is None:
        return "none selected"
    rule = seen.selection.rule
    looks_at = [name for name, wanted in (("peer", rule.needs_peer), ("token", rule.needs_token)) if wanted]
    needs = "public" if rule.public else f"requires {' and '.join(looks_at) or 'a source'}"
    return f"{rule.name} of policy {rule.policy}: {needs}"


def _peer(seen: Examination) -> Iterator[tuple[str, str]]:
    if seen.selection is None:
        return
    peer = seen.peer
    if peer is None:
        if seen.selection.rule.needs_peer or seen.selection.rule.binding is not None:
            yield "peer", "no evidence of a client certificate, or refused (see the decision)"
        return
    yield "peer", _identity(peer)
    if peer.thumbprint is not None:
        yield "", f"x5t#S256 {_base64url(peer.thumbprint)}"
    yield "", f"read from {', '.join(peer.provenance)}"


def _identity(peer: Peer) -> str:
    if peer.spiffe_id is not None:
        return f"{peer.spiffe_id}, verified by {peer.trusted_by}"
    why = peer.identity_refusal
    return "no identity" if why is None else f"no identity: {why.detail} ({why.reason})"


def _token(seen: Examination) -> Iterator[tuple[str, str]]:
    if seen.selection is None or not seen.selection.rule.needs_token:
        return
    token = seen.token
    if token is None:
        yield "token", "none, refused, or not reached (see the decision)"
        return
    yield "token", f"of issuer {token.issuer_name}, subject {_quoted(token.subject)}, client {_client(token)}"
    yield "", f"scopes {' '.join(sorted(token.scopes)) or 'none'}; expires {_time(token.expires_at)}"
    binding = token.confirmation
    yield "binding", "the token is bound to no key" if binding is None else f"x5t#S256 {_base64url(binding.x5t_s256)}"


def _client(token: VerifiedToken) -> str:
    return "unknown" if token.client_id is None else _quoted(token.client_id)


def _outcome(decision: Decision) -> Iterator[tuple[str, str]]:
    if isinstance(decision, Allow):
        yield "decision", f"allow ({decision.reason})"
        mutations = decision.mutations
        for name, value in mutations.set_request_headers:
            yield "", f"set request header {name}: {_quoted(value)}"
        for name in mutations.remove_request_headers:
            yield "", f"remove request header {name}"
        for name, value in mutations.set_response_headers:
            yield "", f"set response header {name}: {_quoted(value)}"
        for name, value in mutations.set_query_parameters:
            yield "", f"set query parameter {_quoted(name)}: {_quoted(value)}"
        for name in mutations.remove_query_parameters:
            yield "", f"remove query parameter {_quoted(name)}"
        return
    yield "decision", f"deny with {decision.http_status} ({decision.reason})"
    if decision.diagnostics.detail:
        yield "", decision.diagnostics.detail


def _quoted(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
