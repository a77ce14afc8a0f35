"""The published schemas accept what loads and refuse what is written in another shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.config_files import POLICY, SERVER

from ext_authz.config.problem import Problems
from ext_authz.config.schema import DIALECT, KINDS, json_schema
from ext_authz.config.yaml_source import parse_yaml

POLICIES = sorted((Path(__file__).parents[3] / "policies").glob("*.yaml"))
ANY = Draft202012Validator(json_schema())


def documents(text: str) -> list[Any]:
    problems = Problems()
    found = [document.value for document in parse_yaml(text.encode(), "f", problems)]
    problems.raise_if_any()
    return found


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_a_schema_is_one(kind: str | None) -> None:
    schema = json_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert schema["$id"] == f"urn:ext-authz:v1alpha1:{kind or 'any'}"
    assert "null" not in {one.get("type") for one in schema["$defs"].values()}
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_and_every_example_of_it_is_right(kind: str) -> None:
    schema = json_schema(kind)
    for name, model in schema["$defs"].items():
        for field, described in model.get("properties", {}).items():
            # pydantic leaves out a description that its model has already
            model_of = schema["$defs"].get(described.get("$ref", "").rpartition("/")[2], {})
            assert described.get("description") or model_of.get("description"), f"{name}.{field}"
            for example in described.get("examples", ()):
                one = {**schema, "$ref": "#/$defs/" + name, "$defs": schema["$defs"]}
                errors = [
                    error
                    for error in Draft202012Validator(one).iter_errors({field: example})
                    if error.validator != "required" or error.path
                ]
                # keys with empty lists stand for what is too long for an example
                assert not [error for error in errors if list(error.path)[:1] == [field]], (name, field, example)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_a_starter_policy_and_its_tests_are_valid(path: Path) -> None:
    for value in documents(path.read_text()):
        Draft202012Validator(json_schema(value["kind"])).validate(value)
        ANY.validate(value)


@pytest.mark.parametrize("text", [SERVER, POLICY])
def test_what_loads_is_valid(text: str) -> None:
    (value,) = documents(text)
    ANY.validate(value)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SERVER, "trusted_hops", "hops"),
        (SERVER, ", trusted_hops: 1", ""),
        (SERVER, "trusted_hops: 1", "trusted_hops: 0"),
        (SERVER, "type: xfcc", "type: xffc"),
        (SERVER, "chain_verified_by: proxy", "chain_verified_by: someone"),
        (SERVER, "{discovery: true}", "{}"),
        (SERVER, "{discovery: true}", "{discovery: true, file: a}"),
        (SERVER, "{discovery: true}", "{url: ftp}"),
        (SERVER, "{discovery: true}", "{discovery: false}"),
        (SERVER, "[https://api.example.com]", "https://api.example.com"),
        (SERVER, "[https://api.example.com]", "[x]\n      algorithms: [HS256]"),
        (SERVER, "[https://api.example.com]", "[x]\n      algorithms: []"),
        (SERVER, "name: corp", "name: Corp"),
        (SERVER, "v1alpha1", "v1"),
        (SERVER, "kind: Server", "kind: Sever"),
        (POLICY, "metadata: {name: billing}\n", ""),
        (POLICY, "method: GET", "method: get"),
        (POLICY, "method: GET", "methods: []"),
        (POLICY, "type: PathPrefix", "type: Prefix"),
        (POLICY, "binding: required", "binding: maybe"),
        (POLICY, "binding: required", "binding: {accept: []}"),
        (POLICY, "binding: required", "peer: someone"),
        (POLICY, "binding: required", "peer: null"),
        (POLICY, "spiffe://cluster.local/ns/applications/sa/*", "https://cluster.local"),
        (POLICY, "public: true", "public: yes"),
        (POLICY, "public: true", "pubic: true"),
        (POLICY, "x-subject: ", "x subject: "),
        (POLICY, "[billing.example.com]", "[Billing.example.com]"),
        (POLICY, "clients: [mywebsite]", "clients: mywebsite"),
        (POLICY, "clients: [mywebsite]", "clients: [1]"),
        (POLICY, "clients: [mywebsite]", "claims: [{equals: 1}]"),
        (POLICY, "clients: [mywebsite]", "claims: [{claim: [], equals: 1}]"),
    ],
)
def test_what_has_another_shape_is_refused(text: str, old: str, new: str) -> None:
    assert old in text
    (value,) = documents(text.replace(old, new, 1))
    assert not ANY.is_valid(value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no kind `RutePolicy`; did you mean `RoutePolicy`"):
        json_schema("RutePolicy")
    with pytest.raises(ValueError, match="write one of"):
        json_schema("zzz")
