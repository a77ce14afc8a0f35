"""Expected decisions are compared in every part, and wrong files are refused."""

from pathlib import Path

import pytest
from support.config_files import POLICY

from ext_authz.config.policy_tests import load_policy_tests, run_policy_tests
from ext_authz.errors import ConfigurationError

HEAD = """\
apiVersion: ext-authz/v1alpha1
kind: PolicyTests
metadata: {name: billing}
spec:
  peers:
    website: {certificate: one, spiffe_id: spiffe://cluster.local/ns/applications/sa/website}
  tokens:
    alice: {issuer: corp, subject: alice, client: mywebsite, scopes: [invoices.read], bound_to: one}
  cases:
"""
REQUEST = "{path: /invoices, host: billing.example.com, source_ip: 10.0.0.1, destination: spiffe://cluster.local/ns/billing/sa/api}"
ALLOWED = f"    - {{name: c, request: {REQUEST}, peer: website, token: alice, expect: {{decision: allow, %s}}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(
        POLICY.replace(
            "        remove_request", '        response_headers: {x-r: "1"}\n        remove_request'
        ).replace("      inject:", '      inject:\n        dynamic_metadata: {s: ["${token.sub}"]}', 1)
    )
    return tmp_path


def differences(folder: Path, cases: str) -> tuple[str, ...]:
    (folder / "t.yaml").write_text(HEAD + cases)
    (result,) = run_policy_tests(folder / "p.yaml", folder / "t.yaml")
    assert result.place == f"{folder}/t.yaml:10:7"
    assert result.passed is (not result.differences)
    return result.differences


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("reason: ok, rule: read-invoices", ()),
        ("reason: public_route", ("reason: expected `public_route`, got `ok`",)),
        ("rule: health", ("rule: expected `health`, got `read-invoices`",)),
        (
            "request_headers: {x-subject: alice, x-caller: {matches: 'spiffe://.*'}}",
            (),
        ),
        (
            "request_headers: {x-subject: bob, x-caller: {matches: spiffe}, x-other: a}",
            (
                "request_headers: expected `x-subject: bob`, got `alice`",
                "request_headers: expected `x-caller` to match `spiffe`, got `spiffe://cluster.local/ns/applications/sa/website`",
                "request_headers: `x-other` is expected and not set",
            ),
        ),
        ("response_headers: {}", ("response_headers: `x-r: 1` is set and not expected",)),
        ("removed_request_headers: [authorization]", ()),
        (
            "removed_request_headers: [cookie]",
            (
                "removed_request_headers: expected `cookie` among them, got ['authorization', 'x-http-method', 'x-http-method-override', 'x-method-override']",
            ),
        ),
        ("dynamic_metadata: {s: [alice]}", ()),
        ("dynamic_metadata: {}", ("dynamic_metadata: expected {}, got {'s': ('alice',)}",)),
    ],
)
def test_every_part_of_an_expectation_is_compared(folder: Path, expected: str, found: tuple[str, ...]) -> None:
    assert differences(folder, ALLOWED % expected) == found


def test_a_denial_where_an_allowance_is_expected_is_a_difference(folder: Path) -> None:
    case = f"    - {{name: c, request: {REQUEST}, peer: website, expect: {{decision: allow, rule: read-invoices}}}}\n"
    assert differences(folder, case) == ("decision: expected `allow`, got `deny`",)


def test_the_status_of_a_denial_is_compared(folder: Path) -> None:
    case = f"    - {{name: c, request: {REQUEST}, peer: website, expect: {{decision: deny, status: 403}}}}\n"
    assert differences(folder, case) == ("status: expected `403`, got `401`",)


def test_a_public_rule_looks_at_nobody(folder: Path) -> None:
    case = f"    - {{name: c, request: {REQUEST}, peer: website, token: alice, expect: {{decision: allow, rule: health}}}}\n"
    assert differences(folder, case.replace("/invoices", "/healthz")) == ()


def test_a_peer_without_a_certificate_cannot_be_bound_to(folder: Path) -> None:
    tests = (HEAD + ALLOWED % "rule: read-invoices").replace("certificate: one, ", "")
    tests = tests.replace("decision: allow", "decision: deny, reason: binding_thumbprint_unavailable")
    (folder / "t.yaml").write_text(tests)
    assert all(result.passed for result in run_policy_tests(folder / "p.yaml", folder / "t.yaml"))


def test_leniencies_of_the_server_count(folder: Path) -> None:
    case = f"    - {{name: c, request: {REQUEST}, peer: website, token: alice, expect: {{decision: allow}}}}\n".replace(
        "/invoices,", "//invoices,"
    )
    (folder / "t.yaml").write_text(HEAD + case)
    for leniencies, passed in ((frozenset[str](), False), (frozenset({"merge_slashes"}), True)):
        (result,) = run_policy_tests(folder / "p.yaml", folder / "t.yaml", leniencies)
        assert result.passed is passed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty; write a `kind: PolicyTests` document"),
        (POLICY, "2:7: kind: not expected decisions; write `kind: PolicyTests`"),
        (HEAD, "spec.cases: `cases` has no value"),
        (HEAD + "    - {name: c, request: {}, expect: {decision: allow}}", "request.path: the key `path` is missing"),
        (
            HEAD + f"    - {{name: c, request: {REQUEST}, peer: webste, token: zzz, expect: {{decision: allow}}}}",
            "spec.cases[0].peer: there is no peer `webste`; did you mean `website`?",
        ),
        (
            HEAD + f"    - {{name: c, request: {REQUEST}, token: zzz, expect: {{decision: allow}}}}",
            "spec.cases[0].token: there is no token `zzz`; write it under `tokens`",
        ),
        (ALLOWED % "reason: okk", "there is no reason `okk`; did you mean `ok`?"),
        (ALLOWED % "reason: zzzzzz", "there is no reason `zzzzzz`; write one such as `binding_missing`"),
        (ALLOWED % "status: 401", "expect.status: an allowed request has no status of ours; remove it"),
        (
            (ALLOWED % "request_headers: {}").replace("decision: allow", "decision: deny"),
            "expect.request_headers: a denied request is not changed; remove it",
        ),
        (ALLOWED % "request_headers: {a: {matches: '('}}", "request_headers.a.matches: not a regular expression"),
        (
            HEAD.replace("{certificate: one, spiffe_id: spiffe://cluster.local/ns/applications/sa/website}", "{}")
            + (ALLOWED % "rule: x"),
            "spec.peers.website: the peer shows nothing; write `certificate` or `spiffe_id`",
        ),
    ],
)
def test_a_mistake_in_a_file_of_expected_decisions_is_told(folder: Path, text: str, problem: str) -> None:
    (folder / "t.yaml").write_text(HEAD + text if text.startswith("    -") else text)
    with pytest.raises(ConfigurationError) as caught:
        load_policy_tests(folder / "t.yaml")
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_a_missing_file_of_expected_decisions_is_told_once(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_policy_tests(folder / "missing.yaml")
    assert len(caught.value.problems) == 1
