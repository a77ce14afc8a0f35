"""Byte sequences of RFC 8941, as strictly as one certificate needs them."""

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.structured_fields import parse_byte_sequence


def test_a_byte_sequence_is_its_bytes() -> None:
    assert parse_byte_sequence(":AAA=:") == b"\0\0"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (":AAB=:", "not canonical"),  # a bit beyond the last byte
        (":AAA:", "not base64"),  # padding is missing
        (":A:", "not base64"),
    ],
)
def test_bytes_that_could_be_written_another_way_are_refused(text: str, why: str) -> None:
    with pytest.raises(Refusal, match=why) as caught:
        parse_byte_sequence(text)
    assert caught.value.reason is Reason.CERTIFICATE_HEADER_MALFORMED
