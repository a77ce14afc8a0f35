"""A steady load of HTTP/1.1 requests over mutual TLS that counts every answer and every connection that failed.

    caller = Caller.of(leaf, authority_pem, token, folder)
    with SteadyLoad(port, caller, (Ask("/invoices"), Ask("/admin", status=403))) as load:
        ...  # whatever must disturb nobody
    load.report.verify(at_least=500)

Requests leave at a fixed rate whether or not answers come (an open loop), so that a server that stands still is noticed by
requests that wait and not by a client that waits with it. Connections are kept alive and used again; one is opened when all
are busy. The client runs on an event loop and a thread of its own.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from support.pki import Leaf

__all__ = ["Answer", "Ask", "Caller", "Report", "SteadyLoad"]

RATE = 150.0
"""Requests a second: many in any moment that goes wrong, and little for a machine that runs other tests beside."""

LIMIT_SECONDS = 100.0
"""The load ends by itself, below the time limit of one test."""

ANSWER_SECONDS = 10.0
"""For one request, connecting included; more than Envoy waits for anything here."""

MOST_CONNECTIONS = 512
"""Busy at once, below what Envoy's own limits allow. At the default rate so many are busy only when nothing has been answered
for three seconds: more than a machine that runs other tests beside makes anyone wait."""

REQUESTS_OF_A_CONNECTION = 100
"""Then a new one is opened, so that handshakes go on during the load too."""

SHOWN = 20
"""Of what went wrong, in the order in which it did."""


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        status: HTTP status.
        headers: names in lower case; the last of several.
        body: as sent.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def _right(_: Answer) -> str:
    return ""


@dataclass(frozen=True)
class Ask:
    """One kind of request, and what must come back.

    Attributes:
        target: path and query.
        status: that it must be answered with.
        authorization: sent in place of the caller's own token; empty for none.
        verify: what else is wrong with an answer of that status, in a few words; empty when nothing is.
    """

    target: str
    status: int = 200
    authorization: str | None = None
    verify: Callable[[Answer], str] = _right


@dataclass(frozen=True)
class Caller:
    """Who asks: a certificate to connect with and a token that is bound to it."""

    context: ssl.SSLContext
    token: str

    @classmethod
    def of(cls, leaf: Leaf, authorities: bytes, token: str, folder: Path) -> Self:
        """A caller that presents `leaf`.

        Args:
            leaf: with its chain.
            authorities: PEM of who may vouch for the server.
            token: sent as `Authorization: Bearer`.
            folder: where the key may lie.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authorities.decode())
        context.set_alpn_protocols(["http/1.1"])
        name = leaf.thumbprint.hex()
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        chain.write_bytes(leaf.chain_pem)
        key.write_bytes(leaf.key_pem)
        context.load_cert_chain(chain, key)
        return cls(context, token)


@dataclass
class Report:
    """What became of every request.

    Attributes:
        asked: how many left.
        answers: by target and status, or what happened in place of an answer.
        unexpected: of those, what should not have been.
        first: the first unexpected ones, with the seconds since the load began.
        seconds: from when a request was due to its answer, for those that were right.
        connections: that were opened.
        ended_early: the load ended by its own limit.
    """

    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    connections: int = 0
    ended_early: bool = False

    @property
    def right(self) -> int:
        """Requests that were answered as they had to be."""
        return len(self.seconds)

    def percentile(self, share: float) -> float:
        """Of the seconds, such as 0.99."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def verify(self, at_least: int = 1) -> None:
        """Fail unless there were so many requests, and every one was answered as it had to be."""
        assert not self.ended_early, f"the load ended by itself before the test did\n{self}"
        assert not self.unexpected, f"{sum(self.unexpected.values())} requests of {self.asked} failed\n{self}"
        assert self.right == self.asked, f"{self.asked - self.right} requests of {self.asked} were not answered\n{self}"
        assert self.right >= at_least, f"only {self.right} requests were made, not {at_least}\n{self}"

    def __str__(self) -> str:
        lines = [f"{count:>7}  {what}" for what, count in sorted(self.answers.items())]
        lines += [f"not as expected: {count:>7}  {what}" for what, count in self.unexpected.most_common()]
        lines += [f"  {line}" for line in self.first]
        lines.append(
            f"{self.connections} connections; p50 {self.percentile(0.5):.3f} s, p99 {self.percentile(0.99):.3f} s"
        )
        return "\n".join(lines)


class SteadyLoad:
    """The load; begins and ends with its `with` block."""

    def __init__(
        self,
        port: int,
        caller: Caller,
        asks: tuple[Ask, ...],
        *,
        rate: float = RATE,
        host: str = "billing.example.com",
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            port: of a listener on 127.0.0.1.
            caller: who asks, until `become`.
            asks: what is asked, in turn.
            rate: requests per second.
            host: Host header and SNI; the server's certificate must have it.
            limit_seconds: after which the load ends by itself, which `Report.verify` takes as a failure.
        """
        self.report = Report()
        self._port = port
        self._caller = caller
        self._asks = asks
        self._rate = rate
        self._host = host
        self._limit_seconds = limit_seconds
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._began = 0.0
        self._idle: list[_Connection] = []
        self._busy = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None:
            error.add_note(f"the load until then:\n{self.report}")
        elif self._failed is not None:
            raise self._failed

    def become(self, caller: Caller, asks: tuple[Ask, ...] | None = None) -> None:
        """Ask as someone else from now on, over new connections, and something else if given."""
        if asks is not None:
            self._asks = asks
        self._caller = caller

    def wait_for_answers(self, count: int, seconds: float = 30.0) -> None:
        """Until so many more requests have been answered, right or wrong."""
        until = time.monotonic() + seconds
        wanted = self.report.answers.total() + count
        while self.report.answers.total() < wanted:
            assert self._thread.is_alive(), f"the load has ended\n{self.report}"
            assert time.monotonic() < until, f"not so many answers in {seconds} s\n{self.report}"
            time.sleep(0.02)

    def _play(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001 - raised again where the load is used
            self._failed = error

    async def _send_all(self) -> None:
        self._began = due = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            if due - self._began > self._limit_seconds:
                self.report.ended_early = True
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            ask = self._asks[self.report.asked % len(self._asks)]
            self.report.asked += 1
            task = asyncio.create_task(self._send(ask, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += 1 / self._rate
        await asyncio.gather(*under_way)
        for connection in self._idle:
            connection.close()
        # closed transports go with the next turn of the loop
        await asyncio.sleep(0)

    async def _send(self, ask: Ask, due: float) -> None:
        if self._busy >= MOST_CONNECTIONS:
            self._count(ask, "no connection was free")
            return
        self._busy += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._answer(ask)
        except TimeoutError:
            self._count(ask, f"no answer in {ANSWER_SECONDS:.0f} s")
            return
        except (OSError, EOFError, ValueError) as error:
            self._count(ask, f"{type(error).__name__}: {error}")
            return
        finally:
            self._busy -= 1
        wrong = "" if answer.status == ask.status else f"expected {ask.status}: {answer.body[:200].decode('latin-1')}"
        wrong = wrong or ask.verify(answer)
        self._count(ask, str(answer.status), wrong)
        if not wrong:
            self.report.seconds.append(time.monotonic() - due)

    async def _answer(self, ask: Ask) -> Answer:
        caller = self._caller
        connection = await self._connection(caller)
        token = f"Bearer {caller.token}" if ask.authorization is None else ask.authorization
        fields = {"host": self._host} | ({"authorization": token} if token else {})
        try:
            answer = await connection.ask(ask.target, fields)
        except BaseException:
            connection.close()
            raise
        if connection.asked < REQUESTS_OF_A_CONNECTION and answer.headers.get("connection") != "close":
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self, caller: Caller) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.caller is caller:
                return connection
            connection.close()
        self.report.connections += 1
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=caller.context, server_hostname=self._host
        )
        return _Connection(caller, reader, writer)

    def _count(self, ask: Ask, what: str, wrong: str | None = None) -> None:
        """`wrong` is None when there was no answer at all."""
        self.report.answers[f"{ask.target}: {what}"] += 1
        if wrong is None or wrong:
            text = f"{ask.target}: {what}" + (f", {wrong}" if wrong else "")
            self.report.unexpected[text] += 1
            if len(self.report.first) < SHOWN:
                self.report.first.append(f"at {time.monotonic() - self._began:.3f} s: {text}")


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.caller = caller
        self.asked = 0
        self._reader = reader
        self._writer = writer

    async def ask(self, target: str, fields: dict[str, str]) -> Answer:
        self.asked += 1
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        first, *rest = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split(" ")[1]), headers, body)

    def close(self) -> None:
        # nothing is under way, and waiting for TLS to say goodbye would only cost time
        with contextlib.suppress(OSError):
            self._writer.transport.abort()
