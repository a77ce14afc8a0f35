"""Starting the stack: what is shown when a part does not come up, and what is left of the others."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext_authz.cli import demo as demo_command
from ext_authz.cli.main import main
from ext_authz.demo import run
from ext_authz.demo.ports import are_free


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The demo takes SIGTERM and SIGHUP for itself; give them back."""
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(kind) for kind in kinds]
    yield
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


@pytest.fixture
def broken_envoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "envoy"
    script.write_text("#!/bin/sh\necho 'this Envoy cannot start'\nexit 4\n")
    script.chmod(0o755)
    monkeypatch.setattr(run, "envoy_binary", lambda: script)


@pytest.mark.usefixtures("broken_envoy")
def test_a_part_that_does_not_come_up_is_named_with_its_log_and_the_others_are_taken_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["demo", "--once", "--any-ports", "--directory", str(tmp_path / "run")])
    printed = capsys.readouterr()
    assert code == 1
    assert "envoy ended with status 4" in printed.err
    assert "    this Envoy cannot start" in printed.err
    upstream = next(line for line in printed.out.splitlines() if "upstream" in line)
    assert are_free((int(upstream.rpartition(":")[2]),))


def test_without_its_packages_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_command, "find_spec", lambda _: None)
    directory = str(tmp_path / "run")
    for arguments in (["--once", "--directory", directory], ["prepare", directory], ["scenarios", "--against", "x"]):
        assert main(["demo", *arguments]) == 2
    assert capsys.readouterr().err.count("pip install 'ext-authz[demo]'") == 3
    assert not Path(directory).exists()


def test_the_files_for_containers_are_written_without_starting_anything(tmp_path: Path) -> None:
    assert main(["demo", "prepare", str(tmp_path / "run"), "--root", "/mounted"]) == 0
    assert "/mounted/clients.json" in (tmp_path / "run" / "authorization-server.json").read_text()


def test_the_files_for_containers_are_kept_while_they_are_young(tmp_path: Path) -> None:
    written = tmp_path / "stack.json"
    assert main(["demo", "prepare", str(tmp_path), "--keep-hours", "12"]) == 0
    first = (tmp_path / "cluster.local.pem").read_bytes()
    assert main(["demo", "prepare", str(tmp_path), "--keep-hours", "12"]) == 0
    assert (tmp_path / "cluster.local.pem").read_bytes() == first
    half_a_day_ago = written.stat().st_mtime - 12 * 3_600 - 1
    os.utime(written, (half_a_day_ago, half_a_day_ago))
    assert main(["demo", "prepare", str(tmp_path), "--keep-hours", "12"]) == 0
    second = (tmp_path / "cluster.local.pem").read_bytes()
    assert second != first
    assert main(["demo", "prepare", str(tmp_path)]) == 0
    assert (tmp_path / "cluster.local.pem").read_bytes() != second


def test_a_stack_file_that_is_missing_or_wrong_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "scenarios", "--against", str(tmp_path / "stack.json")]) == 2
    (tmp_path / "stack.json").write_text("{}")
    assert main(["demo", "scenarios", "--against", str(tmp_path / "stack.json")]) == 2
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 2
    assert all("stack.json" in complaint for complaint in complaints)
