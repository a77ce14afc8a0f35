"""Go programs built once into a cache outside the repository."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Unavailable, say

__all__ = ["Program", "build"]

FOLDER = Path(__file__).parent
BUILD_SECONDS = 1_800
"""Authorino brings the Kubernetes client libraries: minutes on a slow machine, once."""


@dataclass(frozen=True, slots=True)
class Program:
    """A Go program: `bench/peers/NAME/go.mod` and what to build in it.

    Attributes:
        name: of the folder and of the executable.
        package: the main package.
        module: whose version counts.
    """

    name: str
    package: str
    module: str

    @property
    def version(self) -> str:
        """As pinned."""
        text = (FOLDER / self.name / "go.mod").read_text()
        found = re.search(rf"{re.escape(self.module)} (v\S+)", text)
        if found is None:
            raise AssertionError(f"{self.name}/go.mod does not require {self.module}")
        return found[1]


def build(program: Program) -> Path:
    """The executable.

    Raises:
        Unavailable: there is no Go, or it could not be built; says why.
    """
    source = FOLDER / program.name
    inputs = b"".join(file.read_bytes() for file in sorted(source.glob("go.*")) + sorted(source.glob("*.go")))
    target = _cache() / f"{program.name}-{hashlib.sha256(inputs).hexdigest()[:12]}"
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise Unavailable("no Go toolchain on this machine")
    say(f"  building {program.name} {program.version} (once)")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [go, "build", "-o", str(target), program.package]
    try:
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"building takes more than {BUILD_SECONDS} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["go build failed"])[-1]
        raise Unavailable(f"it could not be built: {last}")
    return target


def go_version() -> str | None:
    """Of the toolchain, or None."""
    go = shutil.which("go")
    if go is None:
        return None
    done = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip().removeprefix("go version ") or None


def _cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "ext-authz" / "bench"
