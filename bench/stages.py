"""The stages of one decision, each with the values it gets on the path, for the engine's profile."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ext_authz.evidence.authorization import find_token
from ext_authz.facts import RequestFacts
from ext_authz.identity.peer import peer_from
from ext_authz.need import Need
from ext_authz.policy.compiled import CompiledRule
from ext_authz.principal import Principals
from ext_authz.snapshot import Snapshot
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.binding import match_binding
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize

__all__ = ["Calls", "stages"]

Calls: TypeAlias = list[tuple[Callable[..., object], tuple[object, ...]]]


def stages(requests: Sequence[bytes], snapshot: Snapshot, now: float) -> dict[str, Calls]:
    """By stage, one call for each of `requests`, in the order of the path."""
    made: dict[str, Calls] = {}

    def add(stage: str, function: Callable[..., object], *arguments: object) -> None:
        made.setdefault(stage, []).append((function, arguments))

    for data in requests:
        add("parse: CheckRequest to facts", parse_check_request, data)
        facts = parse_check_request(data)
        add("select: destination, host, path to rule", snapshot.policies.select, facts)
        selection = snapshot.policies.select(facts)
        rule = selection.rule
        add(
            "peer: certificate to identity (cached)",
            peer_from,
            facts,
            snapshot.evidence,
            snapshot.bundles,
            now,
            snapshot.certificates,
        )
        peer = peer_from(facts, snapshot.evidence, snapshot.bundles, now, snapshot.certificates)
        sources = snapshot.evidence.token_sources
        add("find: the credential", find_token, facts.headers, selection.path.query, sources)
        text = find_token(facts.headers, selection.path.query, sources)
        if text is None or rule.binding is None:
            raise AssertionError("the request of the benchmark carries a token and the rule wants it bound")
        add("token: verified token (cached)", verify_access_token, text, snapshot.issuers, now)
        token = verify_access_token(text, snapshot.issuers, now)
        assert not isinstance(token, Need), "a benchmark with inline keys needs none"
        add("binding: token to certificate", match_binding, token, peer, rule.binding)
        principals = Principals(peer, token)
        add("checks: source, issuer, scopes", _checks, rule, facts, principals)
        add("answer: four headers, worded before", snapshot.answers.get, rule, peer, token)
        decision = snapshot.answers.get(rule, peer, token)
        if decision is None:
            raise AssertionError(
                "the request of the benchmark was decided before, and its answer depends on the caller alone"
            )
        add("serialise: decision to CheckResponse", serialize, decision)
    return made


def _checks(rule: CompiledRule, facts: RequestFacts, principals: Principals) -> None:
    rule.check_source(facts)
    rule.check(principals)
