"""Whether a token belongs to the peer: every combination of mode, methods, token and peer."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from support.tokens import NOW

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Provenance
from ext_authz.principal import Confirmation, JsonValue, Peer, TrustedBy, VerifiedToken
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement
from ext_authz.spiffe import SpiffeId
from ext_authz.token.binding import match_binding

OURS = hashlib.sha256(b"our certificate").digest()
THEIRS = hashlib.sha256(b"their certificate").digest()
RENEWED = hashlib.sha256(b"our next certificate").digest()
ID = "spiffe://example.org/ns/a/sa/b"

X5T = frozenset({BindingMethod.X5T_S256})
SPIFFE = frozenset({BindingMethod.SPIFFE_ID})
BOTH = X5T | SPIFFE


def requirement(accept: frozenset[BindingMethod], mode: BindingMode = BindingMode.REQUIRED) -> BindingRequirement:
    return BindingRequirement(mode, accept, "client_spiffe_id" if BindingMethod.SPIFFE_ID in accept else None)


def token(thumbprint: bytes | None, **claims: JsonValue) -> VerifiedToken:
    members: Mapping[str, JsonValue] = MappingProxyType(claims)
    return VerifiedToken(
        issuer_name="corp",
        issuer="https://issuer.example",
        subject="alice",
        client_id="website",
        audiences=("https://api.example",),
        scopes=frozenset(),
        token_id=None,
        issued_at=None,
        expires_at=NOW + 300,
        not_before=None,
        skew=30.0,
        confirmation=None if thumbprint is None else Confirmation(thumbprint),
        claims=members,
    )


def peer(thumbprint: bytes | None = OURS, spiffe_id: str | None = ID) -> Peer:
    return Peer(
        thumbprint=thumbprint,
        certificate=None,
        spiffe_id=None if spiffe_id is None else SpiffeId.parse(spiffe_id),
        trusted_by=TrustedBy.NOBODY if spiffe_id is None else TrustedBy.PROXY,
        identity_refusal=Refusal(Reason.CERTIFICATE_UNTRUSTED, "untrusted") if spiffe_id is None else None,
        provenance=(Provenance.XFCC,),
    )


def outcome(verified: VerifiedToken, caller: Peer | None, required: BindingRequirement) -> Reason:
    try:
        match_binding(verified, caller, required)
    except Refusal as refusal:
        return refusal.reason
    return Reason.OK


BOUND = token(OURS)
UNBOUND = token(None)
NAMED = token(None, client_spiffe_id=ID)
BOUND_AND_NAMED = token(OURS, client_spiffe_id=ID)

EVERY_MODE = list(BindingMode)
EVERY_ACCEPT = [X5T, SPIFFE, BOTH]


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("accept", [X5T, BOTH])
def test_a_token_bound_to_this_certificate_passes_with_and_without_an_identity(
    mode: BindingMode, accept: frozenset[BindingMethod]
) -> None:
    assert outcome(BOUND, peer(), requirement(accept, mode)) is Reason.OK
    # RFC 8705 §6.2: a self-signed certificate binds
    assert outcome(BOUND, peer(spiffe_id=None), requirement(accept, mode)) is Reason.OK


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("accept", EVERY_ACCEPT)
def test_a_bound_token_that_cannot_be_compared_is_denied_whatever_the_mode(
    mode: BindingMode, accept: frozenset[BindingMethod]
) -> None:
    for verified in (BOUND, BOUND_AND_NAMED):
        assert outcome(verified, None, requirement(accept, mode)) is Reason.BINDING_CERTIFICATE_MISSING
        ambient = peer(thumbprint=None)
        assert outcome(verified, ambient, requirement(accept, mode)) is Reason.BINDING_THUMBPRINT_UNAVAILABLE


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("accept", EVERY_ACCEPT)
def test_a_token_bound_to_another_certificate_is_denied(mode: BindingMode, accept: frozenset[BindingMethod]) -> None:
    for caller in (peer(THEIRS), peer(THEIRS, None), peer(THEIRS, "spiffe://example.org/ns/a/sa/other")):
        assert outcome(BOUND, caller, requirement(accept, mode)) is Reason.BINDING_THUMBPRINT_MISMATCH
    stranger = peer(THEIRS, "spiffe://example.org/ns/a/sa/other")
    assert outcome(BOUND_AND_NAMED, stranger, requirement(accept, mode)) is Reason.BINDING_THUMBPRINT_MISMATCH
    unverified = peer(RENEWED, None)
    assert outcome(BOUND_AND_NAMED, unverified, requirement(accept, mode)) is Reason.BINDING_THUMBPRINT_MISMATCH


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_a_renewed_certificate_of_the_same_workload_passes_only_where_the_spiffe_id_is_accepted(
    mode: BindingMode,
) -> None:
    assert outcome(BOUND_AND_NAMED, peer(RENEWED), requirement(X5T, mode)) is Reason.BINDING_THUMBPRINT_MISMATCH
    assert outcome(BOUND_AND_NAMED, peer(RENEWED), requirement(SPIFFE, mode)) is Reason.OK
    assert outcome(BOUND_AND_NAMED, peer(RENEWED), requirement(BOTH, mode)) is Reason.OK


@pytest.mark.parametrize("claim", [None, True, 7, (ID,), "", ID + "/", ID.upper(), "spiffe://example.org", "\u00e9"])
def test_a_claim_that_is_not_exactly_the_spiffe_id_does_not_rescue_another_certificate(claim: JsonValue) -> None:
    verified = token(OURS, client_spiffe_id=claim)
    assert outcome(verified, peer(RENEWED), requirement(BOTH)) is Reason.BINDING_THUMBPRINT_MISMATCH


@pytest.mark.parametrize("caller", [None, peer(), peer(None), peer(OURS, None)])
def test_an_unbound_token_is_denied_where_a_binding_is_required_and_passes_where_not(caller: Peer | None) -> None:
    for accept in EVERY_ACCEPT:
        assert outcome(UNBOUND, caller, requirement(accept)) is Reason.BINDING_MISSING
        assert outcome(UNBOUND, caller, requirement(accept, BindingMode.WHEN_PRESENT)) is Reason.OK


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("accept", [SPIFFE, BOTH])
def test_a_token_that_names_its_workload_needs_that_workload(
    mode: BindingMode, accept: frozenset[BindingMethod]
) -> None:
    required = requirement(accept, mode)
    assert outcome(NAMED, peer(), required) is Reason.OK
    assert outcome(NAMED, peer(None), required) is Reason.OK
    assert outcome(NAMED, None, required) is Reason.BINDING_SPIFFE_ID_UNAVAILABLE
    assert outcome(NAMED, peer(OURS, None), required) is Reason.BINDING_SPIFFE_ID_UNAVAILABLE
    other = peer(OURS, "spiffe://example.org/ns/a/sa/other")
    assert outcome(NAMED, other, required) is Reason.BINDING_SPIFFE_ID_MISMATCH
    assert outcome(token(None, client_spiffe_id=7), peer(), required) is Reason.BINDING_SPIFFE_ID_MISMATCH


def test_the_name_in_the_token_does_not_count_where_only_the_thumbprint_does() -> None:
    assert outcome(NAMED, peer(), requirement(X5T)) is Reason.BINDING_MISSING
    assert outcome(NAMED, None, requirement(X5T, BindingMode.WHEN_PRESENT)) is Reason.OK


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_a_matching_thumbprint_does_not_suffice_where_only_the_spiffe_id_does(mode: BindingMode) -> None:
    required = requirement(SPIFFE, mode)
    assert outcome(BOUND, peer(), required) is Reason.BINDING_MISSING
    assert outcome(BOUND_AND_NAMED, peer(), required) is Reason.OK
    assert outcome(BOUND_AND_NAMED, peer(OURS, None), required) is Reason.BINDING_SPIFFE_ID_UNAVAILABLE
    other = peer(OURS, "spiffe://example.org/ns/a/sa/other")
    assert outcome(BOUND_AND_NAMED, other, required) is Reason.BINDING_SPIFFE_ID_MISMATCH


def test_thumbprints_and_names_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr("ext_authz.token.binding.hmac.compare_digest", compare_digest)
    match_binding(BOUND_AND_NAMED, peer(RENEWED), requirement(BOTH))
    assert compared == [(RENEWED, OURS), (ID.encode(), ID.encode())]
