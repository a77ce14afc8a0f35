"""SPIFFE IDs as values that exist only if valid (SPIFFE-ID standard §2)."""

import re
from dataclasses import dataclass

from ext_authz.errors import Reason, Refusal

__all__ = ["MAX_SPIFFE_ID_BYTES", "SpiffeId", "TrustDomain"]

MAX_SPIFFE_ID_BYTES = 2048
"""SPIFFE-ID §2.3: implementations must support IDs of this length and must not generate longer ones."""

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")  # SPIFFE-ID §2.1
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")  # SPIFFE-ID §2.2


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain's name, `[a-z0-9._-]`, 1 to 255 bytes.

    Raises:
        Refusal: SPIFFE_ID_MALFORMED.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that no trust domain can have."""
        if not _TRUST_DOMAIN.fullmatch(self.name):
            raise Refusal(Reason.SPIFFE_ID_MALFORMED, "the trust domain has a character outside `a-z0-9._-`, or none")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """`spiffe://<trust domain><path>`; the path is empty or begins with `/`.

    Two IDs are the same exactly when their text is the same: nothing in a valid ID can be written two ways.
    """

    trust_domain: TrustDomain
    path: str

    def __post_init__(self) -> None:
        """Refuse a path that no SPIFFE ID can have."""
        if self.path:
            if self.path[0] != "/":
                raise Refusal(Reason.SPIFFE_ID_MALFORMED, "the path does not begin with `/`")
            for segment in self.path[1:].split("/"):
                if not _SEGMENT.fullmatch(segment):
                    raise Refusal(
                        Reason.SPIFFE_ID_MALFORMED,
                        "a path segment is empty or has a character outside `a-zA-Z0-9._-`",
                    )
                if segment in {".", ".."}:
                    raise Refusal(Reason.SPIFFE_ID_MALFORMED, "a path segment is `.` or `..`")
        if len(_SCHEME) + len(self.trust_domain.name) + len(self.path) > MAX_SPIFFE_ID_BYTES:
            raise Refusal(Reason.SPIFFE_ID_MALFORMED, f"longer than {MAX_SPIFFE_ID_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Text to value.

        Raises:
            Refusal: SPIFFE_ID_MALFORMED for anything that is not a SPIFFE ID: another scheme (or the same in another
                case), a port, user information, percent signs, query, fragment, trailing `/`.
        """
        if not text.startswith(_SCHEME):
            raise Refusal(Reason.SPIFFE_ID_MALFORMED, "does not begin with `spiffe://`")
        # bounded before it is split: an attacker chooses the length
        if len(text) > MAX_SPIFFE_ID_BYTES:
            raise Refusal(Reason.SPIFFE_ID_MALFORMED, f"longer than {MAX_SPIFFE_ID_BYTES} bytes")
        name, slash, path = text[len(_SCHEME) :].partition("/")
        return cls(TrustDomain(name), slash + path)

    @property
    def namespace(self) -> str | None:
        """The Kubernetes namespace of `/ns/<namespace>/sa/<service account>` (Istio, SPIRE), else None."""
        workload = self._kubernetes_workload()
        return workload and workload[0]

    @property
    def service_account(self) -> str | None:
        """The Kubernetes service account of `/ns/<namespace>/sa/<service account>`, else None."""
        workload = self._kubernetes_workload()
        return workload and workload[1]

    def _kubernetes_workload(self) -> tuple[str, str] | None:
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", service_account]:
                return namespace, service_account
            case _:
                return None

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"
