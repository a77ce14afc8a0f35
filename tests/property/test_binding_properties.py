"""No combination of token, peer and rule lets a bound token pass on another's connection."""

from hypothesis import given
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import Provenance
from ext_authz.principal import Confirmation, Peer, TrustedBy, VerifiedToken
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement
from ext_authz.spiffe import SpiffeId
from ext_authz.token.binding import match_binding

IDS = ["spiffe://a.example/x", "spiffe://a.example/y"]
THUMBPRINTS = [bytes(32), b"\1" * 32, b"\2" * 32]


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    text = draw(st.sampled_from([None, *IDS]))
    return Peer(
        thumbprint=draw(st.sampled_from([None, *THUMBPRINTS])),
        certificate=None,
        spiffe_id=None if text is None else SpiffeId.parse(text),
        trusted_by=TrustedBy.NOBODY if text is None else TrustedBy.BUNDLE,
        identity_refusal=Refusal(Reason.CERTIFICATE_UNTRUSTED, "untrusted") if text is None else None,
        provenance=(Provenance.XFCC,),
    )


@st.composite
def tokens(draw: st.DrawFn) -> VerifiedToken:
    thumbprint = draw(st.sampled_from([None, *THUMBPRINTS]))
    return VerifiedToken(
        issuer_name="corp",
        issuer="https://issuer.example",
        subject="alice",
        client_id=None,
        audiences=(),
        scopes=frozenset(),
        token_id=None,
        issued_at=None,
        expires_at=0.0,
        not_before=None,
        skew=0.0,
        confirmation=None if thumbprint is None else Confirmation(thumbprint),
        claims=draw(st.sampled_from([{}, *({"workload": text} for text in IDS)])),
    )


@st.composite
def requirements(draw: st.DrawFn) -> BindingRequirement:
    accept = draw(st.frozensets(st.sampled_from(BindingMethod), min_size=1))
    claim = "workload" if BindingMethod.SPIFFE_ID in accept else None
    return BindingRequirement(draw(st.sampled_from(BindingMode)), accept, claim)


@given(tokens(), st.none() | peers(), requirements())
def test_a_token_passes_only_to_the_one_it_was_issued_to(
    token: VerifiedToken, peer: Peer | None, requirement: BindingRequirement
) -> None:
    try:
        match_binding(token, peer, requirement)
    except Refusal as refusal:
        assert refusal.reason.startswith("binding_")  # noqa: PT017 - the other outcome is asserted below
        return
    same_certificate = (
        token.confirmation is not None and peer is not None and peer.thumbprint == token.confirmation.x5t_s256
    )
    same_workload = (
        peer is not None and peer.spiffe_id is not None and token.claims.get("workload") == str(peer.spiffe_id)
    )
    by_certificate = same_certificate and BindingMethod.X5T_S256 in requirement.accept
    by_workload = same_workload and BindingMethod.SPIFFE_ID in requirement.accept
    unbound = token.confirmation is None and requirement.mode is BindingMode.WHEN_PRESENT
    assert by_certificate or by_workload or unbound
    if token.confirmation is not None:
        # compared, whatever the rule
        assert peer is not None
        assert peer.thumbprint is not None
