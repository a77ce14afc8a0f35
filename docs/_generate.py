"""Write the pages under `docs/reference`, from the JSON Schemas and from the command line's own description.

python docs/_generate.py           write
python docs/_generate.py --check   exit with 1 where a page is not what would be written
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ext_authz.cli import probe
from ext_authz.cli.main import command_line
from ext_authz.config.schema import json_schema

REFERENCE = Path(__file__).parent / "reference"
SCHEMA = json_schema()
DEFINITIONS: Mapping[str, Any] = SCHEMA["$defs"]
SHOWN_EXAMPLES = 2

PAGES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "configuration.md": (
        "Configuration reference",
        (
            "Every key of `kind: Server`. By example: [Configuration](../configuration.md). "
            "As JSON Schema: `ext-authz schema Server`."
        ),
        ("ServerDocument",),
    ),
    "policy.md": (
        "Policy reference",
        (
            "Every key of `kind: RoutePolicy` and `kind: RequirementSet`. By example: [Policies](../policy.md). "
            "As JSON Schema: `ext-authz schema RoutePolicy` and `ext-authz schema RequirementSet`."
        ),
        ("RoutePolicyDocument", "RequirementSetDocument"),
    ),
    "policy-tests.md": (
        "Policy test reference",
        (
            "Every key of `kind: PolicyTests`. By example: [Expected decisions](../policy.md#expected-decisions). "
            "As JSON Schema: `ext-authz schema PolicyTests`."
        ),
        ("PolicyTestsDocument",),
    ),
}
PREAMBLE = (
    "A key that is not listed is refused, and so is a key without a value. *Required* stands where a key has to be\n"
    "written; *not set* where leaving it out means something of its own, which the description says."
)


def pages() -> dict[str, str]:
    """Every page by its name under `docs/reference`."""
    made = {name: "\n".join(_schema_page(*page)) for name, page in PAGES.items()}
    made["cli.md"] = "\n".join(_command_page())
    return made


def _schema_page(title: str, introduction: str, roots: tuple[str, ...]) -> Iterator[str]:
    yield from (f"# {title}", "", introduction, "", PREAMBLE, "")
    names = list(_reachable(roots))
    used: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for name in names:
        for key, field in DEFINITIONS[name]["properties"].items():
            for target in _references(field):
                if target in used:
                    used[target].append((name, key))
    for name in names:
        definition = DEFINITIONS[name]
        yield from (f"## {_title(name)} {{#{_anchor(name)}}}", "", definition["description"], "")
        if used[name]:
            places = ", ".join(f"`{key}` of [{_title(parent)}](#{_anchor(parent)})" for parent, key in used[name])
            yield from (f"Written as {places}.", "")
        yield from ("| key | type | default | |", "|---|---|---|---|")
        required = definition.get("required", ())
        for key, field in definition["properties"].items():
            default = "*required*" if key in required else _default(field)
            yield f"| `{key}` | {_type(field)} | {default} | {_description(field)} |"
        yield ""


def _reachable(roots: tuple[str, ...]) -> Iterator[str]:
    """Definitions with keys, each once, in the order in which a reader meets them."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name in seen or "properties" not in DEFINITIONS[name]:
            continue
        seen.add(name)
        yield name
        inner = [target for field in DEFINITIONS[name]["properties"].values() for target in _references(field)]
        waiting = inner + waiting


def _references(field: object) -> Iterator[str]:
    match field:
        case {"$ref": str(reference)}:
            yield reference.rpartition("/")[2]
        case dict():
            for key, inner in field.items():
                if key not in {"default", "examples"}:
                    yield from _references(inner)
        case list():
            for inner in field:
                yield from _references(inner)


def _type(field: Mapping[str, Any]) -> str:
    match field:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{_title(name)}](#{_anchor(name)})" if "properties" in DEFINITIONS[name] else "any value"
        case {"const": value}:
            return _code(value)
        case {"enum": list(values)}:
            return " or ".join(_code(value) for value in values)
        case {"oneOf": list(kinds)} | {"anyOf": list(kinds)}:
            return " or ".join(dict.fromkeys(_type(kind) for kind in kinds))
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}{', at least one' if field.get('minItems') else ''}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"mapping of text to {_type(values)}"
        case {"type": "integer" | "number" as kind}:
            return f"{kind}{_bounds(field)}"
        case {"type": "string"}:
            return "text"
        case {"type": str(kind)}:
            return kind
    raise AssertionError(field)


def _bounds(field: Mapping[str, Any]) -> str:
    words = [
        f"{word} {field[key]:,}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "up to"))
        if key in field
    ]
    return f", {' '.join(words)}" if words else ""


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return "*not set*"
    if "$ref" in field:
        return "those of its keys"
    default = field["default"]
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return _code(default)


def _description(field: Mapping[str, Any]) -> str:
    text = field.get("description")
    if text is None:
        (target,) = _references(field)
        text = DEFINITIONS[target]["description"]
    words = [" ".join(text.split())]
    examples = field.get("examples", ())[:SHOWN_EXAMPLES]
    if examples:
        words.append(f"<br>For example {' or '.join(_code(example) for example in examples)}")
    return " ".join(words)


def _code(value: object) -> str:
    """As it is written in YAML, on one line."""
    text = "" if value == "" else yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=sys.maxsize)
    text = text.removesuffix("\n...\n").rstrip("\n") or '""'
    if text.startswith("'"):
        # a text that needs quotes
        text = json.dumps(value)
    elif not isinstance(value, str):
        text = text.replace("'", '"')
    return f"`{text}`"


def _title(name: str) -> str:
    text = name.removeprefix("Written").removesuffix("Document")
    return text[:1].upper() + text[1:]


def _anchor(name: str) -> str:
    # the document and its `spec` would otherwise be the same word to a reader's eye, and differ only here
    return name.removeprefix("Written").lower()


def _command_page() -> Iterator[str]:
    parser = command_line()
    yield from ("# Command line", "", parser.description or "", "", parser.epilog or "", "")
    yield from ("`ext-authz --version` prints the version, `--help` after any command what is said here.", "")
    yield from _commands(parser, "ext-authz", 2)
    yield from _command(probe.command_line(), "ext-authz-probe", 2)


def _commands(parser: argparse.ArgumentParser, prefix: str, level: int) -> Iterator[str]:
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no public name for it
            for name, command in action.choices.items():
                yield from _command(command, f"{prefix} {name}", level)
                yield from _commands(command, f"{prefix} {name}", level + 1)


def _command(parser: argparse.ArgumentParser, name: str, level: int) -> Iterator[str]:
    arguments = [
        action
        for action in _actions(parser)
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)  # noqa: SLF001 - as above
    ]
    synopsis = " ".join([name, *(_usage(action) for action in arguments)])
    yield from (f"{'#' * level} {name}", "", "```text", synopsis, "```", "", parser.description or "", "")
    if arguments:
        yield from ("| argument | |", "|---|---|")
        for action in arguments:
            words = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
            if action.choices and action.metavar is None:
                words += f": {', '.join(f'`{choice}`' for choice in action.choices)}"
            yield f"| {', '.join(f'`{form}`' for form in _forms(action))} | {words} |"
        yield ""


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse has no public way to ask what a parser takes


def _forms(action: argparse.Action) -> list[str]:
    value = _metavar(action)
    if not action.option_strings:
        return [value]
    return [f"{option} {value}" if action.nargs != 0 else option for option in action.option_strings]


def _metavar(action: argparse.Action) -> str:
    return action.dest.upper() if action.metavar is None else str(action.metavar)


def _usage(action: argparse.Action) -> str:
    form = _forms(action)[-1]
    if action.nargs in {"+", "*"}:
        form += " …"
    optional = not action.required if action.option_strings else action.nargs in {"?", "*"}
    return f"[{form}]" if optional else form


def main(arguments: list[str]) -> int:
    """Write or compare; see the top of this file."""
    stale = []
    for name, text in pages().items():
        page = REFERENCE / name
        if not page.exists() or page.read_text() != text:
            stale.append(f"docs/reference/{name}")
            if "--check" not in arguments:
                page.write_text(text)
    if "--check" not in arguments:
        return 0
    for name in stale:
        print(f"{name} is not what the code says; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
