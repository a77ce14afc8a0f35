"""Host names: the request's in one form, and the patterns that policies write."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from ext_authz.errors import Reason, Refusal

__all__ = ["MAX_HOST_LENGTH", "Host", "HostPattern", "canonical_name", "parse_host"]

MAX_HOST_LENGTH = 253
"""RFC 1035 §2.3.4: 255 octets on the wire leave 253 in text."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"  # RFC 1123 §2.1, and `_`, which service names have
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_AUTHORITY = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,254})(?::([0-9]{0,5}))?"
)  # RFC 3986 §3.2.3: a port may be empty


class Host(NamedTuple):
    """`:authority` as one name.

    Attributes:
        name: lowercase, without port; IPv6 in its short form.
        has_port: whether anything followed it, be it only the colon.
    """

    name: str
    has_port: bool


@lru_cache(maxsize=4096)  # a pure function; a mesh has few host names and a flood only evicts
def parse_host(authority: str) -> Host:
    """The one reading of `:authority`.

    Raises:
        Refusal: HOST_MALFORMED for user information, a port above 65535, characters no host name has, nothing, and for the
            root's trailing dot: it is the same name to DNS (RFC 1034 §3.1) and another one to the routes of Envoy 1.40.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Refusal(Reason.HOST_MALFORMED, "the host is not a name or address with an optional port")
    host, port = match.groups()
    if port and int(port) > 65535:
        raise Refusal(Reason.HOST_MALFORMED, "the port is above 65535")
    if host[0] == "[":
        try:
            return Host(f"[{IPv6Address(host[1:-1]).compressed}]", port is not None)
        except AddressValueError:
            raise Refusal(Reason.HOST_MALFORMED, "the host is not an IPv6 address") from None
    name = host.lower()
    if name[-1] == ".":
        raise Refusal(Reason.HOST_MALFORMED, "the host ends in a dot, with which a proxy may route it elsewhere")
    if len(name) > MAX_HOST_LENGTH or not _NAME.fullmatch(name):
        raise Refusal(Reason.HOST_MALFORMED, "the host has an empty or malformed label, or is too long")
    return Host(name, port is not None)


def canonical_name(name: str) -> str:
    """A DNS name in lowercase without the root's trailing dot: `A.example.` and `a.example` are one name."""
    return name.lower().removesuffix(".")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host name, or `*.` before one: one or more labels, never the name itself (Gateway API `Hostname`).

    Attributes:
        text: as written, lowercase.
        suffix: what follows `*`, with its dot; empty for an exact name.
    """

    text: str
    suffix: str = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what no host can match (ValueError)."""
        advice = "write `billing.example.com`, or `*.example.com` for every name below it"
        name = self.text.removeprefix("*.")
        if name == "*":
            raise ValueError("`*` is no host name; leave the field out for every host")
        try:
            canonical = parse_host(name.removesuffix(".")).name
        except Refusal as refusal:
            raise ValueError(f"`{self.text}` is no host name: {refusal.detail}; {advice}") from None
        if canonical != name:
            raise ValueError(
                f"`{self.text}` is not in its canonical form, without port or trailing dot; write `{canonical}`"
            )
        if name != self.text and name[0] == "[":
            raise ValueError(f"`{self.text}` puts a wildcard before an address; {advice}")
        object.__setattr__(self, "suffix", "" if name == self.text else f".{name}")

    @property
    def is_exact(self) -> bool:
        """Whether it stands for one name only."""
        return not self.suffix

    def matches(self, name: str) -> bool:
        """Whether `name`, a canonical host, is in the set."""
        return name.endswith(self.suffix) and len(name) > len(self.suffix) if self.suffix else name == self.text
