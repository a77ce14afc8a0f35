"""Two builds of the same sources give the same files: the wheel, and the tree that is installed from the locks."""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ext_authz", "pyproject.toml", "README.md", "LICENSE")


def sources(target: Path, *, seconds: float, mode: int) -> Path:
    """A copy of what the wheel is made of, with other times and modes."""
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            target.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    for file in target.rglob("*"):
        if file.is_file():
            file.chmod(mode)
        os.utime(file, (seconds, seconds))
    return target


def build(folder: Path) -> Path:
    """The wheel of a copy of the sources."""
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": "1700000000",
        "TZ": "Asia/Kathmandu" if "b" in folder.name else "UTC",
    }
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return folder / done.stdout.split()[-1]


def test_two_builds_give_the_same_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    first = build(sources(tmp_path / "a", seconds=1_600_000_000, mode=0o644))
    second = build(sources(tmp_path / "b", seconds=1_650_000_000, mode=0o664))
    assert first.name == second.name == f"ext_authz-{metadata.version('ext-authz')}-py3-none-any.whl"
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def settled(folder: Path, wheel: Path) -> dict[str, str]:
    """Path and content or target of everything that an image would hold, installed as the Dockerfile does it."""
    environment = folder / "opt" / "ext-authz"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "--python",
        str(environment / "bin" / "python"),
    ]
    install = [*pip, "install", "--no-compile", "--only-binary", ":all:"]
    lock = ROOT / "supply_chain" / "requirements-server.txt"
    subprocess.run([*install, "--require-hashes", "--requirement", str(lock)], check=True)
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    settings = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    script = str(ROOT / "supply_chain" / "settle")
    subprocess.run(["sh", script, str(folder / "image"), str(environment)], env=settings, check=True)
    tree = folder / "image" / "opt" / "ext-authz"
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        assert path.lstat().st_mtime == 1_700_000_000, name
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    shutil.rmtree(tree)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_installations_give_the_same_files(tmp_path: Path) -> None:
    probe = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no pip here")
    wheel = build(sources(tmp_path / "a", seconds=1_600_000_000, mode=0o644))
    # in one place, one after the other: the place is written into scripts
    first = settled(tmp_path, wheel)
    second = settled(tmp_path, wheel)
    assert len(first) > 1_000
    assert "bin/ext-authz-probe" in first
    assert any(name.endswith(".pyc") for name in first)
    assert first == second
