"""RFC 9440 `Client-Cert` and `Client-Cert-Chain`."""

import base64

import pytest
from support.pki import authority

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.client_cert import parse_client_cert
from ext_authz.evidence.pem import MAX_CERTIFICATE_BYTES, MAX_CHAIN_LENGTH

LEAF = authority().intermediate("a").intermediate("b").svid("spiffe://cluster.local/x")


def field(der: bytes) -> str:
    return f":{base64.b64encode(der).decode()}:"


def refusal_for(certificate: str | None, chain: str | None) -> Reason:
    with pytest.raises(Refusal) as refused:
        parse_client_cert(certificate, chain)
    return refused.value.reason


def test_the_leaf_and_its_chain_are_read() -> None:
    parsed = parse_client_cert(LEAF.client_cert, LEAF.client_cert_chain)
    assert parsed is not None
    assert parsed[0] == LEAF.der
    assert len(parsed[1]) == 2


def test_a_leaf_needs_no_chain() -> None:
    assert parse_client_cert(LEAF.client_cert, None) == (LEAF.der, ())
    assert parse_client_cert(LEAF.client_cert, "") == (LEAF.der, ())


def test_neither_header_is_no_certificate() -> None:
    assert parse_client_cert(None, None) is None


def test_a_chain_without_leaf_is_refused() -> None:
    assert refusal_for(None, LEAF.client_cert_chain) is Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF
    assert refusal_for(None, "") is Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "::",
        LEAF.url_encoded_pem,
        LEAF.client_cert[1:],
        LEAF.client_cert[:-1],
        # the header twice, as Envoy joins it, and as a list
        f"{LEAF.client_cert},{LEAF.client_cert}",
        f"{LEAF.client_cert}, {LEAF.client_cert}",
        f"({LEAF.client_cert})",
        field(b"x" * (MAX_CERTIFICATE_BYTES + 1)),
        ":" + "A" * 70_000 + ":",
    ],
)
def test_a_leaf_that_is_not_exactly_one_byte_sequence_is_refused(certificate: str) -> None:
    assert refusal_for(certificate, None) is Reason.CERTIFICATE_HEADER_MALFORMED


@pytest.mark.parametrize(
    "chain",
    [
        "x",
        ":AA==:,",
        ":AA==:,x",
        "::",
        "(:AA==:)",
        ", ".join([":AA==:"] * MAX_CHAIN_LENGTH),
        field(b"x" * (MAX_CERTIFICATE_BYTES + 1)),
        ":A:",
        ":" + "A" * 70_000 + ":",
    ],
)
def test_a_chain_that_is_no_short_list_of_byte_sequences_is_refused(chain: str) -> None:
    assert refusal_for(LEAF.client_cert, chain) is Reason.CERTIFICATE_HEADER_MALFORMED


def test_parameters_are_read_and_ignored() -> None:
    assert parse_client_cert(f'{LEAF.client_cert};a;b=1;c="x,:AA==:"', f"{LEAF.client_cert};a=:AA==:, :AA==:;b") == (
        LEAF.der,
        (LEAF.der, b"\x00"),
    )
