"""The whole of it: start, watch, ask, draw."""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from dashboard.panels import answered
from dashboard.picture import draw
from dashboard.prometheus import prometheus
from dashboard.scene import perform, scene

TARGET = Path(__file__).parents[2] / "docs" / "assets" / "dashboard.png"
SECONDS = 300.0


def main() -> None:
    """Make the picture; `--answers` keeps what Prometheus said, or draws it again when it is there."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to watch")
    parser.add_argument(
        "--answers", type=Path, help="file with Prometheus's answers: written, or drawn when it is there"
    )
    given = parser.parse_args()
    # told to stop, it ends as it would by itself, and takes its servers with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if given.answers is not None and given.answers.exists():
        answers = json.loads(given.answers.read_text())
    else:
        answers = watched(given.seconds)
        if given.answers is not None:
            given.answers.write_text(json.dumps(answers))
    draw(answers, TARGET)
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size // 1024} KB\n")


def watched(seconds: float) -> dict[str, object]:
    """Prometheus's answers after so long."""
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder)) as played:
        targets = {
            f"ext-authz-{name}": server.events("listening")[0]["admin"]
            for name, server in zip("ab", played.servers, strict=True)
        }
        with prometheus(Path(folder), targets) as asked:
            start = time.time()
            perform(played, seconds)
            # the first moments have no rates yet
            return answered(asked, start + 10, time.time())


if __name__ == "__main__":
    main()
