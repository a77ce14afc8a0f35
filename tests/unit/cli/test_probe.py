"""`ext-authz-probe`, against whatever may be at the other end."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ext_authz.cli.probe import main

ANSWERS = {"/readyz": (503, "keys of issuer corp are not loaded\n"), "/livez": (200, "ok\n")}


class Admin(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Nonsense(Admin):
    def do_GET(self) -> None:
        self.wfile.write(b"220 mail.example.com\r\n")


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("serve", [Admin], indirect=True)
def test_a_server_that_is_not_ready_fails_the_probe_with_its_own_words(
    serve: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([serve]) == 1
    assert capsys.readouterr().out == "keys of issuer corp are not loaded\n"


@pytest.mark.parametrize("serve", [Admin], indirect=True)
def test_a_server_that_lives_passes_the_probe_of_its_life(serve: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--live", serve]) == 0
    # a listener on every address is asked on this machine's own
    assert main(["--live", f":{serve.rpartition(':')[2]}"]) == 0
    assert capsys.readouterr().out == "ok\nok\n"


@pytest.mark.parametrize("serve", [Nonsense], indirect=True)
def test_something_that_is_no_server_of_ours_fails_the_probe(serve: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([serve]) == 1
    assert capsys.readouterr().err.startswith(f"ext-authz-probe: {serve}: ")


def test_nobody_there_fails_the_probe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["127.0.0.1:1"]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["9001", "127.0.0.1:http", "127.0.0.1:"])
def test_an_address_that_is_none_is_a_usage_error(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([address])
    assert ended.value.code == 2
    assert "host:port" in capsys.readouterr().err


def test_it_loads_nothing_of_the_server_because_it_is_started_every_few_seconds() -> None:
    script = (
        "import sys, ext_authz.cli.probe; "
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in sys.argv[1:]))"
    )
    heavy = ["ext_authz", "grpc", "cryptography", "pydantic", "httpx", "re2", "yaml", "asyncio"]
    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ext_authz", "ext_authz.cli", "ext_authz.cli.outcome", "ext_authz.cli.probe"]
