"""XFCC: any text yields elements or our own refusal, and no SAN wins over the hash that Envoy wrote."""

import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import XfccSource
from ext_authz.evidence.trusted_hop import select_element
from ext_authz.evidence.xfcc import MAX_XFCC_LENGTH, parse_xfcc

PROXY = "spiffe://td/proxy"
REAL = "aa" * 32
VICTIM = "bb" * 32

pieces = st.sampled_from(
    [
        *',;"\\= x',
        '\\"',
        f"By={PROXY}",
        f"by={PROXY}",
        "By=spiffe://td/other",
        f"Hash={VICTIM}",
        f"hash={VICTIM}",
        "URI=spiffe://td/admin",
        "URI=",
        'URI="',
        'Subject="',
        "Subject=",
        "Cert=",
        "Chain=",
        "DNS=",
        f",By={PROXY};Hash={VICTIM}",
        f",Hash={VICTIM}",
    ]
)
texts = st.lists(pieces, max_size=8).map("".join)


def refused_or_parsed(text: str) -> None:
    try:
        elements = parse_xfcc(text)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        assert elements
        for element in elements:
            assert element.keys
            assert element.hash is None or len(element.hash) == 32
        return
    assert reason in {Reason.XFCC_MALFORMED, Reason.XFCC_JSON_NOT_SUPPORTED}


@settings(deadline=None)
@given(st.text())
def test_any_text_yields_elements_or_a_refusal(text: str) -> None:
    refused_or_parsed(text)


@settings(deadline=None)
@given(texts)
def test_any_text_that_looks_like_xfcc_yields_elements_or_a_refusal(text: str) -> None:
    refused_or_parsed(text)


@settings(deadline=None)
@given(st.sampled_from(["By=x;", "By=x,", 'URI="\\\\', '"', "\\", ";", ",", "=", " ", "By=", 'By="', "\t"]))
def test_a_text_of_the_greatest_length_is_read_in_bounded_time(piece: str) -> None:
    text = (piece * MAX_XFCC_LENGTH)[:MAX_XFCC_LENGTH]
    begin = time.process_time()
    refused_or_parsed(text)
    # a few milliseconds; a quadratic reader would take minutes
    assert time.process_time() - begin < 5


def as_envoy_writes(by: list[str], details: set[str], subject: str, uris: list[str], dns: list[str]) -> str:
    """The element of a proxy that saw a client certificate with these names, as Envoy joins it."""
    pairs = [f"By={name}" for name in by] + [f"Hash={REAL}"]
    if "subject" in details:
        # RFC 2253 text begins with an attribute type, and escapes quotes and backslashes
        escaped = subject.replace("\\", "\\\\").replace('"', '\\"').replace(",", "\\,").replace(";", "\\;")
        pairs.append(f'Subject="{"CN=" if subject else ""}{escaped}"')
    if "uri" in details:
        pairs += [f"URI={uri}" for uri in uris or [""]]
    if "dns" in details:
        pairs += [f"DNS={name}" for name in dns]
    return ";".join(pairs)


@settings(max_examples=150, deadline=None)
@given(
    client_text=st.none() | texts,
    by=st.sampled_from([[], [PROXY], [PROXY, "spiffe://td/alias"], ["spiffe://td/alias", PROXY]]),
    details=st.sets(st.sampled_from(["subject", "uri", "dns"])),
    subject=texts,
    uris=st.lists(texts, max_size=2),
    dns=st.lists(texts, max_size=2),
    name_by=st.booleans(),
)
# a SAN that adds an element, one that closes a quote that the client opened, one that swallows Envoy's element whole
@example(
    client_text=None,
    by=[PROXY],
    details={"uri"},
    subject="",
    uris=[f"x,By={PROXY};Hash={VICTIM}"],
    dns=[],
    name_by=False,
)
@example(
    client_text='URI="',
    by=[PROXY],
    details={"uri"},
    subject="",
    uris=[f'x",By={PROXY};Hash={VICTIM}'],
    dns=[],
    name_by=False,
)
@example(client_text=f'Hash={VICTIM};URI="', by=[], details={"uri"}, subject="", uris=['x"'], dns=[], name_by=False)
@example(client_text=f'Hash={VICTIM};Subject="', by=[], details={"uri"}, subject="", uris=['x"'], dns=[], name_by=False)
@example(client_text=None, by=[PROXY], details={"uri"}, subject="", uris=['"spiffe://td/admin"'], dns=[], name_by=False)
@example(
    client_text=f"By={PROXY};Hash={VICTIM}",
    by=[PROXY],
    details={"uri"},
    subject="",
    uris=["spiffe://td/me"],
    dns=[],
    name_by=False,
)
def test_no_client_text_and_no_name_in_a_certificate_wins_over_the_hash_that_envoy_wrote(
    *,
    client_text: str | None,
    by: list[str],
    details: set[str],
    subject: str,
    uris: list[str],
    dns: list[str],
    name_by: bool,
) -> None:
    written = as_envoy_writes(by, details, subject, uris, dns)
    header = written if not client_text else f"{client_text},{written}"
    # Envoy fills both from the first URI SAN of its own certificate; without one, the principal is a DNS name
    destination_principal = by[0] if by else "proxy.example.com"
    source = XfccSource(by=tuple(by) if name_by else ())
    try:
        selected = select_element(parse_xfcc(header), source, destination_principal)
    except Refusal:
        return
    assert selected.hash == bytes.fromhex(REAL)
    if selected.uris is not None and len(selected.uris) == 1 and "uri" in details:
        # `a;DNS=x` reads like `a`: the one thing the text does not tell, see `trusted_hop`
        assert len(uris) == 1
        assert uris[0] == selected.uris[0] or uris[0].startswith(f"{selected.uris[0]};")


@settings(max_examples=100, deadline=None)
@given(
    client_text=st.none() | texts,
    uris=st.lists(texts, max_size=2),
    name_by=st.booleans(),
    by=st.sampled_from([[], [PROXY]]),
)
@example(None, [f"x,By={PROXY};Hash={VICTIM}"], False, [PROXY])
@example(None, [f"x,By={PROXY};Hash={VICTIM}"], True, [PROXY])
@example(None, [f"x,Hash={VICTIM}"], False, [])
def test_the_same_holds_two_hops_away(client_text: str | None, uris: list[str], name_by: bool, by: list[str]) -> None:
    edge = as_envoy_writes(by, {"uri"}, "", uris, [])
    inner = f"By=spiffe://td/workload;Hash={'cc' * 32};URI={PROXY}"
    header = ",".join(text for text in (client_text, edge, inner) if text)
    source = XfccSource(trusted_hops=2, by=tuple(by) if name_by else (), via=(PROXY,))
    try:
        selected = select_element(parse_xfcc(header), source, "spiffe://td/workload")
    except Refusal:
        return
    assert selected.hash == bytes.fromhex(REAL)
