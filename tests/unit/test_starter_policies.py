"""The policies people start from decide as the files beside them say."""

from pathlib import Path

import pytest

from ext_authz.config.load import load, load_policies
from ext_authz.config.policy_tests import CaseResult, load_policy_tests, run_policy_tests

POLICIES = Path(__file__).parents[2] / "policies"
FILES = sorted(path for path in POLICIES.glob("*.yaml") if not path.name.endswith(".tests.yaml"))


def beside(policy: Path) -> Path:
    return policy.with_name(f"{policy.stem}.tests.yaml")


RESULTS = [
    pytest.param(result, id=f"{policy.stem}: {result.name}")
    for policy in FILES
    for result in run_policy_tests(policy, beside(policy))
]


@pytest.mark.parametrize("result", RESULTS)
def test_a_starter_policy_decides_as_stated(result: CaseResult) -> None:
    assert result.passed, f"{result.place}: {'; '.join(result.differences)}"


@pytest.mark.parametrize("policy", FILES, ids=lambda path: path.stem)
def test_a_starter_policy_has_no_warnings(policy: Path) -> None:
    assert load_policies([policy]).warnings == ()


@pytest.mark.parametrize("policy", FILES, ids=lambda path: path.stem)
def test_every_rule_of_a_starter_policy_is_shown_to_decide_something(policy: Path) -> None:
    decided = {case.expect.rule for _, case, _ in load_policy_tests(beside(policy))}
    rules = {rule.name for loaded in load_policies([policy]).policies for rule in loaded.rules}
    assert rules <= decided


def test_there_are_at_least_six_starter_policies() -> None:
    assert len(FILES) >= 6


def test_all_starter_policies_load_together(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    issuers = "".join(
        f"    - {{name: {name}, issuer: 'https://{name}.example', audiences: [api], keys: {{discovery: true}}}}\n"
        for name in ("corp", "customers", "partner")
    )
    config.write_text(
        "apiVersion: ext-authz/v1alpha1\nkind: Server\nspec:\n"
        "  evidence: {certificate_sources: [{type: xfcc, trusted_hops: 1}], chain_verified_by: proxy}\n"
        f"  issuers:\n{issuers}  policies: ['{POLICIES}/*.yaml']\n"
    )
    assert len(load(config).policies) >= len(FILES)
