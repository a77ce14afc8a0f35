#!/usr/bin/env python3
"""Write the chart's values.schema.json: the values of values.schema.yaml, and the server's own configuration in `config`.

With `--check` nothing is written; exits with 1 when the file is not what would be written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ext_authz.config.schema import json_schema

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "values.schema.yaml"
TARGET = HERE / "ext-authz" / "values.schema.json"

BY_THE_CHART = {"WrittenListener": ("address", "tls"), "WrittenServerSpec": ("admin",)}
"""What the chart writes itself, from values of its own."""


def text() -> str:
    """The content of values.schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_closed(yaml.safe_load(SOURCE.read_text()))}
    server = json_schema("Server")["$defs"]
    for name, fields in BY_THE_CHART.items():
        for field in fields:
            del server[name]["properties"][field]
    # a default would have to be the whole object, with the fields that were taken out
    for definition in server.values():
        for value in definition.get("properties", {}).values():
            if isinstance(value.get("default"), dict):
                del value["default"]
    server["ServerSpec"] = server.pop("WrittenServerSpec")
    del server["ServerDocument"]
    schema["$defs"] = {**schema["$defs"], **server}
    return json.dumps(schema, indent=1) + "\n"


def _closed(value: Any) -> Any:
    """Objects take the properties they list, unless they say otherwise."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _closed(item) for key, item in value.items()}
    if value.get("type") == "object" and "properties" in value:
        closed.setdefault("additionalProperties", False)
    return closed


def main() -> None:
    """Write, or compare."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text())
    elif TARGET.read_text() != text():
        sys.exit(f"{TARGET} is not up to date; run `python charts/generate.py`")


if __name__ == "__main__":
    main()
