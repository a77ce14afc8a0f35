"""Whether the token was issued to the one who presents it (RFC 8705 §3)."""

import hmac

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import Confirmation, Peer, VerifiedToken
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement

__all__ = ["match_binding"]


def match_binding(token: VerifiedToken, peer: Peer | None, requirement: BindingRequirement) -> None:
    """Return when the token belongs to the peer as far as the rule requires it.

    A `cnf` is looked at whatever the mode, and one that cannot be compared always denies. The thumbprint is the
    stronger proof; where the rule accepts `spiffe-id` too, a token whose certificate was renewed is still its
    workload's when the named claim is the peer's verified SPIFFE ID.

    Args:
        token: its confirmation is already parsed; a malformed one never gets here.
        peer: the caller on the connection; None when there is no evidence of one.
        requirement: the rule's.

    Raises:
        Refusal: BINDING_CERTIFICATE_MISSING and BINDING_THUMBPRINT_UNAVAILABLE for a token with `cnf` and nothing to
            compare it with; BINDING_THUMBPRINT_MISMATCH for another certificate; BINDING_SPIFFE_ID_UNAVAILABLE and
            BINDING_SPIFFE_ID_MISMATCH where the SPIFFE ID alone could have bound it; BINDING_MISSING for an unbound
            token where the mode is REQUIRED.
    """
    accepts_spiffe_id = BindingMethod.SPIFFE_ID in requirement.accept
    if token.confirmation is not None:
        if _has_thumbprint(peer, token.confirmation):
            if BindingMethod.X5T_S256 in requirement.accept:
                return
        elif not (accepts_spiffe_id and _spiffe_id_refusal(token, peer, requirement) is None):
            raise Refusal(
                Reason.BINDING_THUMBPRINT_MISMATCH,
                "the token is bound to another certificate than the one on the connection",
            )
        else:
            return
    # from here on only the SPIFFE ID can bind it
    if accepts_spiffe_id and _bound_claim(token, requirement) is not None:
        refusal = _spiffe_id_refusal(token, peer, requirement)
        if refusal is not None:
            raise refusal
        return
    if requirement.mode is BindingMode.REQUIRED or token.confirmation is not None:
        raise Refusal(Reason.BINDING_MISSING, "the token carries no binding that this rule accepts")


def _has_thumbprint(peer: Peer | None, confirmation: Confirmation) -> bool:
    if peer is None:
        raise Refusal(
            Reason.BINDING_CERTIFICATE_MISSING,
            "the token is bound to a certificate and the connection shows none",
        )
    if peer.thumbprint is None:
        raise Refusal(
            Reason.BINDING_THUMBPRINT_UNAVAILABLE,
            "the token is bound to a certificate and the proxy passes on the caller's name only, no thumbprint",
        )
    return hmac.compare_digest(peer.thumbprint, confirmation.x5t_s256)


def _bound_claim(token: VerifiedToken, requirement: BindingRequirement) -> object:
    """The claim that names the workload, or None; a claim that is there binds the token even where none is required."""
    name = requirement.spiffe_id_claim
    return None if name is None else token.claims.get(name)


def _spiffe_id_refusal(token: VerifiedToken, peer: Peer | None, requirement: BindingRequirement) -> Refusal | None:
    if peer is None or peer.spiffe_id is None:
        return Refusal(
            Reason.BINDING_SPIFFE_ID_UNAVAILABLE,
            "the token is bound to a SPIFFE ID and the connection shows no verified one",
        )
    claim = _bound_claim(token, requirement)
    # encoded, as compare_digest takes no text beyond ASCII
    if isinstance(claim, str) and hmac.compare_digest(claim.encode(), str(peer.spiffe_id).encode()):
        return None
    return Refusal(Reason.BINDING_SPIFFE_ID_MISMATCH, "the token is bound to another SPIFFE ID than the caller's")
