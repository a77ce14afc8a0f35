"""From pydantic's errors to problems: each at its place in the file, in words that say what to write."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ext_authz.config.problem import Problems, closest, shown
from ext_authz.config.written import API_VERSION, Written
from ext_authz.config.yaml_source import Document, PlainValue, ValuePath

__all__ = ["field_name", "validate", "without_items"]

_Model = TypeVar("_Model", bound=Written)

_EXAMPLES: Mapping[str, str] = {
    "apiVersion": f"apiVersion: {API_VERSION}",
    "metadata": "metadata: {name: billing}",
    "name": "name: billing",
    "spec": "spec:` with what belongs to it indented below; `spec: {}",
    "rules": "rules:` with a list of `- name: …",
    "matches": "matches: [{path: {value: /invoices}}]",
    "value": "value: /invoices",
    "claim": "claim: department",
    "issuer": "issuer: https://login.example.com",
    "keys": "keys: {discovery: true}",
    "trust_domain": "trust_domain: cluster.local",
    "files": "files: [bundle.pem]",
    "certificate_file": "certificate_file: server.pem",
    "key_file": "key_file: server.key",
    "header": "header: x-client-certificate",
    "trusted_hops": "trusted_hops: 1` (count proxies from the right: 1 is the one that calls us); `trusted_hops: 2",
}

_TYPES: Mapping[str, tuple[str, str]] = {
    "string_type": ("not text", "write text, and quote what YAML reads as a number or as `true`"),
    "bool_type": ("not `true` or `false`", "write one of the two"),
    "int_type": ("not a whole number", "write one without quotes"),
    "float_type": ("not a number", "write one without quotes"),
    "tuple_type": ("not a list", "write `[one, another]`"),
    "dict_type": ("not a mapping", "write `key: value`"),
    "model_type": ("not a mapping", "write `key: value`"),
    "too_short": ("the list is empty", "write at least one item"),
}

_SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})


def validate(
    model: type[_Model],
    value: PlainValue,
    document: Document,
    problems: Problems,
    *,
    under: ValuePath = (),
    context: object = None,
) -> _Model | None:
    """`value` as `model`, or None when it is not one; then `problems` says why.

    Args:
        model: what it should be.
        value: the plain value at `under`.
        document: where it is written.
        problems: takes what is wrong.
        under: the path of `value` in the document.
        context: names that may be referred to.
    """
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _report(model, detail, document, under, problems)
        return None


def without_items(value: PlainValue, key: str) -> tuple[PlainValue, list[PlainValue]]:
    """A document with an empty list at `spec.<key>`, and that list's items, so that each can be checked on its own.

    Returns:
        The document as it is and no items when there is no such list.
    """
    spec = value.get("spec") if isinstance(value, dict) else None
    items = spec.get(key) if isinstance(spec, dict) else None
    if isinstance(value, dict) and isinstance(spec, dict) and isinstance(items, list):
        return {**value, "spec": {**spec, key: []}}, items
    return value, []


def field_name(path: Iterable[str | int]) -> str:
    """A path as people write it: `spec.rules[0].name`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _report(
    model: type[Written], detail: ErrorDetails, document: Document, under: ValuePath, problems: Problems
) -> None:
    path, of_key = _path_in_file(document, under, detail["loc"])
    wrong, instead = _words(model, detail)
    at = detail.get("ctx", {}).get("at", "")
    if at:
        path = (*path, at)
    problems.add(
        document.place(path, of_key=of_key or detail["type"] == "extra_forbidden"), field_name(path), wrong, instead
    )


def _path_in_file(document: Document, under: ValuePath, loc: ValuePath) -> tuple[ValuePath, bool]:
    """`loc` without pydantic's own steps (tags of unions, `[key]`), and whether it means a key."""
    of_key = bool(loc) and loc[-1] == "[key]"
    node = document.root
    for step in under:
        node = node.children[step] if node.children else node
    path = list(under)
    steps = loc[:-1] if of_key else loc
    for position, step in enumerate(steps):
        child = node.children.get(step) if node.children else None
        if child is not None:
            node = child
            path.append(step)
        elif position == len(steps) - 1 and step not in _TAGS:
            # the name of a key that is missing
            path.append(step)
    return tuple(path), of_key


_TAGS = frozenset(
    {"<text>", "<mapping>", "source-certificate", "source-principal", "xfcc", "pem-header", "client-cert"}
)


def _words(model: type[Written], detail: ErrorDetails) -> tuple[str, str]:  # noqa: C901 - a table with arguments
    """What is wrong, and what to write instead."""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "missing":
            key = str(detail["loc"][-1])
            return f"the key `{key}` is missing", f"write `{_EXAMPLES.get(key, f'{key}: …')}`"
        case "extra_forbidden":
            key = str(detail["loc"][-1])
            known = _keys_at(model, detail["loc"][:-1])
            return f"there is no key {shown(key)} here", closest(key, known) or f"keys here: {', '.join(known)}"
        case "refused":
            return context["text"], ""
        case "value_error":
            return str(context["error"]), ""
        case "literal_error":
            return _not_one_of(given, _quoted_words(str(context["expected"])))
        case "union_tag_invalid":
            return _not_one_of(str(context["tag"]), _quoted_words(str(context["expected_tags"])))
        case "union_tag_not_found":
            return "the key `type` is missing", "write `type: xfcc` or another kind of source"
        case "bool_type" if isinstance(given, str) and given.lower() in {"yes", "on", "no", "off", "y", "n"}:
            return f"{shown(given)} is text in YAML 1.2", f"write `{str(given.lower() in {'yes', 'on', 'y'}).lower()}`"
        case "tuple_type" if isinstance(given, str):
            return "not a list", f"write `[{shown(given)[1:-1]}]`"
        case _ if kind in _TYPES:
            return _TYPES[kind]
        case _:
            # the bounds of numbers: `Input should be greater than 0`
            return f"{shown(str(given))} is out of bounds", detail["msg"].replace("Input should", "the number must")


def _quoted_words(text: str) -> tuple[str, ...]:
    """The words of pydantic's `'a', 'b' or 'c'`."""
    return tuple(text.replace(" or ", ", ").replace("'", "").replace("True", "true").split(", "))


def _not_one_of(given: object, allowed: tuple[str, ...]) -> tuple[str, str]:
    text = given if isinstance(given, str) else str(given).lower()
    if text.upper() in _SYMMETRIC:
        return (
            f"{shown(text)} is symmetric: who can verify a token can also make one",
            "let the issuer sign with RS256, PS256, ES256 or EdDSA",
        )
    one_of = ", ".join(f"`{word}`" for word in allowed)
    write = f"write {one_of}" if len(allowed) == 1 else f"write one of {one_of}"
    guess = closest(text, allowed) if len(allowed) > 1 else ""
    return f"{shown(text)} is not allowed here", f"{guess} {write}" if guess else write


def _keys_at(model: type[Written], loc: ValuePath) -> tuple[str, ...]:
    """The keys that the mapping at `loc` may have."""
    found: list[type[Written]] = [model]
    for step in loc:
        if isinstance(step, str):
            inside = [one.model_fields[step].annotation for one in found if step in one.model_fields]
            tagged = [one for one in found if step in _kinds(one)]
            found = [leaf for annotation in inside for leaf in _models_in(annotation)] if inside else tagged or found
    return tuple(dict.fromkeys(key for one in found for key in one.model_fields))


def _kinds(model: type[Written]) -> tuple[str, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def _models_in(annotation: Any) -> Iterator[type[Written]]:  # noqa: ANN401 - annotations have no common type
    if isinstance(annotation, type) and issubclass(annotation, Written):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
