"""Health answers by the protocol and never holds up a drain."""

import asyncio

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.runtime.health import AUTHORIZATION_SERVICE, Health

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def named(service: str) -> bytes:
    return b"\n" + bytes([len(service)]) + service.encode() if service else b""


async def watched(health: Health, request: bytes) -> list[bytes]:
    return [answer async for answer in health.watch(request)]


@pytest.mark.parametrize("service", ["", AUTHORIZATION_SERVICE])
def test_the_server_and_its_service_share_one_status(service: str) -> None:
    async def scenario() -> None:
        health = Health()
        assert health.check(named(service)) == NOT_SERVING
        health.set_serving(True)
        assert health.serving
        assert health.check(named(service)) == SERVING

    asyncio.run(scenario())


def test_an_unknown_service_is_none_and_an_unreadable_request_is_refused() -> None:
    async def scenario() -> None:
        health = Health()
        assert health.check(named("other")) is None
        with pytest.raises(Refusal) as refusal:
            health.check(b"\xff")
        assert refusal.value.reason is Reason.REQUEST_MALFORMED

    asyncio.run(scenario())


def test_a_watch_tells_each_change_once_and_ends_with_the_server() -> None:
    async def scenario() -> list[bytes]:
        health = Health()
        watch = asyncio.create_task(watched(health, b""))
        await asyncio.sleep(0)
        for serving in (True, True, False, True):
            health.set_serving(serving)
            await asyncio.sleep(0.001)
        health.end()
        health.set_serving(True)
        return await watch

    assert asyncio.run(scenario()) == [NOT_SERVING, SERVING, NOT_SERVING, SERVING, NOT_SERVING]


def test_a_watch_that_is_slow_to_read_still_learns_the_end() -> None:
    async def scenario() -> list[bytes]:
        health = Health()
        health.set_serving(True)
        watch = health.watch(b"")
        answers = [await anext(watch)]
        health.end()  # while the reader still holds the first answer
        answers += [answer async for answer in watch]
        return answers

    assert asyncio.run(scenario()) == [SERVING, NOT_SERVING]


def test_a_watch_of_an_unknown_service_stays_open_until_the_end() -> None:
    async def scenario() -> list[bytes]:
        health = Health()
        watch = asyncio.create_task(watched(health, named("other")))
        await asyncio.sleep(0)
        health.set_serving(True)
        await asyncio.sleep(0.001)
        assert not watch.done()
        health.end()
        return await watch

    assert asyncio.run(scenario()) == [SERVICE_UNKNOWN]


def test_a_watch_of_a_server_that_never_served_ends_without_repeating_itself() -> None:
    async def scenario() -> list[bytes]:
        health = Health()
        watch = asyncio.create_task(watched(health, b""))
        await asyncio.sleep(0)
        health.end()
        return await watch

    assert asyncio.run(scenario()) == [NOT_SERVING]
