"""Which XFCC element counts."""

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import XfccSource
from ext_authz.evidence.trusted_hop import select_element
from ext_authz.evidence.xfcc import XfccElement, parse_xfcc

A, B, C = (digit * 64 for digit in "abc")
GATEWAY = "spiffe://td/gateway"
WORKLOAD = "spiffe://td/workload"


def selected(text: str, source: XfccSource | None = None, destination: str = WORKLOAD) -> XfccElement:
    return select_element(parse_xfcc(text), source or XfccSource(), destination)


def refusal_for(text: str, source: XfccSource | None = None, destination: str = WORKLOAD) -> Reason:
    with pytest.raises(Refusal) as refused:
        selected(text, source, destination)
    return refused.value.reason


def test_one_hop_counts_the_rightmost_element() -> None:
    element = selected(f"By={GATEWAY};Hash={A};URI=spiffe://td/client,By={WORKLOAD};Hash={B};URI={GATEWAY}")
    assert element.hash == bytes.fromhex(B)


def test_two_hops_count_the_second_element_from_the_right() -> None:
    element = selected(
        f"By={GATEWAY};Hash={A};URI=spiffe://td/client,By={WORKLOAD};Hash={B};URI={GATEWAY}",
        XfccSource(trusted_hops=2, via=(GATEWAY,)),
    )
    assert element.hash == bytes.fromhex(A)


def test_the_clients_own_text_on_the_left_does_not_count() -> None:
    element = selected(f"By=x;Hash={C};URI=spiffe://td/admin,By={WORKLOAD};Hash={A};URI=spiffe://td/client")
    assert element.uris == ("spiffe://td/client",)


def test_fewer_elements_than_trusted_hops_are_refused() -> None:
    assert (
        refusal_for(f"By={WORKLOAD};Hash={A}", XfccSource(trusted_hops=2, via=(GATEWAY,)))
        is Reason.XFCC_TOO_FEW_ELEMENTS
    )


def test_the_by_condition_is_met_by_any_of_the_proxys_names() -> None:
    source = XfccSource(by=(GATEWAY, WORKLOAD))
    assert selected(f"By=spiffe://td/alias;By={WORKLOAD};Hash={A}", source).hash == bytes.fromhex(A)


@pytest.mark.parametrize("by", [f"By={WORKLOAD}/x;", f"By={WORKLOAD.upper()};", "By=;", ""])
def test_an_element_of_another_proxy_is_refused_under_the_by_condition(by: str) -> None:
    assert refusal_for(f"{by}Hash={A}", XfccSource(by=(WORKLOAD,))) is Reason.XFCC_BY_MISMATCH


def test_an_element_without_by_counts_when_it_is_the_only_one() -> None:
    # a proxy whose certificate has no URI SAN writes no By
    assert selected(f"Hash={A};URI=", destination="proxy.example.com").hash == bytes.fromhex(A)


def test_an_element_without_by_beside_others_is_refused() -> None:
    # the SAN `x,Hash=<another>` makes exactly this text
    text = f"Hash={A};URI=x,Hash={B};URI=y"
    assert refusal_for(text, destination="proxy.example.com") is Reason.XFCC_BY_MISMATCH


def test_a_san_that_adds_an_element_with_the_proxys_name_is_refused() -> None:
    # URI SAN: `x,By=<our proxy>;Hash=<another>;URI=spiffe://td/admin`
    text = f"By={WORKLOAD};Hash={A};URI=x,By={WORKLOAD};Hash={B};URI=spiffe://td/admin"
    assert refusal_for(text) is Reason.XFCC_BY_MISMATCH
    assert refusal_for(text, XfccSource(by=(WORKLOAD,))) is Reason.XFCC_BY_MISMATCH


def test_a_san_that_adds_an_element_with_another_name_is_refused() -> None:
    text = f"By={WORKLOAD};Hash={A};URI=x,By=spiffe://td/other;Hash={B};URI=spiffe://td/admin"
    assert refusal_for(text) is Reason.XFCC_BY_MISMATCH
    assert refusal_for(text, XfccSource(by=(WORKLOAD, "spiffe://td/other"))) is Reason.XFCC_BY_MISMATCH


def test_a_client_that_sends_the_proxys_own_name_is_refused() -> None:
    text = f"By={WORKLOAD};Hash={C},By={WORKLOAD};Hash={A};URI=spiffe://td/client"
    assert refusal_for(text) is Reason.XFCC_BY_MISMATCH


def test_a_san_in_a_quote_that_the_client_opened_is_refused() -> None:
    # client header `URI="`, URI SAN `x",By=<our proxy>;Hash=<another>`: the quote would swallow the true element
    with pytest.raises(Refusal) as refused:
        selected(f'URI=",By={WORKLOAD};Hash={A};URI=x",By={WORKLOAD};Hash={B};URI=y')
    assert refused.value.reason is Reason.XFCC_MALFORMED


def test_the_destination_vouches_for_one_hop_only() -> None:
    text = f"By=x;Hash={C},By={GATEWAY};Hash={A},By={WORKLOAD};Hash={B};URI={GATEWAY}"
    assert refusal_for(text, XfccSource(trusted_hops=2, via=(GATEWAY,))) is Reason.XFCC_BY_MISMATCH
    assert selected(text, XfccSource(trusted_hops=2, by=(GATEWAY,), via=(GATEWAY,))).hash == bytes.fromhex(A)


def test_nothing_vouches_where_the_destination_is_unknown() -> None:
    text = f"By=x;Hash={C},By={WORKLOAD};Hash={A}"
    assert refusal_for(text, destination="") is Reason.XFCC_BY_MISMATCH
    assert selected(text, XfccSource(by=(WORKLOAD,)), destination="").hash == bytes.fromhex(A)


@pytest.mark.parametrize(
    "pairs",
    [
        f"URI=x;Hash={B}",
        f"Hash={A};By=x",
        "URI=x;By=y",
        'URI=x;Subject="CN=admin"',
        'URI=x;Cert="a"',
        "DNS=x;URI=spiffe://td/admin",
        'Subject="";Chain="a"',
    ],
)
def test_pairs_that_a_san_injects_out_of_envoys_order_are_refused(pairs: str) -> None:
    assert refusal_for(f"By={WORKLOAD};{pairs}") is Reason.XFCC_MALFORMED


@pytest.mark.parametrize("pair", ['URI="spiffe://td/admin"', 'DNS="x"'])
def test_a_quoted_name_is_refused_because_the_quotes_are_part_of_the_san(pair: str) -> None:
    assert refusal_for(f"By={WORKLOAD};{pair}") is Reason.XFCC_MALFORMED
    assert refusal_for(f'By="{WORKLOAD}";Hash={A}') is Reason.XFCC_MALFORMED


def test_the_order_of_untrusted_elements_is_the_clients_own_matter() -> None:
    assert selected(f"URI=x;By=y,By={WORKLOAD};Hash={A}").hash == bytes.fromhex(A)


def test_an_element_without_hash_is_what_an_ambient_waypoint_writes() -> None:
    element = selected(f"By={WORKLOAD};URI=spiffe://td/client")
    assert element.hash is None
    assert element.uris == ("spiffe://td/client",)


@pytest.mark.parametrize(
    "uris", [f"URI={WORKLOAD}", "URI=", f"URI={GATEWAY};URI={WORKLOAD}", f"URI={WORKLOAD};URI={GATEWAY}", ""]
)
@pytest.mark.parametrize("by", [(), (GATEWAY,)])
def test_an_element_counts_only_if_a_proxy_in_front_sent_it(uris: str, by: tuple[str, ...]) -> None:
    # a workload that goes round the gateway sends the gateway's element itself
    text = f"By={GATEWAY};Hash={A};URI=spiffe://td/client,By={WORKLOAD};Hash={B};{uris}".rstrip(";")
    assert refusal_for(text, XfccSource(2, by, via=(GATEWAY,))) is Reason.XFCC_VIA_MISMATCH


@pytest.mark.parametrize(("hops", "via"), [(2, ()), (3, ()), (1, (GATEWAY,))])
def test_proxies_in_front_are_named_exactly_when_there_are_some(hops: int, via: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="`via`"):
        XfccSource(hops, via=via)
