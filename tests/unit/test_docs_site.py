"""The documentation is a site that builds, and what it says about the code is so."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import yaml

from ext_authz.cli.main import command_line, main
from ext_authz.integrate.plain_envoy import bootstrap
from ext_authz.integrate.setup import Setup

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
SHELL = re.compile(r"^ *```(?:console|shell|sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^ *```yaml([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def shell_lines(page: Path) -> Iterator[str]:
    """Command lines of a page: those after a prompt where a block has prompts, else all."""
    for block in SHELL.findall(page.read_text()):
        lines = dedent(block).replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from prompted or lines


def commands(program: str) -> list[Any]:
    """Every use of `program` in a shell block, as words up to the next pipe or redirection."""
    found = []
    for page in PAGES:
        for line in shell_lines(page):
            words = shlex.split(re.split(r"[|&;<>]", line, maxsplit=1)[0], comments=True)
            if program in words[:1]:
                found.append(pytest.param(words[1:], id=f"{name_of(page)}: {' '.join(words)}"))
    return found


def yaml_blocks(kind: str) -> list[Any]:
    """Every YAML block of one kind."""
    return [
        pytest.param(dedent(text), id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, (words, text) in enumerate(YAML.findall(page.read_text()))
        if words.strip() == kind
    ]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=source,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    run = build(folder, ROOT)
    assert run.returncode == 0, run.stderr
    return folder


class Fetched(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.addresses.append(named.get("src") or "")
        if tag == "link" and named.get("rel") != "canonical":
            self.addresses.append(named.get("href") or "")


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text())
        assert [address for address in parser.addresses if re.match(r"(?:\w+:)?//", address)] == [], page.name


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists()
    for made in ("security", "changelog", "ready-policies"):
        assert (site / f"{made}.html").exists()


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    for name in ("docs", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md", "SECURITY.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    page = tmp_path / "docs" / "index.md"
    page.write_text(f"{page.read_text()}\n[1](page-0.md) [2](start.md#anchor-0) [3](../policies/file-0.yaml)\n")
    run = build(tmp_path / "site", tmp_path)
    assert run.returncode != 0
    for target in ("page-0.md", "#anchor-0", "policies/file-0.yaml"):
        assert target in run.stderr


def test_the_reference_is_what_the_code_says(generator: ModuleType) -> None:
    written = {page.name: page.read_text() for page in (DOCS / "reference").glob("*.md")}
    made = generator.pages()
    assert written.keys() == made.keys()
    for name, text in made.items():
        assert written[name] == text, f"docs/reference/{name} is stale: run `make docs`"


def test_every_field_of_the_schema_is_in_the_reference(generator: ModuleType) -> None:
    text = "".join(generator.pages().values())
    fields = [
        (name, field)
        for name, definition in generator.DEFINITIONS.items()
        for field in definition.get("properties", ())
    ]
    assert len(fields) > 100
    for name, field in fields:
        section = text.partition(f"{{#{generator._anchor(name)}}}")[2].partition("\n## ")[0]
        assert f"| `{field}` |" in section, (name, field)


def test_a_page_that_is_stale_is_told(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "REFERENCE", tmp_path)
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "cli.md").write_text("# Command line\n")
    assert generator.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/reference/cli.md is not what the code says; run `make docs`\n"


@pytest.mark.parametrize("words", commands("ext-authz"))
def test_a_command_that_is_shown_is_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ended: SystemExit | None = None
    try:
        command_line().parse_args(words)
    except SystemExit as error:
        ended = error
    assert ended is None or ended.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("words", commands("make"))
def test_a_make_target_that_is_shown_is_one(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def test_starting_goes_as_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / "start.md").read_text()
    policy, tests, server = (text for _, text in YAML.findall(page))
    (request,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "policies").mkdir()
    for name, text in {
        "policies/orders.yaml": policy,
        "policies/orders.tests.yaml": tests,
        "server.yaml": server,
        "request.json": request,
    }.items():
        assert f"`{name}`" in page
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    shown = 0
    for block in SHELL.findall(page):
        command, _, output = block.partition("\n")
        words = shlex.split(command.partition(">")[0])
        if not output or words[1] != "ext-authz" or output.startswith("$"):
            continue
        main(words[2:])
        captured = capfd.readouterr()
        assert (captured.err if ">" in command else captured.out) == output
        shown += 1
    assert shown == 3


@pytest.mark.parametrize("text", yaml_blocks("theirs"))
def test_a_block_of_another_tool_is_yaml_with_a_kind(text: str) -> None:
    for document in yaml.safe_load_all(text):
        assert {"apiVersion", "kind", "spec"} <= document.keys()


@pytest.mark.parametrize("text", yaml_blocks("istio"))
def test_a_block_for_istio_asks_about_everything_and_names_a_timeout(text: str) -> None:
    for document in yaml.safe_load_all(text):
        spec = document["spec"]
        if document["kind"] == "AuthorizationPolicy":
            assert (spec["action"], spec["provider"], spec["rules"]) == ("CUSTOM", {"name": "ext-authz"}, [{}])
        if document["kind"] == "IstioOperator":
            for provider in spec["meshConfig"]["extensionProviders"]:
                assert provider["envoyExtAuthzGrpc"].keys() >= {"service", "port", "timeout", "failOpen"}


@pytest.mark.envoy
def test_envoy_accepts_the_filter_and_the_cluster_of_operations(tmp_path: Path) -> None:
    envoy = pytest.importorskip("ext_authz.demo.envoy")
    page = (DOCS / "operations.md").read_text()
    http_filter, cluster = (yaml.safe_load(text) for words, text in YAML.findall(page) if words.strip() == "envoy")
    configuration: dict[str, Any] = json.loads(json.dumps(bootstrap(Setup())))
    resources = configuration["static_resources"]
    (listener,) = resources["listeners"]
    # files that are not there
    (chain,) = listener["filter_chains"]
    del chain["transport_socket"]
    chain["filters"][0]["typed_config"]["http_filters"][0] = http_filter
    resources["clusters"][0] = cluster
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(configuration))
    run = subprocess.run(
        [str(envoy.envoy_binary()), "--mode", "validate", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_every_test_that_the_security_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "security-model.md").read_text()))
    assert len(named) > 60
    sources = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if not re.search(rf"def {name}\(", sources)} == set()


@pytest.mark.parametrize(
    "page", [DOCS / "operations.md", DOCS / "concepts" / "absent-valid-invalid.md", DOCS / "start.md"]
)
def test_every_reason_that_is_named_exists(page: Path) -> None:
    catalogue = (DOCS / "reasons.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page.read_text()))
    families = {
        "binding",
        "certificate",
        "conflicting",
        "deadline",
        "host",
        "internal",
        "path",
        "signing",
        "spiffe",
        "token",
    }
    reasons = {name for name in named if name.split("_")[0] in families}
    assert {name for name in reasons if f"| `{name}` |" not in catalogue} == set()


def test_every_metric_that_operations_names_exists() -> None:
    source = (ROOT / "ext_authz" / "telemetry" / "metrics.py").read_text()
    named = set(re.findall(r"`(ext_authz_\w+)", (DOCS / "operations.md").read_text()))
    assert named
    for name in named:
        assert f'"{name.removesuffix("_total")}"' in source, name
