"""What an image is made of: the packages of a lock, with what their own metadata says of licence and dependencies."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent

ALLOWED_LICENCES = frozenset(
    {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}
)
"""SPDX identifiers. Permissive, or copyleft for the licensed file alone (MPL-2.0), of which nothing is changed here."""

_AS_SPDX = {"MIT License": "MIT", "3-Clause BSD License": "BSD-3-Clause"}

_FROM_LICENCE_FILES = {
    # metadata says "BSD License"; the licence file has three clauses
    "google-re2": "BSD-3-Clause",
    # metadata holds the whole text
    "hyperframe": "MIT",
    # metadata names one of two; both files come with it
    "uvloop": "Apache-2.0 OR MIT",
}


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of a lock.

    Attributes:
        name: normalized.
        version: the only one that may be installed.
        hashes: SHA-256 in hex, one of each file that may be installed.
    """

    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Component:
    """An installed package of a lock.

    Attributes:
        name: normalized.
        version: as installed, which is as locked.
        licence: SPDX expression.
        summary: one line in the words of its authors.
        needs: normalized names of the packages it requires here, with those of the extras that others ask it for; sorted.
    """

    name: str
    version: str
    licence: str
    summary: str
    needs: tuple[str, ...]


def read_lock(name: str) -> dict[str, Locked]:
    """The packages of `requirements-NAME.txt` by normalized name; ValueError for a line that pins no version."""
    found = {}
    for entry in re.split(r"^(?=\S)", (HERE / f"requirements-{name}.txt").read_text(), flags=re.MULTILINE):
        if not entry or entry.startswith("#"):
            continue
        head = re.match(r"([a-z0-9-]+)==([^\s;]+)", entry)
        if head is None:
            raise ValueError(f"no pinned version: `{entry.splitlines()[0]}`")
        hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
        found[head[1]] = Locked(head[1], head[2], hashes)
    return found


def components(lock: Iterable[Locked], directory: Path | None = None) -> tuple[Component, ...]:
    """Every package of `lock` that is installed in `directory` (on this interpreter's path if None), by name.

    Raises:
        LookupError: an installed version is not the locked one, or a licence is not to be told from the metadata.
    """
    wanted = {package.name: package for package in lock}
    place = metadata.distributions() if directory is None else metadata.distributions(path=[str(directory)])
    found: dict[str, metadata.Distribution] = {}
    for distribution in place:
        name = canonicalize_name(distribution.metadata["Name"])
        if name not in wanted or name in found:
            continue
        if distribution.version != wanted[name].version:
            raise LookupError(f"{name} is {distribution.version}, and {wanted[name].version} in the lock")
        found[name] = distribution
    extras: dict[str, set[str]] = {name: {""} for name in found}
    for distribution in found.values():
        for requirement in _needs(distribution, {""}):
            extras.get(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return tuple(
        Component(
            name=name,
            version=distribution.version,
            licence=licence_of(name, distribution),
            summary=" ".join(_field(distribution, "Summary").split()),
            needs=tuple(
                sorted({canonicalize_name(need.name) for need in _needs(distribution, extras[name])} & wanted.keys())
            ),
        )
        for name, distribution in sorted(found.items())
    )


def licence_of(name: str, distribution: metadata.Distribution) -> str:
    """The SPDX expression of a distribution; LookupError if its metadata has none and it was not read by a person."""
    written = _field(distribution, "License-Expression") or _field(distribution, "License")
    expression = _FROM_LICENCE_FILES.get(name) or _AS_SPDX.get(written, written)
    if not re.fullmatch(r"[A-Za-z0-9.+() -]{1,80}", expression):
        raise LookupError(f"{name}: its metadata names no licence; read its licence file")
    return expression


def licences_in(expression: str) -> frozenset[str]:
    """The identifiers in an SPDX expression; all of them have to be allowed, alternatives too."""
    return frozenset(re.findall(r"[A-Za-z0-9.+-]+", expression)) - {"AND", "OR", "WITH"}


def _field(distribution: metadata.Distribution, name: str) -> str:
    return next(iter(distribution.metadata.get_all(name) or ()), "")


def _needs(distribution: metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, distribution.requires or ()):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement
