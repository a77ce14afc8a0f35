"""Runs the expected decisions that stand beside a policy: the real rules, with callers that are stated, not proved."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ext_authz.config.files import read_documents
from ext_authz.config.load import load_policies
from ext_authz.config.model_tests import (
    PolicyTestsDocument,
    WrittenCase,
    WrittenExpectation,
    WrittenExpectedValue,
    WrittenTestPeer,
    WrittenTestRequest,
    WrittenTestToken,
)
from ext_authz.config.naming import kind_of
from ext_authz.config.problem import Place, Problems, closest, shown
from ext_authz.config.validation import field_name, validate
from ext_authz.config.written import frozen_json
from ext_authz.config.yaml_source import Document, ValuePath
from ext_authz.decision import Mutations
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Headers, Provenance, RequestFacts
from ext_authz.policy.compiled import Selection
from ext_authz.policy.index import PolicyIndex
from ext_authz.principal import Confirmation, JsonValue, Peer, PeerCertificate, Principals, TrustedBy, VerifiedToken
from ext_authz.spiffe import SpiffeId
from ext_authz.token.binding import match_binding

__all__ = ["CaseResult", "load_policy_tests", "run_policy_tests"]

_ALWAYS = 4_102_444_800.0  # the year 2100: stated tokens are always in time


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case came out.

    Attributes:
        name: of the case.
        place: `file:line:column` of the case.
        differences: what was decided otherwise than expected; empty when all is as expected.
    """

    name: str
    place: str
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Outcome:
    decision: str
    reason: Reason
    rule: str | None
    status: int | None = None
    mutations: Mutations = field(default_factory=Mutations)
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)


def run_policy_tests(
    policy_path: str | Path, tests_path: str | Path, leniencies: frozenset[str] = frozenset()
) -> tuple[CaseResult, ...]:
    """Decide every case of `tests_path` under the policies of `policy_path`.

    Args:
        policy_path: a file with RoutePolicy (and RequirementSet) documents.
        tests_path: a file with PolicyTests documents.
        leniencies: `canonical_paths` of the server that the policies are meant for.

    Raises:
        ConfigurationError: for what is wrong in either file.
    """
    index = PolicyIndex(load_policies([policy_path]).policies, leniencies)
    return tuple(
        CaseResult(case.name, str(place), tuple(_differences(case.expect, _decide(index, case, tests))))
        for tests, case, place in load_policy_tests(tests_path)
    )


def load_policy_tests(path: str | Path) -> tuple[tuple[PolicyTestsDocument, WrittenCase, Place], ...]:
    """Every case of a file, with its document and its place.

    Raises:
        ConfigurationError: with every problem.
    """
    problems = Problems()
    found = []
    documents = read_documents(Path(path), problems)
    if not documents and not len(problems):
        problems.add(Place(str(path)), "", "the file is empty", "write a `kind: PolicyTests` document")
    for document in documents:
        if kind_of(document) != "PolicyTests":
            problems.add(document.place(("kind",)), "kind", "not expected decisions", "write `kind: PolicyTests`")
            continue
        written = validate(PolicyTestsDocument, document.value, document, problems)
        if written is not None:
            for position, case in enumerate(written.spec.cases):
                at: ValuePath = ("spec", "cases", position)
                _check_names(written, case, document, at, problems)
                found.append((written, case, document.place(at)))
    problems.raise_if_any()
    return tuple(found)


def _check_names(
    tests: PolicyTestsDocument, case: WrittenCase, document: Document, at: ValuePath, problems: Problems
) -> None:
    for key, name, known in (("peer", case.peer, tests.spec.peers), ("token", case.token, tests.spec.tokens)):
        if name is not None and name not in known:
            path = (*at, key)
            guess = closest(name, known)
            problems.add(
                document.place(path),
                field_name(path),
                f"there is no {key} {shown(name)}",
                guess or f"write it under `{key}s`",
            )


def _decide(index: PolicyIndex, case: WrittenCase, tests: PolicyTestsDocument) -> _Outcome:
    """The steps of `authorizer.authorize`, from the point where peer and token are known."""
    facts = _facts(case.request)
    peer = None if case.peer is None else _peer(tests.spec.peers[case.peer])
    token = None if case.token is None else _token(tests.spec.tokens[case.token])
    selection: Selection | None = None
    try:
        selection = index.select(facts)
        rule = selection.rule
        rule.check_source(facts)
        if rule.needs_token:
            _require_token(token)
        # what a rule does not look at is not there for its templates either
        principals = Principals(peer if rule.needs_peer else None, token if rule.needs_token else None)
        if principals.token is not None and rule.binding is not None:
            match_binding(principals.token, principals.peer, rule.binding)
        rule.check(principals)
        return _Outcome(
            decision="allow",
            reason=Reason.PUBLIC_ROUTE if rule.public else Reason.OK,
            rule=rule.name,
            mutations=rule.mutations(selection, facts, principals),
            metadata=rule.dynamic_metadata(selection, facts, principals),
        )
    except Refusal as refusal:
        takes_token = selection is not None and selection.rule.needs_token
        denial = Denials(DenialSettings()).deny(refusal.reason, takes_token=takes_token)
        return _Outcome(
            decision="deny",
            reason=refusal.reason,
            rule=None if selection is None else selection.rule.name,
            status=denial.http_status,
        )


def _require_token(token: VerifiedToken | None) -> None:
    if token is None:
        raise Refusal(Reason.TOKEN_MISSING, "the rule requires a token and the case states none")


def _facts(request: WrittenTestRequest) -> RequestFacts:
    return RequestFacts(
        method=request.method,
        path=request.path,
        host=request.host,
        headers=Headers.merged({name.lower(): value for name, value in request.headers.items()}),
        source_address=request.source_ip,
        destination_principal=request.destination or "",
        context_extensions=request.context_extensions,
        sni=request.sni,
    )


def _thumbprint(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()


def _peer(stated: WrittenTestPeer) -> Peer:
    spiffe_id = None if stated.spiffe_id is None else SpiffeId.parse(stated.spiffe_id)
    certificate = None
    if stated.certificate is not None:
        certificate = PeerCertificate(
            der=stated.certificate.encode(),
            thumbprint=_thumbprint(stated.certificate),
            uri_sans=() if stated.spiffe_id is None else (stated.spiffe_id,),
            dns_sans=(),
            subject="",
            not_before=0.0,
            not_after=_ALWAYS,
        )
    untrusted = Refusal(Reason.CERTIFICATE_UNTRUSTED, "the case states a certificate without an identity")
    return Peer(
        thumbprint=None if certificate is None else certificate.thumbprint,
        certificate=certificate,
        spiffe_id=spiffe_id,
        trusted_by=TrustedBy.NOBODY if spiffe_id is None else TrustedBy.PROXY,
        identity_refusal=untrusted if spiffe_id is None else None,
        provenance=(Provenance.SOURCE_CERTIFICATE,),
    )


def _token(stated: WrittenTestToken) -> VerifiedToken:
    claims: dict[str, JsonValue] = {
        "sub": stated.subject,
        "scope": " ".join(stated.scopes),
        "aud": stated.audiences,
        **({} if stated.client is None else {"client_id": stated.client}),
        **{name: frozen_json(value) for name, value in stated.claims.items()},
    }
    return VerifiedToken(
        issuer_name=stated.issuer,
        issuer=stated.issuer,
        subject=stated.subject,
        client_id=stated.client,
        audiences=stated.audiences,
        scopes=frozenset(stated.scopes),
        token_id=None,
        issued_at=None,
        expires_at=_ALWAYS,
        not_before=None,
        skew=0.0,
        confirmation=None if stated.bound_to is None else Confirmation(_thumbprint(stated.bound_to)),
        claims=MappingProxyType(claims),
    )


def _differences(expected: WrittenExpectation, outcome: _Outcome) -> list[str]:
    found = []
    for name, wanted, got in (
        ("decision", expected.decision, outcome.decision),
        ("reason", expected.reason, outcome.reason.value),
        ("rule", expected.rule, outcome.rule),
        ("status", expected.status, outcome.status),
    ):
        if wanted is not None and wanted != got:
            found.append(f"{name}: expected `{wanted}`, got `{got}`")
    changed = outcome.mutations
    found += _header_differences("request_headers", expected.request_headers, dict(changed.set_request_headers))
    found += _header_differences("response_headers", expected.response_headers, dict(changed.set_response_headers))
    found += [
        f"removed_request_headers: expected `{name}` among them, got {sorted(changed.remove_request_headers)}"
        for name in expected.removed_request_headers or ()
        if name not in changed.remove_request_headers
    ]
    if expected.dynamic_metadata is not None:
        wanted_metadata = frozen_json(expected.dynamic_metadata)
        if wanted_metadata != outcome.metadata:
            found.append(f"dynamic_metadata: expected {wanted_metadata}, got {dict(outcome.metadata)}")
    return found


def _header_differences(
    field: str, expected: Mapping[str, WrittenExpectedValue] | None, got: Mapping[str, str]
) -> list[str]:
    if expected is None:
        return []
    found = [f"{field}: `{name}: {got[name]}` is set and not expected" for name in got if name not in expected]
    for name, wanted in expected.items():
        if name not in got:
            found.append(f"{field}: `{name}` is expected and not set")
        elif isinstance(wanted, str):
            if wanted != got[name]:
                found.append(f"{field}: expected `{name}: {wanted}`, got `{got[name]}`")
        elif not re.fullmatch(wanted.matches, got[name]):
            found.append(f"{field}: expected `{name}` to match `{wanted.matches}`, got `{got[name]}`")
    return found
