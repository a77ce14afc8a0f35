"""JSON Schemas of the documents, made from the models that load them, so that editors complete and check."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from itertools import pairwise
from textwrap import dedent
from types import MappingProxyType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from ext_authz.config.model_policy import RoutePolicyDocument
from ext_authz.config.model_requirement import RequirementSetDocument
from ext_authz.config.model_server import ServerDocument
from ext_authz.config.model_tests import PolicyTestsDocument
from ext_authz.config.problem import closest, shown
from ext_authz.config.written import API_VERSION, Written

__all__ = ["DIALECT", "KINDS", "json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_MODELS: Mapping[str, type[Written]] = MappingProxyType(
    {
        "Server": ServerDocument,
        "RoutePolicy": RoutePolicyDocument,
        "RequirementSet": RequirementSetDocument,
        "PolicyTests": PolicyTestsDocument,
    }
)
KINDS = tuple(_MODELS)
_MODE: JsonSchemaMode = "validation"


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """The schema of one kind of document, or of any of them (for files with several).

    Args:
        kind: one of `KINDS`, or None.

    Raises:
        ValueError: there is no such kind.
    """
    if kind is not None and kind not in _MODELS:
        raise ValueError(f"there is no kind {shown(kind)}; {closest(kind, KINDS) or f'write one of {KINDS}'}")
    models: list[type[Written]] = list(_MODELS.values()) if kind is None else [_MODELS[kind]]
    by_model, rest = models_json_schema([(model, _MODE) for model in models], schema_generator=_Generator)
    references = [by_model[model, _MODE] for model in models]
    version = API_VERSION.replace("/", ":")
    return {
        "$schema": DIALECT,
        "$id": f"urn:{version}:{kind or 'any'}",
        "title": f"{API_VERSION} {kind or 'documents'}",
        **(references[0] if kind is not None else {"oneOf": references}),
        "$defs": rest["$defs"],
    }


class _Generator(GenerateJsonSchema):
    """As pydantic's, but None only says that a key is not there, and what is written under a field describes it."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model = schema["cls"]
        for name, description in _descriptions(model):
            made["properties"][model.model_fields[name].alias or name]["description"] = description
        return made

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        if "patternProperties" in made:
            # a key that does not match is wrong, not of any value
            ((pattern, made["additionalProperties"]),) = made.pop("patternProperties").items()
            made["propertyNames"] = {"pattern": pattern}
        return made


def _descriptions(model: type) -> Iterator[tuple[str, str]]:
    """The fields of `model` and its bases with the texts that stand under them in the source."""
    for owner in reversed(model.__mro__):
        if issubclass(owner, Written):
            (written,) = ast.parse(dedent(inspect.getsource(owner))).body
            assert isinstance(written, ast.ClassDef)  # noqa: S101 - for the type checker
            for field, text in pairwise(written.body):
                match field, text:
                    case (
                        ast.AnnAssign(target=ast.Name(name)),
                        ast.Expr(value=ast.Constant(value=str(description))),
                    ):
                        yield name, inspect.cleandoc(description)
