"""Everything a decision may depend on, as one value that never changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ext_authz.denials import Denials
from ext_authz.evidence.settings import EvidenceSettings
from ext_authz.identity.bundle import Bundles
from ext_authz.identity.peer import CertificateCache
from ext_authz.policy.answers import AnswerCache
from ext_authz.policy.index import PolicyIndex
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one request sees from start to end.

    The caches inside only remember what the rest of the snapshot implies: they belong to the objects whose answers they
    hold, so a snapshot with other keys or other bundles does not see what was reached under the old ones.

    Attributes:
        generation: counts up with every snapshot of a process.
        policies: compiled.
        evidence: what may be read from a request.
        bundles: trust anchors by trust domain.
        certificates: peers established under `evidence` and `bundles`.
        issuers: who may issue tokens, with their keys and the verified tokens.
        denials: what a denied client sees.
        id_in_metadata: whether Envoy's dynamic metadata tell the decision's id and reason.
        answers: what rules said to callers they let pass.
    """

    generation: int
    policies: PolicyIndex
    evidence: EvidenceSettings
    bundles: Bundles
    certificates: CertificateCache
    issuers: IssuerDirectory
    denials: Denials
    id_in_metadata: bool = True
    answers: AnswerCache = field(default_factory=AnswerCache)

    def with_keys(self, keys: Mapping[str, KeySet], generation: int) -> "Snapshot":
        """The same snapshot with these signing keys, by issuer name.

        An issuer whose key set is the same object keeps its verified tokens.
        """
        terms = [trusted.issuer for trusted in self.issuers]
        return replace(
            self,
            generation=generation,
            issuers=IssuerDirectory(terms, keys, previous=self.issuers),
            answers=AnswerCache(),
        )
