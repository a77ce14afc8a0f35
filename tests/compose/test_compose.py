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
    process = subprocess.Popen(
        [_RUN], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        # it takes its engine down itself
        process.terminate()
        process.communicate(timeout=120)
        raise
    sys.stdout.write(output)
    last = output.splitlines()[-1] if output else ""
    if process.returncode == _SKIPPED:
        pytest.skip(last)
    assert process.returncode == 0, last
    assert last.startswith("compose: as expected")
