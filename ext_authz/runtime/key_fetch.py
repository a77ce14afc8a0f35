"""One issuer's keys from where its configuration says: an HTTPS URL, its metadata, a file, the configuration itself.

Whatever a server answers, the outcome is a key set or a `KeyFetchError`, within the given time and a bounded size.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import httpx

from ext_authz.errors import ExtAuthzError, Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.token.i_json import parse_object
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, Issuer, KeyFile, KeyUrl
from ext_authz.token.jwks import MAX_KEY_SET_BYTES, KeySet

__all__ = ["KeyFetchError", "KeyFetchFault", "fetch_keys", "metadata_urls", "require_fetchable"]

MAX_METADATA_BYTES = 262_144
"""Metadata documents in use have 2 to 8 KiB."""

_WELL_KNOWN_OAUTH = "/.well-known/oauth-authorization-server"
_WELL_KNOWN_OPENID = "/.well-known/openid-configuration"

_HEADERS: Mapping[str, str] = {
    "accept": "application/jwk-set+json, application/json",
    # a compressed body could outgrow any limit in one step
    "accept-encoding": "identity",
}


class KeyFetchFault(StrEnum):
    """Why keys could not be fetched; stable, for log and metrics."""

    URL_NOT_ALLOWED = "url_not_allowed"
    TLS_ROOTS_UNREADABLE = "tls_roots_unreadable"
    TIMED_OUT = "timed_out"
    NOT_REACHED = "not_reached"
    STATUS_NOT_OK = "status_not_ok"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    METADATA_MALFORMED = "metadata_malformed"
    ISSUER_MISMATCH = "issuer_mismatch"
    KEY_SET_MALFORMED = "key_set_malformed"
    FILE_UNREADABLE = "file_unreadable"
    UNEXPECTED = "unexpected"


class KeyFetchError(ExtAuthzError):
    """Keys that could not be fetched.

    Attributes:
        fault: why.
        detail: a sentence for the operator; may name what the configuration names, never what a server sent.
    """

    def __init__(self, fault: KeyFetchFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


async def fetch_keys(issuer: Issuer, seconds: float) -> KeySet:
    """Fetch the keys of `issuer` once.

    Args:
        issuer: whose keys, and where they are.
        seconds: for everything together: name look-up, connections, metadata, key set.

    Raises:
        KeyFetchError: when that brings no key set.
    """
    try:
        async with asyncio.timeout(seconds):
            data = await _read(issuer, seconds)
    except TimeoutError:
        raise KeyFetchError(KeyFetchFault.TIMED_OUT, "no complete answer in time") from None
    try:
        return KeySet.from_json(data)
    except Refusal as refusal:
        raise KeyFetchError(KeyFetchFault.KEY_SET_MALFORMED, refusal.detail) from None


async def _read(issuer: Issuer, seconds: float) -> bytes:
    source = issuer.keys
    match source:
        case InlineKeys():
            return source.jwks.encode()
        case KeyFile():
            return await asyncio.to_thread(_read_file, source.path)
        case KeyUrl():
            url = require_fetchable(source.url, plain_http=issuer.plain_http)
            return await _get(url, source.ca_file, MAX_KEY_SET_BYTES, seconds)
        case DiscoveredKeys():
            url = await _discover(issuer, source, seconds)
            return await _get(url, source.ca_file, MAX_KEY_SET_BYTES, seconds)
        case _:
            assert_never(source)


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            # one byte more than a key set may have: reading it whole decides that it is too large
            return file.read(MAX_KEY_SET_BYTES + 1)
    except OSError:
        raise KeyFetchError(KeyFetchFault.FILE_UNREADABLE, f"`{path}` cannot be read") from None


async def _discover(issuer: Issuer, source: DiscoveredKeys, seconds: float) -> httpx.URL:
    """The `jwks_uri` of the issuer's metadata, from the first well-known location that has it."""
    written = (source.url,) if source.url is not None else metadata_urls(issuer.issuer, plain_http=issuer.plain_http)
    last: KeyFetchError | None = None
    for text in written:
        try:
            url = require_fetchable(text, plain_http=issuer.plain_http)
            document = await _get(url, source.ca_file, MAX_METADATA_BYTES, seconds)
            return _keys_url(document, issuer, url)
        except KeyFetchError as error:
            last = error
    raise last or KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "the issuer has no well-known location")


def metadata_urls(issuer: str, *, plain_http: bool = False) -> tuple[str, ...]:
    """Where an issuer's metadata can be, in order (RFC 8414 §3.1, §5; OpenID Connect Discovery 1.0 §4).

    RFC 8414 inserts the well-known part between host and path; OpenID Connect appends it.

    Raises:
        KeyFetchError: URL_NOT_ALLOWED when the issuer identifier is no fetchable URL, or has a query.
    """
    url = require_fetchable(issuer, plain_http=plain_http)
    if url.query:
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "an issuer identifier has no query (RFC 8414 §2)")
    origin = str(url.copy_with(path="/")).rstrip("/")
    # raw_path: percent-encoding stays as the identifier has it
    path = url.raw_path.decode("ascii").rstrip("/")
    locations = (_WELL_KNOWN_OAUTH + path, _WELL_KNOWN_OPENID + path, path + _WELL_KNOWN_OPENID)
    return tuple(dict.fromkeys(origin + location for location in locations))


def _keys_url(document: bytes, issuer: Issuer, origin: httpx.URL) -> httpx.URL:
    """Where the metadata that came from `origin` says the keys are."""
    url = require_fetchable(_jwks_uri(document, issuer.issuer), plain_http=issuer.plain_http)
    if origin.scheme == "https" and url.scheme != "https":
        # a document from elsewhere must not point at what listens on this machine
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "metadata over https names keys over http")
    return url


def _jwks_uri(document: bytes, issuer: str) -> str:
    metadata: Mapping[str, JsonValue]
    try:
        metadata = parse_object(document, Reason.SIGNING_KEYS_UNAVAILABLE)
    except Refusal as refusal:
        raise KeyFetchError(KeyFetchFault.METADATA_MALFORMED, f"the metadata is {refusal.detail}") from None
    # RFC 8414 §3.3: identical, or one issuer could speak for another
    if metadata.get("issuer") != issuer:
        raise KeyFetchError(KeyFetchFault.ISSUER_MISMATCH, "the metadata is of another issuer")
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise KeyFetchError(KeyFetchFault.METADATA_MALFORMED, "the metadata has no `jwks_uri` string")
    return jwks_uri


def require_fetchable(text: str, *, plain_http: bool = False) -> httpx.URL:
    """The URL, when keys may come from it: https, or http to a loopback address; to any with `plain_http`.

    Raises:
        KeyFetchError: URL_NOT_ALLOWED for all others, and for any with user information or a fragment.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "not a URL") from None
    if url.userinfo or url.fragment:
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "a URL with user information or a fragment")
    allowed = url.scheme == "https" or (url.scheme == "http" and (plain_http or _is_loopback(url.host)))
    if not url.host or not allowed:
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "neither https, nor http to a loopback address")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _get(url: httpx.URL, ca_file: str | None, limit: int, seconds: float) -> bytes:
    """The body of a 200 answer in JSON, of at most `limit` bytes."""
    context = await asyncio.to_thread(_tls_context, url.scheme, ca_file)
    try:
        # trust_env: a proxy or a .netrc of the environment is no part of our configuration
        async with (
            httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=seconds) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            return await _body(response, limit)
    except httpx.TimeoutException:
        raise KeyFetchError(KeyFetchFault.TIMED_OUT, "no complete answer in time") from None
    except (httpx.HTTPError, OSError):
        raise KeyFetchError(
            KeyFetchFault.NOT_REACHED, "the server cannot be reached, or is not the one expected"
        ) from None


def _tls_context(scheme: str, ca_file: str | None) -> ssl.SSLContext:
    """A client context; made for each fetch, so that a renewed `ca_file` counts at once."""
    if scheme == "http":
        # never used; it trusts nobody and saves reading the system's roots
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:  # also ssl.SSLError
        raise KeyFetchError(KeyFetchFault.TLS_ROOTS_UNREADABLE, f"`{ca_file}` holds no readable PEM roots") from None


async def _body(response: httpx.Response, limit: int) -> bytes:
    if response.status_code != 200:
        # also a redirect: where keys come from is the configuration's to say
        raise KeyFetchError(KeyFetchFault.STATUS_NOT_OK, f"the answer has status {response.status_code}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise KeyFetchError(KeyFetchFault.CONTENT_TYPE, "the answer is not of a JSON media type")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise KeyFetchError(KeyFetchFault.CONTENT_TYPE, "the answer is compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise KeyFetchError(KeyFetchFault.TOO_LARGE, f"the answer is larger than {limit} bytes")
    return bytes(body)
