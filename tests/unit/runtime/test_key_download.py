"""What a key server may answer, byte for byte, and what our side of the connection does."""

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from aiohappyeyeballs import AddrInfoType
from cryptography import x509
from support.pki import authority
from support.tokens import issuer, jwks, signing_key

from ext_authz import __version__
from ext_authz.config.http_url import HttpUrlParts
from ext_authz.runtime import key_download
from ext_authz.runtime.key_download import MAX_HEAD_BYTES, download
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.token.issuer import KeyUrl

KEYS = jwks(signing_key())
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(KEYS)
WHOLE = b"HTTP/1.1 200 OK\r\n" + TYPE + LENGTH + b"\r\n" + KEYS


class Scripted:
    """A server that reads one request, sends given bytes, and then closes or waits for the client to do so.

    Attributes:
        request: the last one.
        client_left: nobody is connected.
        url: to fetch.
    """

    def __init__(self, answer: bytes, *, closes: bool, pieces: int) -> None:
        self.answer = answer
        self.closes = closes
        self.pieces = pieces
        self.request = b""
        self.client_left = asyncio.Event()
        self.client_left.set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client_left.clear()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.request = await reader.readuntil(b"\r\n\r\n")
            for position in range(0, len(self.answer), self.pieces):
                writer.write(self.answer[position : position + self.pieces])
                await writer.drain()
                await asyncio.sleep(0)
            if not self.closes:
                await reader.read()
        self.client_left.set()
        writer.close()


@contextlib.asynccontextmanager
async def scripted(
    answer: bytes, *, closes: bool = False, pieces: int = 1_000_000, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    subject = Scripted(answer, closes=closes, pieces=pieces)
    server = await asyncio.start_server(subject.serve, "127.0.0.1", 0, ssl=tls)
    subject.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys?v=1"
    try:
        yield subject
        async with asyncio.timeout(5):
            await subject.client_left.wait()
    finally:
        server.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


async def fetched(url: str, ca_file: str | None = None) -> bytes:
    async with asyncio.timeout(10):
        return await download(issuer(keys=KeyUrl(url, ca_file)), KeyUrl(url, ca_file))


def outcome(answer: bytes, *, closes: bool = False, pieces: int = 1_000_000) -> bytes | KeyFetchFault:
    async def scenario() -> bytes | KeyFetchFault:
        async with scripted(answer, closes=closes, pieces=pieces) as subject:
            try:
                return await fetched(subject.url)
            except KeyFetchError as error:
                return error.fault

    return asyncio.run(scenario())


def test_a_request_says_what_it_wants_and_that_it_is_the_only_one(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        async with scripted(WHOLE) as subject:
            assert await fetched(subject.url) == KEYS
            lines = subject.request.decode().split("\r\n")
        assert lines[0] == "GET /keys?v=1 HTTP/1.1"
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        assert headers == {
            "host": subject.url.split("/")[2],
            "accept": "application/jwk-set+json, application/json",
            "accept-encoding": "identity",
            "user-agent": f"ext-authz/{__version__}",
            "connection": "close",
        }

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("pieces", [1, 7, 1_000_000])
@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        (WHOLE, False),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, False),
        (
            b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
            b"5;a=b\r\n" + KEYS[:5] + b"\r\n%x\r\n" % (len(KEYS) - 5) + KEYS[5:] + b"\r\n0\r\nx: y\r\n\r\n",
            False,
        ),
        # RFC 9112 §6.3: without a length the end of the connection is the end of the body
        (b"HTTP/1.0 200 OK\r\n" + TYPE + b"\r\n" + KEYS, True),
        (b"HTTP/1.1 200\r\n" + TYPE + LENGTH + b"Content-Encoding: identity\r\n\r\n" + KEYS, False),
    ],
)
def test_an_answer_is_read_however_it_is_framed_and_cut(answer: bytes, closes: bool, pieces: int) -> None:
    assert outcome(answer, closes=closes, pieces=pieces) == KEYS


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"", KeyFetchFault.NOT_REACHED),
        (b"SSH-2.0-OpenSSH_9.6\r\n", KeyFetchFault.NOT_REACHED),
        (WHOLE[:40], KeyFetchFault.NOT_REACHED),
        (WHOLE[:-1], KeyFetchFault.NOT_REACHED),
        (b"HTTP/1.1 200 OK\r\n" + TYPE + b"x: " + b"y" * (MAX_HEAD_BYTES + 70_000), KeyFetchFault.NOT_REACHED),
        (b"HTTP/1.1 200 OK\r\n" + TYPE + LENGTH + b"Content-Length: 1\r\n\r\n" + KEYS, KeyFetchFault.NOT_REACHED),
        (b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: gzip\r\n\r\n" + KEYS, KeyFetchFault.NOT_REACHED),
        (b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", KeyFetchFault.NOT_REACHED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", KeyFetchFault.STATUS_NOT_OK),
        (b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:1/\r\n\r\n", KeyFetchFault.STATUS_NOT_OK),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Type: application/x+json\r\n"
            + LENGTH
            + b"\r\n"
            + KEYS,
            KeyFetchFault.CONTENT_TYPE,
        ),
        # two types are none
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + TYPE + LENGTH + b"\r\n" + KEYS,
            KeyFetchFault.CONTENT_TYPE,
        ),
        (
            b"HTTP/1.1 200 OK\r\n"
            + TYPE
            + LENGTH
            + b"Content-Encoding: identity\r\nContent-Encoding: br\r\n\r\n"
            + KEYS,
            KeyFetchFault.CONTENT_TYPE,
        ),
        (b"HTTP/1.1 200 OK\r\n" + TYPE + b"\r\n" + b" " * 600_000, KeyFetchFault.TOO_LARGE),
    ],
)
def test_an_answer_that_is_cut_short_or_ambiguous_is_a_fault(answer: bytes, fault: KeyFetchFault) -> None:
    assert outcome(answer, closes=True) is fault


@pytest.mark.parametrize("framing", ["one length", "chunks of one byte"])
def test_others_are_heard_while_a_large_answer_is_read(framing: str) -> None:
    large = KEYS + b" " * (100_000 - len(KEYS))
    if framing == "one length":
        answer = b"HTTP/1.1 200 OK\r\n" + TYPE + b"Content-Length: %d\r\n\r\n" % len(large) + large
    else:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in large)
        answer = b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def scenario() -> None:
        async with scripted(answer) as subject:
            counting = asyncio.create_task(count())
            assert await fetched(subject.url) == large
            counting.cancel()

    asyncio.run(scenario())
    assert turns >= len(answer) // 4_096


def test_an_endless_row_of_interim_answers_ends_with_the_time() -> None:
    async def scenario() -> None:
        async with scripted(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000, pieces=2_800) as subject:
            source = KeyUrl(subject.url)
            with pytest.raises(KeyFetchError) as caught:
                await fetch_keys(issuer(keys=source), 0.2)
            assert caught.value.fault is KeyFetchFault.TIMED_OUT

    asyncio.run(scenario())


def test_another_address_of_a_name_is_tried_when_the_first_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def two(url: HttpUrlParts) -> list[AddrInfoType]:
        # nobody listens at the first
        hosts = ("127.0.0.3", url.host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, url.port)) for host in hosts]

    monkeypatch.setattr(key_download, "_addresses", two)

    async def scenario() -> None:
        async with scripted(WHOLE) as subject:
            assert await fetched(subject.url) == KEYS

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


def keys_example(tmp_path: Path, name: str) -> tuple[ssl.SSLContext, str]:
    """A server context with a certificate for `name`, and the file of the root that it is under."""
    root = authority("keys")
    (tmp_path / "ca.pem").write_bytes(root.pem)
    leaf = root.leaf(other_sans=[x509.DNSName(name)], subject=name)
    (tmp_path / "leaf.pem").write_bytes(leaf.key_pem + leaf.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context, str(tmp_path / "ca.pem")


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is this machine's."""

    async def loopback(url: HttpUrlParts) -> list[AddrInfoType]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", url.port))]

    monkeypatch.setattr(key_download, "_addresses", loopback)


@pytest.mark.usefixtures("resolved")
@pytest.mark.parametrize(
    ("host", "believed"),
    [("keys.example", True), ("KEYS.example.", True), ("evil.example", False), ("127.0.0.1", False)],
)
def test_a_server_is_believed_only_under_the_name_that_was_asked_for(
    tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop], host: str, *, believed: bool
) -> None:
    context, ca_file = keys_example(tmp_path, "keys.example")

    async def scenario() -> None:
        async with scripted(WHOLE, tls=context) as subject:
            url = subject.url.replace("127.0.0.1", host)
            if believed:
                # RFC 6066 §3: the dot at the end is no part of the name
                assert await fetched(url, ca_file) == KEYS
                return
            with pytest.raises(KeyFetchError) as caught:
                await fetched(url, ca_file)
            assert caught.value.fault is KeyFetchFault.NOT_REACHED
            assert subject.request == b""

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


@pytest.mark.usefixtures("resolved")
def test_nothing_of_a_fetch_is_left_when_it_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context, ca_file = keys_example(tmp_path, "keys.example")
    made: list[weakref.ref[ssl.SSLContext]] = []
    make = key_download._tls_context

    def observed(ca_file: str | None) -> ssl.SSLContext:
        own = make(ca_file)
        made.append(weakref.ref(own))
        return own

    monkeypatch.setattr(key_download, "_tls_context", observed)

    async def scenario() -> None:
        async with scripted(WHOLE, tls=context) as subject:
            url = subject.url.replace("127.0.0.1", "keys.example")
            for _ in range(3):
                await fetched(url, ca_file)
            await asyncio.sleep(0.1)
            # the collector looks at nothing while requests are answered, so nothing may need it
            assert [reference() for reference in made] == [None] * 3

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario())
    finally:
        gc.enable()
