"""What the supervisor does when workers answer, refuse, hang, die and come late; the workers are played by the test."""

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.server import document, route_policy, server_spec

from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import Assembly, assemble
from ext_authz.runtime.workers import fleet as fleet_module
from ext_authz.runtime.workers import handing, preparing
from ext_authz.runtime.workers.channel import Message
from ext_authz.runtime.workers.fleet import Fleet
from ext_authz.runtime.workers.member import Member, State
from ext_authz.runtime.workers.packing import pack
from ext_authz.runtime.workers.totals import Totals
from ext_authz.telemetry.metrics import Metrics

PUBLIC = {"name": "public", "matches": [{"path": {"value": "/public"}}], "public": True}


class Told:
    """A channel that keeps what was sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def kinds(self) -> list[str]:
        return [message.kind for message in self.messages if message.kind != "ping"]


class Nursery:
    """Gives channels and starts nothing."""

    pid = None

    def __init__(self, on_forked: Callable[[int, int], None], on_ended: Callable[[int, int], None]) -> None:
        self.ended = on_ended
        self.forked = on_forked
        self.closed = False

    def fork(self, serial: int, number: int, patience: float, on_message: Callable[[Message], None]) -> Told:
        del serial, number, patience, on_message
        return Told()

    def kill(self) -> None:
        """There is none."""

    def close(self) -> None:
        self.closed = True


class Row:
    """Three workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "policy.yaml").write_text(route_policy(PUBLIC))
        issuer = {"name": "corp", "issuer": "https://a.example", "audiences": ["b"], "keys": {"discovery": True}}
        spec = server_spec(policies=["policy.yaml"], issuers=[issuer])
        (folder / "server.yaml").write_text(document("Server", "test", spec))
        self.assembly: Assembly = assemble(str(folder / "server.yaml"))
        self.fleet = Fleet(self.assembly, pack(self.assembly), None, 3, Totals(Metrics()))
        self.fleet.start()

    @property
    def members(self) -> list[Member]:
        return sorted(self.fleet.members.values(), key=lambda member: member.number)

    def told(self, number: int) -> list[str]:
        (channel,) = [member.channel for member in self.members if member.number == number]
        assert isinstance(channel, Told)
        return channel.kinds()

    def say(self, worker: int, kind: str, payload: bytes = b"", **fields: Any) -> None:
        (member,) = [member for member in self.members if member.number == worker]
        self.fleet._receive(member, Message(kind, fields, payload))

    def serve(self, *numbers: int, revision: int = 1) -> None:
        for number in numbers:
            self.say(number, "pong", number=0, reasons=[], notes=[])
            self.say(number, "serving", revision=revision)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.001)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Row], Awaitable[None]]) -> None:
    monkeypatch.setattr(fleet_module, "Forking", Nursery)
    monkeypatch.setattr(fleet_module, "END_SECONDS", 0.0)
    monkeypatch.setattr(fleet_module, "HUNG_SECONDS", 0.0)

    async def whole() -> None:
        row = Row(folder)
        try:
            await scenario(row)
        finally:
            for member in row.members:
                row.fleet._receive(member, Message("gone"))
            await row.fleet.drain(0)

    asyncio.run(whole())


def test_a_configuration_that_one_worker_refuses_comes_into_force_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(3))
        row.say(1, "prepared", revision=2, problems=[])
        row.say(2, "prepared", revision=2, problems=["no memory"])
        row.say(3, "prepared", revision=2, problems=[])
        with pytest.raises(ConfigurationError) as error:
            await replacing
        assert error.value.problems == ("no memory",)
        assert row.fleet.generation == 1
        for number in (1, 2, 3):
            assert row.told(number)[-2:] == ["prepare", "abandon"]

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_does_not_prepare_in_time_keeps_the_others_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 0.05)

    async def scenario(row: Row) -> None:
        row.serve(1, 2)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(2))
        row.say(1, "prepared", revision=2, problems=[])
        with pytest.raises(ConfigurationError, match="worker 2 has not prepared"):
            await replacing
        assert row.fleet.generation == 1

    run(tmp_path, monkeypatch, scenario)


def test_all_put_in_force_what_all_have_prepared_and_one_that_dies_meanwhile_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(3))
        row.say(1, "prepared", revision=2, problems=[])
        assert "put_in_force" not in row.told(1)
        row.say(3, "gone")
        row.say(2, "prepared", revision=2, problems=[])
        await row.until(lambda: "put_in_force" in row.told(2))
        assert not replacing.done()
        row.say(1, "in_force", revision=2)
        row.say(2, "in_force", revision=2)
        await replacing
        assert row.fleet.generation == 2
        # its successor begins with it
        await row.until(lambda: len(row.members) == 3)
        (channel,) = [member.channel for member in row.members if member.number == 3]
        assert isinstance(channel, Told)
        assert channel.messages[-1].fields["revision"] == 2

    run(tmp_path, monkeypatch, scenario)


def test_workers_that_begin_to_serve_while_a_configuration_comes_into_force_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(1))
        # one before it counts, one after
        row.serve(2)
        row.say(1, "prepared", revision=2, problems=[])
        await row.until(lambda: "prepare" in row.told(2))
        # in none, until the one that came late has it too
        assert "put_in_force" not in row.told(1)
        row.say(2, "prepared", revision=2, problems=[])
        await row.until(lambda: "put_in_force" in row.told(2))
        row.say(1, "in_force", revision=2)
        await asyncio.sleep(0.01)
        assert not replacing.done()
        row.say(2, "in_force", revision=2)
        await replacing
        row.serve(3, revision=1)
        assert row.told(3)[-1] == "prepare"
        assert not row.members[2].is_serving
        row.say(3, "prepared", revision=2, problems=[])
        assert row.told(3)[-1] == "put_in_force"
        row.say(3, "in_force", revision=2)
        assert row.members[2].state is State.SERVING

    run(tmp_path, monkeypatch, scenario)


def test_connections_wait_for_the_first_worker_and_move_on_when_theirs_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "MAX_KEPT", 2)

    async def scenario(row: Row) -> None:
        pairs = [socket.socketpair() for _ in range(3)]
        for one, _ in pairs:
            row.fleet.hand(one)
        # one too many is closed
        assert pairs[2][1].recv(1) == b""
        row.serve(1)
        assert row.told(1).count("connection") == 2
        row.say(1, "taken", number=1)
        assert row.fleet.connections == 2
        row.serve(2)
        row.say(1, "gone")
        # the one that was taken died with it
        assert pairs[0][1].recv(1) == b""
        assert row.told(2).count("connection") == 1
        assert row.fleet.connections == 1
        row.say(2, "taken", number=3)
        row.say(2, "ended")
        assert row.fleet.connections == 0
        for _, other in pairs:
            other.close()

    run(tmp_path, monkeypatch, scenario)


def test_the_fullest_worker_sends_away_what_others_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "EVEN_SECONDS", 0.0)

    async def scenario(row: Row) -> None:
        row.serve(1)
        pairs = [socket.socketpair() for _ in range(4)]
        for one, _ in pairs:
            row.fleet.hand(one)
        row.fleet._handing.even()
        # not while one is missing
        row.serve(2)
        row.fleet._handing.even()
        assert "send_away" not in row.told(1)
        row.serve(3)
        row.fleet._handing.even()
        assert row.told(1).count("send_away") == 1
        assert "send_away" not in [*row.told(2), *row.told(3)]
        row.say(1, "gone")
        for _, other in pairs:
            other.close()

    run(tmp_path, monkeypatch, scenario)


def test_keys_that_one_worker_has_are_told_to_all_and_to_those_that_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        row.say(1, "keys", b"{}", source=["corp", "iss", "where"], at=1.0)
        assert "keys" not in row.told(1)
        assert row.told(2)[-1] == row.told(3)[-1] == "keys"
        row.say(2, "gone")
        await row.until(lambda: len(row.members) == 3)
        assert row.told(2) == ["setup", "keys", "begin"]

    run(tmp_path, monkeypatch, scenario)


def test_who_is_silent_or_stays_behind_is_ended_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(fleet_module, "IN_FORCE_SECONDS", 0.05)
    killed: list[int] = []
    monkeypatch.setattr(Member, "kill", lambda member: killed.append(member.number))

    async def scenario(row: Row) -> None:
        row.fleet._silence = 3
        row.serve(1, 2, 3)
        row.fleet._forked(row.members[0].serial, 4_711)
        row.fleet._forked(99, 4_712)
        assert row.members[0].pid == 4_711
        row.members[1].revision = 7
        row.members[1].pid = 4_713
        row.fleet._behind = 5

        async def answer() -> None:
            while True:
                for number in (2, 3):
                    row.say(number, "pong", number=0, reasons=[], notes=[])
                await asyncio.sleep(0.001)

        answering = asyncio.create_task(answer())
        await row.until(lambda: {1, 2} <= set(killed))
        answering.cancel()
        assert 3 not in killed
        row.fleet._process_ended(4_711, -9)
        row.say(1, "gone")
        row.members[1].pid = None
        row.say(3, "leaving")
        row.say(3, "gone")
        assert row.fleet.restarts == {"hung": 1, "left": 1, "crashed": 0}

    run(tmp_path, monkeypatch, scenario)


def test_counting_waits_for_those_that_live_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "COUNT_SECONDS", 0.05)

    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        counting = asyncio.create_task(row.fleet.count())
        await asyncio.sleep(0)
        number = row.fleet._pings
        row.say(1, "pong", number=number, reasons=[], notes=[])
        row.say(2, "gone")
        assert not counting.done()
        await counting

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_has_not_put_it_in_force_is_ended_before_the_change_is_called_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "IN_FORCE_SECONDS", 0.05)
    killed: list[int] = []
    monkeypatch.setattr(Member, "kill", lambda member: killed.append(member.number))

    async def scenario(row: Row) -> None:
        row.serve(1, 2)
        for member in row.members[:2]:
            row.fleet._forked(member.serial, 4_711)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(2))
        for number in (1, 2):
            row.say(number, "prepared", revision=2, problems=[])
        await row.until(lambda: "put_in_force" in row.told(2))
        row.say(2, "in_force", revision=2)
        await row.until(lambda: killed)
        assert killed == [1]
        assert not replacing.done()
        row.say(1, "gone")
        await asyncio.wait_for(replacing, fleet_module.GONE_SECONDS / 2)
        assert row.fleet.restarts["hung"] == 1

    run(tmp_path, monkeypatch, scenario)


def test_an_answer_to_an_attempt_that_failed_counts_for_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 0.05)

    async def scenario(row: Row) -> None:
        row.serve(1)
        with pytest.raises(ConfigurationError):
            await row.fleet.replace(row.assembly)
        monkeypatch.setattr(preparing, "PREPARE_SECONDS", 5.0)
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: row.told(1).count("prepare") == 2)
        row.say(1, "prepared", revision=2, problems=[])
        await asyncio.sleep(0.01)
        assert "put_in_force" not in row.told(1)
        row.say(1, "prepared", revision=3, problems=[])
        await row.until(lambda: "put_in_force" in row.told(1))
        row.say(1, "in_force", revision=3)
        await replacing
        assert row.fleet.generation == 3

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_ends_by_itself_follows_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2)
        row.say(1, "leaving")
        replacing = asyncio.create_task(row.fleet.replace(row.assembly))
        await row.until(lambda: "prepare" in row.told(1))
        row.say(2, "prepared", revision=2, problems=[])
        row.say(1, "prepared", revision=2, problems=[])
        await row.until(lambda: "put_in_force" in row.told(1))
        row.say(2, "in_force", revision=2)
        row.say(1, "gone")
        await replacing

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_starts_is_asked_again_until_it_has_what_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(Member, "kill", lambda member: killed.append(member.number))

    async def scenario(row: Row) -> None:
        # none serves, so that nobody has to be waited for
        await row.fleet.replace(row.assembly)
        row.serve(1, revision=1)
        assert row.told(1)[-1] == "prepare"
        await row.fleet.replace(row.assembly)
        row.say(1, "prepared", revision=2, problems=[])
        assert row.told(1)[-2:] == ["prepare", "prepare"]
        row.say(1, "prepared", revision=3, problems=[])
        assert row.told(1)[-1] == "put_in_force"
        row.say(1, "in_force", revision=3)
        assert row.members[0].state is State.SERVING
        # one that cannot is not left where it is
        row.serve(2, revision=1)
        row.say(2, "prepared", revision=3, problems=["no memory"])
        assert killed == [2]

    run(tmp_path, monkeypatch, scenario)


def test_connections_that_a_leaving_worker_has_not_taken_go_to_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2)
        one, other = socket.socketpair()
        row.fleet.hand(one)
        assert row.told(1)[-1] == "connection"
        row.say(1, "leaving")
        assert row.told(2)[-1] == "connection"
        row.say(2, "taken", number=2)
        assert row.fleet.connections == 1
        other.close()

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_is_started_while_the_server_leaves_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        row.fleet.leave()
        row.say(2, "gone")
        await row.until(lambda: len(row.members) == 3)
        assert row.told(2)[-1] == "leave"

    run(tmp_path, monkeypatch, scenario)


def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        tries = 0
        fork = Nursery.fork

        def few_files(*arguments: Any) -> Told:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise OSError(errno.EMFILE, "too many open files")
            return fork(*arguments)

        monkeypatch.setattr(Nursery, "fork", few_files)
        row.say(2, "gone")
        assert len(row.members) == 2
        await row.until(lambda: len(row.members) == 3)
        assert tries == 3

    run(tmp_path, monkeypatch, scenario)


def test_a_nursery_that_starts_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(fleet_module, "NURSERY_SECONDS", 0.3)
    killed: list[float] = []
    monkeypatch.setattr(Nursery, "kill", lambda _: killed.append(0.0))

    async def scenario(row: Row) -> None:
        row.fleet._silence = 2
        began = time.monotonic()
        await row.until(lambda: killed)
        assert time.monotonic() - began >= 0.3
        # none of them was ended for what the nursery did not do
        assert not any(member.killed for member in row.members)

    run(tmp_path, monkeypatch, scenario)


def test_the_newest_keys_are_kept_for_workers_that_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(row: Row) -> None:
        row.serve(1, 2, 3)
        row.say(1, "keys", b"new", source=["corp", "iss", "where"], at=2.0)
        row.say(2, "keys", b"old", source=["corp", "iss", "where"], at=1.0)
        row.say(3, "gone")
        await row.until(lambda: len(row.members) == 3)
        (channel,) = [member.channel for member in row.members if member.number == 3]
        assert isinstance(channel, Told)
        assert [message.payload for message in channel.messages if message.kind == "keys"] == [b"new"]

    run(tmp_path, monkeypatch, scenario)


def test_the_end_waits_for_workers_that_say_something_and_for_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(Member, "kill", lambda member: killed.append(member.number))

    async def scenario(row: Row) -> None:
        monkeypatch.setattr(fleet_module, "END_SECONDS", 5.0)
        monkeypatch.setattr(fleet_module, "HUNG_SECONDS", 0.1)
        monkeypatch.setattr(fleet_module, "HEARTBEAT_SECONDS", 0.05)
        row.serve(1, 2)
        row.fleet._forked(row.members[0].serial, 4_711)
        row.fleet._forked(row.members[1].serial, 4_712)
        # one has not answered for three beats, and no other beat comes
        assert row.fleet._heart is not None
        row.fleet._heart.cancel()
        row.members[0].silent = 3
        never_forked = row.members[2].channel
        draining = asyncio.create_task(row.fleet.drain(0.05))
        await row.until(lambda: 1 in killed)
        assert 2 not in killed
        assert [member.number for member in row.members] == [1, 2]
        assert isinstance(never_forked, Told)
        assert never_forked.closed
        row.say(1, "gone")
        await asyncio.sleep(0.05)
        assert not draining.done()
        row.say(2, "gone")
        await asyncio.wait_for(draining, 1)

    run(tmp_path, monkeypatch, scenario)
