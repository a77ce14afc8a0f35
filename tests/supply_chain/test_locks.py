"""The locks: complete, with hashes, in step with constraints.txt, and silent about where packages come from."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from components import components, read_lock
from lock import OLDEST, locks, pins
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PINS = [line.split("==") for line in pins((ROOT / "constraints.txt").read_text())]
CONSTRAINTS = dict(PINS)


def test_each_package_is_pinned_once_and_runs_on_the_oldest_python_that_we_do() -> None:
    """Else nothing could be installed there, with an error that names neither."""
    assert len(PINS) == len(CONSTRAINTS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(OLDEST)
    installed = {str(canonicalize_name(found.name)): found for found in metadata.distributions()}
    pinned = {
        name: installed[name].metadata
        for name, version in PINS
        if name in installed and installed[name].version == version
    }
    wanted = {name: about["Requires-Python"] for name, about in pinned.items() if "Requires-Python" in about}
    assert len(wanted) > 100
    assert not {name: text for name, text in wanted.items() if not SpecifierSet(text).contains(OLDEST)}


@pytest.mark.parametrize("name", locks())
def test_a_lock_has_every_requirement_in_a_version_that_satisfies_it(name: str) -> None:
    locked = read_lock(name)
    for line in locks()[name]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)].version), line


@pytest.mark.parametrize("name", locks())
def test_a_lock_has_the_versions_that_are_tested(name: str) -> None:
    for package in read_lock(name).values():
        assert CONSTRAINTS[package.name] == package.version


@pytest.mark.parametrize("name", locks())
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    for package in read_lock(name).values():
        assert package.hashes, package.name


@pytest.mark.skipif(sys.platform != "linux", reason="the locks are looked at as an image sees them")
@pytest.mark.parametrize("name", ["server", "demo"])
def test_a_lock_is_closed_whatever_a_package_of_it_needs_is_in_it_and_everything_in_it_is_needed(name: str) -> None:
    locked = read_lock(name)
    found = {item.name: item for item in components(locked.values())}
    assert found.keys() == locked.keys()
    reached: set[str] = set()
    waiting: list[str] = [canonicalize_name(Requirement(line).name) for line in locks()[name]]
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            waiting += found[package].needs
    assert reached == locked.keys()


@pytest.mark.parametrize("name", locks())
def test_a_lock_holds_versions_markers_and_hashes_and_nothing_else(name: str) -> None:
    text = (ROOT / "supply_chain" / f"requirements-{name}.txt").read_text()
    for line in text.splitlines():
        assert re.fullmatch(
            r"# .*|[a-z0-9-]+==[0-9a-z.]+( ; [\w '=!<>.()]+)? \\| {4}--hash=sha256:[0-9a-f]{64}( \\)?", line
        ), line


def test_the_image_installs_nothing_but_what_is_locked() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install (.*?)(?:&&|$)", text, re.MULTILINE)
    assert len(installs) == 4
    for options in installs:
        assert "--require-hashes --requirement supply_chain/requirements-" in re.sub(r" +", " ", options) or (
            "--no-deps --no-index /wheels/" in options
        )
