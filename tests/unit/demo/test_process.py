"""A child process that ends with its parent, however the parent ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ext_authz.demo.process import Process, ProcessFailed

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # an ended process stays in the table until somebody asks for its status
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_process_is_ready_when_it_says_so_and_gone_when_stopped(tmp_path: Path) -> None:
    process = Process("sleeper", SLEEP, tmp_path / "log")
    process.start()
    process.wait_until(lambda: process.log_tail() == "up", 10)
    pid = process.pid
    process.stop()
    assert not is_running(pid)


def test_a_process_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = Process("faulty", [sys.executable, "-c", "print('no such file'); raise SystemExit(3)"], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessFailed, match="faulty ended with status 3") as failed:
        process.wait_until(lambda: False, 10)
    assert failed.value.log_tail == "no such file"
    process.stop()


def test_a_process_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    process = Process("sleeper", SLEEP, tmp_path / "log")
    process.start()
    try:
        with pytest.raises(ProcessFailed, match=r"was not ready after 0\.2 s"):
            process.wait_until(lambda: False, 0.2)
    finally:
        process.stop()


def test_a_process_gets_only_the_environment_it_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ.get('GIVEN'), os.environ.get('HOME'))"]
    process = Process("child", command, tmp_path / "log", {"GIVEN": "yes", "PYTHONPATH": os.pathsep.join(sys.path)})
    process.start()
    assert eventually(lambda: process.log_tail() == "yes None")
    process.stop()


def test_stopping_what_was_never_started_does_nothing(tmp_path: Path) -> None:
    process = Process("never", SLEEP, tmp_path / "log")
    process.stop()
    with pytest.raises(ValueError, match="was not started"):
        _ = process.pid
    assert process.log_tail() == ""


@pytest.mark.parametrize("ignores_term", [False, True], ids=["kindly", "by force"])
def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path, ignores_term: bool) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if ignores_term else ""
    child = f"{ignore}import time; print('up', flush=True); time.sleep(60)"
    parent = (
        "import sys, time; from pathlib import Path; from ext_authz.demo.process import Process\n"
        f"process = Process('child', [sys.executable, '-c', {child!r}], Path({str(tmp_path / 'log')!r}))\n"
        "process.start(); process.wait_until(lambda: process.log_tail() == 'up', 20)\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        assert is_running(pid)
        running.send_signal(signal.SIGKILL)
    assert eventually(lambda: not is_running(pid), 15)
