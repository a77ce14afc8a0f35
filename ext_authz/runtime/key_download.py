"""One issuer's keys from an HTTPS URL, or from the one that the issuer's metadata names.

h11 speaks HTTP/1.1 on a connection of its own for each fetch. The event loop that does this is answering requests
meanwhile, so it is done with a fifth of the work that a whole HTTP client makes of it.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping, Sequence

import h11
from aiohappyeyeballs import AddrInfoType, start_connection

from ext_authz import __version__
from ext_authz.config.http_url import HttpUrlParts, parse_http_url
from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.token.i_json import parse_object
from ext_authz.token.issuer import DiscoveredKeys, Issuer, KeyUrl
from ext_authz.token.jwks import MAX_KEY_SET_BYTES

__all__ = ["download", "metadata_urls", "require_fetchable"]

MAX_METADATA_BYTES = 262_144
"""Metadata documents in use have 2 to 8 KiB."""

MAX_HEAD_BYTES = 16_384
"""Status line and headers of an answer; those of key servers have 0.3 to 2 KiB."""

NEXT_ADDRESS_SECONDS = 0.25
"""RFC 8305 §5: how long one address of a name may take before another is tried beside it."""

_PIECE_BYTES = 4_096
"""Of an answer, read in one turn of the event loop: most key sets are one or two, and the largest keeps nobody waiting."""

# RFC 6839 §3.1: JSON itself, and what is JSON by its suffix; RFC 6838 §4.2 for the characters of a name
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9][a-z0-9!#$&^_.+-]*\+)?json")

_WELL_KNOWN_OAUTH = "/.well-known/oauth-authorization-server"
_WELL_KNOWN_OPENID = "/.well-known/openid-configuration"

_HEADERS: Mapping[str, str] = {
    "accept": "application/jwk-set+json, application/json",
    # a compressed body could outgrow any limit in one step
    "accept-encoding": "identity",
    # some servers refuse who does not say
    "user-agent": f"ext-authz/{__version__}",
    "connection": "close",
}


async def download(issuer: Issuer, source: KeyUrl | DiscoveredKeys) -> bytes:
    """The key set of `issuer` as its server sends it. The caller ends it when it takes too long.

    Args:
        issuer: whose keys.
        source: where they are.

    Raises:
        KeyFetchError: when there is no answer, or none that may be used.
    """
    if isinstance(source, KeyUrl):
        url = require_fetchable(source.url, plain_http=issuer.plain_http)
    else:
        url = await _discover(issuer, source)
    return await _get(url, source.ca_file, MAX_KEY_SET_BYTES)


async def _discover(issuer: Issuer, source: DiscoveredKeys) -> HttpUrlParts:
    """The `jwks_uri` of the issuer's metadata, from the first well-known location that has it."""
    written = (source.url,) if source.url is not None else metadata_urls(issuer.issuer, plain_http=issuer.plain_http)
    last: KeyFetchError | None = None
    for text in written:
        try:
            url = require_fetchable(text, plain_http=issuer.plain_http)
            document = await _get(url, source.ca_file, MAX_METADATA_BYTES)
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
    # percent-encoding stays as the identifier has it
    path = url.path.rstrip("/")
    locations = (_WELL_KNOWN_OAUTH + path, _WELL_KNOWN_OPENID + path, path + _WELL_KNOWN_OPENID)
    return tuple(dict.fromkeys(url.origin + location for location in locations))


def _keys_url(document: bytes, issuer: Issuer, origin: HttpUrlParts) -> HttpUrlParts:
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


def require_fetchable(text: str, *, plain_http: bool = False) -> HttpUrlParts:
    """The URL, when keys may come from it: https, or http to a loopback address; to any with `plain_http`.

    Raises:
        KeyFetchError: URL_NOT_ALLOWED for all others, and for any with user information or a fragment.
    """
    try:
        url = parse_http_url(text)
    except ValueError as error:
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, str(error)) from None
    if url.scheme != "https" and not plain_http and not url.is_loopback:
        raise KeyFetchError(KeyFetchFault.URL_NOT_ALLOWED, "neither https, nor http to a loopback address")
    return url


async def _get(url: HttpUrlParts, ca_file: str | None, limit: int) -> bytes:
    """The body of a 200 answer in JSON, of at most `limit` bytes. No redirect, proxy or credential is followed or used."""
    context = await asyncio.to_thread(_tls_context, ca_file) if url.scheme == "https" else None
    try:
        reader, writer = await _connect(url, context)
        try:
            return await _ask(url, reader, writer, limit)
        finally:
            # nothing more is expected, and a server that does not read must not hold the connection open
            writer.transport.abort()
    except (OSError, h11.RemoteProtocolError):
        raise KeyFetchError(
            KeyFetchFault.NOT_REACHED, "the server cannot be reached, or is not the one expected"
        ) from None


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A client context; made for each fetch, so that a renewed `ca_file` counts at once."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:  # also ssl.SSLError
        raise KeyFetchError(KeyFetchFault.TLS_ROOTS_UNREADABLE, f"`{ca_file}` holds no readable PEM roots") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _connect(
    url: HttpUrlParts, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        connected = await start_connection(await _addresses(url), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
    except RuntimeError as error:  # uvloop's
        raise ConnectionError from error
    try:
        # RFC 6066 §3: a name without the dot at its end
        name = url.host.removesuffix(".") if context is not None else None
        return await asyncio.open_connection(sock=connected, ssl=context, server_hostname=name)
    except BaseException:
        connected.close()
        raise


async def _addresses(url: HttpUrlParts) -> Sequence[AddrInfoType]:
    """Every address of the host."""
    return await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)


async def _ask(url: HttpUrlParts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> bytes:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [("host", url.authority), *_HEADERS.items()]
    request = connection.send(h11.Request(method="GET", target=url.target, headers=headers))
    writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_PIECE_BYTES))
            # reading what has come already does not let anyone else go on
            await asyncio.sleep(0)
        elif isinstance(event, h11.Response):
            _require_json(event)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit:
                raise KeyFetchError(KeyFetchFault.TOO_LARGE, f"the answer is larger than {limit} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError("the connection ended")


def _require_json(response: h11.Response) -> None:
    """Raise KeyFetchError unless the body that follows is what was asked for."""
    if response.status_code != 200:
        # also a redirect: where keys come from is the configuration's to say
        raise KeyFetchError(KeyFetchFault.STATUS_NOT_OK, f"the answer has status {response.status_code}")
    media_type = _header(response, b"content-type").partition(";")[0].strip().lower()
    # one type: a second header line stands behind a comma
    if not _JSON_TYPE.fullmatch(media_type):
        raise KeyFetchError(KeyFetchFault.CONTENT_TYPE, "the answer is not of a JSON media type")
    if _header(response, b"content-encoding").lower() not in {"", "identity"}:
        raise KeyFetchError(KeyFetchFault.CONTENT_TYPE, "the answer is compressed, which was not asked for")


def _header(response: h11.Response, name: bytes) -> str:
    """Every value of the header `name`, joined as RFC 9110 §5.3 does."""
    return ", ".join(value.decode("latin-1") for key, value in response.headers if key == name)
