"""Text with `${references}`, split once at load; `$$` is a `$`."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import Attribute, Context, find_attribute
from ext_authz.principal import JsonValue

__all__ = ["MAX_VALUE_LENGTH", "Render", "Template", "is_field_value", "parse_template", "printable_json"]

MAX_VALUE_LENGTH = 8192
"""Characters of one value. Envoy limits all headers together to 60 KiB; a URL-encoded certificate is about 3,000."""

Render: TypeAlias = Callable[[Context], str | None]
"""The text for one request; None when a part is absent."""

_PART = re.compile(r"\$\$|\$\{([^${}]*)\}|[^$]+")


def is_field_value(text: str) -> bool:
    """Whether `text` can be the value of a header: RFC 9110 §5.5, and nothing invisible beyond ASCII."""
    return text.isprintable() and len(text) <= MAX_VALUE_LENGTH and text.strip(" ") == text


@dataclass(frozen=True, slots=True)
class Template:
    """A value to inject.

    Attributes:
        text: as written.
        references: the attributes it names.
        literal: the text when it is the same for every request, else None.
        attribute: the attribute when the template is one single reference, else None.
        render: gives the text; raises Refusal INJECTION_NOT_POSSIBLE for a value no header can carry.
    """

    text: str
    references: tuple[str, ...] = field(init=False)
    literal: str | None = field(init=False, repr=False, compare=False)
    attribute: Attribute | None = field(init=False, repr=False, compare=False)
    render: Render = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse unknown attributes, stray `$`, and text that no header can carry (ValueError)."""
        parts: list[str | Attribute] = []
        references: list[str] = []
        position = 0
        while position < len(self.text):
            match = _PART.match(self.text, position)
            if match is None:
                raise ValueError(
                    f"`{self.text}` has a `$` that begins no `${{reference}}`; for a literal `$` write `$$`"
                )
            position = match.end()
            if match[1] is not None:
                references.append(match[1])
                parts.append(find_attribute(match[1]))
            else:
                text = "$" if match[0] == "$$" else match[0]
                if not text.isprintable():
                    raise ValueError(f"{self.text!r} has a control character; write visible text")
                parts.append(text)
        if not self.text or self.text.strip(" ") != self.text or len(self.text) > MAX_VALUE_LENGTH:
            raise ValueError(f"{self.text!r} is empty, too long, or begins or ends with a space; write visible text")
        object.__setattr__(self, "references", tuple(references))
        object.__setattr__(self, "literal", None if references else "".join(map(str, parts)))
        object.__setattr__(self, "attribute", parts[0] if len(parts) == len(references) == 1 else None)
        object.__setattr__(self, "render", _render(tuple(parts)))


@lru_cache(maxsize=4096)  # many rules of a policy share a few texts
def parse_template(text: str) -> Template:
    """`Template(text)`, once for each text."""
    return Template(text)


def _render(parts: tuple[str | Attribute, ...]) -> Render:
    if len(parts) == 1 and not isinstance(parts[0], str):
        return _render_one(parts[0])
    if all(isinstance(part, str) for part in parts):
        literal = "".join(map(str, parts))
        return lambda _context: literal
    return _render_parts(parts)


def _render_one(attribute: Attribute) -> Render:
    def render(context: Context) -> str | None:
        value = attribute(context)
        text = value if type(value) is str else _text(value)
        if not text:
            # Envoy drops a header whose new value is empty, and would leave the client's own
            return None
        if not is_field_value(text):
            raise _not_possible()
        return text

    return render


def _render_parts(parts: tuple[str | Attribute, ...]) -> Render:
    skeleton = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    attributes = tuple(part for part in parts if not isinstance(part, str))

    def render(context: Context) -> str | None:
        texts: list[str] = []
        for attribute in attributes:
            value = attribute(context)
            text = value if type(value) is str else _text(value)
            if not text:
                return None
            texts.append(text)
        joined = skeleton % tuple(texts)
        if not is_field_value(joined):
            raise _not_possible()
        return joined

    return render


def _text(value: JsonValue) -> str | None:
    """A JSON value as header text: strings as they are, everything else as compact JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, Mapping):
        raise TypeError(type(value).__name__)
    return dict(value)


def printable_json(value: JsonValue) -> JsonValue:
    """`value`, when every text in it is printable.

    Raises:
        Refusal: INJECTION_NOT_POSSIBLE.
    """
    if isinstance(value, str):
        if not value.isprintable():
            raise _not_possible()
    elif isinstance(value, Mapping):
        for name, member in value.items():
            printable_json(name)
            printable_json(member)
    elif isinstance(value, tuple):
        for member in value:
            printable_json(member)
    return value


def _not_possible() -> Refusal:
    return Refusal(
        Reason.INJECTION_NOT_POSSIBLE, "a value to inject has control characters, spaces around it, or is too long"
    )
