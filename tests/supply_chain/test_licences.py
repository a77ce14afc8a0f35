"""Every licence of what is shipped is one that may be shipped, and the page that lists them is current."""

from importlib import metadata
from pathlib import Path
from typing import Any

import dependencies
import pytest
from components import ALLOWED_LICENCES, Component, Locked, components, licence_of, licences_in, read_lock
from cyclonedx.spdx import is_expression, is_supported_id

SHIPPED = [pytest.param(item, id=item.name) for item in components(read_lock("demo").values())]


@pytest.mark.parametrize("item", SHIPPED)
def test_the_licence_is_an_expression_of_allowed_licences(item: Component) -> None:
    assert is_expression(item.licence)
    assert licences_in(item.licence) <= ALLOWED_LICENCES


@pytest.mark.parametrize("licence", sorted(ALLOWED_LICENCES))
def test_an_allowed_licence_is_one_that_spdx_knows(licence: str) -> None:
    assert is_supported_id(licence)


def distribution(folder: Path, **fields: str) -> metadata.Distribution:
    """An installed package with these fields in its metadata."""
    place = folder / "thing-1.0.dist-info"
    place.mkdir()
    lines = {"Metadata-Version": "2.4", "Name": "thing", "Version": "1.0"} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    (place / "METADATA").write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    return metadata.Distribution.at(place)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT AND Apache-2.0", "License": "something"}, "MIT AND Apache-2.0"),
        ({"License": "MIT License"}, "MIT"),
        ({"License": "GPL-3.0-only"}, "GPL-3.0-only"),
    ],
)
def test_a_licence_is_read_from_the_metadata(fields: dict[str, Any], licence: str, tmp_path: Path) -> None:
    assert licence_of("thing", distribution(tmp_path, **fields)) == licence


@pytest.mark.parametrize("fields", [{}, {"License": "Do what you want;\n but read this first"}])
def test_a_licence_that_is_not_to_be_told_has_to_be_read_by_a_person(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="names no licence"):
        licence_of("thing", distribution(tmp_path, **fields))


def test_a_licence_that_is_not_allowed_is_found_in_any_place_of_an_expression() -> None:
    assert not licences_in("MIT OR (Apache-2.0 AND GPL-3.0-only)") <= ALLOWED_LICENCES


def test_another_version_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    distribution(tmp_path, License="MIT")
    with pytest.raises(LookupError, match=r"thing is 1\.0, and 2\.0 in the lock"):
        components([Locked("thing", "2.0", frozenset())], tmp_path)


def test_the_page_of_dependencies_is_what_is_locked() -> None:
    assert dependencies.page() == dependencies.PAGE.read_text()


@pytest.mark.parametrize("item", SHIPPED)
def test_the_text_of_the_licence_comes_with_the_package(item: Component) -> None:
    files = metadata.files(item.name) or []
    named = [file for file in files if any(word in file.name.upper() for word in ("LICEN", "COPYING", "NOTICE"))]
    assert named or item.name in dependencies.WITHOUT_LICENCE_FILE
