"""The SBOM: valid CycloneDX, complete, the same every time, and only of files that the lock names."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from components import HERE, components, read_lock
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sbom import installed_hashes, write_bom

LOCK = read_lock("server")
FOUND = components(LOCK.values())


def report(**replaced: str) -> dict[str, Any]:
    """What pip reports of an installation of the lock; `replaced` are other hashes."""
    hashes = {package.name: min(package.hashes) for package in LOCK.values()} | replaced
    return {
        "install": [
            {"metadata": {"name": name}, "download_info": {"archive_info": {"hashes": {"sha256": digest}}}}
            for name, digest in hashes.items()
        ]
    }


@pytest.fixture(scope="module")
def text() -> str:
    return write_bom(FOUND, installed_hashes(report(), LOCK), 1_700_000_000)


def test_it_is_valid_by_the_strict_schema_of_its_version(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_validation_would_find_what_is_wrong(text: str) -> None:
    document = json.loads(text)
    document["components"][0]["hashes"][0]["content"] = "none"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


def test_every_package_is_there_with_version_licence_and_the_hash_of_its_file(text: str) -> None:
    listed = {item["name"]: item for item in json.loads(text)["components"]}
    assert listed.keys() == LOCK.keys()
    for name, item in listed.items():
        assert item["version"] == LOCK[name].version
        assert item["purl"] == f"pkg:pypi/{name}@{LOCK[name].version}"
        assert item["licenses"][0]["expression"]
        assert {digest["content"] for digest in item["hashes"]} <= LOCK[name].hashes


def test_everything_hangs_on_ext_authz(text: str) -> None:
    document = json.loads(text)
    root = document["metadata"]["component"]
    assert (root["name"], root["licenses"][0]["expression"]) == ("ext-authz", "Apache-2.0")
    needs = {item["ref"]: item.get("dependsOn", []) for item in document["dependencies"]}
    reached: set[str] = set()
    waiting = [root["bom-ref"]]
    while waiting:
        reference = waiting.pop()
        if reference not in reached:
            reached.add(reference)
            waiting += needs[reference]
    assert reached == {root["bom-ref"], *(item["bom-ref"] for item in document["components"])}


def test_a_file_that_the_lock_does_not_name_is_refused() -> None:
    with pytest.raises(LookupError, match="grpcio was installed from a file that the lock does not name"):
        installed_hashes(report(grpcio="0" * 64), LOCK)


def test_it_says_when_only_if_told(text: str) -> None:
    assert json.loads(text)["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    without = write_bom(FOUND, installed_hashes(report(), LOCK), None)
    assert "timestamp" not in json.loads(without)["metadata"]


def run(folder: Path, seed: str) -> bytes:
    """What the script writes of the packages that are installed here."""
    (folder / "report.json").write_text(json.dumps(report()))
    packages = Path(pytest.__file__).parent.parent
    command = [
        sys.executable,
        str(HERE / "sbom.py"),
        "--packages",
        str(packages),
        "--report",
        str(folder / "report.json"),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": "1700000000"}
    # the script finds its modules beside itself, as in the Makefile, also where these tests keep the clone out of sight
    environment.pop("PYTHONSAFEPATH", None)
    subprocess.run([*command, str(folder / seed)], env=environment, check=True, timeout=60)
    return (folder / seed).read_bytes()


def test_two_processes_write_the_same_bytes(tmp_path: Path, text: str) -> None:
    first, second = run(tmp_path, "1"), run(tmp_path, "2")
    assert first == second
    assert first.decode() == text
