"""What is in force: a configuration, the keys of its issuers, and the snapshot made of both."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ext_authz.config.settings import Configuration
from ext_authz.need import Need
from ext_authz.runtime.assembled import Assembly
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.runtime.keys import KeyEvents, KeySets, KeyStatus, KeyStore
from ext_authz.snapshot import Snapshot
from ext_authz.telemetry.metrics import KeySource
from ext_authz.token.issuer import InlineKeys, Issuer
from ext_authz.token.jwks import KeySet

__all__ = ["Active", "Prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A successor to what is in force, whose keys have been tried.

    Attributes:
        assembly: the configuration.
        store: of its keys; running.
    """

    assembly: Assembly
    store: KeyStore


class Active:
    """Gives each request the snapshot of the moment and fulfils its needs. Used from the event loop alone.

    It changes in two ways, each by one assignment between two requests: new keys make a snapshot that differs in its
    issuers only, and a new assembly replaces everything.
    """

    def __init__(
        self,
        assembly: Assembly,
        events: KeyEvents,
        on_publish: Callable[[Snapshot], None],
        fetch: Callable[[Issuer, float], Awaitable[KeySet]] = fetch_keys,
    ) -> None:
        """Begin with `assembly` and no fetched keys; `start` fetches them.

        Args:
            assembly: the first.
            events: told what happens to keys.
            on_publish: told of each snapshot that comes into force; must not raise.
            fetch: as `key_fetch.fetch_keys`.
        """
        self._events = events
        self._fetch = fetch
        self._on_publish = on_publish
        self._assembly = assembly
        self._keys = self._store(assembly, None)
        self._snapshot = assembly.snapshot(self._keys.keys, generation=1)
        on_publish(self._snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The one to decide with now."""
        return self._snapshot

    @property
    def configuration(self) -> Configuration:
        """The one in force."""
        return self._assembly.configuration

    @property
    def generation(self) -> int:
        """Of the snapshot in force."""
        return self._snapshot.generation

    @property
    def keys(self) -> KeyStore:
        """The store in force."""
        return self._keys

    def key_sources(self) -> tuple[KeySource, ...]:
        """How the keys of each issuer stand, for metrics; may be asked by another thread."""
        # in a replacement the store is a moment ahead of the configuration
        issuers = self.configuration.issuers
        return tuple(_key_source(status, issuers.get(status.issuer_name)) for status in self._keys.status())

    def may_fetch(self, need: Need, now: float) -> bool:
        """As `KeyStore.may_fetch`."""
        return self._keys.may_fetch(need, now)

    async def fulfil(self, need: Need, deadline: float) -> None:
        """As `KeyStore.fulfil`."""
        await self._keys.fulfil(need, deadline)

    async def start(self) -> None:
        """Fetch keys; returns when each source has been tried."""
        await self._keys.start()

    async def close(self) -> None:
        """Stop fetching; the snapshot stays in force."""
        await self._keys.close()

    async def replace(self, assembly: Assembly) -> None:
        """Put `assembly` in force once the sources that are new have been tried, so that no token is denied meanwhile."""
        await self.put_in_force(await self.prepare(assembly))

    async def prepare(self, assembly: Assembly) -> Prepared:
        """Try the sources of `assembly` that are new; everything goes on as before until `put_in_force`, or `close` of its store."""
        store = self._store(assembly, self._keys)
        try:
            await store.start()
        except BaseException:
            await store.close()
            raise
        return Prepared(assembly, store)

    async def put_in_force(self, prepared: Prepared) -> None:
        """Decide by `prepared` from now on."""
        assembly, store = prepared.assembly, prepared.store
        try:
            snapshot = assembly.snapshot(store.keys, self._snapshot.generation + 1, self._snapshot)
        except BaseException:
            await store.close()
            raise
        previous, self._keys = self._keys, store
        self._assembly = assembly
        self._publish(snapshot)
        await asyncio.shield(previous.close())

    def _store(self, assembly: Assembly, previous: KeyStore | None) -> KeyStore:
        def on_change(keys: KeySets) -> None:
            # a store that is being replaced, or not yet in force, changes nothing
            if store is self._keys:
                self._publish(self._snapshot.with_keys(keys, self._snapshot.generation + 1))

        configuration = assembly.configuration
        store = KeyStore(
            configuration.issuers.values(),
            configuration.key_fetch,
            self._events,
            on_change,
            previous=previous,
            fetch=self._fetch,
        )
        return store

    def _publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._on_publish(snapshot)


def _key_source(status: KeyStatus, issuer: Issuer | None) -> KeySource:
    if status.keys is None:
        return KeySource(status.issuer_name, None, 0, status.failures)
    # keys in the configuration itself never grow old
    age = 0.0 if issuer is not None and isinstance(issuer.keys, InlineKeys) else status.age
    return KeySource(status.issuer_name, age, len(status.keys.keys), status.failures)
