"""What is wrong in a configuration file: where, in which field, and what to write instead."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ext_authz.errors import ConfigurationError

__all__ = ["Place", "Problems", "closest", "shown"]

MAX_PROBLEMS = 200
"""A file of the wrong kind has a problem in every line; nobody reads more than this."""

MAX_SHOWN_CHARACTERS = 80
"""Enough to recognise a value, little enough to keep a problem on one line."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file; line and column count from 1, and 0 stands for the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problems:
    """Collects every problem of a load, and the warnings beside them."""

    __slots__ = ("_found", "_notes", "_warnings")

    def __init__(self) -> None:
        self._found: list[tuple[Place, str]] = []
        self._warnings: list[tuple[Place, str]] = []
        self._notes: list[tuple[Place, str]] = []

    def add(self, place: Place, field: str, wrong: str, instead: str = "") -> None:
        """Record a problem that stops the load.

        Args:
            place: of the value or key that is wrong.
            field: its dotted path, or nothing when the whole file is meant.
            wrong: what is wrong, lowercase, without a full stop.
            instead: what to write instead; may be part of `wrong` already.
        """
        self._found.append((place, _line(place, field, wrong, instead)))

    def warn(self, place: Place, field: str, wrong: str, instead: str = "") -> None:
        """Record what does not stop the load unless `strict` is on; arguments as for `add`."""
        self._warnings.append((place, _line(place, field, wrong, instead)))

    def note(self, place: Place, field: str, text: str, instead: str = "") -> None:
        """Record what is good to know and never stops the load; arguments as for `add`."""
        self._notes.append((place, _line(place, field, text, instead)))

    def __len__(self) -> int:
        return len(self._found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each warning and note, by place."""
        return tuple(dict.fromkeys(line for _, line in sorted(self._warnings + self._notes)))

    def promote_warnings(self) -> None:
        """Make every warning a problem (`strict: true`)."""
        self._found += self._warnings
        self._warnings = []

    def raise_if_any(self) -> None:
        """Raise ConfigurationError with every problem, by place."""
        if not self._found:
            return
        lines = tuple(dict.fromkeys(line for _, line in sorted(self._found)))
        if len(lines) > MAX_PROBLEMS:
            lines = (*lines[:MAX_PROBLEMS], f"and {len(lines) - MAX_PROBLEMS} more problems")
        raise ConfigurationError(lines)


def closest(text: str, known: Iterable[str]) -> str:
    """` did you mean …?` for the known word nearest to `text`, else nothing."""
    words = {word.lower(): word for word in known}
    found = difflib.get_close_matches(text.lower(), words, n=1, cutoff=0.6)
    return f"did you mean `{words[found[0]]}`?" if found else ""


def shown(text: str) -> str:
    """A value as a problem quotes it: on one line, without control characters, bounded."""
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return "`" + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut) + "`"


def _line(place: Place, field: str, wrong: str, instead: str) -> str:
    parts = [str(place)]
    if field:
        parts.append(_printable(field))
    parts.append(f"{_printable(wrong)}; {instead}" if instead else _printable(wrong))
    return ": ".join(parts)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
