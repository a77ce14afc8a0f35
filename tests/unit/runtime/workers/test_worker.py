"""A worker, run in this process and played by a supervisor that the test is."""

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from support.check_requests import check_request
from support.pki import authority
from support.server import check_over, document, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, jwks, signing_key

from ext_authz.config.settings import Configuration
from ext_authz.errors import ExtAuthzError
from ext_authz.runtime.active import Active, Prepared
from ext_authz.runtime.assembled import Assembly
from ext_authz.runtime.assembly import assemble
from ext_authz.runtime.tls import TlsMaterial
from ext_authz.runtime.workers import worker as worker_module
from ext_authz.runtime.workers.channel import Channel, Message
from ext_authz.runtime.workers.packing import pack
from ext_authz.runtime.workers.worker import Fixed, Worker, run_worker
from ext_authz.telemetry.line_sink import Line, LineSink

LEAF = authority("cluster.local").leaf(dns_sans=["server.test"])


class Quiet(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.dropped = 0

    def put(self, line: Line) -> None:
        self.lines.append(line)

    @property
    def room(self) -> int:
        return 1_000

    def encoded(self, line: Line) -> None:
        self.lines.append(line)

    def messages(self) -> list[str]:
        return [json.loads(line.render()).get("message", "") for line in self.lines]


def packed(folder: Path, path: str = "/public", **spec: Any) -> tuple[Configuration, bytes]:
    rule = {"name": "public", "matches": [{"path": {"value": path}}], "public": True}
    (folder / "policy.yaml").write_text(route_policy(rule))
    (folder / "server.yaml").write_text(document("Server", "test", server_spec(policies=["policy.yaml"], **spec)))
    assembly = assemble(str(folder / "server.yaml"))
    return assembly.configuration, pack(assembly)


class Supervisor:
    """Speaks with the worker."""

    def __init__(self, folder: Path, certificates: TlsMaterial | None = None, **spec: Any) -> None:
        self.folder = folder
        configuration, self.packed = packed(folder, **spec)
        self.fixed = Fixed(configuration.listener, configuration.telemetry, certificates)
        own, its = socket.socketpair()
        self.came: list[Message] = []
        self.channel = Channel(own, self.came.append, lambda: None)
        self.sink = Quiet()
        self.worker = Worker(its, self.sink)
        self.task = asyncio.create_task(self.worker.run())

    def tell(self, kind: str, payload: bytes = b"", *files: int, **fields: Any) -> None:
        self.channel.send(Message(kind, fields, payload, files))

    def begin(self) -> None:
        self.tell("setup", pickle.dumps(self.fixed))
        self.tell("begin", self.packed, revision=1)

    async def told(self, kind: str, **fields: object) -> Message:
        def found() -> list[Message]:
            return [m for m in self.came if m.kind == kind and fields.items() <= m.fields.items()]

        async with asyncio.timeout(10):
            while not found():  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.005)
        message = found()[0]
        self.came.remove(message)
        return message


def run(folder: Path, scenario: Callable[[Supervisor], Awaitable[None]], code: int = 0, **options: Any) -> list[str]:
    async def whole() -> list[str]:
        supervisor = Supervisor(folder, **options)
        await scenario(supervisor)
        supervisor.tell("drain", seconds=0)
        assert await asyncio.wait_for(supervisor.task, 10) == code
        supervisor.channel.close()
        supervisor.worker._channel.close()
        return supervisor.sink.messages()

    return asyncio.run(whole())


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("ext_authz")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


async def call(supervisor: Supervisor, path: str, number: int = 1) -> int:
    """Over a connection that the test accepts and hands over."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = "{}:{}".format(*listening.getsockname())

        async def accept() -> None:
            accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            with accepted:
                supervisor.tell("connection", b"", accepted.fileno(), number=number)
                await supervisor.told("taken", number=number)

        def check() -> int:
            with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                response = check_over(channel, check_request(path=path))
                return response.denied_response.status.code or 200

        checking = asyncio.create_task(asyncio.to_thread(check))
        await accept()
        return await checking


def test_it_serves_what_it_is_handed_and_says_what_it_counted(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.tell("unknown")
        supervisor.tell("leave")
        supervisor.tell("send_away", count=1)
        supervisor.tell("ping", number=1)
        early = await supervisor.told("pong", number=1)
        assert early.fields["reasons"] == ["a worker is starting"]
        supervisor.begin()
        assert (await supervisor.told("serving")).fields["revision"] == 1
        assert await call(supervisor, "/public") == 200
        await supervisor.told("ended")
        supervisor.tell("ping", number=2)
        pong = await supervisor.told("pong", number=2)
        assert pong.fields["reasons"] == []
        assert orjson.loads(pong.payload)["counted"]["checks"][0][-1] == 1
        supervisor.tell("send_away", count=1)
        supervisor.tell("leave")
        os.kill(os.getpid(), signal.SIGHUP)

    run(tmp_path, scenario)


def test_a_connection_that_comes_too_early_or_too_late_is_left_to_others(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        one, other = socket.socketpair()
        supervisor.tell("connection", b"", one.fileno(), number=1)
        supervisor.tell("ping", number=1)
        await supervisor.told("pong", number=1)
        one.close()
        assert other.recv(1) == b""
        other.close()
        assert not [message for message in supervisor.came if message.kind == "taken"]

    run(tmp_path, scenario)


def test_a_configuration_counts_when_it_is_put_in_force_and_not_before(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        _, other = packed(tmp_path, "/other", log={"level": "warning", "allowed": 0.5})
        # too early: the supervisor asks again
        supervisor.tell("prepare", other, revision=2)
        supervisor.begin()
        await supervisor.told("serving")
        supervisor.tell("prepare", other, revision=2)
        assert (await supervisor.told("prepared")).fields == {"revision": 2, "problems": []}
        assert await call(supervisor, "/other") == 403
        supervisor.tell("put_in_force", revision=3)
        supervisor.tell("abandon")
        supervisor.tell("put_in_force", revision=2)
        assert await call(supervisor, "/other", 2) == 403
        supervisor.tell("prepare", other, revision=2)
        await supervisor.told("prepared")
        supervisor.tell("put_in_force", revision=2)
        assert (await supervisor.told("in_force")).fields == {"revision": 2}
        assert await call(supervisor, "/other", 3) == 200
        supervisor.tell("prepare", b"no pickle", revision=3)
        (problem,) = (await supervisor.told("prepared")).fields["problems"]
        assert problem.startswith("unexpected")
        # one that is prepared and never wanted goes with the worker
        supervisor.tell("prepare", other, revision=4)
        await supervisor.told("prepared")

    run(tmp_path, scenario)


def test_a_configuration_that_cannot_be_prepared_is_refused_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ExtAuthzError("not this one")

    async def scenario(supervisor: Supervisor) -> None:
        supervisor.begin()
        await supervisor.told("serving")
        monkeypatch.setattr(Active, "prepare", refuse)
        supervisor.tell("prepare", supervisor.packed, revision=2)
        assert (await supervisor.told("prepared")).fields["problems"] == ["not this one"]

    run(tmp_path, scenario)


def test_a_configuration_that_is_given_up_or_overtaken_while_it_is_prepared_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, going_on, closed = Active.prepare, asyncio.Event(), []

    async def slowly(active: Active, assembly: Assembly) -> Prepared:
        prepared = await prepare(active, assembly)
        close = prepared.store.close

        async def tell() -> None:
            closed.append(prepared)
            await close()

        monkeypatch.setattr(prepared.store, "close", tell)
        await going_on.wait()
        return prepared

    async def scenario(supervisor: Supervisor) -> None:
        _, other = packed(tmp_path, "/other")
        supervisor.begin()
        await supervisor.told("serving")
        monkeypatch.setattr(Active, "prepare", slowly)
        for then in ("abandon", "prepare"):
            closed.clear()
            going_on.clear()
            supervisor.tell("prepare", other, revision=2)
            await asyncio.sleep(0.05)
            supervisor.tell(then, supervisor.packed, revision=3)
            await asyncio.sleep(0.05)
            going_on.set()
            async with asyncio.timeout(5):
                while not closed:  # noqa: ASYNC110 - what is waited for is no event
                    await asyncio.sleep(0.005)
            supervisor.tell("put_in_force", revision=2)
            assert await call(supervisor, "/other") == 403
        # the one that was wanted last is there
        assert (await supervisor.told("prepared")).fields["revision"] == 3
        assert not [message for message in supervisor.came if message.kind in {"prepared", "in_force"}]

    run(tmp_path, scenario)


def test_one_that_begins_while_the_server_leaves_says_at_once_that_nothing_should_come(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.begin()
        supervisor.tell("leave")
        await supervisor.told("serving")
        assert supervisor.worker._deciding is not None
        assert not supervisor.worker._deciding._health.serving

    run(tmp_path, scenario)


def test_certificates_are_renewed(tmp_path: Path) -> None:
    renewed = TlsMaterial(LEAF.pem + LEAF.pem, LEAF.key_pem, None)

    async def scenario(supervisor: Supervisor) -> None:
        supervisor.tell("certificates", pickle.dumps(renewed))
        supervisor.begin()
        await supervisor.told("serving")
        supervisor.tell("certificates", pickle.dumps(renewed))
        supervisor.tell("ping", number=5)
        await supervisor.told("pong", number=5)
        assert supervisor.worker._certificates is not None
        assert supervisor.worker._certificates.material == renewed

    run(tmp_path, scenario, certificates=TlsMaterial(LEAF.pem, LEAF.key_pem, None))


def corp(**keys: object) -> list[dict[str, object]]:
    return [{"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": keys}]


def test_keys_are_told_to_others_and_taken_from_them(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signing_key()))

    async def scenario(supervisor: Supervisor) -> None:
        supervisor.begin()
        told = await supervisor.told("keys")
        assert told.payload == jwks(signing_key())
        (tmp_path / "keys.json").unlink()
        source, deciding = told.fields["source"], supervisor.worker._deciding
        assert deciding is not None
        held = deciding.active.keys.keys["corp"]
        for payload, fields in (
            (jwks(signing_key(index=1)), {"source": ["corp", "other", "place"], "at": told.fields["at"] + 1}),
            (jwks(signing_key(index=1)), {"source": ["nobody", "other", "place"], "at": told.fields["at"] + 1}),
            (b"no keys", {"source": source, "at": told.fields["at"] + 1}),
            (jwks(signing_key(index=1)), {"source": source, "at": told.fields["at"] - 1}),
        ):
            supervisor.tell("keys", payload, **fields)
        supervisor.tell("ping", number=1)
        await supervisor.told("pong", number=1)
        assert deciding.active.keys.keys["corp"] is held
        supervisor.tell("keys", jwks(signing_key(index=1)), source=source, at=told.fields["at"] + 2)
        supervisor.tell("ping", number=2)
        await supervisor.told("pong", number=2)
        assert deciding.active.keys.keys["corp"] is not held

    run(tmp_path, scenario, issuers=corp(file="keys.json"))


def test_keys_that_come_before_it_begins_are_there_when_it_does(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        source = [
            "corp",
            ISSUER,
            repr(assemble(str(tmp_path / "server.yaml")).configuration.issuers["corp"].keys),
        ]
        supervisor.tell("keys", jwks(signing_key()), source=source, at=1e10)
        supervisor.begin()
        pong = await supervisor.told("pong")
        assert pong.fields["reasons"] == []

    run(tmp_path, scenario, issuers=corp(url="http://127.0.0.1:9/nowhere"))


def test_one_that_cannot_begin_says_why_and_ends(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.tell("setup", pickle.dumps(supervisor.fixed))
        supervisor.tell("begin", b"no pickle", revision=1)
        await supervisor.task

    assert "a worker cannot begin" in run(tmp_path, scenario, code=1)


def test_one_that_is_told_to_end_says_so_and_drains(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.begin()
        await supervisor.told("serving")
        os.kill(os.getpid(), signal.SIGTERM)
        await supervisor.told("leaving")
        await supervisor.task

    run(tmp_path, scenario)


def test_one_whose_supervisor_is_gone_ends(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.begin()
        await supervisor.told("serving")
        supervisor.channel.close()
        await supervisor.task

    assert "the supervisor has gone and this worker ends" in run(tmp_path, scenario)


def test_a_process_is_one_worker_and_each_of_its_lines_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(worker_module, "_STANDARD_OUTPUT", writing)
    own, its = socket.socketpair()
    # the supervisor is gone before it begins
    own.close()
    with tempfile.TemporaryFile() as lock:
        assert run_worker(its.detach(), lock.fileno(), 3) == 0
    os.close(writing)
    with os.fdopen(reading) as lines:
        (line,) = lines
    assert json.loads(line)["worker"] == 3
