"""A policy file without any policy in it is told, as it may be one that something has emptied."""

from pathlib import Path

import pytest

from ext_authz.config.load import load
from ext_authz.errors import ConfigurationError

SERVER = "apiVersion: ext-authz/v1alpha1\nkind: Server\nspec: {policies: [policies/*.yaml]%s}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "server.yaml").write_text(SERVER % "")
    return tmp_path


@pytest.mark.parametrize("text", ["", "\n\n", "# switched off for now\n", "---\n"])
def test_a_file_without_a_policy_is_a_warning(folder: Path, text: str) -> None:
    (folder / "policies" / "a.yaml").write_text(text)
    (warning,) = load(folder / "server.yaml").warnings
    assert warning.startswith(f"{folder}/policies/a.yaml: the file holds no policy; ")


def test_under_strict_it_is_a_mistake(folder: Path) -> None:
    (folder / "server.yaml").write_text(SERVER % ", strict: true")
    (folder / "policies" / "a.yaml").write_text("")
    with pytest.raises(ConfigurationError) as refusal:
        load(folder / "server.yaml")
    assert "the file holds no policy" in refusal.value.problems[0]


def test_a_file_that_cannot_be_parsed_is_told_as_that_alone(folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text("{")
    with pytest.raises(ConfigurationError) as refusal:
        load(folder / "server.yaml")
    assert "the file holds no policy" not in "".join(refusal.value.problems)
