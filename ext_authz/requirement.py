"""What a rule may require of a token's binding (values shared by policy and token)."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BindingMethod", "BindingMode", "BindingRequirement"]


class BindingMode(StrEnum):
    """Whether a token without any binding may pass."""

    REQUIRED = "required"
    WHEN_PRESENT = "when-present"


class BindingMethod(StrEnum):
    """What may prove that the caller is the one the token was issued to."""

    X5T_S256 = "x5t#S256"
    SPIFFE_ID = "spiffe-id"


@dataclass(frozen=True, slots=True)
class BindingRequirement:
    """How a token must be bound to the connection.

    Attributes:
        mode: REQUIRED unless chosen otherwise by name.
        accept: any one of these suffices.
        spiffe_id_claim: the claim that must equal the peer's verified SPIFFE ID; set exactly when `accept` holds SPIFFE_ID.
    """

    mode: BindingMode = BindingMode.REQUIRED
    accept: frozenset[BindingMethod] = frozenset({BindingMethod.X5T_S256})
    spiffe_id_claim: str | None = None

    def __post_init__(self) -> None:
        """Refuse a requirement that nothing, or anything, could meet."""
        if not self.accept:
            raise ValueError("a binding requirement accepts at least one method")
        if (self.spiffe_id_claim is not None) != (BindingMethod.SPIFFE_ID in self.accept):
            raise ValueError("a SPIFFE ID claim is named exactly when the `spiffe-id` method is accepted")
