"""Each subcommand: what it prints, where, and what it exits with."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf import json_format
from support.check_requests import check_request_message
from support.jwks_endpoint import JwksEndpoint
from support.pki import authority, ec_key, self_signed, xfcc
from support.server import document, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, NOW, access_token, cnf_for, jwks, signing_key

from ext_authz import __version__
from ext_authz.authorizer import Examination
from ext_authz.cli import main as main_module
from ext_authz.cli import serve, validate
from ext_authz.cli.explain import explanation
from ext_authz.cli.main import command_line, main
from ext_authz.decision import Deny
from ext_authz.errors import ConfigurationError, Reason
from ext_authz.facts import Provenance, RequestFacts
from ext_authz.principal import Peer, TrustedBy
from ext_authz.runtime.assembly import Assembly, assemble
from ext_authz.spiffe import SpiffeId
from ext_authz.telemetry.line_sink import LineSink, Text

CALLER = self_signed()
ROOT = authority("cluster.local")
SVID = ROOT.svid("spiffe://cluster.local/ns/a/sa/b", key=ec_key("svid"))
RULES: tuple[dict[str, object], ...] = (
    {"name": "public", "matches": [{"path": {"type": "Exact", "value": "/public"}}], "public": True},
    {
        "name": "bound",
        "matches": [{"path": {"value": "/bound"}}],
        "require": {"token": {"issuers": ["corp"], "scopes": {"all": ["read"]}}},
        "inject": {
            "request_headers": {"x-subject": "${token.sub}"},
            "remove_request_headers": ["authorization"],
            "response_headers": {"x-decided": "yes"},
            "set_query_parameters": {"by": "gateway"},
            "remove_query_parameters": ["debug"],
        },
    },
    {
        "name": "peer",
        "matches": [{"path": {"value": "/peer"}}],
        "require": {"peer": {"spiffe": ["spiffe://cluster.local/ns/a/sa/*"]}},
    },
    {"name": "network", "matches": [{"path": {"value": "/net"}}], "require": {"source_ips": ["10.0.0.0/8"]}},
)


def configuration(folder: Path, keys: dict[str, object] | None = None, **spec: Any) -> str:
    """A server whose keys are in a file, unless said otherwise."""
    (folder / "jwks.json").write_bytes(jwks(signing_key()))
    (folder / "bundle.pem").write_bytes(ROOT.pem)
    (folder / "policy.yaml").write_text(route_policy(*RULES))
    parts: dict[str, Any] = {
        "evidence": {
            "certificate_sources": [{"type": "source-certificate"}, {"type": "xfcc", "trusted_hops": 1}],
            "chain_verified_by": "bundles",
        },
        "trust_bundles": [{"trust_domain": "cluster.local", "files": ["bundle.pem"]}],
        "issuers": [{"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": keys or {"file": "jwks.json"}}],
        "policies": ["policy.yaml"],
        **spec,
    }
    target = folder / "server.yaml"
    target.write_text(document("Server", "test", server_spec(**parts)))
    return str(target)


def request_file(folder: Path, **parts: Any) -> str:
    target = folder / "request.json"
    target.write_text(json_format.MessageToJson(check_request_message(**parts)))
    return str(target)


def bound(folder: Path, **parts: Any) -> str:
    token = access_token(now=NOW, **{"cnf": cnf_for(CALLER.der), "scope": "read", **parts})
    return request_file(
        folder, path="/bound?q=1", headers={"authorization": f"Bearer {token}", "x-forwarded-client-cert": xfcc(CALLER)}
    )


def check(folder: Path, request: str, *options: str, config: str | None = None) -> int:
    return main(["check", "--config", config or configuration(folder), "--now", str(NOW), *options, request])


def test_an_allowed_request_exits_with_0_and_prints_the_response(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, bound(tmp_path)) == 0
    printed = capsys.readouterr()
    response = json.loads(printed.out)
    assert response["status"] == {}
    header = response["ok_response"]["headers"][0]
    assert header["header"]["key"] == "x-subject"
    assert header["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    assert printed.err == ""


def test_a_denied_request_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, request_file(tmp_path, path="/bound")) == 1
    response = json.loads(capsys.readouterr().out)
    assert response["status"]["code"] == 16
    assert response["denied_response"]["status"]["code"] == "Unauthorized"


@pytest.mark.parametrize(
    ("parts", "code", "lines"),
    [
        (
            {"path": "/public?token=s3cret", "destination_principal": "spiffe://a/b"},
            0,
            ['"GET" "api.example.com" "/public"', '10.0.0.7 to "spiffe://a/b"', "public of policy test: public"],
        ),
        ({"path": "/nowhere\x1b", "source_address": "/socket"}, 1, ["none selected", "an address that is not IP"]),
        ({"path": "/peer"}, 1, ["requires peer", "no evidence of a client certificate", "(peer_missing)"]),
        (
            {"path": "/peer", "source_certificate": SVID.url_encoded_pem},
            0,
            ["spiffe://cluster.local/ns/a/sa/b, verified by bundle", SVID.x5t_s256, "read from source.certificate"],
        ),
        (
            {"path": "/peer", "source_certificate": CALLER.url_encoded_pem},
            1,
            ["no identity: ", "deny with 403"],
        ),
        ({"path": "/net"}, 0, ["requires a source"]),
        ({"path": "/bound"}, 1, ["token     none, refused, or not reached", "deny with 401 (token_missing)"]),
    ],
)
def test_explain_tells_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: dict[str, Any], code: int, lines: list[str]
) -> None:
    assert check(tmp_path, request_file(tmp_path, **parts), "--explain") == code
    error = capsys.readouterr().err
    for line in lines:
        assert line in error
    assert "s3cret" not in error
    assert "\x1b" not in error


def test_explain_tells_the_token_its_binding_and_every_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, bound(tmp_path), "--explain") == 0
    error = capsys.readouterr().err
    for line in (
        'of issuer corp, subject "alice", client',
        "scopes read; expires 2027-01-15T08:05:00Z",
        f"binding   x5t#S256 {CALLER.x5t_s256}",
        'set request header x-subject: "alice"',
        "remove request header authorization",
        'set response header x-decided: "yes"',
        'set query parameter "by": "gateway"',
        'remove query parameter "debug"',
        "allow (ok)",
    ):
        assert line in error


def test_explain_tells_why_a_token_without_binding_or_scope_is_denied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unbound = access_token(now=NOW)
    headers = {"authorization": f"Bearer {unbound}"}
    assert check(tmp_path, request_file(tmp_path, path="/bound", headers=headers), "--explain") == 1
    error = capsys.readouterr().err
    assert "the token is bound to no key" in error
    assert "(binding_missing)" in error


def test_a_request_that_is_no_http_is_denied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "request.json").write_text("{}")
    assert check(tmp_path, str(tmp_path / "request.json"), "--explain") == 1
    assert "(request_without_http)" in capsys.readouterr().err


def test_the_request_may_come_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json_format.MessageToJson(check_request_message(path="/public"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert check(tmp_path, "-") == 0


def test_remote_keys_are_fetched_when_the_token_needs_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JwksEndpoint(jwks(signing_key())) as endpoint:
        config = configuration(tmp_path, {"url": endpoint.url})
        assert check(tmp_path, request_file(tmp_path, path="/public"), config=config) == 0
        assert endpoint.requests == 0
        assert check(tmp_path, bound(tmp_path), "--explain", config=config) == 0
        assert endpoint.requests == 1
        assert "keys      of issuer corp fetched: 1 usable" in capsys.readouterr().err
        endpoint.status = 500
        assert check(tmp_path, bound(tmp_path), "--explain", config=config) == 1
        error = capsys.readouterr().err
        assert "could not be fetched" in error
        assert "(signing_keys_unavailable)" in error


def test_keys_may_be_given_offline(tmp_path: Path) -> None:
    config = configuration(tmp_path, {"url": "http://127.0.0.1:1/jwks"})
    given = f"corp={tmp_path}/jwks.json"
    assert check(tmp_path, bound(tmp_path), "--jwks", given, config=config) == 0
    # keys that are given are not looked for elsewhere
    unknown = access_token(now=NOW, header={"kid": "unknown"})
    headers = {"authorization": f"Bearer {unknown}"}
    assert check(tmp_path, request_file(tmp_path, path="/bound", headers=headers), "--jwks", given, config=config) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--jwks", "other={folder}/jwks.json"], "no issuer is called `other`; configured: corp"),
        (["--jwks", "corp={folder}/policy.yaml"], "policy.yaml: "),
        (["--jwks", "corp={folder}/missing.json"], "missing.json: No such file or directory"),
    ],
)
def test_keys_that_cannot_be_used_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    options = [argument.format(folder=tmp_path) for argument in arguments]
    assert check(tmp_path, bound(tmp_path), *options) == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("text", ["nonsense", '{"other": 1}', "1", '{"attributes":' * 500])
def test_a_file_that_is_no_request_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "request.json").write_text(text)
    assert check(tmp_path, str(tmp_path / "request.json")) == 2
    assert "not a CheckRequest in protobuf JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--now", "yesterday"], ["--now", "nan"], ["--now", "2026-11-22T10:00:00"], ["--jwks", "corp"], ["--jwks", "=x"]],
)
def test_options_that_make_no_sense_exit_with_2(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--config", "x", *options, "-"])
    assert ended.value.code == 2
    del tmp_path


@pytest.mark.parametrize("now", ["2027-01-15T07:59:00Z", "2027-01-15T08:59:00+01:00", "1800000000"])
def test_the_time_may_be_written_in_two_ways(tmp_path: Path, now: str) -> None:
    config = configuration(tmp_path)
    assert main(["check", "--config", config, "--now", now, bound(tmp_path)]) == 0


def test_without_a_time_it_is_now(tmp_path: Path) -> None:
    # the token will be valid from 2027 on
    assert main(["check", "--config", configuration(tmp_path), bound(tmp_path, exp=1)]) == 1


def test_warnings_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(tmp_path)
    monkeypatch.setattr("ext_authz.cli.check.assemble", with_warning)
    assert check(tmp_path, request_file(tmp_path, path="/public"), config=config) == 0
    assert "warning: careful" in capsys.readouterr().err


def with_warning(path: str) -> Assembly:
    assembly = assemble(path)
    return replace(assembly, configuration=replace(assembly.configuration, warnings=("careful",)))


def test_validate_says_ok_for_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path)
    policy = str(tmp_path / "policy.yaml")
    assert main(["validate", config, policy]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{config}: ok\n{policy}: ok\n"


def test_validate_prints_every_problem_of_every_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path, policies=["bad.yaml"], lisener={})
    (tmp_path / "bad.yaml").write_text(route_policy({"name": "open", "matches": [{}]}))
    assert main(["validate", config, str(tmp_path / "bad.yaml"), str(tmp_path / "missing.yaml")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "lisener" in printed.err
    assert "bad.yaml" in printed.err
    assert "missing.yaml" in printed.err
    assert len(printed.err.splitlines()) == len(set(printed.err.splitlines()))


def test_validate_prints_warnings_and_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "assemble", with_warning)
    assert main(["validate", configuration(tmp_path)]) == 0
    assert "warning: careful" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "title"), [("server", "Server"), ("policy", "RoutePolicy"), ("RequirementSet", "RequirementSet")]
)
def test_schemas_are_printed_as_json(capsys: pytest.CaptureFixture[str], kind: str, title: str) -> None:
    assert main(["schema", kind]) == 0
    assert title in json.loads(capsys.readouterr().out)["title"]


def test_without_a_kind_the_schema_is_of_any_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"ServerDocument", "RoutePolicyDocument"} <= set(schema["$defs"])


def expectations(folder: Path, decision: str) -> str:
    target = folder / "tests.yaml"
    case = {"name": "public", "request": {"path": "/public"}, "expect": {"decision": decision}}
    target.write_text(document("PolicyTests", "t", {"cases": [case]}))
    return str(target)


@pytest.mark.parametrize(
    ("decision", "code", "last"), [("allow", 0, "1/1 as expected"), ("deny", 1, "0/1 as expected")]
)
def test_expected_decisions_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decision: str, code: int, last: str
) -> None:
    config = configuration(tmp_path)
    arguments = ["test", str(tmp_path / "policy.yaml"), expectations(tmp_path, decision)]
    assert main([*arguments, "--config", config]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert lines[0] == ("ok   public" if code == 0 else "FAIL public")
    assert len(lines) == (2 if code == 0 else 3)
    assert main(arguments) == code


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ext-authz {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["serve"], ["check", "--config", "x"], ["validate"]])
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_the_overview_is_the_same_whether_or_not_commands_are_imported() -> None:
    assert command_line(()).format_help() == command_line().format_help()


def test_the_overview_imports_no_command() -> None:
    code = "import sys; from ext_authz.cli.main import main; main(sys.argv[1:])"
    shown = (
        "print(sorted(set(sys.modules) & {'asyncio', 'cryptography', 'google.protobuf', 'grpc', 'httpx', 'pydantic'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys; atexit.register(lambda: {shown}); {code}", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("usage: ext-authz")
    assert done.stdout.splitlines()[-1] == "[]"


class Command:
    """Stands for a subcommand that ends with an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(main_module, "_COMMANDS", {"fail": ("fail", "fail")})
        monkeypatch.setattr(main_module, "import_module", lambda _: self)

    def add_to(self, commands: Any) -> None:
        commands.add_parser("fail").set_defaults(run=self.run)

    def run(self, _: object) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigurationError(("a: b", "c: d")), 2, "a: b\nc: d\n"),
        (OSError("cannot listen"), 2, "ext-authz: cannot listen\n"),
        (PermissionError(13, "Permission denied"), 2, "ext-authz: Permission denied\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "ext-authz: x: No such file or directory\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_plain_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    Command(error).stand_in(monkeypatch)
    assert main(["fail"]) == code
    assert capsys.readouterr().err == text


def test_a_broken_pipe_ends_the_command_with_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    moved: list[int] = []

    def dup2(descriptor: int, _: int) -> None:
        moved.append(descriptor)
        os.close(descriptor)

    Command(BrokenPipeError()).stand_in(monkeypatch)
    with monkeypatch.context() as patch:
        # pytest's own capturing needs the real one back
        patch.setattr(os, "dup2", dup2)
        assert main(["fail"]) == 1
    assert len(moved) == 1
    assert capfd.readouterr().err == ""


def test_explain_tells_a_peer_without_thumbprint_and_a_denial_without_detail() -> None:
    rule = SimpleNamespace(name="r", policy="p", public=False, needs_peer=True, needs_token=False, binding=None)
    peer = Peer(
        thumbprint=None,
        certificate=None,
        spiffe_id=SpiffeId.parse("spiffe://a/b"),
        trusted_by=TrustedBy.PROXY,
        identity_refusal=None,
        provenance=(Provenance.SOURCE_PRINCIPAL,),
    )
    seen = Examination(selection=cast("Any", SimpleNamespace(rule=rule)), peer=peer)
    lines = explanation(RequestFacts(method="GET", path="/", host="h"), seen, Deny(Reason.CLIENT_NOT_ALLOWED, 403))
    assert lines[-3:] == [
        "peer      spiffe://a/b, verified by proxy",
        "          read from source.principal",
        "decision  deny with 403 (client_not_allowed)",
    ]


def test_serving_a_configuration_that_is_not_there_exits_with_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", str(tmp_path / "missing.yaml")]) == 2
    assert "missing.yaml" in capfd.readouterr().err


def test_serving_without_standard_output_exits_with_2(tmp_path: Path) -> None:
    command = 'exec "$0" -m ext_authz serve --config "$1" >&-'
    arguments = ["sh", "-c", command, sys.executable, str(tmp_path / "server.yaml")]
    ended = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (
        2,
        "ext-authz: standard output is closed, and decisions are logged there\n",
    )


def test_serving_ends_with_0(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    class Served:
        def __init__(self, path: str, sink: LineSink) -> None:
            sink.put(Text(path))

        async def run(self) -> None:
            """Nothing to serve."""

    monkeypatch.setattr(serve, "Server", Served)
    assert main(["serve", "--config", "x.yaml"]) == 0
    assert capfd.readouterr().out == "x.yaml\n"


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "ext_authz", "schema"], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert process.returncode == 1
    assert process.stderr == b""
