"""The text grammar of XFCC."""

import pytest
from support.pki import authority, self_signed, xfcc

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.xfcc import MAX_XFCC_ELEMENTS, MAX_XFCC_LENGTH, MAX_XFCC_PAIRS, XfccElement, parse_xfcc

HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"


def reason_for(text: str) -> Reason:
    with pytest.raises(Refusal) as refused:
        parse_xfcc(text)
    return refused.value.reason


def test_the_elements_of_envoys_documentation_are_read() -> None:
    first, second = parse_xfcc(
        f'By=http://frontend.lyft.com;Hash={HASH};Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client";'
        f"URI=http://testclient.lyft.com,By=http://backend.lyft.com;Hash={HASH};DNS=lyft.com;DNS=www.lyft.com"
    )
    assert first == XfccElement(
        keys=("by", "hash", "subject", "uri"),
        quoted_keys=frozenset({"subject"}),
        by=("http://frontend.lyft.com",),
        hash=bytes.fromhex(HASH),
        subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client",
        uris=("http://testclient.lyft.com",),
    )
    assert second.dns == ("lyft.com", "www.lyft.com")
    assert second.uris is None


def test_delimiters_and_escaped_quotes_in_a_quoted_value_are_text() -> None:
    (element,) = parse_xfcc('By=test;URI="a,b,c;\\"e;f;g=x";DNS=example.com')
    assert element.uris == ('a,b,c;"e;f;g=x',)
    assert element.dns == ("example.com",)


def test_an_element_as_envoy_writes_it_is_read() -> None:
    leaf = authority().svid("spiffe://cluster.local/ns/a/sa/b")
    (element,) = parse_xfcc(xfcc(leaf, by=["spiffe://a/b", "spiffe://c/d"], with_cert=True, with_chain=True, dns=["x"]))
    assert element.by == ("spiffe://a/b", "spiffe://c/d")
    assert element.hash == leaf.thumbprint
    assert element.cert == element.chain == leaf.url_encoded_pem
    assert element.subject == ""
    assert element.uris == ("spiffe://cluster.local/ns/a/sa/b",)
    assert element.dns == ("x",)


def test_an_empty_uri_alone_means_that_there_is_none() -> None:
    assert parse_xfcc(xfcc(self_signed()))[0].uris == ()


def test_an_empty_uri_beside_another_is_two() -> None:
    assert parse_xfcc("By=x;URI=;URI=spiffe://td/a")[0].uris == ("", "spiffe://td/a")


def test_keys_are_compared_without_case() -> None:
    (element,) = parse_xfcc(f"BY=a;hAsH={HASH.upper()};uri=b;dns=c")
    assert (element.by, element.hash, element.uris, element.dns) == (("a",), bytes.fromhex(HASH), ("b",), ("c",))


def test_an_equals_sign_in_a_plain_value_is_text() -> None:
    assert parse_xfcc("By=x;URI=https://a?b=c")[0].uris == ("https://a?b=c",)


def test_a_backslash_in_a_quoted_value_takes_the_next_character_with_it() -> None:
    # RFC 2253: the subject ends in an escaped backslash; the quote behind it ends the value
    (element,) = parse_xfcc('By=x;Subject="CN=a\\\\";URI=b')
    assert element.subject == "CN=a\\\\"
    assert element.uris == ("b",)


def test_white_space_in_front_of_an_element_is_skipped() -> None:
    assert [element.by for element in parse_xfcc("By=a, By=b,\tBy=c")] == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "By",
        "By=a,",
        ",By=a",
        "By=a,,By=b",
        "By=a;",
        ";By=a",
        "By=a;;URI=b",
        "By=a; URI=b",
        "=a",
        "By =a",
        "Foo=a",
        "By=a;Serial=1",
        "B\u0079\u0301=a",
        'URI="a',
        'URI=a"',
        'URI=a"b"',
        'URI="a"b',
        'URI="a" ;DNS=b',
        'URI="',
        'URI="a\\"',
        'URI="a\\',
        "URI=ä",
        "URI=a\x00",
        "URI=a\r\nDNS=b",
        "URI=\x7f",
        'URI="\t"',
        "Hash=",
        f"Hash={HASH[:-1]}",
        f"Hash={HASH}0",
        f"Hash={HASH[:-1]}g",
        f"Hash={HASH} ",
        f"Hash={HASH};Hash={HASH}",
        f"Hash={HASH};hash={HASH}",
        'Cert="a";Cert="a"',
        'Chain="a";Chain="a"',
        'Subject="a";Subject="a"',
        "URI=x?By=y",
        f'Subject="CN=Hash={HASH}"',
        f'URI=",By=a;Hash={HASH};Subject=";URI=b',
    ],
)
def test_what_the_grammar_does_not_have_is_malformed(text: str) -> None:
    assert reason_for(text) is Reason.XFCC_MALFORMED


@pytest.mark.parametrize("text", ['[{"By":"a"}]', '{"By":"a"}', "[]"])
def test_the_json_form_is_refused_by_name(text: str) -> None:
    assert reason_for(text) is Reason.XFCC_JSON_NOT_SUPPORTED


def test_json_after_an_element_is_malformed() -> None:
    assert reason_for('By=a,[{"By":"b"}]') is Reason.XFCC_MALFORMED


def test_a_header_has_a_greatest_length() -> None:
    assert len(parse_xfcc("URI=" + "a" * (MAX_XFCC_LENGTH - 4))) == 1
    assert reason_for("URI=" + "a" * (MAX_XFCC_LENGTH - 3)) is Reason.XFCC_MALFORMED


def test_a_header_has_a_greatest_number_of_elements() -> None:
    assert len(parse_xfcc(",".join(["By=a"] * MAX_XFCC_ELEMENTS))) == MAX_XFCC_ELEMENTS
    assert reason_for(",".join(["By=a"] * (MAX_XFCC_ELEMENTS + 1))) is Reason.XFCC_MALFORMED


def test_a_header_has_a_greatest_number_of_pairs_in_all_elements_together() -> None:
    half = ";".join(["DNS=a"] * (MAX_XFCC_PAIRS // 2))
    assert len(parse_xfcc(f"{half},{half}")) == 2
    assert reason_for(f"{half},{half};DNS=a") is Reason.XFCC_MALFORMED
