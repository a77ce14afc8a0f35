"""Which XFCC element counts: the one that the trusted proxy wrote, even when the client has odd SANs.

Under APPEND_FORWARD the client's own text is on the left, so elements count from the right. That alone is not enough:
Envoy writes By, URI and DNS as they are in the certificates, and a client certificate may hold the SAN
`x,By=y;Hash=<another certificate>`. Envoy then writes, in its own element, a second one to the right of it. Where the
proxy does not verify clients (ACCEPT_UNTRUSTED) anyone can make such a certificate.

What holds against it, each of them needed:

1. Envoy writes `By…;Hash;Cert;Chain;Subject;URI…;DNS…` in this order and only the last two hold text of the client's
   choice (quoted and escaped in Subject). An element in another order was not written by Envoy alone: pairs injected
   by a URI can only be more URIs and DNS names, and an identity needs exactly one URI. Nor does Envoy ever quote
   these: a quote around one is part of the SAN, and must not be taken off it.
2. No value contains `By=` or `Hash=` (see `ext_authz.evidence.xfcc`), so the true beginning of a proxy's element is
   always read as one. Every proxy adds at least one element, so where the header has exactly as many as there are
   trusted hops, nobody added another.
3. Where it has more, the element that counts must be vouched for by its `By`: the configured `by`, or, with one hop
   and none configured, the `destination.principal` of the same CheckRequest, which Envoy takes from the certificate
   that it takes `By` from. The true element carries it too, so if any other element carries it, one of the two is forged.

4. With more than one hop, each element but the leftmost of them must tell of a peer named in `via`: the text in front of
   an element is what that peer sent, and a workload that goes round the gateway can send anything, `By` of the gateway
   included. That takes a proxy that verifies those peers, which the configuration demands with `via`.

What remains: a URI SAN `spiffe://td/a;DNS=x` reads like the SAN `spiffe://td/a`. It matters for identity alone, so an
authority that the proxy trusts must have signed that name; `PrincipalSource` beside this one shows the SAN as it is,
and the two then disagree.

The destination principal vouches for what this Envoy writes. Where it only forwards (FORWARD_ONLY), `by` names the
proxy that wrote.
"""

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import XfccSource
from ext_authz.evidence.xfcc import XfccElement

__all__ = ["select_element"]

_ORDER = {"by": 0, "hash": 1, "cert": 2, "chain": 3, "subject": 4, "uri": 5, "dns": 6}
_NEVER_QUOTED = frozenset({"by", "uri", "dns"})


def select_element(
    elements: tuple[XfccElement, ...],
    source: XfccSource,
    destination_principal: str,
) -> XfccElement:
    """The element that `source` trusts.

    Args:
        elements: as parsed, leftmost first.
        source: how many hops are trusted, and which proxies.
        destination_principal: `destination.principal`, or empty.

    Raises:
        Refusal: XFCC_TOO_FEW_ELEMENTS, XFCC_VIA_MISMATCH, XFCC_BY_MISMATCH, or XFCC_MALFORMED for an element that Envoy cannot have
            written.
    """
    hops = source.trusted_hops
    if len(elements) < hops:
        raise Refusal(Reason.XFCC_TOO_FEW_ELEMENTS, "fewer elements than trusted hops")
    for element in elements[-hops:]:
        ranks = [_ORDER[key] for key in element.keys]
        if ranks != sorted(ranks):
            raise Refusal(Reason.XFCC_MALFORMED, "the pairs are not in the order that Envoy writes")
        if element.quoted_keys & _NEVER_QUOTED:
            raise Refusal(Reason.XFCC_MALFORMED, "a quoted `By`, `URI` or `DNS`, which Envoy never writes")
    for element in elements[len(elements) - hops + 1 :]:
        # what is in front of an element was sent by the peer that the element tells of
        if element.uris is None or len(element.uris) != 1 or element.uris[0] not in source.via:
            raise Refusal(Reason.XFCC_VIA_MISMATCH, "an element that counts was not sent by a proxy named in `via`")
    selected = elements[-hops]
    if source.by and not set(source.by) & set(selected.by):
        raise Refusal(Reason.XFCC_BY_MISMATCH, "`By` names no trusted proxy")
    if len(elements) > hops:
        _require_voucher(elements, selected, source, destination_principal)
    return selected


def _require_voucher(
    elements: tuple[XfccElement, ...],
    selected: XfccElement,
    source: XfccSource,
    destination_principal: str,
) -> None:
    vouching = set(source.by)
    if not vouching and source.trusted_hops == 1 and destination_principal:
        vouching = {destination_principal}
    if not vouching & set(selected.by):
        raise Refusal(
            Reason.XFCC_BY_MISMATCH,
            "more elements than trusted hops and no `By` that says which proxy wrote the one that counts",
        )
    for element in elements:
        if element is not selected and vouching & set(element.by):
            raise Refusal(Reason.XFCC_BY_MISMATCH, "two elements carry the `By` of the trusted proxy: one is forged")
