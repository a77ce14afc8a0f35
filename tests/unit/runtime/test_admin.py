"""Probes answer plainly, and nothing a client sends makes the listener fail."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest

from ext_authz.runtime import admin as module
from ext_authz.runtime.admin import AdminServer, Readiness
from ext_authz.telemetry.metrics import Metrics


def with_server(
    scenario: Callable[[str, int], Awaitable[None]], readiness: Callable[[], Readiness] = Readiness
) -> None:
    async def run() -> None:
        server = AdminServer(Metrics().registry(), readiness)
        host, _, port = (await server.start("127.0.0.1:0")).rpartition(":")
        try:
            await scenario(host, int(port))
        finally:
            await server.stop()

    asyncio.run(run())


async def exchange(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/livez"), b"200"),
        (request("/livez", "HEAD"), b"200"),
        (request("/readyz"), b"200"),
        (request("/metrics"), b"200"),
        (request("/"), b"404"),
        (request("/livez/"), b"404"),
        (request("/livez", "POST"), b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_each_request_gets_its_status_and_the_connection_is_closed(data: bytes, status: bytes) -> None:
    async def scenario(host: str, port: int) -> None:
        answer = await exchange(host, port, data)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer.lower()

    with_server(scenario)


def test_a_second_request_in_the_same_bytes_is_never_answered() -> None:
    async def scenario(host: str, port: int) -> None:
        answer = await exchange(host, port, request("/livez") + request("/readyz"))
        assert answer.count(b"HTTP/1.1") == 1

    with_server(scenario)


def test_head_has_no_body() -> None:
    async def scenario(host: str, port: int) -> None:
        answer = await exchange(host, port, request("/livez", "HEAD"))
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 3" in answer

    with_server(scenario)


def test_readiness_gives_its_reasons_and_notes_when_asked() -> None:
    async def scenario(host: str, port: int) -> None:
        plain = await exchange(host, port, request("/readyz"))
        assert plain.startswith(b"HTTP/1.1 503")
        assert plain.endswith(b"keys of `corp` are not loaded\n")
        verbose = await exchange(host, port, request("/readyz?verbose"))
        assert verbose.endswith(b"keys of `corp` are not loaded\nnote: reload failed\n")

    with_server(scenario, lambda: Readiness(("keys of `corp` are not loaded",), ("reload failed",)))


def test_metrics_come_in_the_format_the_scraper_accepts() -> None:
    async def scenario(host: str, port: int) -> None:
        text = await exchange(host, port, request("/metrics"))
        assert b"text/plain" in text
        assert b"ext_authz_checks_waiting 0.0" in text
        data = b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
        open_metrics = await exchange(host, port, data)
        assert b"application/openmetrics-text" in open_metrics
        assert open_metrics.endswith(b"# EOF\n")

    with_server(scenario)


def test_a_client_that_stalls_or_leaves_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXCHANGE_SECONDS", 0.05)

    async def scenario(host: str, port: int) -> None:
        assert await exchange(host, port, b"") == b""
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
        assert (await exchange(host, port, request("/livez"))).startswith(b"HTTP/1.1 200")

    with_server(scenario)


def test_idle_connections_up_to_the_bound_do_not_shut_the_probes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)

    async def scenario(host: str, port: int) -> None:
        idle = [await asyncio.open_connection(host, port) for _ in range(2)]
        await asyncio.sleep(0.05)
        for _ in range(3):
            assert (await exchange(host, port, request("/livez"))).startswith(b"HTTP/1.1 200")
        # the oldest had to go, the other one is still welcome
        with contextlib.suppress(ConnectionError):
            assert await idle[0][0].read() == b""
        idle[1][1].write(request("/livez"))
        assert (await idle[1][0].read()).startswith(b"HTTP/1.1 200")
        for _, writer in idle:
            writer.close()

    with_server(scenario)


def test_an_exception_is_logged_and_the_next_request_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([True, False])

    def readiness() -> Readiness:
        if next(answers):
            raise ValueError
        return Readiness()

    async def scenario(host: str, port: int) -> None:
        assert await exchange(host, port, request("/readyz")) == b""
        assert (await exchange(host, port, request("/readyz"))).startswith(b"HTTP/1.1 200")

    with caplog.at_level(logging.ERROR):
        with_server(scenario, readiness)
    assert [record.getMessage() for record in caplog.records] == ["admin request failed"]


def test_stopping_before_starting_does_nothing() -> None:
    asyncio.run(AdminServer(Metrics().registry(), Readiness).stop())
