"""A captured CheckRequest as a file: protobuf JSON, and beside `attributes` the metadata of the call, for `check` and `doctor`."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from ext_authz.errors import ConfigurationError
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

__all__ = ["LEFT_OUT", "read_captured", "written"]

LEFT_OUT = "[left out]"
_CREDENTIALS = frozenset({"authorization", "cookie", "dpop", "proxy-authorization"})
# wherever else it stands: a JWT begins with the base64url of `{"`; RFC 6750 §2.3 for the query
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+|(?i:(?<=access_token=)[^&#]+)")


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
        metadata = {key: _shown(key, value) for key, value in metadata.items()}
    content = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return json.dumps({**content, "metadata": dict(metadata)}, indent=2)


def _leave_out(request: CheckRequest) -> None:
    http = request.attributes.request.http
    # a copy: a map of protobuf that is written to loses its place, and with it a header
    for key, value in tuple(http.headers.items()):
        http.headers[key] = _shown(key, value)
    for header in http.header_map.headers:
        # a value that is no text is shown as it is, and is no token
        if header.key.lower() in _CREDENTIALS or _TOKEN.search(header.raw_value.decode("latin-1")):
            header.raw_value = _shown(header.key, header.raw_value.decode("latin-1")).encode("latin-1")
        header.value = _shown(header.key, header.value) if header.value else ""
    http.path = _TOKEN.sub(LEFT_OUT, http.path)
    http.ClearField("body")
    http.ClearField("raw_body")


def _shown(name: str, value: str) -> str:
    return LEFT_OUT if name.lower() in _CREDENTIALS else _TOKEN.sub(LEFT_OUT, value)
