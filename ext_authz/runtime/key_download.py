"""One issuer's keys from an HTTPS URL, or from the one that the issuer's metadata names.

Apart from `key_fetch` because of what it imports: an HTTP client takes longer to load than all policies together, and
only issuers whose keys are elsewhere need it.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping

import httpx

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.token.i_json import parse_object
from ext_authz.token.issuer import DiscoveredKeys, Issuer, KeyUrl
from ext_authz.token.jwks import MAX_KEY_SET_BYTES

__all__ = ["download", "metadata_urls", "require_fetchable"]

MAX_METADATA_BYTES = 262_144
"""Metadata documents in use have 2 to 8 KiB."""

_WELL_KNOWN_OAUTH = "/.well-known/oauth-authorization-server"
_WELL_KNOWN_OPENID = "/.well-known/openid-configuration"

_HEADERS: Mapping[str, str] = {
    "accept": "application/jwk-set+json, application/json",
    # a compressed body could outgrow any limit in one step
    "accept-encoding": "identity",
}


async def download(issuer: Issuer, source: KeyUrl | DiscoveredKeys, seconds: float) -> bytes:
    """The key set of `issuer` as its server sends it.

    Args:
        issuer: whose keys.
        source: where they are.
        seconds: for each connection.

    Raises:
        KeyFetchError: when there is no answer, or none that may be used.
    """
    if isinstance(source, KeyUrl):
        url = require_fetchable(source.url, plain_http=issuer.plain_http)
    else:
        url = await _discover(issuer, source, seconds)
    return await _get(url, source.ca_file, MAX_KEY_SET_BYTES, seconds)


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
