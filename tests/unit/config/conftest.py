"""A configuration in a temporary directory, and what is wrong with it."""

from pathlib import Path

import pytest
from support.config_files import POLICY, SERVER, Problems

from ext_authz.config.load import load
from ext_authz.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "server.yaml").write_text(SERVER)
    (tmp_path / "policies/billing.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def problems_of(folder: Path) -> Problems:
    """What `load` says, with file names relative to the folder; `[]` when it loads."""

    def problems(server: str | None = None, policy: str | None = None) -> list[str]:
        if server is not None:
            (folder / "server.yaml").write_text(server)
        if policy is not None:
            (folder / "policies/billing.yaml").write_text(policy)
        try:
            load(folder / "server.yaml")
        except ConfigurationError as error:
            return [line.replace(f"{folder}/", "") for line in error.problems]
        return []

    return problems
