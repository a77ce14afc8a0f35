"""Envoys of every version that can be had, and a report of what they wrote when a test fails."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.envoys import require_binary, versions


@pytest.fixture(scope="session")
def services() -> Iterator[Any]:
    """What all versions share."""
    from e2e.services import Services  # noqa: PLC0415 - tests of the demo alone need none of it

    # pytest's own directories are too long for Unix sockets on some systems
    directory = Path(tempfile.mkdtemp(prefix="ext-authz-e2e-"))
    running = Services(directory)
    try:
        yield running
    finally:
        running.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session", params=versions())
def stack(request: pytest.FixtureRequest, services: Any) -> Iterator[Any]:
    """Envoys of one version; the installed one is not slow."""
    from e2e.stack import Stack  # noqa: PLC0415 - as above

    with Stack(request.param, require_binary(request.param), services) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def http2(request: pytest.FixtureRequest) -> bool:
    """Which protocol the client speaks."""
    return bool(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the parts wrote to the report of a failure."""
    report = yield
    running = getattr(item, "funcargs", {}).get("stack")
    if report.failed and running is not None:
        report.sections.append((f"Envoy {running.version} and the others, last lines", running.report()))
    return report
