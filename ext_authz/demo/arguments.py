"""The command line of the demo's small servers: one argument each."""

import sys

__all__ = ["single_argument"]


def single_argument(name: str) -> str:
    """The only argument; ends the process with a usage line when it is not there."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} {name}")
    return sys.argv[1]
