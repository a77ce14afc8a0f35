"""The straight path: facts in, decision out. No step waits, reads a clock or remembers the last request.

    facts -> rule -> peer -> token -> binding -> requirements -> mutations -> decision

Each step raises `Refusal` when the request must be denied; the one handler below turns it into the answer.
"""

from collections.abc import Container
from dataclasses import dataclass

from ext_authz.decision import Allow, Decision, Deny, Diagnostics
from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.authorization import find_token
from ext_authz.facts import RequestFacts
from ext_authz.identity.peer import peer_from
from ext_authz.need import KeysNeeded, Need
from ext_authz.policy.answers import is_short
from ext_authz.policy.compiled import Selection
from ext_authz.principal import Peer, Principals, VerifiedToken
from ext_authz.snapshot import Snapshot
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.binding import match_binding

__all__ = ["Examination", "authorize"]


@dataclass(slots=True)
class Examination:
    """How far a request came: what `ext-authz check` tells and the decision log records."""

    selection: Selection | None = None
    peer: Peer | None = None
    token: VerifiedToken | None = None

    def diagnostics(self, detail: str = "") -> Diagnostics:
        """What the decision log may tell of it.

        Args:
            detail: why it was denied, in words of ours.
        """
        selection, peer, token = self.selection, self.peer, self.token
        return Diagnostics(
            policy=selection.rule.policy if selection else None,
            rule=selection.rule.name if selection else None,
            issuer=token.issuer_name if token else None,
            subject=token.subject if token else None,
            client_id=token.client_id if token else None,
            token_id=token.token_id if token else None,
            spiffe_id=str(peer.spiffe_id) if peer and peer.spiffe_id else None,
            thumbprint=peer.thumbprint if peer else None,
            provenance=peer.provenance if peer else (),
            detail=detail,
        )


def authorize(
    facts: RequestFacts,
    snapshot: Snapshot,
    now: float,
    unmet: Container[Need] = (),
    seen: Examination | None = None,
) -> Decision | Need:
    """Decide one request.

    Args:
        facts: what Envoy said.
        snapshot: everything else the decision may depend on.
        now: seconds since the epoch.
        unmet: needs that were tried, or are not to be tried now; they deny instead of being returned.
        seen: gets what each step found; a new one for each decision.

    Returns:
        The decision, or what is missing to make it.
    """
    if seen is None:
        seen = Examination()
    try:
        selection = seen.selection = snapshot.policies.select(facts)
        rule = selection.rule
        rule.check_source(facts)
        peer = token = None
        if rule.needs_peer:
            peer = seen.peer = peer_from(facts, snapshot.evidence, snapshot.bundles, now, snapshot.certificates)
        if rule.needs_token:
            verified = _token(facts, selection, snapshot, now, unmet)
            if isinstance(verified, KeysNeeded):
                return verified
            token = seen.token = verified
        if token is not None and rule.binding is not None:
            match_binding(token, peer, rule.binding)
        principals = Principals(peer, token)
        rule.check(principals)
        return _allow(facts, selection, principals, snapshot, seen)
    except Refusal as refusal:
        return _deny(refusal, snapshot, seen)


def _token(
    facts: RequestFacts,
    selection: Selection,
    snapshot: Snapshot,
    now: float,
    unmet: Container[Need],
) -> VerifiedToken | KeysNeeded:
    text = find_token(facts.headers, selection.path.query, snapshot.evidence.token_sources)
    if text is None:
        raise Refusal(Reason.TOKEN_MISSING, "the rule requires a token and the request presents none")
    verified = verify_access_token(text, snapshot.issuers, now)
    if isinstance(verified, KeysNeeded) and verified in unmet:
        if snapshot.issuers.has_keys(verified.issuer_name):
            raise Refusal(Reason.SIGNING_KEY_UNKNOWN, "the issuer publishes no key with this id")
        raise Refusal(Reason.SIGNING_KEYS_UNAVAILABLE, "the issuer's keys could not be fetched")
    return verified


def _allow(
    facts: RequestFacts,
    selection: Selection,
    principals: Principals,
    snapshot: Snapshot,
    seen: Examination,
) -> Allow:
    """The answer to a caller whom every check has let pass; its words are the last time's where they must be the same."""
    rule, (peer, token) = selection.rule, principals
    alike = rule.answers_alike(facts)
    answer = snapshot.answers.get(rule, peer, token) if alike else None
    if answer is None:
        mutations = rule.mutations(selection, facts, principals)
        keeps = alike and is_short(mutations)
        answer = Allow(
            reason=Reason.PUBLIC_ROUTE if rule.public else Reason.OK,
            mutations=mutations,
            dynamic_metadata=rule.dynamic_metadata(selection, facts, principals),
            diagnostics=seen.diagnostics(),
            recurring=keeps,
        )
        if keeps:
            snapshot.answers.put(rule, peer, token, answer)
    return answer


def _deny(refusal: Refusal, snapshot: Snapshot, seen: Examination) -> Deny:
    rule = seen.selection and seen.selection.rule
    return snapshot.denials.deny(
        refusal.reason,
        scopes=rule.challenge_scopes if rule else (),
        takes_token=rule.needs_token if rule else False,
        diagnostics=seen.diagnostics(refusal.detail),
    )
