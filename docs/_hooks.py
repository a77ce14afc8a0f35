"""What MkDocs does not do by itself: pages that live elsewhere in the repository, and links that lead out of `docs`."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

ELSEWHERE = {"README.md": "index.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Files beside `docs` that the site shows, and as which page."""

POLICIES_PAGE = "ready-policies.md"

# the words after `yaml` tell our tests how to read a block; a highlighter knows none of them
_FENCE = re.compile(r"^( *```[a-z]+) [^\n]*$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]*)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder where the navigation names the folder."""
    config.nav = _expanded(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files beside `docs`."""
    made = {page: (ROOT / name).read_text() for name, page in ELSEWHERE.items() if page != "index.md"}
    made[POLICIES_PAGE] = ready_policies()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs's signature
    """Read fences as the highlighter does, and links as they are meant."""
    # a page that is made of a file beside `docs` has its links written from there
    folder = "." if page.file.src_uri in ELSEWHERE.values() and page.file.src_uri != "index.md" else None
    start = folder if folder is not None else posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def relinked(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(start, target)) if target else ""
        if not path or (path.startswith("docs/") and folder is None) or not (ROOT / path).exists():
            # within the site, or wrong, which MkDocs will say
            return match[0]
        here = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
        if path.startswith("docs/"):
            return f"[{text}]({posixpath.relpath(path, here)}{anchor})"
        if path in ELSEWHERE:
            return f"[{text}]({posixpath.relpath(posixpath.join('docs', ELSEWHERE[path]), here)}{anchor})"
        if path == "policies" or path.startswith("policies/"):
            return f"[{text}]({posixpath.relpath(f'docs/{POLICIES_PAGE}', here)})"
        # a file of the repository that the site does not show: its name is all there is to say
        return text if text.strip("`") == path or "`" in text else f"{text} (`{path}`)"

    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(relinked, part) for part in parts[::2]]
    return _FENCE.sub(r"\1", "".join(parts))


def ready_policies() -> str:
    """The policies of `policies/` with their expected decisions, as one page."""
    lines = [
        "# Ready policies",
        "",
        "Policies to start from, as they are in `policies/`. The expected decisions of each are run with the tests.",
        "",
    ]
    for file in sorted((ROOT / "policies").glob("*.yaml")):
        if file.name.endswith(".tests.yaml"):
            continue
        tests = file.with_name(f"{file.stem}.tests.yaml")
        lines += [f"## {file.stem.replace('-', ' ').capitalize()}", "", f"`policies/{file.name}`", ""]
        lines += ["```yaml", file.read_text().rstrip(), "```", ""]
        if tests.exists():
            lines += [f"Its expected decisions, `policies/{tests.name}`:", ""]
            lines += ["```yaml", tests.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def _expanded(entries: list[Any], docs: Path) -> list[Any]:
    made = []
    for entry in entries:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            made.append({title: _expanded(target, docs)})
        elif target.endswith("/"):
            pages = sorted((docs / target).glob("*.md"), key=lambda page: (page.stem != "index", page.stem))
            made += [{title: [page.relative_to(docs).as_posix() for page in pages]}] if pages else []
        # a page that was renamed is told as one that the navigation lacks
        elif (docs / target).exists() or target in {*ELSEWHERE.values(), POLICIES_PAGE}:
            made.append(entry)
    return made
