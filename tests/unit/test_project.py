"""The project's own files: versions, pins, licence, and what must not be in the repository."""

import ast
import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import ext_authz

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()

CORE = ("evidence", "identity", "policy", "token", "wire")

# spelled in parts, so that this file may stand in the list it checks
FORBIDDEN = {
    "a path of somebody's machine": re.compile("/" + r"(?:work|root|home/\w+)/"),
    "a package registry or its mirror": re.compile(
        r"https?://[\w.-]*(?:pypi|pythonhosted|artifact|nexus|" + "mirror" + r")[\w.-]*|--(?:extra-)?" + "index-url",
        re.IGNORECASE,
    ),
    "a debt nobody owns": re.compile(r"\b(?:TO" + "DO|FIX" + "ME|X" + "XX)\b|Not" + "ImplementedError"),
    "a private key": re.compile("-----BEGIN (?:[A-Z]+ )?" + "PRIVATE KEY-----\n[A-Za-z0-9+/]"),
}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    return dict(line.split("==") for line in CONSTRAINTS if not line.startswith("#"))


def _repository_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def test_the_version_is_the_one_of_the_installed_distribution() -> None:
    assert metadata.version("ext-authz") == ext_authz.__version__


@pytest.mark.skipif("EXT_AUTHZ_TEST_INSTALLED" not in os.environ, reason="set in CI, where the wheel is tested")
def test_the_package_under_test_is_the_installed_one() -> None:
    assert not Path(ext_authz.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize(
    "name",
    [
        "CHANGELOG.md",
        "Dockerfile",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
        "constraints.txt",
        "docker-compose.yml",
        ".ci/run",
        "ext_authz/py.typed",
    ],
)
def test_the_project_has_the_file(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0 or name.endswith("py.typed")


def test_the_licence_is_apache_2_everywhere() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in (ROOT / "Dockerfile").read_text()


def test_the_changelog_has_a_section_for_what_is_not_released() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_name_versions_and_nothing_else() -> None:
    for line in CONSTRAINTS:
        assert line.startswith("# ") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
    assert CONSTRAINTS[2:] == sorted(CONSTRAINTS[2:], key=lambda line: line.split("=="))


def test_every_declared_dependency_is_pinned() -> None:
    declared = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        declared += extra
    names = {_normalized(re.match(r"[\w.-]+", requirement).group()) for requirement in declared}  # type: ignore[union-attr]  # each begins with a name
    assert names - {"ext-authz"} <= _pins().keys()


def test_every_pin_satisfies_what_it_pins() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    declared = [packaging.Requirement(text) for text in PROJECT["dependencies"]]
    pins = _pins()
    for requirement in declared:
        assert requirement.specifier.contains(pins[_normalized(requirement.name)]), requirement


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_of_the_repository_holds(what: str) -> None:
    pattern = FORBIDDEN[what]
    found = []
    for file in _repository_files():
        text = file.read_bytes().decode(errors="replace")
        found += [f"{file.relative_to(ROOT)}: {hit.group()!r}" for hit in pattern.finditer(text)]
    assert found == []


def test_modules_are_short_enough_to_read_at_once() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in (ROOT / "ext_authz").rglob("*.py")
        if "_pb" not in file.parts and (lines := len(file.read_text().splitlines())) > 400
    }
    assert long == {}


@pytest.mark.parametrize("room", CORE)
def test_the_core_opens_and_prints_nothing(room: str) -> None:
    """Import contracts see modules; built-in functions need no import."""
    files = [file for file in (ROOT / "ext_authz" / room).rglob("*.py") if "_pb" not in file.parts]
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input", "eval", "exec"}, f"{file.name}:{node.lineno}"


def test_images_are_named_as_everyone_knows_them() -> None:
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "docker-compose.yml").read_text()
    images = re.findall(r"^(?:FROM |\s+image: |ARG \w+_IMAGE=)(\S+)", text, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    for image in set(images) - stages:
        assert re.fullmatch(
            r"python:3\.13-slim|\$\{(?:BUILD|RUNTIME)_IMAGE\}|envoyproxy/envoy:v[\d.]+|ext-authz(?:-demo)?:local", image
        ), image
