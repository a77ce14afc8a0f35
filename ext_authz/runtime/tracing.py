"""Traces as configured: started with the server, ended with it."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ext_authz.config.settings import TraceSettings
from ext_authz.errors import ConfigurationError

if TYPE_CHECKING:
    from ext_authz.telemetry.traces import CheckTraces

__all__ = ["close_traces", "start_traces"]

CLOSE_SECONDS = 2.0
"""How long the end of the server waits for a collector that does not answer."""


def start_traces(settings: TraceSettings) -> "CheckTraces":
    """Send traces as `settings` say.

    Raises:
        ConfigurationError: the libraries are not installed.
    """
    try:
        # only who wants traces needs them
        from ext_authz.telemetry.traces import CheckTraces  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            ("spec.telemetry.traces: OpenTelemetry is not installed; install `ext-authz[otel]`, or remove `traces`",)
        ) from None
    return CheckTraces.over_http(
        settings.endpoint,
        service_name=settings.service_name,
        maximum_per_second=settings.maximum_per_second,
        timeout_seconds=settings.timeout_seconds,
    )


async def close_traces(traces: "CheckTraces") -> None:
    """Send what waits, and return after CLOSE_SECONDS whether it arrived or not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await asyncio.to_thread(traces.close)
