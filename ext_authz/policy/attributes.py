"""The attributes that templates can speak of, each a function of one allowed request.

`token.claims.<name>[.<name>...]` and `path.<variable>` are open families; everything else is in one table.
"""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from ext_authz.facts import RequestFacts
from ext_authz.principal import JsonValue, Peer, Principals, TrustedBy, VerifiedToken
from ext_authz.spiffe import SpiffeId

__all__ = ["KNOWN_ATTRIBUTES", "Attribute", "Context", "claim_at", "find_attribute"]


class Context(NamedTuple):
    """What a template is rendered from.

    Attributes:
        facts: of the request.
        principals: who was proved.
        path: canonical.
        query: as sent.
        host: canonical.
        variables: of the Template match, decoded.
    """

    facts: RequestFacts
    principals: Principals
    path: str
    query: str
    host: str
    variables: Mapping[str, str]


Attribute: TypeAlias = Callable[[Context], JsonValue]
"""None is absent."""


def claim_at(claims: Mapping[str, JsonValue], path: tuple[str, ...]) -> tuple[bool, JsonValue]:
    """Whether the claim at `path` is there, and its value."""
    value: JsonValue = claims
    for name in path:
        # the two ways JSON objects are held, before the slow general question
        if not isinstance(value, (dict, MappingProxyType, Mapping)) or name not in value:
            return False, None
        value = value[name]
    return True, value


def find_attribute(name: str) -> Attribute:
    """The attribute called `name`.

    Raises:
        ValueError: when there is none.
    """
    attribute = _ATTRIBUTES.get(name)
    if attribute is not None:
        return attribute
    root, _, rest = name.partition(".")
    if root == "path" and rest.isidentifier():
        return partial(_variable, rest)
    family, _, claim = rest.partition(".")
    if root == "token" and family == "claims" and claim and all(claim.split(".")):
        return partial(_claim, tuple(claim.split(".")))
    raise ValueError(f"there is no attribute `{name}`; write one of {', '.join(KNOWN_ATTRIBUTES)}")


def _variable(name: str, context: Context) -> JsonValue:
    return context.variables.get(name)


def _claim(path: tuple[str, ...], context: Context) -> JsonValue:
    token = context.principals.token
    return None if token is None else claim_at(token.claims, path)[1]


def _of_token(read: Callable[[VerifiedToken], JsonValue]) -> Attribute:
    def attribute(context: Context) -> JsonValue:
        token = context.principals.token
        return None if token is None else read(token)

    return attribute


def _of_peer(read: Callable[[Peer], JsonValue]) -> Attribute:
    def attribute(context: Context) -> JsonValue:
        peer = context.principals.peer
        return None if peer is None else read(peer)

    return attribute


def _of_spiffe_id(read: Callable[[SpiffeId], JsonValue]) -> Attribute:
    def attribute(context: Context) -> JsonValue:
        peer = context.principals.peer
        return None if peer is None or peer.spiffe_id is None else read(peer.spiffe_id)

    return attribute


def _audience(token: VerifiedToken) -> JsonValue:
    # RFC 7519 §4.1.3: one audience may be written as a string
    return token.audiences[0] if len(token.audiences) == 1 else token.audiences


def _expiry(token: VerifiedToken) -> JsonValue:
    # `int.is_integer` came with Python 3.12
    return int(token.expires_at) if float(token.expires_at).is_integer() else token.expires_at


def _thumbprint(peer: Peer) -> JsonValue:
    # RFC 8705 §3.1: base64url without padding, as in `x5t#S256`
    return None if peer.thumbprint is None else urlsafe_b64encode(peer.thumbprint).rstrip(b"=").decode()


def _certificate(peer: Peer) -> JsonValue:
    return None if peer.certificate is None else _url_encoded_pem(peer.certificate.der)


@lru_cache(maxsize=1024)  # a pure function, as costly as the rest of a warm decision
def _url_encoded_pem(der: bytes) -> str:
    text = b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]  # RFC 7468 §2
    return quote("\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", "")), safe="")


def _subject(peer: Peer) -> JsonValue:
    # anyone can write any subject into a certificate that nobody verified (RFC 8705 §6.2)
    if peer.certificate is None or peer.trusted_by is TrustedBy.NOBODY:
        return None
    return peer.certificate.subject


_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(
    {
        "token.sub": _of_token(attrgetter("subject")),
        "token.issuer": _of_token(attrgetter("issuer")),
        "token.client_id": _of_token(attrgetter("client_id")),
        "token.jti": _of_token(attrgetter("token_id")),
        "token.scope": _of_token(lambda token: " ".join(sorted(token.scopes))),
        "token.audience": _of_token(_audience),
        "token.exp": _of_token(_expiry),
        "peer.spiffe_id": _of_spiffe_id(str),
        "peer.trust_domain": _of_spiffe_id(attrgetter("trust_domain.name")),
        "peer.namespace": _of_spiffe_id(attrgetter("namespace")),
        "peer.service_account": _of_spiffe_id(attrgetter("service_account")),
        "peer.thumbprint": _of_peer(_thumbprint),
        "peer.certificate": _of_peer(_certificate),
        "peer.subject": _of_peer(_subject),
        "request.method": lambda context: context.facts.method,
        "request.path": lambda context: context.path,
        "request.host": lambda context: context.host,
        "request.id": lambda context: context.facts.request_id,
        "request.source_ip": lambda context: context.facts.source_address,
    }
)

KNOWN_ATTRIBUTES = (*_ATTRIBUTES, "token.claims.<name>", "path.<variable>")
"""For error texts and documentation."""
