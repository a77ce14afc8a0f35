"""URL-encoded PEM: any text yields bytes or our own refusal."""

import base64
import time
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.pem import MAX_PEM_TEXT_LENGTH, parse_url_encoded_chain, parse_url_encoded_pem

looks_like_pem = st.lists(
    st.sampled_from(
        [
            "-----BEGIN%20CERTIFICATE-----%0A",
            "-----END%20CERTIFICATE-----%0A",
            "AAAA%0A",
            "%0A",
            "%",
            "AA%3D%3D%0A",
            "x",
        ]
    ),
    max_size=8,
).map("".join)


@settings(deadline=None)
@given(st.text() | looks_like_pem)
def test_any_text_yields_certificates_or_a_refusal(text: str) -> None:
    for parse in (parse_url_encoded_pem, parse_url_encoded_chain):
        try:
            parse(text)
        except Refusal as refusal:
            reason = refusal.reason
        else:
            continue
        assert reason is Reason.CERTIFICATE_MALFORMED


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_what_a_proxy_encodes_is_read_back(certificates: list[bytes]) -> None:
    pem = "".join(
        f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
        for der in certificates
    )
    assert parse_url_encoded_chain(quote(pem, safe="")) == tuple(certificates)


@settings(deadline=None)
@given(st.sampled_from(["%0A", "A", "AAAA%0A", "-----BEGIN%20CERTIFICATE-----%0AAAAA%0A", "-", "%41"]))
def test_a_text_of_the_greatest_length_is_read_in_bounded_time(piece: str) -> None:
    begin = time.process_time()
    for start in ("", "-----BEGIN%20CERTIFICATE-----%0A"):
        longest = start + piece * ((MAX_PEM_TEXT_LENGTH - len(start)) // len(piece))
        for parse in (parse_url_encoded_pem, parse_url_encoded_chain):
            try:
                parse(longest)
            except Refusal:
                continue
    assert time.process_time() - begin < 5
