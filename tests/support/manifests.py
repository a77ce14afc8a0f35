"""Kubernetes objects against the schemas of their kinds.

Kubernetes' own kinds have theirs in the package `kubernetes-validate`; those of custom resources come from the projects that
define them (`support.custom_resources`). Where neither is to be had, there is one beside the charts, see
`tests/charts/schemas/README.md`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # the package carries no types
import yaml

from support.custom_resources import NEWEST, OLDEST, judge

__all__ = ["KUBERNETES", "check", "documents", "is_custom", "is_described_here"]

KUBERNETES = ("1.30", "1.34", "1.37")
"""The oldest that the chart supports, one between, and the newest there are schemas of."""

SCHEMAS = Path(__file__).parents[1] / "charts" / "schemas"


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML stream; empty ones are left out."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def is_custom(manifest: dict[str, Any]) -> bool:
    """Whether the object is of a kind that Kubernetes itself does not have."""
    group = manifest["apiVersion"].rpartition("/")[0]
    return "." in group and group != "networking.k8s.io"


def is_described_here(manifest: dict[str, Any]) -> bool:
    """Whether the schema of its kind is one of ours."""
    return _schema_file(manifest).exists()


def check(manifest: dict[str, Any], versions: tuple[str, ...] = KUBERNETES) -> None:
    """Raise jsonschema.ValidationError, or SchemaNotFoundError for a kind that nobody knows.

    Every object must say its namespace: what a chart or a command prints is applied with whatever the context says. Custom
    resources skip the test where there is no Go toolchain to fetch their definitions.
    """
    assert manifest["metadata"].get("namespace"), f"{manifest['kind']} without a namespace"
    if is_described_here(manifest):
        jsonschema.Draft202012Validator(_schema(_schema_file(manifest))).validate(manifest)
    elif is_custom(manifest):
        for modules in (OLDEST, NEWEST):
            wrong = judge(manifest, modules)
            if wrong is None:
                raise kubernetes_validate.SchemaNotFoundError(manifest["kind"], manifest["apiVersion"], "")
            if wrong:
                raise jsonschema.ValidationError(f"{manifest['kind']}: {'; '.join(wrong)}")
    else:
        for version in versions:
            kubernetes_validate.validate(manifest, version, strict=True)


def _schema_file(manifest: dict[str, Any]) -> Path:
    return SCHEMAS / f"{manifest['apiVersion'].replace('/', '_')}_{manifest['kind']}.yaml"


@cache
def _schema(file: Path) -> dict[str, Any]:
    common = yaml.safe_load((SCHEMAS / "common.yaml").read_text())
    api_version, kind = file.stem.rsplit("_", 1)
    schema = {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": api_version.replace("_", "/")},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/$common/metadata"},
            "spec": yaml.safe_load(file.read_text()),
        },
        "$common": common,
    }
    strict: dict[str, Any] = _strict(schema)
    jsonschema.Draft202012Validator.check_schema(strict)
    return strict


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
