"""Exit codes and the words of errors: the same for every subcommand."""

import sys
from collections.abc import Iterable
from enum import IntEnum

__all__ = ["Exit", "complain"]


class Exit(IntEnum):
    """What the process ends with."""

    OK = 0
    DENIED = 1
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


def complain(lines: Iterable[str]) -> None:
    """Print `lines` on standard error, as they are."""
    for line in lines:
        print(line, file=sys.stderr)
