"""The words a server's configuration is written with: addresses, URLs, algorithms and token types."""

import re
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ext_authz.config.http_url import parse_http_url
from ext_authz.config.problem import shown
from ext_authz.config.written import checked

__all__ = [
    "Address",
    "Algorithm",
    "HttpUrl",
    "Seconds",
    "TcpAddress",
    "TokenType",
    "is_plain_http",
]

Algorithm: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
"""More than nothing, at most a year."""

_TCP = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def _check_tcp(text: str) -> None:
    match = _TCP.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{shown(text)} is not `host:port`; write it like `127.0.0.1:9000`")


def _check_address(text: str) -> None:
    if text.startswith("unix:"):
        if not text.startswith("unix:/") or not text.isprintable() or text.endswith("/"):
            raise ValueError(f"{shown(text)} is not a socket's absolute path; write it like `unix:/run/ext-authz.sock`")
        return
    try:
        _check_tcp(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not `host:port` or `unix:/path`; write it like `127.0.0.1:9000`") from None


TcpAddress: TypeAlias = Annotated[str, checked(_check_tcp), Field(json_schema_extra={"pattern": "^.+:[0-9]{1,5}$"})]
Address: TypeAlias = Annotated[
    str, checked(_check_address), Field(json_schema_extra={"pattern": "^(unix:/.+|.+:[0-9]{1,5})$"})
]


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        has_too_much = parts.username is not None or bool(parts.fragment)
    except ValueError:
        has_too_much = False
    if has_too_much:
        raise ValueError(f"{shown(text)} holds credentials or a fragment; write the URL without them")
    try:
        parse_http_url(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is not an absolute URL; write it like `https://login.example.com/jwks`"
            + ("" if text.isascii() else ", a host in its `xn--` form and other characters percent-encoded")
        ) from None


HttpUrl: TypeAlias = Annotated[str, checked(_check_url), Field(json_schema_extra={"pattern": "^https?://.+$"})]


def is_plain_http(url: str) -> bool:
    """Whether `url` is fetched in clear text over a network: `http` to anything but this host."""
    if not url.startswith("http://"):
        return False
    try:
        return not parse_http_url(url).is_loopback
    except ValueError:
        return True


_NEVER_ACCESS_TOKENS = {
    "dpop+jwt": "a DPoP proof",
    "secevent+jwt": "a security event",
    "logout+jwt": "a logout token",
    "txntoken+jwt": "a transaction token",
    "token-introspection+jwt": "an introspection answer",
    "oauth-authz-req+jwt": "an authorization request",
    "wit+jwt": "a workload identity token",
    "wpt+jwt": "a workload proof token",
    "kb+jwt": "a key binding proof",
}
_TYPE_PATTERN = r"[A-Za-z0-9!#$&^_.+-]{1,64}"
_TYPE = re.compile(_TYPE_PATTERN)  # RFC 6838 §4.2


def _token_type(text: str) -> str:
    name = text.lower().removeprefix("application/")
    if text and not _TYPE.fullmatch(name):
        raise ValueError(f"{shown(text)} is not a media type; write it like `at+jwt`")
    if name in _NEVER_ACCESS_TOKENS:
        raise ValueError(
            f"{shown(text)} is the type of {_NEVER_ACCESS_TOKENS[name]}, never of an access token; remove it"
        )
    return name


TokenType: TypeAlias = Annotated[
    str, AfterValidator(_token_type), Field(json_schema_extra={"pattern": f"^((application/)?{_TYPE_PATTERN})?$"})
]
"""JWS `typ`, compared without case and without `application/` (RFC 7515 §4.1.9); empty for a token without `typ`."""
