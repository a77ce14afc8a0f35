#!/usr/bin/env python3
"""Write the SBOM (CycloneDX 1.6, JSON) of what pip installed: each package with licence, hash and dependencies.

Two runs over the same files write the same bytes: there is no clock and no randomness in it. The timestamp is
`SOURCE_DATE_EPOCH`, or left out without it; the serial number is derived from the content.
"""

import argparse
import json
import os
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components import HERE, Component, Locked, components, read_lock
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as BomComponent
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pkg:pypi/ext-authz")


def installed_hashes(report: Mapping[str, Any], lock: Mapping[str, Locked]) -> dict[str, str]:
    """SHA-256 of the file each package of `lock` was installed from, out of pip's `--report`.

    Raises:
        LookupError: a package of the lock is not in the report, or came from a file that the lock does not name.
    """
    found: dict[str, str] = {}
    for entry in report["install"]:
        name = canonicalize_name(entry["metadata"]["name"])
        digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
        if name in lock and digest not in lock[name].hashes:
            raise LookupError(f"{name} was installed from a file that the lock does not name")
        found[name] = digest
    return found


def project() -> tuple[str, str, frozenset[str]]:
    """Version, description and direct dependencies (normalized names) of ext-authz itself, from the sources."""
    table = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    namespace: dict[str, str] = {}
    for line in (HERE.parent / "ext_authz" / "__init__.py").read_text().splitlines():
        if line.startswith("__version__"):
            namespace["version"] = line.partition('"')[2].rstrip('"')
    requirements = (*table["dependencies"], *table["optional-dependencies"]["otel"])
    names = (canonicalize_name(line.split(";")[0].split(">")[0].split("=")[0].split("[")[0]) for line in requirements)
    return namespace["version"], table["description"], frozenset(names)


def write_bom(found: Iterable[Component], hashes: Mapping[str, str], epoch: int | None) -> str:
    """The document, with ext-authz at its root."""
    version, description, direct = project()
    root = _described(
        Component("ext-authz", version, "Apache-2.0", description, tuple(sorted(direct))), ComponentType.APPLICATION
    )
    packages = {item.name: _described(item, ComponentType.LIBRARY) for item in found}
    for name, package in packages.items():
        package.hashes = [HashType(alg=HashAlgorithm.SHA_256, content=hashes[name])]
    bom = Bom(components=packages.values(), serial_number=_NAMESPACE)
    bom.metadata.component = root
    bom.register_dependency(root, [packages[name] for name in sorted(direct & packages.keys())])
    for item in found:
        bom.register_dependency(packages[item.name], [packages[name] for name in item.needs if name in packages])
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["serialNumber"], document["metadata"]["timestamp"]
    if epoch is not None:
        document["metadata"]["timestamp"] = datetime.fromtimestamp(epoch, UTC).isoformat()
    document["serialNumber"] = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True)).urn
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _described(item: Component, kind: ComponentType) -> BomComponent:
    purl = PackageURL("pypi", name=item.name, version=item.version)
    return BomComponent(
        type=kind,
        name=item.name,
        version=item.version,
        description=item.summary or None,
        purl=purl,
        bom_ref=str(purl),
        licenses=[LicenseExpression(item.licence, acknowledgement=LicenseAcknowledgement.DECLARED)],
    )


def main() -> None:
    """Write the SBOM of a directory that pip filled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", default="server", help="the lock it was filled from (default: server)")
    parser.add_argument("--packages", type=Path, required=True, help="site-packages, or a directory of `pip --target`")
    parser.add_argument("--report", type=Path, action="append", required=True, help="what `pip install --report` wrote")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    lock = read_lock(arguments.lock)
    hashes: dict[str, str] = {}
    for report in arguments.report:
        hashes |= installed_hashes(json.loads(report.read_text()), lock)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    found = components(lock.values(), arguments.packages)
    arguments.output.write_text(write_bom(found, hashes, int(epoch) if epoch else None))


if __name__ == "__main__":
    main()
