"""URL-encoded PEM."""

import base64

import pytest
from support.pki import authority, pem_of, self_signed, url_encode_pem

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.pem import (
    MAX_CERTIFICATE_BYTES,
    MAX_CHAIN_LENGTH,
    MAX_PEM_TEXT_LENGTH,
    parse_url_encoded_chain,
    parse_url_encoded_pem,
)

LEAF = self_signed()
BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"


def block(body: str) -> str:
    return url_encode_pem(f"{BEGIN}{body}{END}".encode())


def block_of(der: bytes) -> str:
    return block(base64.encodebytes(der).decode())


@pytest.mark.parametrize(
    "text",
    [
        LEAF.url_encoded_pem,
        LEAF.url_encoded_pem.removesuffix("%0A"),
        LEAF.url_encoded_pem.replace("%0A", "%0D%0A"),
        LEAF.url_encoded_pem.replace("%0A", "%0a"),
        # nginx and some Lua filters leave these as they are
        LEAF.url_encoded_pem.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="),
        "".join(f"%{byte:02X}" for byte in LEAF.pem),
        block_of(LEAF.der),
    ],
)
def test_every_way_proxies_encode_one_certificate_is_read(text: str) -> None:
    assert parse_url_encoded_pem(text) == LEAF.der
    assert parse_url_encoded_chain(text) == (LEAF.der,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "%4",
        "%GG",
        "MIIB",
        LEAF.pem.decode(),
        LEAF.url_encoded_pem + "%",
        LEAF.url_encoded_pem + "%0A%0A",
        LEAF.url_encoded_pem + "x",
        LEAF.url_encoded_pem.replace("%20", "+"),
        LEAF.url_encoded_pem.replace("%20", "%2520"),
        LEAF.url_encoded_pem.replace("CERTIFICATE", "TRUSTED%20CERTIFICATE"),
        LEAF.url_encoded_pem.replace("CERTIFICATE", "PRIVATE%20KEY"),
        LEAF.url_encoded_pem.replace("-----END", "----END"),
        "%0A" + LEAF.url_encoded_pem,
        "subject%20x%0A" + LEAF.url_encoded_pem,
        LEAF.url_encoded_pem.replace("%0A", "%00%0A"),
        LEAF.url_encoded_pem.replace("%0A", "%20%0A"),
        block(""),
        block("\n"),
        block("A\n"),
        block("AA=A\n"),
        block("AAA=AAAA\n"),
        block("iZ==\n"),
        block("=\n"),
        block("A" * 77 + "\n"),
        block("Proc-Type: 4,ENCRYPTED\n\nAAAA\n"),
        LEAF.url_encoded_pem.replace("%0A", "%C3%A4%0A"),
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    for parse in (parse_url_encoded_pem, parse_url_encoded_chain):
        with pytest.raises(Refusal) as refused:
            parse(text)
        assert refused.value.reason is Reason.CERTIFICATE_MALFORMED


def test_a_second_certificate_is_no_leaf_but_a_chain() -> None:
    ca = authority()
    text = url_encode_pem(pem_of(LEAF.certificate, ca.certificate))
    with pytest.raises(Refusal):
        parse_url_encoded_pem(text)
    assert [len(der) for der in parse_url_encoded_chain(text)] == [len(LEAF.der), len(base64.b64decode(ca.pem[28:-26]))]


def test_a_chain_has_at_most_ten_certificates() -> None:
    assert len(parse_url_encoded_chain(url_encode_pem(LEAF.pem * MAX_CHAIN_LENGTH))) == MAX_CHAIN_LENGTH
    with pytest.raises(Refusal):
        parse_url_encoded_chain(url_encode_pem(LEAF.pem * (MAX_CHAIN_LENGTH + 1)))


def test_a_certificate_and_its_text_have_a_greatest_length() -> None:
    assert len(parse_url_encoded_pem(block_of(b"x" * MAX_CERTIFICATE_BYTES))) == MAX_CERTIFICATE_BYTES
    with pytest.raises(Refusal, match="16384 bytes"):
        parse_url_encoded_pem(block_of(b"x" * (MAX_CERTIFICATE_BYTES + 1)))
    with pytest.raises(Refusal, match="65536 characters"):
        parse_url_encoded_pem("A" * (MAX_PEM_TEXT_LENGTH + 1))
