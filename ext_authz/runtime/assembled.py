"""Everything a server runs on, read and compiled; apart from the reading, which takes much code that a worker never needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from ext_authz.config.settings import Configuration
from ext_authz.denials import Denials
from ext_authz.identity.bundle import Bundles
from ext_authz.identity.peer import CertificateCache
from ext_authz.policy.index import PolicyIndex
from ext_authz.runtime.tls import TlsMaterial
from ext_authz.snapshot import Snapshot
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet

__all__ = ["Assembly"]


@dataclass(frozen=True, slots=True)
class Assembly:
    """One configuration with all that its files hold, compiled.

    Attributes:
        configuration: as loaded.
        policies: compiled.
        bundles: read.
        tls: for the listener; None for plain text.
    """

    configuration: Configuration
    policies: PolicyIndex
    bundles: Bundles
    tls: TlsMaterial | None

    def snapshot(self, keys: Mapping[str, KeySet], generation: int, previous: Snapshot | None = None) -> Snapshot:
        """Everything a decision depends on, with these signing keys by issuer name.

        Args:
            keys: those that are there; an issuer may lack them.
            generation: one more than that of `previous`.
            previous: issuers that did not change keep their verified tokens.
        """
        configuration = self.configuration
        return Snapshot(
            generation=generation,
            policies=self.policies,
            evidence=configuration.evidence,
            bundles=self.bundles,
            certificates=CertificateCache(),
            issuers=IssuerDirectory(
                configuration.issuers.values(), keys, previous=None if previous is None else previous.issuers
            ),
            denials=Denials(configuration.denials),
            id_in_metadata=configuration.telemetry.decision_metadata,
        )
