"""`ext-authz capture`: what it prints of a call, what it leaves out, and what it answers meanwhile."""

import json
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.check_requests import check_request
from support.server import CHECK_METHOD, ServerProcess, route_policy, server_spec

from ext_authz.cli.captured import LEFT_OUT, written
from ext_authz.cli.main import main
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

SECRETS = (("authorization", "Bearer sesame"), ("cookie", "session=sesame"), ("dpop", "sesame"))
OPEN = {"name": "open", "matches": [{"path": {"value": "/open"}}], "public": True}


class Capturing:
    """A running `ext-authz capture`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        self._process = process
        self.words = process.stderr.readline()
        self.address = self.words.partition("request at ")[2].partition(";")[0]

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes, method: str = CHECK_METHOD, timeout: float = 10, **metadata: str) -> bytes:
        with grpc.insecure_channel(self.address) as channel:
            pairs = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
            answer: bytes = channel.unary_unary(method, None, None)(request, timeout=timeout, metadata=pairs)
            return answer

    def check(self, request: bytes) -> CheckResponse:
        return CheckResponse.FromString(self.ask(request))

    def printed(self) -> Any:
        output, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0
        return json.loads(output)


@contextmanager
def capturing(*options: str) -> Iterator[Capturing]:
    command = [sys.executable, "-m", "ext_authz", "capture", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Capturing(process)
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["headers", "raw_headers"])
def test_a_request_is_printed_as_it_came_without_what_lets_others_in(kind: str) -> None:
    request = check_request(path="/orders", source_principal="spiffe://a/b", **{kind: (*SECRETS, ("x-kept", "yes"))})
    with capturing() as capture:
        assert "every request is denied" in capture.words
        capture.ask(request, x_envoy_expected_rq_timeout_ms="600000")
        printed = capture.printed()
    assert "sesame" not in json.dumps(printed)
    assert "c2VzYW1l" not in json.dumps(printed)
    http = printed["attributes"]["request"]["http"]
    assert http["path"] == "/orders"
    assert printed["attributes"]["source"]["principal"] == "spiffe://a/b"
    deadline = printed["metadata"]["grpc-timeout"]
    assert deadline.endswith("0m")
    assert 5_000 < int(deadline[:-1]) <= 10_100  # rounded up
    assert printed["metadata"]["x-envoy-expected-rq-timeout-ms"] == "600000"
    if kind == "headers":
        assert {name: http["headers"][name] for name, _ in SECRETS} == {name: LEFT_OUT for name, _ in SECRETS}
        assert http["headers"]["x-kept"] == "yes"


def test_no_credential_is_overlooked_wherever_the_map_of_headers_has_it() -> None:
    for number in range(300):
        others = tuple((f"x-{number}-{other}", "kept") for other in range(number % 20))
        printed = json.loads(written(check_request(headers=(*SECRETS, *others)), {}, credentials=False))
        headers = printed["attributes"]["request"]["http"]["headers"]
        assert {headers[name] for name, _ in SECRETS} == {LEFT_OUT}
        assert {headers[name] for name, _ in others} <= {"kept"}


@pytest.mark.parametrize("kind", ["headers", "raw_headers"])
def test_a_token_is_left_out_wherever_it_stands(kind: str) -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzZXNhbWUifQ.c2VzYW1l"
    fields = (("x-forwarded-access-token", token), ("x-both", f"first {token}, last"), ("x-kept", "eyJ is no token"))
    path = f"/orders/{token}?Access_Token=sesame&page=2"
    request = check_request(path=path, **{kind: fields})
    text = written(request, {"x-token": token}, credentials=False)
    assert token not in text
    assert "sesame" not in text
    printed = json.loads(text)
    http = printed["attributes"]["request"]["http"]
    assert http["path"] == f"/orders/{LEFT_OUT}?Access_Token={LEFT_OUT}&page=2"
    assert printed["metadata"] == {"x-token": LEFT_OUT}
    shown = {
        "x-forwarded-access-token": LEFT_OUT,
        "x-both": f"first {LEFT_OUT}, last",
        "x-kept": "eyJ is no token",
        ":path": http["path"],
    }
    if kind == "headers":
        assert http["headers"].items() >= shown.items()
    else:
        raw = {header["key"]: b64decode(header["raw_value"]).decode() for header in http["header_map"]["headers"]}
        assert raw.items() >= shown.items()


def test_what_is_printed_can_do_nothing_to_a_terminal() -> None:
    text = written(check_request(headers=(("x-odd", "\x9b31m\u202e"),)), {}, credentials=False)
    assert text.isascii()


def test_credentials_are_printed_for_who_asks_for_them() -> None:
    with capturing("--with-credentials") as capture:
        capture.ask(check_request(headers=SECRETS))
        headers = capture.printed()["attributes"]["request"]["http"]["headers"]
    assert headers.items() >= dict(SECRETS).items()


def test_every_request_is_denied_and_one_of_another_path_is_not_the_one_to_print() -> None:
    with capturing("--path", "/orders") as capture:
        first = capture.check(check_request(path="/health"))
        assert (first.status.code, first.denied_response.status.code) == (7, 403)
        assert capture.running
        assert capture.ask(b"", "/grpc.health.v1.Health/Check") == b"\x08\x01"
        assert capture.check(check_request(path="/orders/7")).status.code == 7
        assert capture.printed()["attributes"]["request"]["http"]["path"] == "/orders/7"


def test_another_server_decides_meanwhile(tmp_path: Path) -> None:
    spec = server_spec(policies=["policy.yaml"])
    with (
        ServerProcess(tmp_path, spec, policy__yaml=route_policy(OPEN)) as server,
        capturing("--forward", server.address, "--path", "/open/2") as capture,
    ):
        assert f"{server.address} decides" in capture.words
        assert capture.check(check_request(path="/open/1")).status.code == 0
        assert capture.check(check_request(path="/closed")).status.code == 7
        assert capture.check(check_request(path="/open/2")).status.code == 0
        capture.printed()
    # what is not decided is not an answer: the proxy denies, or not, as it was told
    with capturing("--forward", server.address, "--path", "/no") as capture, pytest.raises(grpc.RpcError) as error:
        capture.check(check_request(path="/open/1"))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_doctor_and_check_read_what_was_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path, server_spec(policies=["policy.yaml"]), policy__yaml=route_policy(OPEN)) as server:
        config = str(server.config)
    with capturing() as capture:
        capture.ask(check_request(path="/open"), timeout=600)
        file = tmp_path / "captured.json"
        file.write_text(json.dumps(capture.printed()))
    assert main(["check", "--config", config, str(file)]) == 0
    capsys.readouterr()
    assert main(["doctor", "--config", config, "--request", str(file)]) == 1
    assert "waits 600 seconds" in capsys.readouterr().out


def test_an_address_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with capturing() as capture:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(main(["capture", "--listen", capture.address])))
        thread.start()
        thread.join(20)
        assert done == [2]
        assert f"cannot listen on `{capture.address}`" in capsys.readouterr().err
