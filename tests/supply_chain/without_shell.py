"""`without_shell.py SMALL-DEBIAN.tar`: the same archive on standard output with what a distroless image has of it.

The interpreter, its library and the C libraries stay. Every shell, package manager and command line tool goes.
"""

import sys
import tarfile
from pathlib import PurePosixPath

_PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin")
_GONE = ("usr/lib/apt", "usr/lib/dpkg", "usr/lib/git-core", "usr/share", "var", "usr/lib/python3")


def stays(name: str) -> bool:
    """Whether a member belongs to the image without a shell."""
    path = PurePosixPath(name)
    text = str(path).removeprefix("./")
    if str(PurePosixPath(text).parent) in _PROGRAMS:
        return path.name.startswith("python3")
    return not any(text == gone or text.startswith(f"{gone}/") for gone in _GONE)


def main() -> None:
    """Copy the archive, member by member."""
    with tarfile.open(sys.argv[1]) as source, tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as target:
        for member in source:
            if stays(member.name):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)


if __name__ == "__main__":
    main()
