#!/usr/bin/env python3
"""Write constraints.txt (versions for development) and the locks of the images (versions and hashes).

`lock.py` keeps the pinned versions and adds what is missing; `lock.py --upgrade` takes the newest of everything.
All Python versions and platforms are resolved together, so it does not matter where this runs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Versions that are known to work together, for reproducible installs: pip install -c constraints.txt '.[dev]'
# Written by `make lock`.
"""
OLDEST = "3.11.0"  # Debian 12 has 3.11.2
# what an image's build stage runs: the build backend, and the library that writes the SBOM
BUILD = ("cyclonedx-python-lib", "hatchling")
# of the extra `demo`; Envoy itself has an image of its own
DEMO = ("envoy-data-plane", "httpx")


def resolve(*options: str, output: Path) -> None:
    """Have uv write what `options` need; it asks the index that it is configured with and does not name it."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST]
    # constraints.txt has no markers: one version of each package, for every Python
    command += ["--fork-strategy", "fewest"]
    subprocess.run(
        [*command, "--no-annotate", "--no-header", "--no-emit-index-url", "--output-file", str(output), *options],
        cwd=ROOT,
        check=True,
    )


def pins(text: str) -> list[str]:
    """The `name==version` of each line, without markers and comments, sorted."""
    return sorted(set(re.findall(r"^[a-z0-9._-]+==[^\s;]+", text, re.MULTILINE)), key=lambda pin: pin.split("=="))


def locks() -> dict[str, tuple[str, ...]]:
    """Name of a lock and the lines of requirements that it resolves, the project's own dependencies included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    server = (*project["dependencies"], *extras["otel"])
    demo = (*server, *(line for line in extras["demo"] if line.startswith(DEMO)))
    return {"build": BUILD, "server": server, "demo": demo}


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    kept = [] if parser.parse_args().upgrade else ["--constraint", str(CONSTRAINTS)]
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "constraints.txt"
        resolve("--extra", "dev", *kept, "pyproject.toml", output=output)
        found = [pin for pin in pins(output.read_text()) if not pin.startswith("ext-authz==")]
        CONSTRAINTS.write_text(HEADER + "".join(f"{pin}\n" for pin in found))
        for name, requirements in locks().items():
            asked, locked = Path(scratch) / f"{name}.in", Path(scratch) / f"{name}.txt"
            asked.write_text("\n".join(requirements))
            resolve("--generate-hashes", "--constraint", str(CONSTRAINTS), str(asked), output=locked)
            head = f"# Versions and hashes of what the image's stage `{name}` installs. Written by `make lock`.\n"
            (ROOT / "supply_chain" / f"requirements-{name}.txt").write_text(head + locked.read_text())
    print(f"lock: {len(found)} versions")


if __name__ == "__main__":
    main()
