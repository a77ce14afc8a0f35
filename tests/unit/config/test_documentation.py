"""Every YAML block of the documentation is what it says it is.

The words after `yaml` say how a block is to be read: nothing for whole documents, `policy` for the `spec` of a policy,
`rules` for a list of rules, `server` for keys of a server's `spec`, `tests` for expected decisions of the first block of
the same file, and `refused` for what must not load.
"""

import json
import re
from pathlib import Path
from textwrap import dedent, indent

import pytest
from jsonschema import Draft202012Validator
from support import pki

from ext_authz.config.load import load, load_policies
from ext_authz.config.policy_tests import run_policy_tests
from ext_authz.config.problem import Problems
from ext_authz.config.schema import json_schema
from ext_authz.config.yaml_source import parse_yaml
from ext_authz.errors import ConfigurationError

DOCS = Path(__file__).parents[3] / "docs"
FILES = (
    "../README.md",
    "../SECURITY.md",
    *(str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md"))),
)
BLOCK = re.compile(r"^ *```yaml([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Not ours to read, and read elsewhere: tests/e2e/test_readme.py, tests/e2e/test_observability.py, tests/unit/test_docs_site.py,
# tests/unit/integrate/test_platform_pages.py, tests/charts/test_install_page.py.
OTHERS = ("istio", "envoy", "kubernetes", "theirs", "values", "printed envoy", "printed istiod", "printed kubernetes")
BLOCKS = [
    pytest.param(name, kind.strip(), dedent(text), id=f"{name}-{number}")
    for name in FILES
    for number, (kind, text) in enumerate(BLOCK.findall((DOCS / name).read_text()))
    if not f"{kind.strip()} ".startswith(tuple(f"{other} " for other in OTHERS))
]
SCHEMA = Draft202012Validator(json_schema())
POLICY = "apiVersion: ext-authz/v1alpha1\nkind: RoutePolicy\nmetadata: {name: example}\nspec:\n"
SERVER = "apiVersion: ext-authz/v1alpha1\nkind: Server\nspec:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file that the documentation names."""
    ca = pki.authority()
    leaf = ca.leaf()
    key = {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    for name, content in {
        "tls/server.pem": leaf.chain_pem,
        "tls/server.key": leaf.key_pem,
        "tls/envoy-ca.pem": ca.pem,
        "ca/c.pem": ca.pem,
        "bundles/cluster.local.pem": ca.pem,
        "bundles/partner.pem": ca.pem,
        "bundles/partner-next.pem": ca.pem,
        "keys/d.json": json.dumps({"keys": [key]}).encode(),
        "policies/a.yaml": (POLICY + "  rules: [{name: a, matches: [{}], public: true}]\n").encode(),
        "teams/b/b.yaml": (POLICY.replace("example", "b") + "  hostnames: [b]\n  rules: [{name: a, matches: [{}], public: true}]\n").encode(),
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def whole(kind: str, text: str) -> str:
    """The documents that a block stands for."""
    match kind.split():
        case [] | ["tests"] | ["printed", "server"]:
            return text
        case ["policy"]:
            return POLICY + indent(text, "  ")
        case ["rules"]:
            return POLICY + "  rules:\n" + indent(text, "    ")
        case ["server"] | ["server", "refused"]:
            return SERVER + indent(text, "  ")
        case _:
            raise AssertionError(kind)


def is_valid(text: str) -> bool:
    problems = Problems()
    documents = parse_yaml(text.encode(), "block", problems)
    problems.raise_if_any()
    return bool(documents) and all(SCHEMA.is_valid(document.value) for document in documents)


@pytest.mark.parametrize(("name", "kind", "text"), BLOCKS)
def test_a_block_of_the_documentation_is_right(folder: Path, name: str, kind: str, text: str) -> None:
    written = whole(kind, text)
    file = folder / "server.yaml"
    file.write_text(written)
    assert is_valid(written)
    if kind == "tests":
        first = BLOCK.findall((DOCS / name).read_text())[0][1]
        (folder / "policy.yaml").write_text(first)
        results = run_policy_tests(folder / "policy.yaml", file)
        assert [result.differences for result in results] == [()] * len(results)
    elif "kind: Server" not in written:
        assert load_policies([file]).policies
    elif kind.endswith("refused"):
        with pytest.raises(ConfigurationError):
            load(file)
    else:
        assert load(file)


def slug(heading: str) -> str:
    """What a heading is linked by; one may say it itself."""
    if named := re.search(r"\{#(.+)\}$", heading):
        return named[1]
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", FILES)
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", (DOCS / name).read_text()):
        if target.startswith("https://"):
            continue
        path = (DOCS / name).parent / target if target else DOCS / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor[1:] in {slug(heading) for heading in headings}, anchor


def test_the_refusals_shown_are_those_told(folder: Path) -> None:
    text = (DOCS / "configuration.md").read_text()
    block = next(block for kind, block in BLOCK.findall(text) if kind.strip() == "server refused")
    (folder / "server.yaml").write_text(whole("server refused", block))
    shown = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    with pytest.raises(ConfigurationError) as caught:
        load(folder / "server.yaml")
    told = [line.partition(": ")[2] for line in caught.value.problems]
    expected = [line.partition(": ")[2].removesuffix("…").rstrip() for line in shown[1].splitlines()]
    assert len(told) == len(expected)
    for line in expected:
        assert any(problem.startswith(line) for problem in told), line
