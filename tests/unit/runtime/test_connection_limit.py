"""How many connections there may be."""

import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from ext_authz.runtime import connection_limit
from ext_authz.runtime.connection_limit import OTHER_DESCRIPTORS, ConnectionLimit, affordable

Messages = list[tuple[str, dict[str, object]]]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Messages:
    """What is logged."""
    logged: Messages = []
    monkeypatch.setattr(connection_limit, "log_event", lambda *event, **fields: logged.append((event[-1], fields)))
    return logged


class Limits:
    """The system's limits of open files."""

    def __init__(self, soft: int, hard: int, *, fixed: bool = False) -> None:
        self.now = soft, hard
        self._fixed = fixed

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if self._fixed:
            raise PermissionError
        self.now = limits


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Limits], None]:
    """Make limits those of this process."""

    def use_limits(limits: Limits) -> None:
        monkeypatch.setattr(resource, "getrlimit", limits.getrlimit)
        monkeypatch.setattr(resource, "setrlimit", limits.setrlimit)

    return use_limits


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("system", "wanted", "granted", "soft_then"),
    [
        ((1024, 524_288), 10_000, 10_000, 10_000 + OTHER_DESCRIPTORS),
        ((1024, INFINITE), 10_000, 10_000, 10_000 + OTHER_DESCRIPTORS),
        ((1024, 4096), 10_000, 4096 - OTHER_DESCRIPTORS, 4096),
        ((1024, 1024), 10_000, 1024 - OTHER_DESCRIPTORS, 1024),
        ((1024, 4096), 100, 100, 1024),
        ((20_000, 20_000), 10_000, 10_000, 20_000),
        ((INFINITE, INFINITE), 1_000_000, 1_000_000, INFINITE),
        ((50, 50), 10, 1, 50),
    ],
)
def test_so_many_connections_are_promised_as_files_may_be_open(
    use: Callable[[Limits], None], system: tuple[int, int], wanted: int, granted: int, soft_then: int
) -> None:
    limits = Limits(*system)
    use(limits)
    assert affordable(wanted) == granted
    assert limits.now == (soft_then, system[1])


def test_a_system_that_raises_no_limit_is_believed(messages: Messages, use: Callable[[Limits], None]) -> None:
    use(Limits(1024, 4096, fixed=True))
    assert affordable(2000) == 1024 - OTHER_DESCRIPTORS
    assert messages == [("fewer connections than configured", {"files": 1024, "maximum": 2000})]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that was accepted, and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with client, accepted:
            yield accepted, client


def test_one_too_many_is_reset_and_told_and_the_place_of_one_that_ended_is_given_again(
    pair: tuple[socket.socket, socket.socket], messages: Messages
) -> None:
    refused: list[None] = []
    limit = ConnectionLimit(2, lambda: refused.append(None))
    accepted, client = pair
    assert limit.admit(accepted)
    assert limit.admit(accepted)
    assert limit.open == 2
    limit.release()
    assert limit.admit(accepted)
    assert not refused
    assert not limit.admit(accepted)
    assert (limit.open, len(refused)) == (2, 1)
    assert accepted.fileno() == -1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert messages == [("connections are refused", {"refused": 1, "maximum": 2})]


def test_a_flood_is_logged_once_in_a_while(messages: Messages) -> None:
    now = 0.0
    limit = ConnectionLimit(0, lambda: None, lambda: now)
    for _ in range(100):
        # one that is closed already has no options any more
        closed = socket.socket()
        closed.close()
        assert not limit.admit(closed)
        now += 0.25
    assert [fields["refused"] for _, fields in messages] == [1, 40, 40]
