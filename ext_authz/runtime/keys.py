"""The signing keys of every issuer: fetched ahead, refreshed in the background, kept through failures, never awaited twice.

A store is made for one configuration. The key sets it holds are read as one immutable mapping; `on_change` hands out each
new one, and with it a new snapshot can be built.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Protocol, Self, TypeAlias

from ext_authz.config.settings import KeyFetchSettings
from ext_authz.need import KeysNeeded
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.runtime.key_schedule import FetchSchedule
from ext_authz.token.issuer import InlineKeys, Issuer, KeyFile
from ext_authz.token.jwks import KeySet

__all__ = ["KeyEvents", "KeySets", "KeyStatus", "KeyStore"]

FILE_SECONDS = 1.0
"""How often a local file is read again: about what a change may take to count."""

FILE_BACKOFF_SECONDS = 10.0
"""Longest pause after a file could not be read; nobody is spared by waiting longer."""

LONGEST_SLEEP_SECONDS = 30.0
"""The clock of the schedule can be set while we sleep by another; this is how soon it shows."""

KeySets: TypeAlias = Mapping[str, KeySet]


class KeyEvents(Protocol):
    """Who wants to know what happens to keys (metrics, log). Called from the event loop; must not block or raise."""

    def fetched(self, issuer_name: str, keys: KeySet, *, changed: bool) -> None:
        """Keys were fetched; `changed` when they are not what was held. A file is reported only when changed."""
        ...

    def fetch_failed(self, issuer_name: str, error: KeyFetchError, failures: int) -> None:
        """An attempt failed, the `failures`-th in a row; keys that are held serve on."""
        ...

    def expired(self, issuer_name: str) -> None:
        """The keys held are too old to serve and are dropped: this issuer's tokens are denied from now on."""
        ...


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How one issuer's keys stand.

    Attributes:
        issuer_name: the issuer's name in our configuration.
        age: seconds since the keys were fetched, or None when they never were.
        failures: failed attempts since.
        keys: those that serve, or None.
        last_error: of the last attempt, or None when it succeeded.
    """

    issuer_name: str
    age: float | None
    failures: int
    keys: KeySet | None
    last_error: KeyFetchError | None


class _Source:
    """One issuer's keys and their fetching."""

    __slots__ = ("flight", "issuer", "keys", "last_error", "schedule")

    def __init__(self, issuer: Issuer, settings: KeyFetchSettings, jitter: Callable[[], float]) -> None:
        self.issuer = issuer
        self.keys: KeySet | None = None
        self.last_error: KeyFetchError | None = None
        self.flight: asyncio.Task[None] | None = None
        interval, stale_after, longest = settings.refresh_seconds, settings.stale_seconds, settings.refresh_seconds
        if isinstance(issuer.keys, InlineKeys):
            interval = stale_after = inf
        elif isinstance(issuer.keys, KeyFile):
            interval, longest = FILE_SECONDS, FILE_BACKOFF_SECONDS
        self.schedule = FetchSchedule(
            interval=interval,
            stale_after=stale_after,
            cooldown=settings.unknown_key_cooldown_seconds,
            backoff=settings.failure_backoff_seconds,
            maximum_backoff=longest,
            random=jitter,
        )

    def adopt(self, other: "_Source") -> None:
        """Take over keys that were fetched for the same issuer from the same place."""
        self.keys = other.keys
        self.schedule.adopt(other.schedule)


class KeyStore:
    """The keys of a configuration's issuers. Used from one event loop alone.

    Start it with `async with`, or `start` and `close`.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        settings: KeyFetchSettings,
        events: KeyEvents,
        on_change: Callable[[KeySets], None] | None = None,
        *,
        previous: "KeyStore | None" = None,
        fetch: Callable[[Issuer, float], Awaitable[KeySet]] = fetch_keys,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepare to fetch.

        Args:
            issuers: whose keys.
            settings: how.
            events: told what happens.
            on_change: given the new mapping of key sets by issuer name, each time one of them changes.
            previous: the store of the configuration before: keys of an issuer that keeps its name, `iss` and source
                serve on without a fetch.
            fetch: as `fetch_keys`.
            clock: seconds since the epoch, as `now` of the decisions.
            jitter: gives numbers in [0, 1).
        """
        self._settings = settings
        self._events = events
        self._on_change = on_change
        self._fetch_keys = fetch
        self._clock = clock
        self._sources = {issuer.name: _Source(issuer, settings, jitter) for issuer in issuers}
        self._tasks: list[asyncio.Task[None]] = []
        for name, source in self._sources.items():
            before = previous and previous._sources.get(name)  # noqa: SLF001 - another instance of this class
            # expired keys are nothing to take over
            if (
                before
                and before.keys
                and (before.issuer.issuer, before.issuer.keys) == (source.issuer.issuer, source.issuer.keys)
            ):
                source.adopt(before)
        self.keys: KeySets = self._key_sets()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether every issuer's keys have been fetched at least once."""
        return all(source.schedule.fetched_at is not None for source in self._sources.values())

    def status(self) -> tuple[KeyStatus, ...]:
        """How each issuer's keys stand now."""
        now = self._clock()
        return tuple(
            KeyStatus(name, source.schedule.age(now), source.schedule.failures, source.keys, source.last_error)
            for name, source in self._sources.items()
        )

    async def start(self) -> None:
        """Start keeping keys; returns once every issuer without keys has been tried (`timeout_seconds` at most)."""
        first = [self._fly(source) for source in self._sources.values() if source.keys is None]
        self._tasks = [asyncio.create_task(self._keep(source)) for source in self._sources.values()]
        if first:
            await asyncio.wait(first)

    async def close(self) -> None:
        """Stop everything; the keys stay readable."""
        tasks = [*self._tasks, *(source.flight for source in self._sources.values() if source.flight is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = []

    def provide(self, issuer_name: str, keys: KeySet, at: float) -> None:
        """Take `keys` as if they had been fetched here, where another process fetched them for the same issuer.

        Args:
            issuer_name: one that is not known changes nothing.
            keys: from where this issuer's configuration says.
            at: when they were fetched, seconds since the epoch; older ones than are held change nothing.
        """
        source = self._sources.get(issuer_name)
        if source is not None and at > (source.schedule.fetched_at or 0.0):
            # neither a refresh nor an unknown key id is to fetch again at once what has just come
            source.schedule.start(at)
            self._take(source, keys, at)

    def may_fetch(self, need: KeysNeeded, now: float) -> bool:
        """Whether waiting for `need` makes sense: a fetch is under way, or one may start.

        False during the cool-down after an attempt: a flood of unknown key ids costs one fetch per cool-down and no
        task. Keys that are held serve as before.
        """
        source = self._sources.get(need.issuer_name)
        return source is not None and (source.flight is not None or source.schedule.may_fetch(now))

    async def fulfil(self, need: KeysNeeded, deadline: float) -> None:
        """Fetch what is needed, together with everyone who waits for the same issuer.

        Whether it worked shows in `keys`. The fetch goes on when this waiter gives up.

        Args:
            need: the key that was lacking.
            deadline: until when to wait, by `time.monotonic()`.
        """
        if not self.may_fetch(need, self._clock()):
            return
        flight = self._fly(self._sources[need.issuer_name])
        await asyncio.wait((flight,), timeout=max(0.0, deadline - time.monotonic()))

    def _fly(self, source: _Source) -> asyncio.Task[None]:
        """The one fetch for `source` that is under way, begun if none is."""
        if source.flight is None:
            source.schedule.start(self._clock())
            source.flight = asyncio.create_task(self._fetch(source))
        return source.flight

    async def _fetch(self, source: _Source) -> None:
        """One attempt; never raises."""
        name = source.issuer.name
        try:
            keys = await self._fetch_keys(source.issuer, self._settings.timeout_seconds)
            changed = self._take(source, keys, self._clock())
            if changed or not isinstance(source.issuer.keys, KeyFile):
                self._events.fetched(name, keys, changed=changed)
        except KeyFetchError as error:
            self._failed(source, error)
        except Exception as error:  # noqa: BLE001 - a fault in one fetch must not end all later ones
            fault = f"an unexpected {type(error).__name__}"
            self._failed(source, KeyFetchError(KeyFetchFault.UNEXPECTED, fault))
        finally:
            source.flight = None

    def _take(self, source: _Source, keys: KeySet, at: float) -> bool:
        """Serve with `keys` from now on, which were fetched then; whether they are others than before."""
        source.schedule.succeed(at)
        source.last_error = None
        if source.keys is not None and source.keys.fingerprint == keys.fingerprint:
            # the same keys stay the same object, and with it what was verified by them stays known
            return False
        source.keys = keys
        self._publish()
        return True

    def _failed(self, source: _Source, error: KeyFetchError) -> None:
        source.schedule.fail(self._clock())
        source.last_error = error
        self._events.fetch_failed(source.issuer.name, error, source.schedule.failures)

    async def _keep(self, source: _Source) -> None:
        """Refresh when due, drop when stale, for as long as the store runs."""
        while True:
            now = self._clock()
            stale_in = source.schedule.stale_in(now)
            if source.keys is not None and stale_in == 0:
                source.keys = None
                self._publish()
                self._events.expired(source.issuer.name)
            # a fetch that hangs does not keep stale keys alive
            until_stale = min(stale_in or inf, LONGEST_SLEEP_SECONDS)
            due_in = source.schedule.due_in(now)
            if source.flight is not None or due_in == 0:
                await asyncio.wait((self._fly(source),), timeout=until_stale)
            else:
                await asyncio.sleep(min(due_in, until_stale))

    def _publish(self) -> None:
        self.keys = self._key_sets()
        if self._on_change is not None:
            self._on_change(self.keys)

    def _key_sets(self) -> KeySets:
        return MappingProxyType(
            {name: source.keys for name, source in self._sources.items() if source.keys is not None}
        )
