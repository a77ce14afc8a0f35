"""RFC 9440 headers: any text yields bytes or our own refusal."""

import base64
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.client_cert import parse_client_cert
from ext_authz.evidence.structured_fields import MAX_FIELD_LENGTH, parse_byte_sequence, parse_byte_sequences

REASONS = {Reason.CERTIFICATE_HEADER_MALFORMED, Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF}

looks_like_a_field = st.lists(
    st.sampled_from([":AQ==:", ":", "AA", "=", ",", ", ", ";", "a", "=1", '"', "\\", "(", ")", " ", "\t", "?1", "*"]),
    max_size=10,
).map("".join)
texts = st.none() | st.text() | looks_like_a_field


@settings(deadline=None)
@given(texts, texts)
def test_any_two_texts_yield_certificates_or_a_refusal(certificate: str | None, chain: str | None) -> None:
    try:
        parsed = parse_client_cert(certificate, chain)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        assert parsed is None or all((parsed[0], *parsed[1]))
        return
    assert reason in REASONS


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.lists(st.binary(min_size=1, max_size=200), max_size=5))
def test_what_a_proxy_encodes_is_read_back(leaf: bytes, chain: list[bytes]) -> None:
    fields = [f":{base64.b64encode(der).decode()}:" for der in (leaf, *chain)]
    assert parse_client_cert(fields[0], ", ".join(fields[1:])) == (leaf, tuple(chain))


@settings(deadline=None)
@given(st.sampled_from([":AQ==:,", ":AQ==:;a", " ", ":", "A", ";", ',"', ':AQ==:;a="', "\t,", ";a=:"]))
def test_a_field_of_the_greatest_length_is_read_in_bounded_time(piece: str) -> None:
    begin = time.process_time()
    for text in (piece, f":AQ==:{piece}"):
        longest = (text + piece * MAX_FIELD_LENGTH)[:MAX_FIELD_LENGTH]
        for parse in (parse_byte_sequence, parse_byte_sequences):
            try:
                parse(longest)
            except Refusal:
                continue
    assert time.process_time() - begin < 5
