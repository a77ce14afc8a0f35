"""Compile `proto/` into `ext_authz/wire/_pb`, or check that what is committed there is what it compiles to.

Usage: `python proto/generate.py [--check]`. Needs grpcio-tools of the version that `make proto` pins.
"""

# ruff: noqa: INP001 - a script, run by its path

import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePosixPath

from grpc_tools import protoc  # type: ignore[import-untyped]  # ships neither stubs nor a marker

SOURCES = Path(__file__).resolve().parent
TARGET = SOURCES.parent / "ext_authz" / "wire" / "_pb"

# The name under which a file is registered and imported. Envoy's own names stay free for another copy of its protos in
# the same process, and the generated imports are those of this package.
PREFIX = PurePosixPath("ext_authz/wire/_pb")

PACKAGE_DOCSTRING = '"""Generated from `proto/` by `make proto`; not edited by hand."""\n'


def compile_protos() -> Mapping[PurePosixPath, str]:
    """The generated tree as path (below `_pb`) to text.

    Raises:
        SystemExit: a file does not compile; the compiler has said why.
    """
    names = sorted(PREFIX / path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        code = protoc.main(
            [
                "protoc",
                f"--proto_path={PREFIX}={SOURCES}",
                f"--proto_path={resources.files('grpc_tools') / '_proto'}",
                f"--python_out={directory}",
                f"--pyi_out={directory}",
                *map(str, names),
            ]
        )
        if code != 0:
            raise SystemExit(code)
        root = Path(directory, PREFIX)
        tree = {
            PurePosixPath(path.relative_to(root).as_posix()): path.read_text(encoding="utf-8")
            for path in root.rglob("*.py*")
        }
    packages = {folder for path in tree for folder in path.parents}
    return tree | {folder / "__init__.py": PACKAGE_DOCSTRING for folder in packages}


def committed() -> Mapping[PurePosixPath, str]:
    """What lies in the target now, in the same form."""
    return {
        PurePosixPath(path.relative_to(TARGET).as_posix()): path.read_text(encoding="utf-8")
        for path in TARGET.rglob("*.py*")
        if path.suffix in {".py", ".pyi"}
    }


def main(arguments: list[str]) -> int:
    """Write the tree, or with `--check` compare it. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python proto/generate.py [--check]\n")
        return 2
    wanted, present = compile_protos(), committed()
    differing = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    if arguments == ["--check"]:
        for path in differing:
            sys.stderr.write(f"ext_authz/wire/_pb/{path} is not what proto/ compiles to; run `make proto`\n")
        return 1 if differing else 0
    for path in differing:
        target = TARGET / path
        if path in wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(wanted[path], encoding="utf-8")
        else:
            target.unlink()
    sys.stdout.write(f"{len(differing)} of {len(wanted)} files written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
