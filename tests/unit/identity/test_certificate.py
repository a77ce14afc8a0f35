"""DER to certificate values."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.pki import NOW, YEAR, authority, ec_key, make_certificate, self_signed

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.pem import MAX_CERTIFICATE_BYTES
from ext_authz.identity.certificate import load_certificate, parse_certificate, parse_leaf

SAN, KEY_USAGE = x509.ObjectIdentifier("2.5.29.17"), x509.ObjectIdentifier("2.5.29.15")


def broken_extension(oid: x509.ObjectIdentifier, value: bytes) -> bytes:
    return self_signed(key_usage=None, extensions=[(x509.UnrecognizedExtension(oid, value), False)]).der


def test_a_certificate_says_who_when_and_under_which_thumbprint() -> None:
    leaf = authority().leaf(
        subject="client",
        uri_sans=["spiffe://td/a", "https://b"],
        dns_sans=["c", "d"],
        not_before=NOW,
        not_after=NOW + YEAR,
    )
    certificate = parse_certificate(leaf.der)
    assert certificate.der == leaf.der
    assert certificate.thumbprint == leaf.thumbprint
    assert certificate.uri_sans == ("spiffe://td/a", "https://b")
    assert certificate.dns_sans == ("c", "d")
    assert certificate.subject == "CN=client"
    assert (certificate.not_before, certificate.not_after) == (NOW, NOW + YEAR)


def test_a_certificate_without_extensions_has_no_names() -> None:
    key = ec_key("bare")
    bare = make_certificate(
        key, key, issuer=x509.Name([]), is_ca=None, key_usage=None, extended_key_usage=None, with_key_identifiers=False
    )
    leaf = parse_leaf(bare.public_bytes(Encoding.DER))
    assert (leaf.peer.uri_sans, leaf.peer.dns_sans, leaf.peer.subject) == ((), (), "")
    assert leaf.certificate == bare


LEAF = self_signed(uri_sans=["spiffe://td/a"]).der


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80",
        b"\x30\x82\xff\xff",
        b"not a certificate",
        LEAF[:-1],
        LEAF + b"\x00",
        LEAF + LEAF,
        # a version that does not exist, and a time that is none
        LEAF.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),
        LEAF.replace(b"\x17\x0d", b"\x17\x0dX", 1)[: len(LEAF)],
        broken_extension(SAN, b"\x01\x02\x03"),
        broken_extension(KEY_USAGE, b"\x04"),
        # a SAN of URI type that is not ASCII; an otherName; an EDI party name, which no parser here supports
        broken_extension(SAN, b"\x30\x04\x86\x02\xff\xff"),
        broken_extension(SAN, b"\x30\x04\xa5\x02\x30\x00"),
        b"x" * (MAX_CERTIFICATE_BYTES + 1),
    ],
)
def test_what_is_no_certificate_that_can_be_read_is_malformed(der: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_certificate(der)
    assert refused.value.reason is Reason.CERTIFICATE_MALFORMED


def test_the_same_extension_twice_is_malformed() -> None:
    key_usage = b"\x06\x03\x55\x1d\x0f"
    # the OID of basicConstraints becomes that of keyUsage
    der = LEAF.replace(b"\x06\x03\x55\x1d\x13", key_usage)
    assert der.count(key_usage) == 2
    with pytest.raises(Refusal) as refused:
        load_certificate(der)
    assert refused.value.reason is Reason.CERTIFICATE_MALFORMED


def test_a_certificate_whose_names_cannot_be_decoded_is_malformed() -> None:
    # a UTF8String of the subject that is not UTF-8
    der = LEAF.replace(b"\x0c\x04self", b"\x0c\x04\xff\xfe\xff\xfe")
    assert der != LEAF
    with pytest.raises(Refusal) as refused:
        parse_leaf(der)
    assert refused.value.reason is Reason.CERTIFICATE_MALFORMED


def test_a_refusal_never_echoes_the_certificate() -> None:
    with pytest.raises(Refusal) as refused:
        parse_certificate(b"attacker text")
    assert "attacker" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
