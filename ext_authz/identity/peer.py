"""From what the trusted sources say to who the peer is.

Every source that is present must be well-formed and agree with the others; then binding has its thumbprint. Identity
needs more: a chain that the proxy verified (`chain_verified_by: proxy`) or that verifies here against the bundle of
the certificate's own trust domain. A certificate that nobody vouches for binds and never identifies (RFC 8705 §6.2).
"""

import hashlib
import math
from dataclasses import dataclass

from ext_authz.cache import BoundedCache, CacheCounts
from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.connection import ConnectionEvidence, Statement, collect, evidence_texts
from ext_authz.evidence.settings import EvidenceSettings
from ext_authz.facts import RequestFacts
from ext_authz.identity.bundle import Bundles
from ext_authz.identity.certificate import Leaf, load_certificate, parse_leaf
from ext_authz.identity.svid import check_leaf, parse_workload_id, verify_svid
from ext_authz.principal import Peer, TrustedBy
from ext_authz.spiffe import SpiffeId

__all__ = ["MAX_KEY_LENGTH", "NEGATIVE_SECONDS", "CertificateCache", "peer_from"]

NEGATIVE_SECONDS = 10.0
"""How long a certificate that did not verify is remembered as such: long enough to make a flood of one certificate
cheap, short enough that nobody waits for a certificate whose time has come."""

MAX_KEY_LENGTH = 8_192
"""Characters of evidence kept as a key; beyond, its SHA-256. Usual evidence is 1 to 4 KB, and comparing it is cheaper
than hashing it; the bound is on what a flood of long headers can make a cache hold."""

_SPIFFE_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A peer and the time (seconds since the epoch) in which it is the right answer: from, inclusive, to, exclusive."""

    peer: Peer
    valid_from: float
    valid_to: float


class CertificateCache:
    """Peers by the exact texts they were read from.

    It belongs to one `EvidenceSettings` and one `Bundles`, as a snapshot holds them, and is thrown away with them.
    Refusals are not kept: they cost less than what they could displace.
    """

    __slots__ = ("_outcomes",)

    def __init__(self, capacity: int = 4_096) -> None:
        """Remember at most `capacity` connections' evidence: at 8 KB of key and certificate each, some tens of MB."""
        self._outcomes: BoundedCache[tuple[str | None, ...] | bytes, _Outcome] = BoundedCache(capacity)

    def get(self, texts: tuple[str | None, ...], now: float) -> Peer | None:
        """The peer for exactly these texts, or None when it is not known for the time `now`."""
        outcome = self._outcomes.get(_key(texts), now)
        # the clock may have been set back: before its time an outcome is no answer either
        if outcome is None or now < outcome.valid_from:
            return None
        return outcome.peer

    def put(self, texts: tuple[str | None, ...], outcome: _Outcome) -> None:
        """Remember what these texts showed."""
        self._outcomes.put(_key(texts), outcome, outcome.valid_to)

    @property
    def counts(self) -> CacheCounts:
        """For metrics."""
        return self._outcomes.counts

    def __len__(self) -> int:
        return len(self._outcomes)


def peer_from(
    facts: RequestFacts,
    settings: EvidenceSettings,
    bundles: Bundles,
    now: float,
    certificates: CertificateCache,
) -> Peer | None:
    """Who the trusted evidence shows on the connection.

    Args:
        facts: the request.
        settings: which sources are trusted.
        bundles: every trust domain's authorities.
        now: seconds since the epoch.
        certificates: what is remembered for exactly these settings and bundles.

    Returns:
        None when no trusted source says anything.

    Raises:
        Refusal: evidence that is malformed (as `collect`; CERTIFICATE_MALFORMED), or that contradicts itself:
            XFCC_HASH_MISMATCH, CONFLICTING_EVIDENCE. A certificate that merely identifies nobody is a `Peer` with an
            `identity_refusal`.
    """
    texts = evidence_texts(facts, settings)
    if texts.count(None) == len(texts):
        return None
    peer = certificates.get(texts, now)
    if peer is None:
        outcome = _decide(collect(facts, settings), settings, bundles, now)
        certificates.put(texts, outcome)
        peer = outcome.peer
    return peer


def _key(texts: tuple[str | None, ...]) -> tuple[str | None, ...] | bytes:
    length = 0
    for text in texts:
        if text is not None:
            length += len(text)
    if length <= MAX_KEY_LENGTH:
        return texts
    # repr tells absent from empty and where one text ends; a lone surrogate, which no header decodes to, is escaped
    return hashlib.sha256(repr(texts).encode()).digest()


def _decide(evidence: ConnectionEvidence, settings: EvidenceSettings, bundles: Bundles, now: float) -> _Outcome:
    statements = evidence.statements
    leaf = _leaf(statements)
    thumbprint = _thumbprint(statements, leaf)
    uris = _uris(statements, leaf)
    principal = _principal(statements, uris)
    # every intermediate is read, needed or not: what is present must be valid
    intermediates = tuple(load_certificate(der) for statement in statements for der in statement.intermediates)

    identity: SpiffeId | Refusal
    trusted_by = TrustedBy.NOBODY
    valid_from, valid_to = -math.inf, math.inf
    try:
        if settings.chain_verified_by_proxy:
            trusted_by = TrustedBy.PROXY
            identity = _as_the_proxy_says(leaf, uris, principal)
        else:
            svid = verify_svid(_certificate(leaf, bundles), intermediates, bundles, now)
            trusted_by = TrustedBy.BUNDLE
            identity, valid_from, valid_to = svid.spiffe_id, svid.not_before, svid.not_after
    except Refusal as refusal:
        # without the traceback, which would keep everything above alive
        identity = Refusal(refusal.reason, refusal.detail)
        if trusted_by is TrustedBy.NOBODY:
            valid_from, valid_to = now, _retry_at(leaf, now)
    return _Outcome(
        Peer(
            thumbprint=thumbprint,
            certificate=None if leaf is None else leaf.peer,
            spiffe_id=None if isinstance(identity, Refusal) else identity,
            trusted_by=trusted_by,
            identity_refusal=identity if isinstance(identity, Refusal) else None,
            provenance=tuple(statement.provenance for statement in statements),
        ),
        valid_from,
        valid_to,
    )


def _leaf(statements: tuple[Statement, ...]) -> Leaf | None:
    leaf: Leaf | None = None
    for statement in statements:
        der = statement.certificate
        if der is None:
            continue
        if statement.thumbprint is not None and hashlib.sha256(der).digest() != statement.thumbprint:
            raise Refusal(Reason.XFCC_HASH_MISMATCH, "`Hash` is not the SHA-256 of the certificate beside it")
        if leaf is None:
            leaf = parse_leaf(der)
        elif leaf.peer.der != der:
            raise Refusal(Reason.CONFLICTING_EVIDENCE, "two sources show two certificates")
    return leaf


def _thumbprint(statements: tuple[Statement, ...], leaf: Leaf | None) -> bytes | None:
    thumbprint = None if leaf is None else leaf.peer.thumbprint
    for statement in statements:
        if statement.thumbprint is None:
            continue
        if thumbprint is not None and thumbprint != statement.thumbprint:
            raise Refusal(Reason.CONFLICTING_EVIDENCE, "`Hash` is of another certificate than the one shown")
        thumbprint = statement.thumbprint
    return thumbprint


def _uris(statements: tuple[Statement, ...], leaf: Leaf | None) -> tuple[str, ...] | None:
    uris = None if leaf is None else leaf.peer.uri_sans
    for statement in statements:
        if statement.uris is None:
            continue
        if uris is not None and uris != statement.uris:
            raise Refusal(Reason.CONFLICTING_EVIDENCE, "`URI` is not what the certificate holds")
        uris = statement.uris
    return uris


def _principal(statements: tuple[Statement, ...], uris: tuple[str, ...] | None) -> str | None:
    """The principal where it is a SPIFFE ID: Envoy also puts a DNS name or the subject there."""
    for statement in statements:
        principal = statement.principal
        if principal is not None and principal.startswith(_SPIFFE_SCHEME):
            # Envoy: the first URI SAN
            if uris is not None and principal not in uris[:1]:
                raise Refusal(Reason.CONFLICTING_EVIDENCE, "the principal is not the certificate's first URI")
            return principal
    return None


def _as_the_proxy_says(leaf: Leaf | None, uris: tuple[str, ...] | None, principal: str | None) -> SpiffeId:
    # The certificate's period is the proxy's to check, at the handshake: connections outlive certificates that rotate.
    if leaf is not None:
        return check_leaf(leaf)
    if uris is not None:
        return parse_workload_id(uris)
    if principal is not None:
        return parse_workload_id((principal,))
    raise Refusal(Reason.SPIFFE_ID_MISSING, "no trusted source shows a SPIFFE ID")


def _certificate(leaf: Leaf | None, bundles: Bundles) -> Leaf:
    if not len(bundles):
        raise Refusal(Reason.CHAIN_NOT_VERIFIED, "no trust bundle, and the proxy is not said to verify chains")
    if leaf is None:
        raise Refusal(
            Reason.CHAIN_NEEDS_CERTIFICATE, "no trusted source shows the certificate, so nothing can verify it"
        )
    return leaf


def _retry_at(leaf: Leaf | None, now: float) -> float:
    """When an identity that was refused is to be looked at again."""
    retry_at = now + NEGATIVE_SECONDS
    if leaf is not None and now < leaf.peer.not_before:
        return min(retry_at, leaf.peer.not_before)
    return retry_at
