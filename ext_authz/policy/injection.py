"""What a rule changes on an allowed request, as written and checked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ext_authz.policy.header_name import check_removed_header, check_set_header
from ext_authz.policy.template import parse_template
from ext_authz.principal import JsonValue

__all__ = ["Injection"]

_EMPTY: Mapping[str, JsonValue] = MappingProxyType({})
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]+")  # RFC 3986 §2.3 unreserved: Envoy compares and writes names as they are


@dataclass(frozen=True, slots=True)
class Injection:
    """What an allowed request is to look like upstream.

    Values are templates: text with `${token.sub}`-like references; `$$` is a `$`. Header names are lowercase.

    Attributes:
        request_headers: set, overwriting the client's; removed where the value is absent.
        remove_request_headers: removed from the client's request.
        response_headers: set on the response to the client; left out where the value is absent.
        dynamic_metadata: for Envoy's log and later filters, nested as wanted; a text that is one single reference keeps
            its JSON type; left out where the value is absent.
        set_query_parameters: set percent-encoded, overwriting the client's; removed where the value is absent.
        remove_query_parameters: removed, also in other spellings that an upstream may read as these (see `query.readings`).
        client_certificate: the header to carry the peer's certificate as URL-encoded PEM, or None.
    """

    request_headers: Mapping[str, str] = field(default_factory=dict)
    remove_request_headers: tuple[str, ...] = ()
    response_headers: Mapping[str, str] = field(default_factory=dict)
    dynamic_metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    set_query_parameters: Mapping[str, str] = field(default_factory=dict)
    remove_query_parameters: tuple[str, ...] = ()
    client_certificate: str | None = None

    def __post_init__(self) -> None:
        """Refuse names that are not ours to set, values that could not be sent, and what is both set and removed."""
        for name in ("request_headers", "response_headers", "dynamic_metadata", "set_query_parameters"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        for name in self.response_headers:
            check_set_header(name)
        for name in self.remove_request_headers:
            check_removed_header(name)
        if self.client_certificate in self.request_headers:
            raise ValueError(f"`{self.client_certificate}` is set twice; remove it from `request_headers`")
        for name in self.owned_headers:
            check_set_header(name)
        for name in self.owned_headers & set(self.remove_request_headers):
            raise ValueError(f"the header `{name}` is both set and removed; setting already overwrites the client's")
        for name in (*self.set_query_parameters, *self.remove_query_parameters):
            if not _QUERY_NAME.fullmatch(name):
                raise ValueError(
                    f"the query parameter `{name}` is not plain; write letters, digits, `-`, `.`, `_`, `~`"
                )
        for name in self.set_query_parameters.keys() & set(self.remove_query_parameters):
            raise ValueError(f"the query parameter `{name}` is both set and removed; setting overwrites the client's")
        _ = self.references  # parses every template

    @property
    def owned_headers(self) -> frozenset[str]:
        """The request headers that only this injection may set."""
        certificate = () if self.client_certificate is None else (self.client_certificate,)
        return frozenset((*self.request_headers, *certificate))

    @property
    def references(self) -> frozenset[str]:
        """Every attribute that a value depends on."""
        texts = [
            *self.request_headers.values(),
            *self.response_headers.values(),
            *self.set_query_parameters.values(),
            *_texts(self.dynamic_metadata),
        ]
        found = {reference for text in texts for reference in parse_template(text).references}
        return frozenset(found if self.client_certificate is None else {*found, "peer.certificate"})


def _frozen(members: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    return MappingProxyType(dict(members)) if members else _EMPTY


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, tuple):
        for member in value:
            yield from _texts(member)
