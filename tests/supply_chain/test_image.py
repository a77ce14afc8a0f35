"""The image, built twice and run for real by tests/supply_chain/image on a container engine of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = Path(__file__).with_name("image")
_SKIPPED = 77


@pytest.mark.slow
@pytest.mark.compose
@pytest.mark.timeout(1_200)
def test_two_builds_give_the_same_layers_and_the_image_runs_without_shell_root_or_anything_to_write_to() -> None:
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
    assert last.startswith("image: as expected")
