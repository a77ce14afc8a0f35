"""X509-SVIDs: the leaf rules and the chain."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.pki import (
    NOW,
    Authority,
    Key,
    Leaf,
    authority,
    ec_key,
    ed25519_key,
    make_certificate,
    pem_of,
    rsa_key,
    self_signed,
)

from ext_authz.errors import Reason, Refusal
from ext_authz.identity.bundle import Bundles
from ext_authz.identity.certificate import load_certificate, parse_leaf
from ext_authz.identity.svid import VerifiedSvid, check_leaf, parse_workload_id, verify_svid
from ext_authz.spiffe import SpiffeId, TrustDomain

ID = "spiffe://cluster.local/ns/a/sa/b"
TD = TrustDomain("cluster.local")
CA = authority()
BUNDLES = Bundles.from_pem({TD: CA.pem})


def verified(leaf: Leaf, bundles: Bundles = BUNDLES, now: float = NOW) -> VerifiedSvid:
    intermediates = tuple(load_certificate(c.public_bytes(Encoding.DER)) for c in leaf.chain)
    return verify_svid(parse_leaf(leaf.der), intermediates, bundles, now)


def reason_for(leaf: Leaf, bundles: Bundles = BUNDLES, now: float = NOW) -> Reason:
    with pytest.raises(Refusal) as refused:
        verified(leaf, bundles, now)
    return refused.value.reason


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"subject": "client", "dns_sans": ["client.example.com"]},
        {"is_ca": None},
        {"extended_key_usage": None},
        {"extended_key_usage_critical": True},
        {"extended_key_usage": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        {"extended_key_usage": [ExtendedKeyUsageOID.CLIENT_AUTH]},
        {"key_usage": frozenset({"digital_signature", "key_encipherment", "key_agreement"})},
        {"with_key_identifiers": False},
        {"key": rsa_key()},
        {"key": ed25519_key()},
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "+".join(value),
)
def test_an_svid_verifies_against_the_bundle_of_its_trust_domain(parts: dict[str, Any]) -> None:
    assert verified(CA.svid(ID, **parts)).spiffe_id == SpiffeId.parse(ID)


def test_an_svid_verifies_through_intermediates() -> None:
    assert verified(CA.intermediate("a").intermediate("b").svid(ID)).spiffe_id == SpiffeId.parse(ID)


def test_a_certificate_that_comes_twice_and_a_root_that_comes_along_do_no_harm() -> None:
    leaf = CA.intermediate("a").svid(ID)
    assert verified(Leaf(leaf.certificate, leaf.key, (*leaf.chain, *leaf.chain, CA.certificate)))


def test_an_svid_verifies_after_its_root_was_joined_by_another() -> None:
    bundles = Bundles.from_pem({TD: authority("next").pem + CA.pem})
    assert verified(CA.svid(ID), bundles).spiffe_id == SpiffeId.parse(ID)


def test_an_svid_of_an_rsa_authority_verifies() -> None:
    ca = authority("rsa", key=rsa_key("ca"))
    assert verified(ca.svid(ID), Bundles.from_pem({TD: ca.pem})).spiffe_id == SpiffeId.parse(ID)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"uri_sans": [], "subject": "x"}, Reason.SPIFFE_ID_MISSING),
        ({"uri_sans": [], "dns_sans": ["cluster.local"]}, Reason.SPIFFE_ID_MISSING),
        ({"uri_sans": [ID, ID]}, Reason.SVID_MALFORMED),
        ({"uri_sans": [ID, "https://example.com"]}, Reason.SVID_MALFORMED),
        ({"uri_sans": ["", ID]}, Reason.SVID_MALFORMED),
        ({"uri_sans": ["spiffe://cluster.local"]}, Reason.SVID_MALFORMED),
        ({"uri_sans": ["spiffe://cluster.local/"]}, Reason.SPIFFE_ID_MALFORMED),
        ({"uri_sans": ["https://cluster.local/a"]}, Reason.SPIFFE_ID_MALFORMED),
        ({"uri_sans": [f"{ID};DNS=x"]}, Reason.SPIFFE_ID_MALFORMED),
        ({"uri_sans": [f"{ID}\x00.example.com"]}, Reason.SPIFFE_ID_MALFORMED),
        ({"is_ca": True}, Reason.SVID_MALFORMED),
        ({"key_usage": None}, Reason.SVID_MALFORMED),
        ({"key_usage": frozenset({"key_encipherment"})}, Reason.SVID_MALFORMED),
        ({"key_usage": frozenset({"digital_signature", "key_cert_sign"})}, Reason.SVID_MALFORMED),
        ({"key_usage": frozenset({"digital_signature", "crl_sign"})}, Reason.SVID_MALFORMED),
        ({"extended_key_usage": [ExtendedKeyUsageOID.SERVER_AUTH]}, Reason.SVID_MALFORMED),
        ({"key": rsa_key("weak", 1024)}, Reason.SVID_MALFORMED),
        (
            {"extensions": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]},
            Reason.CERTIFICATE_UNTRUSTED,
        ),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "+".join(value),
)
def test_a_leaf_against_the_rules_is_refused(parts: dict[str, Any], reason: Reason) -> None:
    assert reason_for(CA.svid(ID, **parts)) is reason


def test_a_leaf_whose_key_cannot_be_read_is_refused() -> None:
    der = CA.svid(ID).der
    # the curve becomes one that does not exist
    strange = der.replace(b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x7f")
    assert strange != der
    with pytest.raises(Refusal) as refused:
        check_leaf(parse_leaf(strange))
    assert refused.value.reason is Reason.SVID_MALFORMED


def test_an_unknown_trust_domain_has_its_own_reason() -> None:
    assert reason_for(CA.svid("spiffe://other/a")) is Reason.TRUST_DOMAIN_UNKNOWN


def test_an_authority_vouches_for_its_own_trust_domain_only() -> None:
    other = authority("other")
    bundles = Bundles.from_pem({TD: CA.pem, TrustDomain("other"): other.pem})
    assert verified(other.svid("spiffe://other/a"), bundles).spiffe_id == SpiffeId.parse("spiffe://other/a")
    assert reason_for(other.svid(ID), bundles) is Reason.CERTIFICATE_UNTRUSTED
    assert reason_for(CA.svid("spiffe://other/a"), bundles) is Reason.CERTIFICATE_UNTRUSTED


def test_an_empty_bundle_makes_every_svid_of_its_domain_invalid() -> None:
    bundles = Bundles.from_pem({TD: b""})
    assert reason_for(CA.svid(ID), bundles) is Reason.CERTIFICATE_UNTRUSTED


def test_a_self_signed_certificate_is_untrusted() -> None:
    assert reason_for(self_signed(uri_sans=[ID])) is Reason.CERTIFICATE_UNTRUSTED


def test_a_leaf_that_is_its_own_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="not a CA certificate"):
        Bundles.from_pem({TD: self_signed(uri_sans=[ID]).pem})
    anchor = authority("anchor", uri_sans=[ID], key_usage=frozenset({"digital_signature", "key_cert_sign"}))
    leaf = Leaf(anchor.certificate, anchor.key)
    assert reason_for(leaf, Bundles.from_pem({TD: anchor.pem})) is Reason.SVID_MALFORMED


def test_an_authority_with_the_same_name_and_another_key_is_not_trusted() -> None:
    impostor = authority(key=ec_key("impostor"))
    assert impostor.certificate.subject == CA.certificate.subject
    assert reason_for(impostor.svid(ID)) is Reason.CERTIFICATE_UNTRUSTED


def test_a_leaf_cannot_issue_another_leaf() -> None:
    mine = CA.svid("spiffe://cluster.local/mine", subject="mine")
    forged = Authority(mine.certificate, mine.key, (mine.certificate,)).svid(ID, key=ec_key("forged"))
    assert reason_for(forged) is Reason.CERTIFICATE_UNTRUSTED


def test_a_missing_or_expired_intermediate_breaks_the_chain() -> None:
    leaf = CA.intermediate("a").svid(ID)
    assert reason_for(Leaf(leaf.certificate, leaf.key)) is Reason.CERTIFICATE_UNTRUSTED
    assert reason_for(CA.intermediate("a", not_after=NOW - 1).svid(ID)) is Reason.CERTIFICATE_UNTRUSTED


def test_authorities_of_one_name_are_not_tried_one_after_the_other() -> None:
    # each would be verified again at each step of every way through them: a hundred signatures for one request
    leaf = CA.intermediate("a").svid(ID)
    twin = CA.intermediate("a").certificate
    assert verified(leaf)
    assert reason_for(Leaf(leaf.certificate, leaf.key, (*leaf.chain, twin))) is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("numbers", [(2**32 + 15, 2048), (65537, 8200)], ids=["exponent", "size"])
def test_no_signature_is_verified_with_a_key_that_takes_long(numbers: tuple[int, int]) -> None:
    exponent, bits = numbers
    public = rsa.RSAPublicNumbers(exponent, 2 ** (bits - 1) + 1).public_key()
    # the certificate is signed with another key, so its own need not have a private part
    key = cast(Key, SimpleNamespace(public_key=lambda: public))
    leaf = CA.intermediate("a").svid(ID)
    slow = make_certificate(key, CA.key, subject="slow", issuer=CA.certificate.subject, is_ca=True, key_usage=None)
    assert reason_for(Leaf(leaf.certificate, leaf.key, (*leaf.chain, slow))) is Reason.CERTIFICATE_UNTRUSTED


def test_an_authority_whose_name_or_key_cannot_be_read_is_refused() -> None:
    leaf = CA.intermediate("a").svid(ID)
    der = CA.intermediate("name").certificate.public_bytes(Encoding.DER)
    unreadable = x509.load_der_x509_certificate(der.replace(b"\x0c\x04name", b"\x0c\x04\xff\xff\xff\xff"))
    assert reason_for(Leaf(leaf.certificate, leaf.key, (*leaf.chain, unreadable))) is Reason.CERTIFICATE_UNTRUSTED


def test_an_expired_root_vouches_for_nobody() -> None:
    root = authority("expired", not_after=NOW - 1)
    assert reason_for(root.svid(ID), Bundles.from_pem({TD: pem_of(root.certificate)})) is Reason.CERTIFICATE_UNTRUSTED


def test_a_leaf_is_valid_from_its_first_to_its_last_second() -> None:
    leaf = CA.svid(ID, not_before=NOW, not_after=NOW + 60)
    assert reason_for(leaf, now=NOW - 0.001) is Reason.CERTIFICATE_NOT_YET_VALID
    assert verified(leaf, now=NOW)
    assert verified(leaf, now=NOW + 60)
    assert reason_for(leaf, now=NOW + 60.001) is Reason.CERTIFICATE_EXPIRED


def test_a_verification_holds_while_every_certificate_of_the_chain_is_valid() -> None:
    issuer = CA.intermediate("short", not_before=NOW - 10, not_after=NOW + 30)
    svid = verified(issuer.svid(ID, not_before=NOW - 20, not_after=NOW + 60))
    assert (svid.not_before, svid.not_after) == (NOW - 10, NOW + 30)


def test_a_workload_id_is_one_uri_with_a_path() -> None:
    assert parse_workload_id((ID,)) == SpiffeId.parse(ID)
