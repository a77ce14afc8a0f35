"""Signing keys that one worker fetched serve in all.

So each refresh is one fetch, and a worker that is started while the keys cannot be fetched has those of the others.
"""

import time
from collections.abc import Callable

from ext_authz.errors import Refusal
from ext_authz.runtime.active import Active
from ext_authz.runtime.key_fetch import fetch_keys_and_text
from ext_authz.runtime.workers.channel import Message
from ext_authz.token.issuer import InlineKeys, Issuer, KeyFile
from ext_authz.token.jwks import KeySet

__all__ = ["SharedKeys", "same_source"]

FILE_SECONDS = 60.0
"""How often a key file that has not changed is told of; it is read every second."""


def same_source(issuer: Issuer) -> list[str]:
    """What must be the same for keys to be this issuer's: as `KeyStore` judges it after a reload."""
    return [issuer.name, issuer.issuer, repr(issuer.keys)]


class SharedKeys:
    """A worker's part: tells what it has fetched, takes what others have."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        """Tell with `send`."""
        self._send = send
        self._active: Active | None = None
        self._early: list[Message] = []
        self._told: dict[str, tuple[bytes, float]] = {}

    def provide_to(self, active: Active) -> None:
        """Give what came so far, and what comes from now on, to `active`."""
        self._active = active
        early, self._early = self._early, []
        for message in early:
            self.receive(message)

    def receive(self, message: Message) -> None:
        """Serve with keys that another worker fetched, if the configuration here has them from the same place."""
        if self._active is None:
            self._early.append(message)
            return
        name = message.fields["source"][0]
        issuer = self._active.configuration.issuers.get(name)
        if issuer is None or same_source(issuer) != message.fields["source"]:
            return
        try:
            keys = KeySet.from_json(message.payload)
        except Refusal:
            # the worker that fetched them took them; be that as it may, this one fetches its own
            return
        self._active.keys.provide(name, keys, message.fields["at"])

    async def fetch(self, issuer: Issuer, seconds: float) -> KeySet:
        """As `key_fetch.fetch_keys`; the others are told."""
        keys, text = await fetch_keys_and_text(issuer, seconds)
        now = time.time()
        told, at = self._told.get(issuer.name, (b"", 0.0))
        is_local = isinstance(issuer.keys, KeyFile)
        if not isinstance(issuer.keys, InlineKeys) and not (is_local and told == text and now - at < FILE_SECONDS):
            self._told[issuer.name] = text, now
            self._send(Message("keys", {"source": same_source(issuer), "at": now}, text))
        return keys
