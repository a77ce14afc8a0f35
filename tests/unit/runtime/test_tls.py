"""Certificates are checked before they are served, and replaced only by ones that work."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support.pki import authority, ec_key, key_pem

from ext_authz.config.settings import TlsSettings
from ext_authz.errors import ConfigurationError
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial, read_tls

CA = authority("tls test")
LEAF = CA.leaf(dns_sans=["server.test"])


def written(folder: Path, chain: bytes = LEAF.pem, key: bytes = LEAF.key_pem, ca: bytes | None = None) -> TlsSettings:
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    if ca is not None:
        (folder / "ca.pem").write_bytes(ca)
    return TlsSettings(
        str(folder / "chain.pem"), str(folder / "key.pem"), None if ca is None else str(folder / "ca.pem")
    )


def test_files_that_fit_are_read(tmp_path: Path) -> None:
    settings = written(tmp_path, ca=CA.pem)
    assert read_tls(settings) == TlsMaterial(LEAF.pem, LEAF.key_pem, CA.pem)


@pytest.mark.parametrize(
    ("chain", "key", "ca", "problem"),
    [
        (b"", LEAF.key_pem, None, "chain.pem: holds no PEM certificate, or a malformed one"),
        (LEAF.pem, b"nonsense", None, "key.pem: not an unencrypted PEM private key"),
        (LEAF.pem, key_pem(ec_key("another")), None, "key.pem: not the key of the first certificate"),
        (LEAF.pem, LEAF.key_pem, b"nonsense", "ca.pem: holds no PEM certificate, or a malformed one"),
    ],
)
def test_files_that_could_not_serve_are_refused(
    tmp_path: Path, chain: bytes, key: bytes, ca: bytes | None, problem: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_tls(written(tmp_path, chain, key, ca))
    assert problem in error.value.problems[0]


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    encrypted = LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    with pytest.raises(ConfigurationError, match="not an unencrypted PEM private key"):
        read_tls(written(tmp_path, key=encrypted))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = written(tmp_path)
    Path(settings.key_file).unlink()
    with pytest.raises(ConfigurationError, match=r"key\.pem: cannot be read: No such file or directory"):
        read_tls(settings)


def test_new_material_is_fetched_once_and_the_same_is_no_replacement() -> None:
    certificates = ServerCertificates(TlsMaterial(LEAF.pem, LEAF.key_pem, None))
    assert certificates._fetch() is None
    assert not certificates.replace(TlsMaterial(LEAF.pem, LEAF.key_pem, None))
    renewed = TlsMaterial(CA.leaf(dns_sans=["server.test"]).pem, LEAF.key_pem, None)
    assert certificates.replace(renewed)
    assert certificates.material == renewed
    assert certificates._fetch() is not None
    assert certificates._fetch() is None


def test_switching_mutual_tls_on_needs_a_restart() -> None:
    certificates = ServerCertificates(TlsMaterial(LEAF.pem, LEAF.key_pem, None))
    with pytest.raises(ConfigurationError, match="needs a restart"):
        certificates.replace(TlsMaterial(LEAF.pem, LEAF.key_pem, CA.pem))
