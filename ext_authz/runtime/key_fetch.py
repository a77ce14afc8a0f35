"""One issuer's keys from where its configuration says: an HTTPS URL, its metadata, a file, the configuration itself.

Whatever a server answers, the outcome is a key set or a `KeyFetchError`, within the given time and a bounded size.
"""

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import assert_never

from ext_authz.errors import Refusal
from ext_authz.runtime.key_download import download
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, Issuer, KeyFile, KeyUrl
from ext_authz.token.jwks import MAX_KEY_SET_BYTES, KeySet

__all__ = ["fetch_keys", "fetch_keys_and_text"]


@lru_cache(maxsize=16)
def _key_set(issuer_name: str, data: bytes) -> KeySet:  # noqa: ARG001 - issuers share no keys, whatever they publish
    """As `KeySet.from_json`. Most answers are the last one again, and reading a set costs more than fetching it."""
    return KeySet.from_json(data)


async def fetch_keys(issuer: Issuer, seconds: float) -> KeySet:
    """As `fetch_keys_and_text`, the keys alone."""
    keys, _ = await fetch_keys_and_text(issuer, seconds)
    return keys


async def fetch_keys_and_text(issuer: Issuer, seconds: float) -> tuple[KeySet, bytes]:
    """Fetch the keys of `issuer` once; also as the bytes that came, from which another process can make the same keys.

    Args:
        issuer: whose keys, and where they are.
        seconds: for everything together: name look-up, connections, metadata, key set.

    Raises:
        KeyFetchError: when that brings no key set.
    """
    try:
        async with asyncio.timeout(seconds):
            data = await _read(issuer)
    except TimeoutError:
        raise KeyFetchError(KeyFetchFault.TIMED_OUT, "no complete answer in time") from None
    try:
        return _key_set(issuer.name, data), data
    except Refusal as refusal:
        raise KeyFetchError(KeyFetchFault.KEY_SET_MALFORMED, refusal.detail) from None


async def _read(issuer: Issuer) -> bytes:
    source = issuer.keys
    match source:
        case InlineKeys():
            return source.jwks.encode()
        case KeyFile():
            return await asyncio.to_thread(_read_file, source.path)
        case KeyUrl() | DiscoveredKeys():
            return await download(issuer, source)
        case _:
            assert_never(source)


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            # one byte more than a key set may have: reading it whole decides that it is too large
            return file.read(MAX_KEY_SET_BYTES + 1)
    except OSError:
        raise KeyFetchError(KeyFetchFault.FILE_UNREADABLE, f"`{path}` cannot be read") from None
