"""Trust bundles: the authorities of one trust domain each, never merged (SPIFFE Trust Domain and Bundle §4).

A certificate authority vouches for the names of its own trust domain and for no others, so each bundle has its own
store and an SVID is verified against the one that its SPIFFE ID names.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from cryptography import x509
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store

from ext_authz.spiffe import TrustDomain

__all__ = ["MAX_BUNDLE_BYTES", "Bundle", "Bundles"]

MAX_BUNDLE_BYTES = 1_048_576
"""PEM bytes of one trust domain; hundreds of authorities fit."""

_LABEL = re.compile(rb"-----BEGIN ([^-\r\n]*)-----")


class Bundle:
    """The authorities of one trust domain; immutable.

    Attributes:
        trust_domain: whom they vouch for.
        certificates: the authorities; empty makes every SVID of the domain invalid.
        policy: a verification policy over exactly these authorities, without a time; None when there are none.
    """

    __slots__ = ("certificates", "policy", "trust_domain")

    def __init__(self, trust_domain: TrustDomain, certificates: tuple[x509.Certificate, ...]) -> None:
        """Trust `certificates`, which must be CA certificates, for `trust_domain`.

        Raises:
            ValueError: with the position of the certificate that is none.
        """
        for position, certificate in enumerate(certificates, 1):
            if not _is_ca(certificate):
                raise ValueError(
                    f"certificate {position} of the bundle of `{trust_domain}` is not a CA certificate;"
                    " a trust bundle holds the authorities that sign SVIDs, never SVIDs"
                )
        self.trust_domain = trust_domain
        self.certificates = certificates
        # No store can be empty. Authorities follow the rules of the web PKI (CA, keyCertSign, path length, key size).
        # Those for leaves do not fit SVIDs: they refuse a critical EKU and demand clientAuth; `svid` has the leaf rules.
        self.policy = (
            PolicyBuilder()
            .store(Store(list(certificates)))
            .extension_policies(
                ca_policy=ExtensionPolicy.webpki_defaults_ca(),
                ee_policy=ExtensionPolicy.permit_all(),
            )
            if certificates
            else None
        )

    @classmethod
    def from_pem(cls, trust_domain: TrustDomain, pem: bytes) -> "Bundle":
        """The certificates of one or more PEM files, concatenated; text around the blocks is ignored.

        An empty file is an empty bundle: it withdraws the trust domain.

        Raises:
            ValueError: a clear sentence about what is wrong, for the operator.
        """
        of_domain = f"the bundle of `{trust_domain}`"
        if len(pem) > MAX_BUNDLE_BYTES:
            raise ValueError(f"{of_domain} is larger than {MAX_BUNDLE_BYTES} bytes")
        labels = _LABEL.findall(pem)
        if not labels:
            if pem.strip():
                raise ValueError(f"{of_domain} is not PEM; only an empty file stands for a bundle without authorities")
            return cls(trust_domain, ())
        if any(label != b"CERTIFICATE" for label in labels):
            raise ValueError(f"{of_domain} holds something other than certificates; keys do not belong in it")
        try:
            certificates = tuple(x509.load_pem_x509_certificates(pem))
            for certificate in certificates:
                _ = certificate.extensions
        except Exception:  # noqa: BLE001 - a broken file makes the parser raise ValueError, x509 errors, warnings, others
            raise ValueError(f"{of_domain} holds a certificate that cannot be read") from None
        if len(certificates) != len(labels):
            raise ValueError(f"{of_domain} holds a PEM block without its end")
        return cls(trust_domain, certificates)


class Bundles:
    """The bundles of every trust domain we know; immutable."""

    __slots__ = ("_bundles",)

    def __init__(self, bundles: Iterable[Bundle] = ()) -> None:
        """Know exactly `bundles`.

        Raises:
            ValueError: two bundles for one trust domain.
        """
        self._bundles: dict[TrustDomain, Bundle] = {}
        for bundle in bundles:
            if bundle.trust_domain in self._bundles:
                raise ValueError(f"two bundles for the trust domain `{bundle.trust_domain}`; put both files in one")
            self._bundles[bundle.trust_domain] = bundle

    @classmethod
    def from_pem(cls, files: Mapping[TrustDomain, bytes]) -> "Bundles":
        """One bundle for each trust domain.

        Raises:
            ValueError: as `Bundle.from_pem`.
        """
        return cls(Bundle.from_pem(trust_domain, pem) for trust_domain, pem in files.items())

    def get(self, trust_domain: TrustDomain) -> Bundle | None:
        """The bundle of `trust_domain`, or None when it is not known."""
        return self._bundles.get(trust_domain)

    def __iter__(self) -> Iterator[Bundle]:
        return iter(self._bundles.values())

    def __len__(self) -> int:
        return len(self._bundles)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
