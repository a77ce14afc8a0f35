"""Each platform's page shows what `ext-authz integrate` prints, and policies that load.

`EXT_AUTHZ_UPDATE_GOLDEN=1` writes what is printed into the pages.
"""

import os
import re
from pathlib import Path

import pytest
import yaml

from ext_authz.config.load import load_policies
from ext_authz.integrate.catalogue import PLATFORMS, as_text
from ext_authz.integrate.platform import Destination, Platform
from ext_authz.integrate.setup import Setup

PAGES = Path(__file__).parents[3] / "docs" / "platforms"
PRINTED = re.compile(r"(^```yaml printed (\w+)\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)
PROVES = re.compile(r"(^## What it proves\n\n)(.*?)(\n## )", re.MULTILINE | re.DOTALL)
POLICIES = re.compile(r"^```yaml policy\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def printed(platform: Platform, destination: str) -> str:
    """The documents without the preface."""
    text = as_text(platform, platform.setup, [Destination(destination)])
    return text[text.index("---\n") + len("---\n") :]


def proofs(platform: Platform) -> str:
    """What can and cannot be proved, as a page says it."""
    can = "".join(f"- {sentence}\n" for sentence in platform.proves)
    cannot = "".join(f"- {sentence}\n" for sentence in platform.cannot)
    return f"A request can prove:\n\n{can}\nIt cannot:\n\n{cannot}"


def written(name: str) -> str:
    """The page as it should be."""
    platform = PLATFORMS[name]
    text = (PAGES / f"{name}.md").read_text()
    text = PROVES.sub(lambda match: match[1] + proofs(platform) + match[3], text)
    return PRINTED.sub(lambda match: match[1] + printed(platform, match[2]) + match[4], text)


def test_every_platform_has_a_page() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(PLATFORMS)


@pytest.mark.parametrize("name", sorted(PLATFORMS))
def test_a_page_shows_what_is_printed(name: str) -> None:
    page = PAGES / f"{name}.md"
    if os.environ.get("EXT_AUTHZ_UPDATE_GOLDEN") == "1":
        page.write_text(written(name))
    assert page.read_text() == written(name)
    shown = {destination for _, destination, _, _ in PRINTED.findall(page.read_text())}
    assert shown == {part.destination.value for part in PLATFORMS[name].parts(Setup())} | {"server"}


@pytest.mark.parametrize("name", sorted(PLATFORMS))
def test_the_policies_on_a_page_load(name: str, tmp_path: Path) -> None:
    for number, spec in enumerate(POLICIES.findall((PAGES / f"{name}.md").read_text())):
        document = {
            "apiVersion": "ext-authz/v1alpha1",
            "kind": "RoutePolicy",
            "metadata": {"name": "example"},
            "spec": yaml.safe_load(spec),
        }
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        assert load_policies([file]).warnings == ()
