"""Whether files have changed, by looking: works for editors, `rsync`, and the symlink swaps of Kubernetes volumes.

Polling costs one `stat` per file and sees what inotify misses: a ConfigMap changes by replacing the target of a symlink
two directories up. Content is read only when the `stat` differs, so that a file written again with the same text is no
change.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

__all__ = ["FileWatch"]

_Stat: TypeAlias = tuple[str, int, int, int, int] | None
_MISSING = b""


class FileWatch:
    """Remembers how files looked. Blocking: call from a thread."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Look at `paths` (files, or directories for the names in them) now; one may be missing."""
        self._stats: dict[str, _Stat] = {}
        self._digests: dict[str, bytes] = {}
        for path in paths:
            self.look(path)

    @property
    def paths(self) -> tuple[str, ...]:
        """What is watched."""
        return tuple(self._stats)

    def look(self, path: str) -> None:
        """Remember how `path` looks now, unless it is watched already. Before it is read: then no change is missed."""
        if path not in self._stats:
            self._has_changed(path)

    def changed(self) -> tuple[str, ...]:
        """The paths whose content differs from the last time this was asked."""
        return tuple(path for path in self.paths if self._has_changed(path))

    def _has_changed(self, path: str) -> bool:
        stat = _stat(path)
        if path in self._stats and stat == self._stats[path]:
            return False
        digest = _digest(path)
        changed = digest != self._digests.get(path)
        self._stats[path] = stat
        self._digests[path] = digest
        return changed


def _stat(path: str) -> _Stat:
    try:
        resolved = Path(path).resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError):  # RuntimeError: a loop of symlinks
        return None
    return str(resolved), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: str) -> bytes:
    target = Path(path)
    try:
        if target.is_dir():
            names = sorted(os.fsencode(entry.name) for entry in target.iterdir())
            return hashlib.sha256(b"\0".join(names)).digest()
        return hashlib.sha256(target.read_bytes()).digest()
    except OSError:
        return _MISSING
