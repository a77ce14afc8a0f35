"""What is told of values and mounted files that are wrong, by the real Helm engine or by the server that gets them."""

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from support.charts import manifests, mount, render
from support.pki import authority

from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import assemble

CA = authority()
SERVING = CA.leaf(dns_sans=["authz.example.com"])
ISSUER = {"name": "corp", "issuer": "https://login.example.com", "audiences": ["https://a.example.com"]}


def test_a_values_file_that_is_no_yaml_is_refused_with_the_line() -> None:
    with pytest.raises(helm_python.HelmError) as refusal:
        helm_python.values_from_yaml("replicas: 2\nconfig: {log: {level: info}\nservice: {}\n")
    assert "line 2" in str(refusal.value)


def test_every_wrong_value_of_a_file_is_told_at_once() -> None:
    values = yaml.safe_load(
        "repilcas: 2\nconfig:\n  log: {level: loud}\n  issuers: [{name: corp}]\ntls: {enabled: maybe}\n"
    )
    with pytest.raises(helm_python.HelmError) as refusal:
        render(values)
    told = str(refusal.value)
    for words in (
        "additional properties 'repilcas' not allowed",
        "at '/config/log/level': value must be one of 'debug', 'info', 'warning', 'error'",
        "at '/config/issuers/0': missing properties",
        "at '/tls/enabled': got string, want boolean",
    ):
        assert words in told


BEYOND_THE_SCHEMA: list[tuple[dict[str, Any], str]] = [
    (
        {"config": {"issuers": [{**ISSUER, "issuer": "http://login.example.com", "keys": {"discovery": True}}]}},
        "spec.issuers[0]",
    ),
    (
        {"config": {"issuers": [{**ISSUER, "keys": {"discovery": True}}] * 2}},
        "spec.issuers[1]",
    ),
]


@pytest.mark.parametrize(("given", "place"), BEYOND_THE_SCHEMA, ids=["plain http", "a name twice"])
def test_what_no_schema_can_say_the_server_tells_at_start_with_its_place(
    given: dict[str, Any], place: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        assemble(str(mount(manifests(given), {}, tmp_path)))
    assert all(problem.startswith(f"{tmp_path}/etc/ext-authz/") for problem in refusal.value.problems)
    assert any(f": {place}" in problem for problem in refusal.value.problems)


MISSING: list[tuple[dict[str, Any], dict[str, dict[str, str]], str]] = [
    (
        {"tls": {"enabled": True, "secretName": "serving"}},
        {"serving": {"tls.crt": SERVING.chain_pem.decode()}},
        "tls/tls.key",
    ),
    (
        {"trustBundles": [{"trustDomain": "cluster.local", "configMap": "roots", "key": "ca.pem"}]},
        {"roots": {"root.pem": CA.pem.decode()}},
        "ca.pem",
    ),
]


@pytest.mark.parametrize(("given", "others", "file"), MISSING, ids=["a TLS Secret", "a trust bundle"])
def test_a_key_that_a_secret_or_config_map_lacks_is_named_by_its_file(
    given: dict[str, Any], others: dict[str, dict[str, str]], file: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        assemble(str(mount(manifests(given), others, tmp_path)))
    (problem,) = refusal.value.problems
    assert f"{file}` cannot be read: no such file or directory" in problem
