"""Kubernetes objects against the schemas of their kinds: Kubernetes' own, and those of custom resources beside the charts.

The custom ones are strict on purpose, see `tests/charts/schemas/README.md`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # the package carries no types
import yaml

__all__ = ["KUBERNETES", "check", "documents", "is_custom"]

KUBERNETES = ("1.30", "1.34", "1.37")
"""The oldest that the chart supports, one between, and the newest there are schemas of."""

SCHEMAS = Path(__file__).parents[1] / "charts" / "schemas"


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML stream; empty ones are left out."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def is_custom(manifest: dict[str, Any]) -> bool:
    """Whether the object is of a kind that Kubernetes itself does not have."""
    return _schema_file(manifest).exists()


def check(manifest: dict[str, Any], versions: tuple[str, ...] = KUBERNETES) -> None:
    """Raise jsonschema.ValidationError, or SchemaNotFoundError for a kind that nobody knows.

    Every object must say its namespace: what a chart or a command prints is applied with whatever the context says.
    """
    if is_custom(manifest):
        jsonschema.Draft202012Validator(_schema(_schema_file(manifest))).validate(manifest)
        return
    assert manifest["metadata"].get("namespace"), f"{manifest['kind']} without a namespace"
    for version in versions:
        kubernetes_validate.validate(manifest, version, strict=True)


def _schema_file(manifest: dict[str, Any]) -> Path:
    return SCHEMAS / f"{manifest['apiVersion'].replace('/', '_')}_{manifest['kind']}.yaml"


@cache
def _schema(file: Path) -> dict[str, Any]:
    common = yaml.safe_load((SCHEMAS / "common.yaml").read_text())
    spec = yaml.safe_load(file.read_text())
    definitions = spec.pop("$defs", {})
    api_version, kind = file.stem.rsplit("_", 1)
    schema = {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": api_version.replace("_", "/")},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/$common/metadata"},
            "spec": spec,
        },
        "$defs": definitions,
        "$common": _rooted(common),
    }
    strict: dict[str, Any] = _strict(schema)
    jsonschema.Draft202012Validator.check_schema(strict)
    return strict


def _rooted(value: Any) -> Any:
    """References within `common.yaml` as references within the whole."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/", "#/$common/") if key == "$ref" else _rooted(item) for key, item in value.items()
        }
    return [_rooted(item) for item in value] if isinstance(value, list) else value


def _strict(value: Any) -> Any:
    """No other keys than those listed, wherever nothing else is said."""
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _strict(item) for key, item in value.items()}
    if value.get("type") == "object" and isinstance(value.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
