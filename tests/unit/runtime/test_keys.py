"""The key store against a real server on loopback: what it fetches, when, and what serves meanwhile."""

import asyncio
import contextlib
import ipaddress
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.pki import authority
from support.tokens import ISSUER, NOW, access_token, issuer, json_bytes, jwks, signing_key

from ext_authz.config.settings import KeyFetchSettings
from ext_authz.errors import Reason, Refusal
from ext_authz.need import KeysNeeded
from ext_authz.principal import VerifiedToken
from ext_authz.runtime import keys as module
from ext_authz.runtime.key_download import MAX_METADATA_BYTES, metadata_urls, require_fetchable
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.runtime.keys import KeyStore
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, Issuer, KeyFile, KeySource, KeyUrl
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import MAX_KEY_SET_BYTES, KeyMatch, KeySet

ONE = jwks(signing_key(kid="one"))
TWO = jwks(signing_key(kid="one"), signing_key(kid="two", index=1))


@dataclass
class Answer:
    """What the server sends for a path."""

    body: bytes = ONE
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/jwk-set+json"})
    delay: float = 0.0
    trickle: float = 0.0


class KeyServer:
    """An HTTP server on loopback whose answers a test sets by path; it counts what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = outer.answers.get(self.path, Answer(b"{}", 404))
                outer.stopping.wait(answer.delay)
                with contextlib.suppress(OSError):
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    if not answer.trickle:
                        self.wfile.write(answer.body)
                        return
                    for position in range(len(answer.body)):
                        self.wfile.write(answer.body[position : position + 1])
                        self.wfile.flush()
                        if outer.stopping.wait(answer.trickle):
                            return

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that hangs up is part of the tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def url(self, path: str = "/jwks") -> str:
        return self.origin + path

    def close(self) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    subject = KeyServer()
    subject.answers["/jwks"] = Answer()
    yield subject
    subject.close()


class Events:
    """Remembers what happened."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def fetched(self, issuer_name: str, keys: KeySet, *, changed: bool) -> None:
        self.seen.append(("fetched", issuer_name, len(keys.keys), changed))

    def fetch_failed(self, issuer_name: str, error: KeyFetchError, failures: int) -> None:
        self.seen.append(("failed", issuer_name, error.fault, failures))

    def expired(self, issuer_name: str) -> None:
        self.seen.append(("expired", issuer_name))


class Clock:
    """Seconds since the epoch as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


PATIENT = KeyFetchSettings(timeout_seconds=5.0)
QUICK = KeyFetchSettings(
    refresh_seconds=0.05,
    stale_seconds=0.4,
    timeout_seconds=0.15,
    unknown_key_cooldown_seconds=0.1,
    failure_backoff_seconds=0.02,
)


def corp(keys: KeySource, **changes: Any) -> Issuer:
    return issuer(keys=keys, **changes)


def store(*issuers: Issuer, settings: KeyFetchSettings = PATIENT, **changes: Any) -> KeyStore:
    options: dict[str, Any] = {"events": Events(), "jitter": lambda: 0.0} | changes
    return KeyStore(issuers, settings, **options)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.005)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def fault_of(source: KeySource, seconds: float = 5.0, **changes: Any) -> KeyFetchFault:
    with pytest.raises(KeyFetchError) as caught:
        await fetch_keys(corp(source, **changes), seconds)
    return caught.value.fault


# --- sources


def test_keys_come_from_a_url_and_the_store_is_ready(server: KeyServer) -> None:
    changes: list[Mapping[str, KeySet]] = []
    events = Events()

    async def scenario() -> None:
        subject = store(corp(KeyUrl(server.url())), on_change=changes.append, events=events)
        assert not subject.ready
        assert dict(subject.keys) == {}
        async with subject:
            assert subject.ready
            assert [key.key_id for key in subject.keys["corp"].keys] == ["one"]

    run(scenario)
    assert server.asked == ["/jwks"]
    assert server.headers[0]["accept-encoding"] == "identity"
    assert [list(mapping) for mapping in changes] == [["corp"]]
    assert events.seen == [("fetched", "corp", 1, True)]


def test_keys_written_in_the_configuration_are_there_at_once() -> None:
    async def scenario() -> None:
        async with store(corp(InlineKeys(TWO.decode()))) as subject:
            assert subject.ready
            assert len(subject.keys["corp"].keys) == 2

    run(scenario)


def test_a_changed_file_counts_within_seconds_and_a_broken_one_keeps_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_SECONDS", 0.02)
    file = tmp_path / "jwks.json"
    file.write_bytes(ONE)
    events = Events()

    async def scenario() -> None:
        async with store(corp(KeyFile(str(file))), settings=QUICK, events=events) as subject:
            first = subject.keys["corp"]
            await asyncio.sleep(0.1)
            assert subject.keys["corp"] is first
            file.write_bytes(TWO)
            await until(lambda: len(subject.keys["corp"].keys) == 2)
            file.write_bytes(b"{")
            await until(lambda: subject.status()[0].failures > 0)
            assert len(subject.keys["corp"].keys) == 2

    run(scenario)
    # read often, reported only when it changed or failed
    assert events.seen[:3] == [
        ("fetched", "corp", 1, True),
        ("fetched", "corp", 2, True),
        ("failed", "corp", KeyFetchFault.KEY_SET_MALFORMED, 1),
    ]


def test_a_file_that_is_missing_or_too_large_is_a_fault(tmp_path: Path) -> None:
    big = tmp_path / "big.json"
    big.write_bytes(ONE + b" " * MAX_KEY_SET_BYTES)

    async def scenario() -> None:
        assert await fault_of(KeyFile(str(tmp_path / "none.json"))) is KeyFetchFault.FILE_UNREADABLE
        assert await fault_of(KeyFile(str(tmp_path))) is KeyFetchFault.FILE_UNREADABLE
        assert await fault_of(KeyFile(str(big))) is KeyFetchFault.KEY_SET_MALFORMED

    run(scenario)


# --- discovery


@pytest.mark.parametrize(
    ("iss", "urls"),
    [
        (
            "https://as.example",
            (
                "https://as.example/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration",
            ),
        ),
        (
            "https://as.example:8443/tenant%201/a/",
            (
                "https://as.example:8443/.well-known/oauth-authorization-server/tenant%201/a",
                "https://as.example:8443/.well-known/openid-configuration/tenant%201/a",
                "https://as.example:8443/tenant%201/a/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_metadata_is_looked_for_where_the_standards_say(iss: str, urls: tuple[str, ...]) -> None:
    assert metadata_urls(iss) == urls


JSON = {"content-type": "application/json; charset=utf-8"}


@pytest.mark.parametrize(
    "well_known",
    [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ],
)
def test_keys_are_discovered_from_each_well_known_location(server: KeyServer, well_known: str) -> None:
    iss = server.url("/tenant")
    server.answers[well_known] = Answer(json_bytes({"issuer": iss, "jwks_uri": server.url()}), headers=JSON)

    async def scenario() -> None:
        keys = await fetch_keys(corp(DiscoveredKeys(), issuer=iss), 5.0)
        assert len(keys.keys) == 1

    run(scenario)
    assert server.asked[-2:] == [well_known, "/jwks"]


def test_metadata_may_be_at_a_configured_url(server: KeyServer) -> None:
    metadata = json_bytes({"issuer": "https://issuer.example", "jwks_uri": server.url()})
    server.answers["/meta"] = Answer(metadata, headers=JSON)

    async def scenario() -> None:
        assert len((await fetch_keys(corp(DiscoveredKeys(server.url("/meta"))), 5.0)).keys) == 1

    run(scenario)
    assert server.asked == ["/meta", "/jwks"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"issuer": "https://issuer.example/"}, KeyFetchFault.ISSUER_MISMATCH),
        ({"issuer": "https://evil.example"}, KeyFetchFault.ISSUER_MISMATCH),
        ({"issuer": None}, KeyFetchFault.ISSUER_MISMATCH),
        ({"jwks_uri": None}, KeyFetchFault.METADATA_MALFORMED),
        ({"jwks_uri": ["x"]}, KeyFetchFault.METADATA_MALFORMED),
        ({"jwks_uri": "http://keys.example/jwks"}, KeyFetchFault.URL_NOT_ALLOWED),
        ({"jwks_uri": "file:///etc/passwd"}, KeyFetchFault.URL_NOT_ALLOWED),
        ({"jwks_uri": "jwks"}, KeyFetchFault.URL_NOT_ALLOWED),
    ],
)
def test_metadata_of_another_issuer_or_with_another_kind_of_url_is_refused(
    server: KeyServer, changes: Mapping[str, object], fault: KeyFetchFault
) -> None:
    metadata = {"issuer": "https://issuer.example", "jwks_uri": server.url(), **changes}
    server.answers["/meta"] = Answer(json_bytes(metadata), headers=JSON)

    async def scenario() -> None:
        assert await fault_of(DiscoveredKeys(server.url("/meta"))) is fault

    run(scenario)
    assert server.asked == ["/meta"]


def test_metadata_that_is_no_object_or_too_large_is_refused(server: KeyServer) -> None:
    async def scenario() -> None:
        for body, fault in (
            (b"[]", KeyFetchFault.METADATA_MALFORMED),
            (b'{"issuer":"a","issuer":"b"}', KeyFetchFault.METADATA_MALFORMED),
            (b"{}" + b" " * MAX_METADATA_BYTES, KeyFetchFault.TOO_LARGE),
        ):
            server.answers["/meta"] = Answer(body, headers=JSON)
            assert await fault_of(DiscoveredKeys(server.url("/meta"))) is fault

    run(scenario)


def test_an_issuer_that_is_no_url_to_fetch_from_is_not_discovered() -> None:
    async def scenario() -> None:
        for iss in ("corp", "http://issuer.example", "https://issuer.example?x=y"):
            assert await fault_of(DiscoveredKeys(), issuer=iss) is KeyFetchFault.URL_NOT_ALLOWED

    run(scenario)


# --- what is fetched


@pytest.mark.parametrize(
    "url", ["https://as.example/jwks", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"]
)
def test_keys_may_come_from_https_and_from_loopback(url: str) -> None:
    parts = require_fetchable(url)
    assert parts.origin + parts.target == url


@pytest.mark.parametrize(
    "url",
    [
        "http://as.example/jwks",
        "http://127.0.0.1.evil.example/",
        "http://localhost.evil.example/",
        "http://10.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://user:secret@as.example/",
        "http://127.0.0.1@evil.example/",
        "https://as.example/#x",
        "https:///jwks",
        "//as.example/",
        "jwks",
        "",
        "https://[::1",
        "https://as.example:port/",
        "https://a\x00b/",
    ],
)
def test_keys_may_come_from_nowhere_else(url: str) -> None:
    with pytest.raises(KeyFetchError) as caught:
        require_fetchable(url)
    assert caught.value.fault is KeyFetchFault.URL_NOT_ALLOWED


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(status=500), KeyFetchFault.STATUS_NOT_OK),
        (Answer(status=404), KeyFetchFault.STATUS_NOT_OK),
        (Answer(status=203), KeyFetchFault.STATUS_NOT_OK),
        (Answer(status=302, headers={"location": "/other"}), KeyFetchFault.STATUS_NOT_OK),
        (Answer(status=301, headers={"location": "https://evil.example/"}), KeyFetchFault.STATUS_NOT_OK),
        (Answer(headers={"content-type": "text/html"}), KeyFetchFault.CONTENT_TYPE),
        (Answer(headers={"content-type": "text/x+json"}), KeyFetchFault.CONTENT_TYPE),
        (Answer(headers={}), KeyFetchFault.CONTENT_TYPE),
        (Answer(headers=JSON | {"content-encoding": "gzip"}), KeyFetchFault.CONTENT_TYPE),
        (Answer(b"<html>"), KeyFetchFault.KEY_SET_MALFORMED),
        (Answer(b'{"keys":[],"keys":[]}'), KeyFetchFault.KEY_SET_MALFORMED),
        (Answer(ONE + b" " * MAX_KEY_SET_BYTES), KeyFetchFault.TOO_LARGE),
        (Answer(delay=5), KeyFetchFault.TIMED_OUT),
        (Answer(trickle=0.05), KeyFetchFault.TIMED_OUT),
    ],
)
def test_an_answer_that_is_no_key_set_in_time_is_a_fault(
    server: KeyServer, answer: Answer, fault: KeyFetchFault
) -> None:
    server.answers |= {"/jwks": answer, "/other": Answer()}

    async def scenario() -> None:
        started = time.monotonic()
        assert await fault_of(KeyUrl(server.url()), 0.5 if fault is KeyFetchFault.TIMED_OUT else 5.0) is fault
        assert time.monotonic() - started < 4.0

    run(scenario)
    assert server.asked == ["/jwks"]


def test_a_server_that_is_not_there_is_a_fault(server: KeyServer) -> None:
    url = server.url()
    server.close()

    async def scenario() -> None:
        assert await fault_of(KeyUrl(url)) is KeyFetchFault.NOT_REACHED

    run(scenario)


def test_proxies_and_credentials_of_the_environment_are_not_used(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def scenario() -> None:
        await fetch_keys(corp(KeyUrl(server.url())), 5.0)

    run(scenario)
    assert "authorization" not in server.headers[0]


# --- TLS


def certificate(tmp_path: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-made root's file and a server context with a certificate for 127.0.0.1 under it."""
    root = authority(name)
    leaf = root.leaf(other_sans=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], subject="keys")
    ca_file, leaf_file = tmp_path / f"{name}.pem", tmp_path / f"{name}-server.pem"
    ca_file.write_bytes(root.pem)
    leaf_file.write_bytes(leaf.key_pem + leaf.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf_file)
    return ca_file, context


def test_a_server_is_believed_only_under_the_configured_roots(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    broken = tmp_path / "broken.pem"
    broken.write_text("no PEM")
    subject = KeyServer(context)
    subject.answers["/jwks"] = Answer()

    async def scenario() -> None:
        assert len((await fetch_keys(corp(KeyUrl(subject.url(), str(ca_file))), 5.0)).keys) == 1
        for roots, fault in (
            (str(other), KeyFetchFault.NOT_REACHED),
            (None, KeyFetchFault.NOT_REACHED),
            (str(broken), KeyFetchFault.TLS_ROOTS_UNREADABLE),
            (str(tmp_path / "none.pem"), KeyFetchFault.TLS_ROOTS_UNREADABLE),
        ):
            assert await fault_of(KeyUrl(subject.url(), roots)) is fault

    try:
        run(scenario)
    finally:
        subject.close()
    assert subject.asked == ["/jwks"]


# --- one fetch for all


def test_a_thousand_concurrent_cold_misses_are_one_fetch(server: KeyServer) -> None:
    server.answers["/jwks"] = Answer(delay=0.2)

    async def scenario() -> None:
        subject = store(corp(KeyUrl(server.url())))
        need = KeysNeeded("corp", "one")
        assert subject.may_fetch(need, NOW)
        await asyncio.gather(*(subject.fulfil(need, soon()) for _ in range(1_000)))
        assert isinstance(subject.keys["corp"], KeySet)
        await subject.close()

    run(scenario)
    assert server.asked == ["/jwks"]


def test_ten_thousand_unknown_key_ids_are_one_fetch_per_cooldown(server: KeyServer) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), clock=clock) as subject:
            held = subject.keys["corp"]
            for round_ in range(3):
                fetches = len(server.asked)
                allowed = [
                    need
                    for number in range(10_000)
                    if subject.may_fetch(need := KeysNeeded("corp", f"{round_}-{number}"), clock.now)
                ]
                await asyncio.gather(*(subject.fulfil(need, soon()) for need in allowed))
                assert len(server.asked) - fetches == (0 if round_ == 0 else 1)
                assert not subject.may_fetch(KeysNeeded("corp", "more"), clock.now)
                await subject.fulfil(KeysNeeded("corp", "more"), soon())
                assert len(server.asked) - fetches == (0 if round_ == 0 else 1)
                # known keys serve as before
                assert subject.keys["corp"] is held
                clock.now += PATIENT.unknown_key_cooldown_seconds

    run(scenario)


def test_a_waiter_that_gives_up_does_not_stop_the_fetch(server: KeyServer) -> None:
    server.answers["/jwks"] = Answer(delay=0.3)

    async def scenario() -> None:
        subject = store(corp(KeyUrl(server.url())))
        started = time.monotonic()
        await subject.fulfil(KeysNeeded("corp", "one"), soon(0.05))
        assert time.monotonic() - started < 0.25
        assert not subject.ready
        cancelled = asyncio.create_task(subject.fulfil(KeysNeeded("corp", "one"), soon()))
        await asyncio.sleep(0)
        cancelled.cancel()
        await subject.fulfil(KeysNeeded("corp", "one"), soon())
        assert subject.ready
        await subject.close()

    run(scenario)
    assert server.asked == ["/jwks"]


def test_nobody_waits_for_an_issuer_that_is_not_ours(server: KeyServer) -> None:
    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url()))) as subject:
            need = KeysNeeded("other", "one")
            assert not subject.may_fetch(need, time.time())
            await subject.fulfil(need, soon())

    run(scenario)
    assert server.asked == ["/jwks"]


def test_a_rotated_key_is_fetched_when_a_token_needs_it(server: KeyServer) -> None:
    clock = Clock()

    async def scenario() -> None:
        terms = corp(KeyUrl(server.url()))
        async with store(terms, clock=clock) as subject:
            before = IssuerDirectory([terms], subject.keys)
            text = access_token(signing_key(kid="two", index=1))
            need = verify_access_token(text, before, NOW)
            assert need == KeysNeeded("corp", "two")
            server.answers["/jwks"] = Answer(TWO)
            clock.now += 10
            assert subject.may_fetch(need, clock.now)
            await subject.fulfil(need, soon())
            after = IssuerDirectory([terms], subject.keys, previous=before)
            assert isinstance(verify_access_token(text, after, NOW), VerifiedToken)
            old = access_token(signing_key(kid="one"))
            assert isinstance(verify_access_token(old, after, NOW), VerifiedToken)

    run(scenario)


def test_two_issuers_with_one_jwks_uri_fetch_and_serve_apart(server: KeyServer) -> None:
    a = corp(KeyUrl(server.url()), name="a")
    b = corp(KeyUrl(server.url()), name="b", issuer="https://other.example", audiences=frozenset({"https://b.example"}))

    async def scenario() -> None:
        async with store(a, b) as subject:
            assert subject.keys["a"] is not subject.keys["b"]
            issuers = IssuerDirectory([a, b], subject.keys)
            text = access_token(signing_key(kid="one"))
            token = verify_access_token(text, issuers, NOW)
            assert isinstance(token, VerifiedToken)
            assert token.issuer_name == "a"
            with pytest.raises(Refusal) as caught:
                verify_access_token(access_token(signing_key(kid="one"), iss="https://other.example"), issuers, NOW)
            assert caught.value.reason is Reason.AUDIENCE_MISMATCH

    run(scenario)
    assert server.asked == ["/jwks", "/jwks"]


# --- refreshing, failing, expiring


def test_keys_are_refreshed_in_the_background_and_stay_the_same_object_while_they_are_the_same(
    server: KeyServer,
) -> None:
    changes: list[Mapping[str, KeySet]] = []

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), settings=QUICK, on_change=changes.append) as subject:
            first = subject.keys["corp"]
            await until(lambda: len(server.asked) >= 3)
            assert subject.keys["corp"] is first
            server.answers["/jwks"] = Answer(TWO)
            await until(lambda: len(subject.keys["corp"].keys) == 2)

    run(scenario)
    assert len(changes) == 2


def test_stale_keys_serve_through_failures_up_to_the_limit_and_then_no_more(server: KeyServer) -> None:
    events = Events()

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), settings=QUICK, events=events) as subject:
            server.answers["/jwks"] = Answer(status=500)
            await until(lambda: subject.status()[0].failures >= 2)
            assert "corp" in subject.keys
            assert (subject.status()[0].age or 0) > 0
            await until(lambda: "corp" not in subject.keys)
            assert dict(store(corp(KeyUrl(server.url())), previous=subject).keys) == {}
            assert subject.status()[0].keys is None
            error = subject.status()[0].last_error
            assert error is not None
            assert error.fault is KeyFetchFault.STATUS_NOT_OK
            assert subject.ready
            server.answers["/jwks"] = Answer(TWO)
            await until(lambda: "corp" in subject.keys)
            assert subject.status()[0].last_error is None

    run(scenario)
    assert ("expired", "corp") in events.seen


def test_a_fetch_that_hangs_does_not_keep_stale_keys_alive(server: KeyServer) -> None:
    settings = KeyFetchSettings(refresh_seconds=0.05, stale_seconds=0.2, timeout_seconds=10.0)

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), settings=settings) as subject:
            server.answers["/jwks"] = Answer(delay=10)
            await until(lambda: "corp" not in subject.keys, 2.0)

    run(scenario)


def test_failures_without_keys_are_tried_again_with_growing_pauses(server: KeyServer) -> None:
    server.answers["/jwks"] = Answer(status=500)
    events = Events()

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), settings=QUICK, events=events) as subject:
            assert not subject.ready
            assert not subject.may_fetch(KeysNeeded("corp", "one"), time.time())
            await until(lambda: len(events.seen) >= 3)
            server.answers["/jwks"] = Answer()
            await until(lambda: subject.ready)

    run(scenario)
    assert [event[:2] for event in events.seen[:3]] == [("failed", "corp")] * 3
    assert [event[3] for event in events.seen[:3]] == [1, 2, 3]


def test_a_failing_issuer_does_not_hold_up_another(server: KeyServer, tmp_path: Path) -> None:
    good = corp(KeyUrl(server.url()), name="good")
    bad = corp(KeyFile(str(tmp_path / "none")), name="bad", issuer="https://bad.example")

    async def scenario() -> None:
        async with store(good, bad) as subject:
            assert list(subject.keys) == ["good"]
            assert not subject.ready

    run(scenario)


def test_refused_keys_show_in_the_status(server: KeyServer) -> None:
    server.answers["/jwks"] = Answer(jwks(signing_key(kid="a"), {"kty": "oct", "k": "AAAA"}))

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url()))) as subject:
            keys = subject.status()[0].keys
            assert keys is not None
            assert len(keys.refused) == 1
            assert keys.find("a", "ES256") is not KeyMatch.UNKNOWN

    run(scenario)


def test_an_unexpected_fault_is_a_failure_like_any_other(server: KeyServer) -> None:
    events = Events()

    def broken(_: Mapping[str, KeySet]) -> None:
        raise RuntimeError("the one who listens is broken")

    async def scenario() -> None:
        async with store(corp(KeyUrl(server.url())), events=events, on_change=broken):
            pass

    run(scenario)
    assert events.seen == [("failed", "corp", KeyFetchFault.UNEXPECTED, 1)]


def test_a_new_configuration_takes_over_keys_of_the_same_place_and_fetches_the_rest(server: KeyServer) -> None:
    server.answers["/other"] = Answer(TWO)
    same = corp(KeyUrl(server.url()), name="same")
    moved = corp(KeyUrl(server.url()), name="moved", issuer="https://moved.example")
    renamed = corp(KeyUrl(server.url()), name="renamed", issuer="https://renamed.example")

    async def scenario() -> None:
        async with store(same, moved, renamed) as old:
            assert len(server.asked) == 3
            stricter = corp(KeyUrl(server.url()), name="same", skew=0.0)
            elsewhere = corp(KeyUrl(server.url("/other")), name="moved", issuer="https://moved.example")
            another = corp(KeyUrl(server.url()), name="renamed", issuer="https://elsewhere.example")
            new = store(stricter, elsewhere, another, previous=old)
            assert dict(new.keys) == {"same": old.keys["same"]}
            async with new:
                await asyncio.sleep(0.1)
                assert new.keys["same"] is old.keys["same"]
                assert len(new.keys["moved"].keys) == 2
                assert new.ready
        assert len(server.asked) == 5
        # closed stores stay readable
        assert "same" in old.keys

    run(scenario)


def test_a_store_whose_keys_are_all_taken_over_starts_without_a_fetch(server: KeyServer) -> None:
    async def scenario() -> None:
        terms = corp(KeyUrl(server.url()))
        async with store(terms) as old, store(terms, previous=old) as new:
            assert new.ready
            await asyncio.sleep(0.1)

    run(scenario)
    assert server.asked == ["/jwks"]


def test_closing_ends_a_fetch_that_is_under_way(server: KeyServer) -> None:
    server.answers["/jwks"] = Answer(delay=10)

    async def scenario() -> None:
        subject = store(corp(KeyUrl(server.url())))
        waiting = asyncio.create_task(subject.fulfil(KeysNeeded("corp", "one"), soon(10)))
        await until(lambda: bool(server.asked))
        await subject.close()
        await waiting
        assert not subject.ready

    run(scenario)


def test_plain_http_is_fetched_from_elsewhere_only_where_that_is_allowed_by_name() -> None:
    assert require_fetchable("http://keys.example/jwks", plain_http=True).host == "keys.example"
    with pytest.raises(KeyFetchError) as caught:
        require_fetchable("http://keys.example/jwks")
    assert caught.value.fault is KeyFetchFault.URL_NOT_ALLOWED


def test_metadata_over_https_cannot_name_keys_on_this_machine(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path, "ours")
    subject, local = KeyServer(context), KeyServer()
    local.answers["/jwks"] = Answer()
    metadata = {"issuer": ISSUER, "jwks_uri": local.url()}
    subject.answers["/metadata"] = Answer(json_bytes(metadata))
    try:
        source = DiscoveredKeys(subject.url("/metadata"), str(ca_file))
        run(lambda: _expect(source, KeyFetchFault.URL_NOT_ALLOWED))
    finally:
        subject.close()
        local.close()
    assert local.asked == []


async def _expect(source: DiscoveredKeys, fault: KeyFetchFault) -> None:
    assert await fault_of(source) is fault
