"""Trust bundles."""

import pytest
from support.pki import authority, ec_key, key_pem, self_signed

from ext_authz.identity.bundle import MAX_BUNDLE_BYTES, Bundle, Bundles
from ext_authz.spiffe import TrustDomain

TD = TrustDomain("cluster.local")


def test_a_bundle_holds_the_authorities_of_its_files() -> None:
    old, new = authority("old"), authority("new")
    bundle = Bundle.from_pem(TD, b"# the old root\n" + old.pem + b"\n\n" + new.pem)
    assert bundle.trust_domain == TD
    assert bundle.certificates == (old.certificate, new.certificate)
    assert bundle.policy is not None


@pytest.mark.parametrize("pem", [b"", b"\n", b" \r\n\t"])
def test_an_empty_file_is_a_bundle_without_authorities(pem: bytes) -> None:
    bundle = Bundle.from_pem(TD, pem)
    assert bundle.certificates == ()
    assert bundle.policy is None


ROOT = authority().pem


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        (b"hello", "is not PEM"),
        (b'{"keys":[]}', "is not PEM"),
        (ROOT + key_pem(ec_key()), "other than certificates"),
        (ROOT.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"), "other than certificates"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (ROOT.replace(b"M", b"N"), "cannot be read"),
        (ROOT + b"-----BEGIN CERTIFICATE-----\nAAAA\n", "block without its end|cannot be read"),
        (ROOT + self_signed().pem, "certificate 2 .* is not a CA certificate"),
        (self_signed(is_ca=None).pem, "certificate 1 .* is not a CA certificate"),
        (b" " * (MAX_BUNDLE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_bundle_is_refused_with_what_is_wrong(pem: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        Bundle.from_pem(TD, pem)
    assert "`cluster.local`" in str(refused.value)


def test_bundles_are_found_by_exactly_their_trust_domain() -> None:
    bundles = Bundles.from_pem({TD: ROOT, TrustDomain("empty"): b""})
    found = bundles.get(TD)
    assert found is not None
    assert found.trust_domain == TD
    assert bundles.get(TrustDomain("local")) is None
    assert [str(bundle.trust_domain) for bundle in bundles] == ["cluster.local", "empty"]
    assert len(bundles) == 2
    assert len(Bundles()) == 0


def test_two_bundles_for_one_trust_domain_are_refused() -> None:
    bundle = Bundle.from_pem(TD, ROOT)
    with pytest.raises(ValueError, match="two bundles"):
        Bundles([bundle, bundle])
