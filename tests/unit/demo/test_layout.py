"""What the demo writes before anything starts: configuration that every part accepts, and its own description."""

import json
import socket
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from ext_authz.config.load import load
from ext_authz.demo.commands import commands_to_try
from ext_authz.demo.layout import Placement, Ports, prepare
from ext_authz.demo.oauth_client import clients_from_file
from ext_authz.demo.ports import are_free, choose_ports
from ext_authz.demo.stack import STACK_FILE, Stack

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "run"
    prepare(directory, Placement(), NOW)
    return directory


@pytest.fixture(scope="module")
def stack(directory: Path) -> Stack:
    return Stack.read(directory / STACK_FILE)


def test_the_server_configuration_loads_without_findings(directory: Path) -> None:
    configuration = load(str(directory / "ext-authz.yaml"))
    assert configuration.warnings == ()
    assert configuration.insecure == ()
    assert {policy.name for policy in configuration.policies} == {"billing", "catalog", "edge", "tenant-a"}


def test_no_placeholder_is_left_unfilled(directory: Path) -> None:
    for file in directory.rglob("*"):
        assert file.is_dir() or "{{" not in file.read_text(), file


def test_a_second_layout_replaces_the_first(tmp_path: Path) -> None:
    for now in (NOW, NOW + 1):
        stack = prepare(tmp_path, Placement(), now)
    assert Stack.read(tmp_path / STACK_FILE) == stack


def test_keys_are_in_a_directory_for_the_owner_alone(directory: Path) -> None:
    assert directory.stat().st_mode & 0o077 == 0


def test_the_batch_client_is_registered_with_the_certificate_it_has(directory: Path) -> None:
    (thumbprint,) = clients_from_file(directory / "clients.json")["batch"].certificate_thumbprints
    assert len(thumbprint) == 43


def test_envoy_closes_when_nobody_decides_and_shares_no_port(directory: Path) -> None:
    config = Bootstrap.from_json((directory / "envoy.json").read_text())
    assert config.static_resources is not None
    text = (directory / "envoy.json").read_text()
    assert "failureModeAllow" not in text
    for listener in config.static_resources.listeners:
        assert listener.enable_reuse_port is False
    checked = [name for name in ("billing", "catalog", "edge", "plain") if f'"{name}"' in text]
    assert text.count('"validateMutations": true') == len(checked)
    assert text.count('"code": "ServiceUnavailable"') == len(checked)


def test_containers_see_the_directory_where_it_is_mounted(tmp_path: Path) -> None:
    stack = prepare(tmp_path, Placement.containers("/demo"), NOW)
    assert stack.issuer == "https://auth.example.com:10446"
    envoy = (tmp_path / "envoy.json").read_text()
    assert str(tmp_path) not in envoy + (tmp_path / "authorization-server.json").read_text()
    assert json.loads((tmp_path / "authorization-server.json").read_text())["clients_file"] == "/demo/clients.json"
    assert '"authorization-server"' in envoy
    load(str(tmp_path / "ext-authz.yaml"))


def test_a_stack_reads_back_as_it_was_written(directory: Path, stack: Stack) -> None:
    assert set(stack.endpoints) == {"billing", "catalog", "edge", "auth", "plain"}
    assert stack.endpoints["plain"].is_tls is False
    for name in stack.credentials:
        assert Path(stack.credential(name).key_file).is_file()
    assert stack.directory == directory


@pytest.mark.parametrize("text", ["{}", "[]", '{"endpoints": {"a": {"port": 1}}}', '{"endpoints": []}', "nonsense"])
def test_a_file_that_describes_no_stack_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / STACK_FILE).write_text(text)
    with pytest.raises(ValueError, match="does not describe a stack"):
        Stack.read(tmp_path / STACK_FILE)


def test_the_decision_log_is_a_file_or_what_a_command_prints(directory: Path, stack: Stack, tmp_path: Path) -> None:
    (directory / "ext-authz.log").write_text("one\ntwo\n")
    assert stack.decision_log() == ["one", "two"]
    endpoints, credentials = stack.endpoints, stack.credentials
    command = ("echo", "three")
    from_command = Stack(tmp_path, endpoints, stack.issuer, stack.ca_file, credentials, decision_log_command=command)
    assert from_command.decision_log() == ["three"]
    missing = ("no-such-command-here",)
    unreadable = Stack(tmp_path, endpoints, stack.issuer, stack.ca_file, credentials, decision_log_command=missing)
    assert unreadable.decision_log() is None


def test_the_commands_name_the_stacks_own_files(stack: Stack) -> None:
    commands = commands_to_try(stack)
    assert f"--resolve billing.example.com:10443:127.0.0.1 --cert {stack.directory}/client-mywebsite.pem" in commands
    assert commands.count("\n# ") == 4


def test_the_documented_ports_are_used_unless_one_is_taken() -> None:
    ports = Ports()
    numbers = (ports.billing, ports.upstream)
    if not are_free(numbers):
        pytest.skip("a demo runs on this machine")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.upstream))
        taken.listen()
        assert not are_free(numbers)
        assert Ports.free() != ports


def test_chosen_ports_are_free_and_different() -> None:
    ports = choose_ports(5)
    assert len(set(ports)) == 5
    assert are_free(ports)
