"""What Envoy said about one request: immutable, undecided, with provenance."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from ext_authz.errors import Reason, Refusal

__all__ = ["Headers", "Provenance", "RequestFacts"]

_NO_EXTENSIONS: Mapping[str, str] = MappingProxyType({})


class Provenance(StrEnum):
    """Which part of the CheckRequest a credential was read from."""

    SOURCE_CERTIFICATE = "source.certificate"
    SOURCE_PRINCIPAL = "source.principal"
    XFCC = "x-forwarded-client-cert"
    PEM_HEADER = "pem-header"
    CLIENT_CERT = "client-cert"
    TOKEN_HEADER = "token-header"


class Headers:
    """Request headers by lowercase name, in either of the two forms Envoy sends.

    `merged` (CheckRequest `http.headers`): one value per name; Envoy has already joined duplicates with `,` and
    replaced non-UTF-8 bytes by `!`. `raw` (`http.header_map`, under `encode_raw_headers: true`): every header as it
    came. Pseudo headers (`:path` and the like) are left out: their values are fields of `RequestFacts`.

    Attributes:
        is_raw: which of the two forms.
        has_underscores: whether any name has a `_`, which some upstreams read as `-`.
    """

    __slots__ = ("_undecodable", "_values", "has_underscores", "is_raw")

    def __init__(
        self,
        values: Mapping[str, tuple[str, ...]] | Mapping[str, str],
        *,
        is_raw: bool,
        undecodable: frozenset[str] = frozenset(),
        names: str | None = None,
    ) -> None:
        """Use `merged` or `raw` instead."""
        self.has_underscores = "_" in ("".join(values) if names is None else names)
        self._values: Mapping[str, tuple[str, ...] | str] = values
        self.is_raw = is_raw
        self._undecodable = undecodable

    @classmethod
    def merged(cls, values: Mapping[str, str], names: str | None = None) -> "Headers":
        """Headers in which Envoy has joined duplicates; names must be lowercase already.

        Args:
            values: by name.
            names: all names in one text, for a caller that has it.
        """
        return cls(values, is_raw=False, names=names)

    @classmethod
    def raw(cls, pairs: Iterable[tuple[str, bytes]]) -> "Headers":
        """Headers as they came; a value that is not UTF-8 is kept only as the fact that it is not."""
        values: dict[str, tuple[str, ...]] = {}
        undecodable: set[str] = set()
        for name, value in pairs:
            try:
                text = value.decode()
            except UnicodeDecodeError:
                undecodable.add(name)
                text = ""
            values[name] = (*values.get(name, ()), text)
        return cls(values, is_raw=True, undecodable=frozenset(undecodable))

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of `name` (lowercase) in order; empty when absent.

        Raises:
            Refusal: HEADER_MALFORMED when a value is not UTF-8 (CVE-2023-27488, CVE-2024-23324).
        """
        value = self._values.get(name)
        if value is None:
            return ()
        if name in self._undecodable:
            raise Refusal(Reason.HEADER_MALFORMED, f"header `{name}` is not UTF-8")
        return (value,) if isinstance(value, str) else value

    def joined(self, name: str) -> str | None:
        """The values of `name` joined with `,` (RFC 9110 §5.3), or None when absent. Raises as `get_all`."""
        value = self._values.get(name)
        if value is None or (isinstance(value, str) and not self._undecodable):
            return value if value is None or isinstance(value, str) else ",".join(value)
        return ",".join(self.get_all(name))

    def names(self) -> Iterable[str]:
        """The lowercase names present."""
        return self._values.keys()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)


_NO_HEADERS = Headers.merged(_NO_EXTENSIONS)


class RequestFacts(NamedTuple):
    """One CheckRequest as values. Nothing in it is trusted; each field names the attribute it was read from.

    A named tuple because one is made for every request: it takes a quarter of the time of a frozen dataclass.

    Attributes:
        method: `http.method`, as sent (case kept).
        path: `http.path`: the raw `:path` with query, not normalised; may be empty (CONNECT).
        host: `http.host`: the raw `:authority`, chosen by the client.
        scheme: `http.scheme`.
        protocol: `http.protocol`, `HTTP/1.1`, `HTTP/2` or `HTTP/3`.
        request_id: `http.id`, Envoy's stream id (not a header).
        headers: `http.headers` or `http.header_map`.
        source_address: `source.address`: the connection's own address, never X-Forwarded-For; empty when not an IP socket.
        source_principal: `source.principal`: first URI SAN, else first DNS SAN, else subject; also for unverified certificates.
        source_certificate: `source.certificate`: URL-encoded PEM of the leaf.
        destination_address: `destination.address`.
        destination_principal: `destination.principal`: the workload's own identity.
        sni: `tls_session.sni`.
        context_extensions: `context_extensions`, set by Envoy's configuration alone.
    """

    method: str
    path: str
    host: str
    scheme: str = ""
    protocol: str = ""
    request_id: str = ""
    headers: Headers = _NO_HEADERS
    source_address: str = ""
    source_port: int = 0
    source_principal: str = ""
    source_certificate: str = ""
    destination_address: str = ""
    destination_port: int = 0
    destination_principal: str = ""
    sni: str = ""
    context_extensions: Mapping[str, str] = _NO_EXTENSIONS
