"""The small HTTP server under the authorization server and the echoing upstream."""

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ext_authz.demo.ports import are_free, choose_ports
from ext_authz.demo.serving import MAXIMUM_BODY_BYTES, serve
from ext_authz.demo.upstream import echo


@pytest.fixture
def port() -> Iterator[int]:
    server = serve(echo, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    yield opened
    opened.close()


def test_the_upstream_says_what_it_received_as_it_was_sent(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("PATCH", "//a/../b;c?d=%2f", skip_accept_encoding=True)
    connection.putheader("X-Twice", "1")
    connection.putheader("x-twice", "2")
    connection.endheaders()
    seen = json.loads(connection.getresponse().read())
    assert (seen["method"], seen["path"]) == ("PATCH", "//a/../b;c?d=%2f")
    assert seen["headers"]["x-twice"] == ["1", "2"]


def test_a_connection_is_used_again(connection: http.client.HTTPConnection) -> None:
    for body in (b"one", b"two"):
        connection.request("POST", "/", body)
        assert json.loads(connection.getresponse().read())["headers"]["content-length"] == [str(len(body))]


def test_head_has_no_body(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", "/")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Content-Length", str(MAXIMUM_BODY_BYTES + 1), 413),
        ("Content-Length", "many", 411),
        ("Content-Length", "-1", 411),
        ("Transfer-Encoding", "chunked", 411),
    ],
)
def test_a_body_of_unknown_or_too_great_length_is_refused(
    connection: http.client.HTTPConnection, header: str, value: str, status: int
) -> None:
    connection.putrequest("POST", "/")
    connection.putheader(header, value)
    connection.endheaders()
    assert connection.getresponse().status == status


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_quietly_when_told_to(how: signal.Signals) -> None:
    (port,) = choose_ports(1)
    command = [sys.executable, "-m", "ext_authz.demo.upstream", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        deadline = time.monotonic() + 20
        while are_free((port,)) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(how)
        _, complaint = running.communicate(timeout=10)
        assert (running.returncode, complaint) == (0, b"")


def test_a_server_told_nothing_says_what_it_needs() -> None:
    command = [sys.executable, "-m", "ext_authz.demo.upstream"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert "HOST:PORT" in done.stderr
