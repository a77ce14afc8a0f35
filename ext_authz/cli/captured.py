"""A captured CheckRequest as a file: protobuf JSON, and beside `attributes` the metadata of the call, for `check` and `doctor`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from ext_authz.errors import ConfigurationError
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

__all__ = ["LEFT_OUT", "read_captured", "written"]

LEFT_OUT = "[left out]"
_CREDENTIALS = frozenset({"authorization", "cookie", "dpop", "proxy-authorization"})


def read_captured(source: str) -> tuple[bytes, dict[str, str]]:
    """The message and the call's metadata, from a file or, for `-`, from standard input.

    Raises:
        ConfigurationError: it is not a CheckRequest.
        OSError: the file cannot be read.
    """
    name = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        captured = json.loads(text)
        if not isinstance(captured, dict):
            raise ConfigurationError((f"{name}: not a CheckRequest in protobuf JSON: not a mapping",))
        metadata = captured.pop("metadata", {})
        message = json_format.ParseDict(captured, CheckRequest()).SerializeToString()
    # beside its own ParseError, the parser lets errors of odd values through
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError((f"{name}: not a CheckRequest in protobuf JSON: {error}",)) from None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ConfigurationError((f"{name}: `metadata` is not a mapping of names to texts",))
    return message, {key.lower(): value for key, value in metadata.items()}


def written(message: bytes, metadata: Mapping[str, str], *, credentials: bool) -> str:
    """What `read_captured` reads.

    Args:
        message: a serialized CheckRequest.
        metadata: of the call.
        credentials: keep tokens, cookies and the body; without, what stands there instead is `LEFT_OUT`.
    """
    request = CheckRequest.FromString(message)
    if not credentials:
        _leave_out(request)
        metadata = {key: LEFT_OUT if key in _CREDENTIALS else value for key, value in metadata.items()}
    content = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return json.dumps({**content, "metadata": dict(metadata)}, indent=2, ensure_ascii=False)


def _leave_out(request: CheckRequest) -> None:
    http = request.attributes.request.http
    # a copy: a map of protobuf that is written to loses its place, and with it a header
    for key in tuple(http.headers):
        if key.lower() in _CREDENTIALS:
            http.headers[key] = LEFT_OUT
    for header in http.header_map.headers:
        if header.key.lower() in _CREDENTIALS:
            header.raw_value = LEFT_OUT.encode()
            header.value = ""
    http.ClearField("body")
    http.ClearField("raw_body")
