"""The HTTP/2 transport at its edges: sockets, certificates and places."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from support.pki import authority, ec_key
from support.raw_h2 import PREFACE, http2_frame

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime import h2_transport as module
from ext_authz.runtime.h2_transport import H2Transport, server_context
from ext_authz.runtime.health import Health
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial

HELLO = PREFACE + http2_frame(4, 0, 0)
CA = authority("h2 transport")
LEAF = CA.leaf(key=ec_key("h2 transport"), dns_sans=["server.test"])
MATERIAL = TlsMaterial(LEAF.pem, LEAF.key_pem, CA.pem)


def echo(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:  # noqa: ARG001 - a CheckCall
    return request


class Ends:
    """Counts what a transport tells."""

    def __init__(self) -> None:
        self.ended = 0
        self.refused = 0

    def end(self) -> None:
        self.ended += 1

    def refuse(self) -> None:
        self.refused += 1


def transport(listening: Listening | None = None, ends: Ends | None = None, **settings: object) -> H2Transport:
    certificates = settings.pop("certificates", None)
    assert certificates is None or isinstance(certificates, ServerCertificates)
    listener = ListenerSettings(**{"address": "127.0.0.1:0", **settings})  # type: ignore[arg-type]  # as tests write them
    told = ends or Ends()
    return H2Transport(listener, echo, Health(), certificates, listening, on_end=told.end, on_refused=told.refuse)


class Client(asyncio.Protocol):
    """One connection; nothing of it is left when the server or the client has ended it."""

    def __init__(self, hello: bytes) -> None:
        self._hello = hello
        self.greeted = asyncio.Event()
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if data:
            self.greeted.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True


async def connected(address: str, hello: bytes = HELLO, context: ssl.SSLContext | None = None) -> Client:
    host, _, port = address.rpartition(":")
    name = None if context is None else "server.test"
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(hello), host, int(port), ssl=context, server_hostname=name)
    return client


async def greeted(address: str) -> Client:
    """A client whom the server has answered."""
    client = await connected(address)
    await asyncio.wait_for(client.greeted.wait(), 10)
    return client


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_sockets_of_someone_else_are_left_open() -> None:
    async def scenario() -> None:
        listening = Listening.open("127.0.0.1:0")
        first, second = transport(listening), transport(listening)
        address = await first.start()
        (await greeted(address)).transport.close()
        await first.drain(0.1)
        assert listening.sockets[0].fileno() >= 0
        assert await second.start() == address
        (await greeted(address)).transport.close()
        await second.drain(0.1)
        listening.close()

    run(scenario)


def test_a_transport_that_was_never_started_is_drained_at_once() -> None:
    run(lambda: transport().drain(10))


def test_certificates_that_cannot_be_served_free_the_address_again() -> None:
    async def scenario() -> None:
        listening = Listening.open("127.0.0.1:0")
        listening.close()
        broken = ServerCertificates(
            TlsMaterial(LEAF.pem, ec_key("another's").private_numbers().__repr__().encode(), None)
        )
        with pytest.raises(ssl.SSLError):
            await transport(address=listening.address, certificates=broken).start()
        other = transport(address=listening.address)
        assert await other.start() == listening.address
        await other.drain(0.1)

    run(scenario)


def test_new_certificates_that_cannot_be_served_leave_the_old_ones() -> None:
    async def scenario() -> None:
        certificates = ServerCertificates(MATERIAL)
        server = transport(certificates=certificates)
        await server.start()
        context = server._context
        certificates.replace(TlsMaterial(b"nonsense", b"nonsense", CA.pem))
        await asyncio.sleep(0.05)
        assert server._context is context
        certificates.replace(MATERIAL)
        await until(lambda: server._context is not context)
        await server.drain(0.1)

    run(scenario)


def test_keys_lie_in_a_file_without_a_name_where_there_are_no_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    context = server_context(MATERIAL)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [one["subject"] for one in context.get_ca_certs()]


class Full(socket.socket):
    """A listening socket of a process that has too many files open, until it has fewer."""

    full = True
    asked = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.full:
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def full_socket() -> Full:
    listening = Full()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.setblocking(False)
    return listening


def test_a_process_with_too_many_files_open_asks_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPT_PAUSE_SECONDS", 0.1)

    async def scenario() -> None:
        with full_socket() as listening:
            server = transport(Listening((listening,), f"127.0.0.1:{listening.getsockname()[1]}"))
            address = await server.start()
            waiting = asyncio.create_task(greeted(address))
            await until(lambda: listening.asked == 2)
            # once in a pause, not in every turn of the loop
            await asyncio.sleep(0.05)
            assert listening.asked == 2
            listening.full = False
            (await waiting).transport.close()
            await server.drain(0.1)

    run(scenario)


def test_a_transport_that_has_ended_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPT_PAUSE_SECONDS", 0.1)

    async def scenario() -> None:
        with full_socket() as listening:
            server = transport(Listening((listening,), f"127.0.0.1:{listening.getsockname()[1]}"))
            waiting = await connected(await server.start())
            await until(lambda: listening.asked == 1)
            await server.drain(0.1)
            await asyncio.sleep(0.2)
            assert listening.asked == 1
            waiting.transport.abort()
            await until(lambda: waiting.ended)

    run(scenario)


def test_more_connections_than_are_accepted_at_once_are_all_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPTED_AT_ONCE", 2)

    async def scenario() -> None:
        server = transport()
        address = await server.start()
        for client in await asyncio.gather(*(greeted(address) for _ in range(7))):
            client.transport.close()
        await until(lambda: not server._connections)
        await server.drain(0.1)

    run(scenario)


def test_every_place_is_given_back_once_however_a_connection_ends(tmp_path: Path) -> None:
    for name, content in (("chain", LEAF.chain_pem), ("key", LEAF.key_pem)):
        (tmp_path / name).write_bytes(content)

    def tls(*alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=CA.pem.decode())
        context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
        context.set_alpn_protocols(list(alpn))
        return context

    async def scenario() -> None:
        ends = Ends()
        server = transport(ends=ends, certificates=ServerCertificates(MATERIAL), maximum_connections=3)
        address = await server.start()

        # no TLS, no HTTP/2, and a client that goes in the midst of the handshake
        first = await connected(address, b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: ends.ended == 1 and first.ended)
        second = await connected(address, b"", tls("http/1.1"))
        await until(lambda: ends.ended == 2 and second.ended)
        (await connected(address, b"\x16")).transport.abort()
        await until(lambda: ends.ended == 3)
        assert server._limit.open == 0
        # the fourth is refused
        three = [await connected(address, HELLO, tls("h2")) for _ in range(3)]
        await until(lambda: len(server._connections) == 3)
        with contextlib.suppress(ConnectionResetError):
            await connected(address)
        await until(lambda: ends.refused == 1)
        assert (ends.ended, server._limit.open) == (4, 3)
        for client in three:
            client.transport.abort()
        await until(lambda: ends.ended == 7)
        assert server._limit.open == 0
        # the drain breaks off a handshake
        last = await connected(address, b"\x16")
        await until(lambda: server._limit.open == 1)
        await server.drain(0.1)
        assert (ends.ended, server._limit.open) == (8, 0)
        await until(lambda: last.ended)

    run(scenario)


def test_those_who_were_sent_away_already_are_not_sent_again() -> None:
    async def scenario() -> None:
        server = transport()
        address = await server.start()
        clients = [await greeted(address) for _ in range(3)]
        server.send_away(2)
        server.send_away(0)
        assert sum(connection.draining for connection in server._connections) == 2
        server.send_away(2)
        assert all(connection.draining for connection in server._connections)
        for client in clients:
            client.transport.close()
        await server.drain(0.1)

    run(scenario)
