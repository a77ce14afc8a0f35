"""The URLs that we fetch from or send to: RFC 3986 as far as `http` and `https` use it, in ASCII, without surprises.

A URL that two readers could understand differently is refused, not repaired: it says whose keys we believe.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

__all__ = ["HttpUrlParts", "parse_http_url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}

# RFC 3986 §2: unreserved, sub-delims and percent-encoded octets; §3.3, §3.4: what path and query add to them
_PCHAR = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_URL = re.compile(
    r"(?P<scheme>(?i:https?))://"
    rf"(?:\[(?P<address>[0-9A-Fa-f:.]{{2,45}})\]|(?P<name>{_LABEL}(?:\.{_LABEL})*\.?))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    rf"(?P<path>(?:/{_PCHAR}*)*)"
    rf"(?:\?(?P<query>(?:{_PCHAR}|[/?])*))?",
    re.ASCII,
)


class HttpUrlParts(NamedTuple):
    """An absolute URL without user information and fragment.

    Attributes:
        scheme: `http` or `https`.
        host: a name in lower case, or an IP address without brackets.
        port: as written, or the scheme's own.
        path: as written; empty, or with a leading `/`.
        query: as written, without `?`; None when there is none.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def authority(self) -> str:
        """Host and port as the `host` header has them (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port (RFC 6454)."""
        return f"{self.scheme}://{self.authority}"

    @property
    def target(self) -> str:
        """What is asked for, in origin form (RFC 9112 §3.2.1)."""
        return (self.path or "/") + ("" if self.query is None else f"?{self.query}")

    @property
    def is_loopback(self) -> bool:
        """Whether it names this machine: `localhost`, or an IP address of the loopback network."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_http_url(text: str) -> HttpUrlParts:
    """Read an absolute `http` or `https` URL.

    Raises:
        ValueError: for all others, and for one with user information or a fragment. It does not repeat `text`.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("not an absolute http or https URL in ASCII without user information and fragment")
    scheme = match["scheme"].lower()
    port = _DEFAULT_PORTS[scheme] if match["port"] is None else int(match["port"])
    if not 0 < port < 65_536:
        raise ValueError("the port is not one from 1 to 65535")
    try:
        host = _name(match["name"].lower()) if match["address"] is None else str(IPv6Address(match["address"]))
    except ValueError:
        raise ValueError("the host is no IP address, but written as one") from None
    return HttpUrlParts(scheme, host, port, match["path"], match["query"])


def _name(host: str) -> str:
    """`host`, unless it is a number that some resolvers take for an address and others do not, as `127.1`."""
    last = host.removesuffix(".").rpartition(".")[2]
    # WHATWG URL §3.5, "ends in a number"
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return str(IPv4Address(host))
    return host
