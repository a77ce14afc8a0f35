"""Who may issue tokens and which keys they have: what a verification depends on, as one immutable value."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ext_authz.token.issuer import Issuer
from ext_authz.token.jwks import KeySet
from ext_authz.token.token_cache import TokenCache

__all__ = ["IssuerDirectory", "TrustedIssuer"]


@dataclass(frozen=True, slots=True, eq=False)
class TrustedIssuer:
    """An issuer's terms together with its keys.

    Compared by identity: results cached for one instance count for that instance only, so they end with the terms
    and the keys they were reached under.

    Attributes:
        issuer: the terms.
        keys: its verification keys, or None while none could be fetched.
    """

    issuer: Issuer
    keys: KeySet | None


class IssuerDirectory:
    """The issuers of one snapshot by `iss`, and the cache of what was verified under them.

    Attributes:
        cache: shared with the directories before and after this one.
    """

    __slots__ = ("_by_iss", "cache")

    def __init__(
        self,
        issuers: Iterable[Issuer],
        keys: Mapping[str, KeySet],
        previous: "IssuerDirectory | None" = None,
        cache: TokenCache | None = None,
    ) -> None:
        """Join issuers with their keys.

        Args:
            issuers: names and `iss` are unique.
            keys: by issuer name; an issuer without an entry has none yet.
            previous: the directory that this one replaces; issuers whose terms and key set object are the same stay
                the same TrustedIssuer, and so keep their cached tokens.
            cache: for results; by default that of `previous`, or a new one.

        Raises:
            ValueError: for two issuers with one `iss` (which keys would count?) or one name.
        """
        by_iss: dict[str, TrustedIssuer] = {}
        names: set[str] = set()
        for issuer in issuers:
            if issuer.issuer in by_iss or issuer.name in names:
                raise ValueError("two issuers with the same name or the same `iss`")
            names.add(issuer.name)
            trusted = TrustedIssuer(issuer, keys.get(issuer.name))
            before = None if previous is None else previous.get(issuer.issuer)
            if before is not None and before.issuer == issuer and before.keys is trusted.keys:
                trusted = before
            by_iss[issuer.issuer] = trusted
        self._by_iss: Mapping[str, TrustedIssuer] = MappingProxyType(by_iss)
        if cache is None:
            cache = TokenCache() if previous is None else previous.cache
        self.cache: TokenCache = cache

    def get(self, iss: str) -> TrustedIssuer | None:
        """The issuer whose identifier is exactly `iss`, or None."""
        return self._by_iss.get(iss)

    def has_keys(self, name: str) -> bool:
        """Whether any key of the issuer that policies call `name` could be had."""
        return any(trusted.issuer.name == name and trusted.keys is not None for trusted in self)

    def __iter__(self) -> Iterator[TrustedIssuer]:
        return iter(self._by_iss.values())
