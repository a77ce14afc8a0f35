"""What Envoy said about one request: immutable, undecided, with provenance."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from ext_authz.errors import Reason, Refusal

__all__ = ["HeaderNames", "Headers", "Provenance", "RequestFacts"]

_NO_EXTENSIONS: Mapping[str, str] = MappingProxyType({})


class Provenance(StrEnum):
    """Which part of the CheckRequest a credential was read from."""

    SOURCE_CERTIFICATE = "source.certificate"
    SOURCE_PRINCIPAL = "source.principal"
    XFCC = "x-forwarded-client-cert"
    PEM_HEADER = "pem-header"
    CLIENT_CERT = "client-cert"
    TOKEN_HEADER = "token-header"


class HeaderNames(NamedTuple):
    """The names of the header fields of one request, which are the same in many.

    Attributes:
        names: in lowercase.
        has_other_dashes: whether any has a `_` or `.`, which some upstreams read as `-`.
    """

    names: Collection[str]
    has_other_dashes: bool

    @classmethod
    def of(cls, names: Collection[str]) -> "HeaderNames":
        """These names, which must be lowercase already."""
        text = "".join(names)
        return cls(names, "_" in text or "." in text)


class Headers:
    """Request headers by lowercase name, in either of the two forms Envoy sends.

    `merged` (CheckRequest `http.headers`): one value per name; Envoy has already joined duplicates with `,` and
    replaced non-UTF-8 bytes by `!`. `raw` (`http.header_map`, under `encode_raw_headers: true`): every header as it
    came. Pseudo headers (`:path` and the like) are left out: their values are fields of `RequestFacts`.

    Attributes:
        is_raw: which of the two forms.
        has_other_dashes: whether any name has a `_` or `.`, which some upstreams read as `-`.
    """

    __slots__ = ("_names", "_undecodable", "_values", "has_other_dashes", "is_raw")

    def __init__(
        self,
        values: Mapping[str, tuple[str, ...]] | Mapping[str, str],
        names: HeaderNames,
        is_raw: bool,
        undecodable: Collection[str] = (),
    ) -> None:
        """Use `merged` or `raw` instead."""
        self._names, self.has_other_dashes = names
        self._values: Mapping[str, tuple[str, ...] | str] = values
        self.is_raw = is_raw
        self._undecodable = undecodable

    @classmethod
    def merged(cls, values: Mapping[str, str], names: HeaderNames | None = None) -> "Headers":
        """Headers in which Envoy has joined duplicates.

        Args:
            values: by lowercase name; read when asked for, and what `names` does not hold never is.
            names: those of `values` that are header fields; by default all.
        """
        return cls(values, HeaderNames.of(values.keys()) if names is None else names, False)

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
        return cls(values, HeaderNames.of(values.keys()), True, undecodable)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of `name` (lowercase) in order; empty when absent.

        Raises:
            Refusal: HEADER_MALFORMED when a value is not UTF-8 (CVE-2023-27488, CVE-2024-23324).
        """
        if name not in self._names:
            return ()
        if name in self._undecodable:
            raise Refusal(Reason.HEADER_MALFORMED, f"header `{name}` is not UTF-8")
        value = self._values[name]
        return (value,) if isinstance(value, str) else value

    def joined(self, name: str) -> str | None:
        """The values of `name` joined with `,` (RFC 9110 §5.3), or None when absent. Raises as `get_all`."""
        if name not in self._names:
            return None
        return ",".join(self.get_all(name)) if self.is_raw else self._values[name]  # type: ignore[return-value]  # one text

    def names(self) -> Iterable[str]:
        """The lowercase names present."""
        return self._names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)


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
