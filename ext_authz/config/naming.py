"""What documents call themselves, read before they are known to be right, and no name given twice."""

from collections.abc import Iterable

from ext_authz.config.problem import Problems, shown
from ext_authz.config.validation import field_name
from ext_authz.config.yaml_source import Document, ValuePath

__all__ = ["kind_of", "name_of", "refuse_twice"]


def kind_of(document: Document) -> str | None:
    """The `kind` as written, or None."""
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    return kind if isinstance(kind, str) else None


def name_of(document: Document) -> str | None:
    """The `metadata.name` as written, or None."""
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None


def refuse_twice(named: Iterable[tuple[Document, ValuePath, object]], problems: Problems) -> None:
    """Record a problem for each name that stands at two places.

    Args:
        named: a document, the path of the name in it, and the name; anything but a text is passed over.
        problems: takes what is wrong.
    """
    first: dict[str, str] = {}
    for document, path, name in named:
        if not isinstance(name, str):
            continue
        place = document.place(path)
        if name in first:
            problems.add(
                place, field_name(path), f"the name {shown(name)} is taken in {first[name]}", "give each its own name"
            )
        first.setdefault(name, str(place))
