"""Custom resources against the definitions that the projects themselves publish, judged by Kubernetes' own code.

The definitions come with Go modules, pinned here by version and checksum, and are read where the Go toolchain keeps them:
nothing of them is in this repository. The judge is `tests/charts/custom_resources`, which is built once into a cache.
"""

import atexit
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

__all__ = ["MAY_BUILD", "NEWEST", "OLDEST", "Module", "judge", "program", "require_go"]

PROGRAM = Path(__file__).parents[1] / "charts" / "custom_resources"
BUILD_SECONDS = 900
"""The API server's libraries are large: a minute or two, once."""
DOWNLOAD_SECONDS = 300
MAY_BUILD = pytest.mark.timeout(BUILD_SECONDS + DOWNLOAD_SECONDS)
"""For tests that ask the judge: one of them is the first."""
GO = (1, 26)
"""Of the API server's libraries."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module that carries CustomResourceDefinitions.

    Attributes:
        name: path of the module, and its version after `@`.
        checksum: as the checksum database has it.
        files: patterns of the files with definitions, in the module.
    """

    name: str
    checksum: str
    files: tuple[str, ...]


_CERT_MANAGER = Module(
    "github.com/cert-manager/cert-manager@v1.21.2",
    "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
    ("deploy/crds/cert-manager.io_certificates.yaml",),
)
_PROMETHEUS_OPERATOR = Module(
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    tuple(
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        for kind in ("podmonitors", "prometheusrules", "servicemonitors")
    ),
)
_CONTOUR = Module(
    "github.com/projectcontour/contour@v1.33.8",
    "h1:QoOfwqWws+CVRFpsRC2+f1DmB5IdurtyUtepIsiWfE0=",
    ("examples/contour/01-crds.yaml",),
)


def _istio(version: str, checksum: str) -> Module:
    return Module(f"istio.io/api@{version}", checksum, ("kubernetes/customresourcedefinitions.gen.yaml",))


def _gateway_api(version: str, checksum: str) -> Module:
    return Module(f"sigs.k8s.io/gateway-api@{version}", checksum, ("config/crd/experimental/*.yaml",))


def _envoy_gateway(version: str, checksum: str) -> Module:
    folder = "charts/gateway-helm/**/generated"
    kinds = ("clienttrafficpolicies", "securitypolicies")
    files = tuple(f"{folder}/gateway.envoyproxy.io_{kind}.yaml" for kind in kinds)
    return Module(f"github.com/envoyproxy/gateway@{version}", checksum, files)


NEWEST = (
    _istio("v1.31.1", "h1:5Yb5ihcz4YQsCkciusK7DnFpBMwRB6EFWeUKH1Atuyk="),
    _gateway_api("v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc="),
    _envoy_gateway("v1.9.1", "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY="),
    _CERT_MANAGER,
    _PROMETHEUS_OPERATOR,
    _CONTOUR,
)
"""What is current."""

OLDEST = (
    _istio("v1.24.2", "h1:jYjcN6Iq0RPtQj/3KMFsybxmfqmjGN/dxhL7FGJEdIM="),
    _gateway_api("v1.4.1", "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8="),
    _envoy_gateway("v1.8.0", "h1:pn5TYSteO1zZjUMPVXGY7ayFDhZAZZWAQ+yDgVzj78o="),
    _CERT_MANAGER,
    _PROMETHEUS_OPERATOR,
    _CONTOUR,
)
"""What our objects still fit: from Istio 1.24, the Gateway API 1.4 and Envoy Gateway 1.8 on."""


@cache
def _go() -> str | None:
    """A toolchain that is new enough, or None."""
    go = shutil.which("go")
    if go is None:
        return None
    done = _run(go, "env", "GOVERSION")
    numbers = done.removeprefix("go").split(".")
    return go if done.startswith("go1") and (int(numbers[0]), int(numbers[1])) >= GO else None


def require_go() -> str:
    """Skip the test where there is no toolchain."""
    go = _go()
    if go is None:
        pytest.skip(
            "custom resources are judged by their definitions in Go modules, and there is no Go 1.26 or later here"
        )
    return go


def judge(manifest: dict[str, Any], modules: tuple[Module, ...] = NEWEST) -> list[str] | None:
    """What the API server would say against the object; None when no module has a definition of its kind."""
    process = _judge(modules)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(manifest) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise AssertionError("the judge of custom resources ended by itself")
    wrong: list[str] | None = json.loads(answer)
    return wrong


@cache
def _judge(modules: tuple[Module, ...]) -> subprocess.Popen[str]:
    """Runs as long as the tests do, and ends when its input does."""
    command = [str(program()), *map(str, _definitions(modules))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def _definitions(modules: tuple[Module, ...]) -> Iterator[Path]:
    wanted = {module.name: module for module in modules}
    text = _downloaded("-json", *wanted, folder=_cache())
    while text := text.lstrip():
        facts, end = json.JSONDecoder().raw_decode(text)
        text = text[end:]
        module = wanted.pop(f"{facts['Path']}@{facts['Version']}")
        if facts["Sum"] != module.checksum:
            raise AssertionError(f"{module.name} has the checksum {facts['Sum']}")
        for pattern in module.files:
            paths = sorted(Path(facts["Dir"]).glob(pattern))
            assert paths, f"{module.name} has no {pattern}"
            yield from paths
    assert not wanted


def program() -> Path:
    """The judge's executable, built once for all who test at the same time."""
    inputs = b"".join(path.read_bytes() for path in sorted(PROGRAM.glob("*.go")) + sorted(PROGRAM.glob("go.*")))
    target = _cache() / f"custom_resources-{hashlib.sha256(inputs).hexdigest()[:12]}"
    with _alone():
        if not target.exists():
            made = target.with_suffix(".new")
            _downloaded(folder=PROGRAM)
            _run(require_go(), "build", "-o", str(made), ".", cwd=PROGRAM, seconds=BUILD_SECONDS)
            made.rename(target)
    return target


def _downloaded(*arguments: str, folder: Path) -> str:
    """Modules that are there already are not asked for again; where the others cannot be had, the test is skipped."""
    try:
        return _run(require_go(), "mod", "download", *arguments, cwd=folder)
    except AssertionError as error:
        pytest.skip(f"the definitions of custom resources are Go modules, and not all could be had: {error}")


def _cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(caches) if caches else Path.home() / ".cache") / "ext-authz" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str, cwd: Path | None = None, seconds: int = DOWNLOAD_SECONDS) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command[:3])} failed: {done.stderr or done.stdout}")
    return done.stdout
