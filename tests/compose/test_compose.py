"""docker-compose.yml, run for real by tests/compose/run on an engine of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = Path(__file__).with_name("run")
_SKIPPED = 77


@pytest.mark.slow
@pytest.mark.compose
@pytest.mark.timeout(1_200)
def test_the_compose_file_runs_unmodified_and_every_scenario_is_as_expected() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [_RUN],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    sys.stdout.write(done.stdout)
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    if done.returncode == _SKIPPED:
        pytest.skip(last)
    assert done.returncode == 0, last
    assert last.startswith("compose: as expected")
