"""The demo's certificates: SVIDs that verify in their own trust domain only, and self-signed ones that do not."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from ext_authz.demo.json_web import base64url
from ext_authz.demo.oauth_client import ClientCertificate, TrustBundles
from ext_authz.demo.pki import LIFETIME_SECONDS, Authority, Credential, self_signed

NOW = 1_795_000_000.0
PATH = "/ns/applications/sa/mywebsite"


@pytest.fixture
def authority() -> Authority:
    return Authority.create("cluster.local", NOW)


def is_vouched_for(credential: Credential, bundle: bytes, tmp_path: Path, now: float = NOW) -> bool:
    file = tmp_path / "bundle.pem"
    file.write_bytes(bundle)
    names = credential.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    certificate = ClientCertificate(credential.certificate, base64url(credential.thumbprint), uri)
    return TrustBundles({"cluster.local": str(file)}).vouch_for(certificate, now)


def test_a_workload_certificate_is_an_x509_svid(authority: Authority) -> None:
    extensions = authority.issue(PATH, NOW).certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://cluster.local{PATH}"]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)


def test_a_workload_certificate_verifies_in_its_own_trust_domain(authority: Authority, tmp_path: Path) -> None:
    assert is_vouched_for(authority.issue(PATH, NOW), authority.bundle_pem, tmp_path)


def test_a_workload_certificate_ends_after_a_day(authority: Authority, tmp_path: Path) -> None:
    late = NOW + LIFETIME_SECONDS + 1
    assert not is_vouched_for(authority.issue(PATH, NOW), authority.bundle_pem, tmp_path, late)


def test_a_name_under_another_authority_does_not_verify(authority: Authority, tmp_path: Path) -> None:
    partner = Authority.create("partner.example", NOW)
    forged = Authority("cluster.local", partner.credential).issue(PATH, NOW)
    assert not is_vouched_for(forged, authority.bundle_pem, tmp_path)
    assert not is_vouched_for(partner.issue(PATH, NOW), partner.bundle_pem, tmp_path)


def test_a_self_signed_certificate_does_not_verify_whatever_it_calls_itself(
    authority: Authority, tmp_path: Path
) -> None:
    impostor = self_signed("impostor", NOW, f"spiffe://cluster.local{PATH}")
    assert not is_vouched_for(impostor, authority.bundle_pem, tmp_path)


def test_a_server_certificate_carries_its_names_beside_its_identity(authority: Authority) -> None:
    certificate = authority.issue("/ns/billing/sa/api", NOW, ["billing.example.com", "127.0.0.1"]).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["billing.example.com"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_private_key_is_written_for_its_owner_alone(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue(PATH, NOW).write(tmp_path, "website")
    assert stat.S_IMODE(Path(pair.key_file).stat().st_mode) == 0o600
    assert x509.load_pem_x509_certificate(Path(pair.certificate_file).read_bytes())
