"""Files that change while the server runs: all of the new configuration counts, or none of it."""

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import Protocol

from ext_authz.config.settings import Configuration
from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import Assembly, assemble_watched
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.watch import FileWatch
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.metrics import Metrics
from ext_authz.telemetry.server_log import LOGGER_NAME, exception_summary, log_event

__all__ = ["InForce", "Reloader", "restart_needed"]

RETRY_SECONDS = 5.0
"""After a failure it is tried again although no watched file changed: the file that was missing is not one of them."""

_logger = logging.getLogger(__name__)


class InForce(Protocol):
    """What is replaced as a whole: `Active`, or that of all workers."""

    @property
    def configuration(self) -> Configuration:
        """The one in force."""
        ...

    @property
    def generation(self) -> int:
        """Counts up with each that comes into force."""
        ...

    async def replace(self, assembly: Assembly) -> None:
        """Put `assembly` in force, or raise and change nothing."""
        ...


class Reloader:
    """Looks at the files, reads them again when they changed, and swaps what is in force.

    Attributes:
        problems: why the last attempt failed; empty when it did not.
    """

    def __init__(
        self,
        path: str,
        watch: FileWatch,
        active: InForce,
        *,
        certificates: ServerCertificates | None,
        metrics: Metrics,
        log: DecisionLog | None,
    ) -> None:
        """Prepare; `run` does it.

        Args:
            path: of the configuration file.
            watch: looked before the configuration in force was read.
            active: what is in force; its configuration is the one the listeners were started with.
            certificates: of the listener, None for plain text.
            metrics: counts.
            log: of decisions; follows `log.allowed`. None where nothing is decided.
        """
        self.problems: tuple[str, ...] = ()
        self._path = path
        self._watch = watch
        self._active = active
        self._certificates = certificates
        self._metrics = metrics
        self._log = log
        self._started_with = active.configuration
        self._asked = asyncio.Event()
        self._tried_at = time.monotonic()

    def ask(self) -> None:
        """Reload now, whether or not anything changed (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Watch and reload until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._active.configuration.reload_seconds)
            asked = self._asked.is_set()
            self._asked.clear()
            changed = await asyncio.to_thread(self._watch.changed)
            retry = bool(self.problems) and time.monotonic() - self._tried_at >= RETRY_SECONDS
            if asked or changed or retry:
                await self.reload(changed, quiet=not (asked or changed))

    async def reload(self, changed: tuple[str, ...] = (), *, quiet: bool = False) -> bool:
        """Read everything again and put it in force, or keep what is in force and say why.

        Args:
            changed: the files that made it necessary, for the log.
            quiet: count and log a failure only when its problems are not those of the last one.

        Returns:
            Whether it succeeded.
        """
        self._tried_at = time.monotonic()
        try:
            assembly, watch = await asyncio.to_thread(assemble_watched, self._path)
            await self._active.replace(assembly)
        except ConfigurationError as error:
            return self._failed(error.problems, quiet=quiet)
        except Exception as error:  # noqa: BLE001 - a fault in one reload must not end all later ones
            return self._failed((f"unexpected {exception_summary(error)}",), quiet=quiet)
        self._watch = watch
        self.problems = ()
        configuration = assembly.configuration
        needs_restart = restart_needed(self._started_with, configuration)
        if self._certificates is not None and assembly.tls is not None and "listener" not in needs_restart:
            self._certificates.replace(assembly.tls)
        if self._log is not None:
            self._log.allowed = configuration.log.allowed
        logging.getLogger(LOGGER_NAME).setLevel(configuration.log.level.upper())
        self._metrics.reload(succeeded=True, now=time.time())
        log_event(
            _logger,
            logging.INFO,
            "configuration loaded",
            generation=self._active.generation,
            policies=len(configuration.policies),
            changed=list(changed),
        )
        for warning in configuration.warnings:
            log_event(_logger, logging.WARNING, "configuration warning", detail=warning)
        for section in needs_restart:
            log_event(_logger, logging.WARNING, "a change counts only after a restart", section=section)
        return True

    def _failed(self, problems: tuple[str, ...], *, quiet: bool) -> bool:
        if quiet and problems == self.problems:
            return False
        self.problems = problems
        self._metrics.reload(succeeded=False, now=time.time())
        log_event(
            _logger,
            logging.ERROR,
            "the configuration could not be loaded and the one before stays in force",
            problems=list(problems),
            generation=self._active.generation,
        )
        return False


def restart_needed(started_with: Configuration, now: Configuration) -> tuple[str, ...]:
    """The sections that differ in what is fixed when the server starts."""
    sections = []
    # how long to leave and to drain is asked for when it is time to
    then = replace(now.listener, lame_duck_seconds=0.0, drain_seconds=0.0)
    if replace(started_with.listener, lame_duck_seconds=0.0, drain_seconds=0.0) != then:
        sections.append("listener")
    if started_with.admin != now.admin:
        sections.append("admin")
    # what is told in the metadata is part of the snapshot
    if replace(started_with.telemetry, decision_metadata=now.telemetry.decision_metadata) != now.telemetry:
        sections.append("telemetry")
    return tuple(sections)
