#!/usr/bin/env python3
"""Write docs/dependencies.md: each package of the image with version and licence. `--check` only compares."""

import sys
from collections.abc import Iterable, Iterator

from components import ALLOWED_LICENCES, HERE, Component, components, read_lock

PAGE = HERE.parent / "docs" / "dependencies.md"

WITHOUT_LICENCE_FILE = frozenset({"betterproto2"})
"""Their wheels name the licence and lack its text."""

_HEAD = """\
# Dependencies and their licences

What runs inside the image, besides Python and the base image's own packages. Versions and hashes are those of
`supply_chain/requirements-server.txt`; licences are SPDX expressions, from each package's metadata. The text of each licence is in
the image, in the package's `*.dist-info` directory. `make docs` writes this page.

"""

_MIDDLE = f"""
The demo's image has these besides ({", ".join(sorted(WITHOUT_LICENCE_FILE))} comes without the text of its licence):

"""

_TAIL = f"""
A test fails when a licence is not one of {", ".join(sorted(ALLOWED_LICENCES))}. MPL-2.0 asks that changes to the licensed files
themselves stay open; nothing is changed here.

Needed only to build and test, and in no image: the other packages of `constraints.txt`, and what
`supply_chain/requirements-build.txt` adds to the stages that are thrown away.

[Supply chain](supply-chain.md) says how to get the same list as a CycloneDX document.
"""


def page() -> str:
    """The text of the page, from the locks and the packages that are installed here."""
    server = components(read_lock("server").values())
    demo = components(package for name, package in read_lock("demo").items() if name not in read_lock("server"))
    return _HEAD + "".join(table(server)) + _MIDDLE + "".join(table(demo)) + _TAIL


def table(found: Iterable[Component]) -> Iterator[str]:
    """Lines of a table of packages."""
    yield "| package | version | licence | what it is |\n|---|---|---|---|\n"
    for item in found:
        summary = item.summary.rstrip(".").replace("|", "\\|")
        yield f"| {item.name} | {item.version} | {item.licence} | {summary} |\n"


def main() -> int:
    """Write or check."""
    text = page()
    if "--check" in sys.argv[1:]:
        if text != PAGE.read_text():
            print("docs/dependencies.md is not what is locked: run `make docs`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
