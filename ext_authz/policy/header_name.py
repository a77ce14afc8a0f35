"""Names of header fields that a policy may match, set and remove."""

import re
from typing import Final

__all__ = ["METHOD_OVERRIDE_HEADERS", "check_header_name", "check_removed_header", "check_set_header", "dashed"]

METHOD_OVERRIDE_HEADERS: Final = ("x-http-method", "x-http-method-override", "x-method-override")
"""Some frameworks let them replace the method, which would undo a rule on methods; removed from every allowed request."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,256}")  # RFC 9110 §5.6.2 in lowercase, as HTTP/2 demands
_MESSAGE_FRAMING = frozenset({"content-length", "transfer-encoding", "te", "trailer", "expect"})
_DASHES = str.maketrans("_.", "--")
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "upgrade"})  # RFC 9110 §7.6.1


def check_header_name(name: str) -> None:
    """Raises ValueError when `name` is not a lowercase field name."""
    if name.startswith(":") or name == "host":
        raise ValueError(f"`{name}` is not a header field here; write `method`, `path` or `hostnames` instead")
    if not _TOKEN.fullmatch(name):
        if _TOKEN.fullmatch(name.lower()):
            raise ValueError(f"the header name `{name}` has capitals; write `{name.lower()}`")
        raise ValueError(f"`{name}` is not a header name; write letters, digits and `-`, such as `x-subject`")


def check_removed_header(name: str) -> None:
    """Raises ValueError when a policy must not remove `name`."""
    check_header_name(name)
    if name in _MESSAGE_FRAMING or name in _HOP_BY_HOP:
        raise ValueError(f"the header `{name}` belongs to the connection or frames the message; leave it to the proxy")


def check_set_header(name: str) -> None:
    """Raises ValueError when a policy must not set `name`."""
    check_removed_header(name)
    if name.startswith("x-envoy-"):
        raise ValueError(f"the header `{name}` steers Envoy itself; set what it does in the proxy's configuration")
    if name == "x-forwarded-client-cert":
        raise ValueError(
            "the header `x-forwarded-client-cert` is the proxy's evidence; for the certificate write "
            "`client_certificate: x-client-certificate`"
        )
    if name in METHOD_OVERRIDE_HEADERS:
        raise ValueError(f"the header `{name}` replaces the method that was authorized; it is always removed")


def dashed(name: str) -> str:
    """`name` in the one spelling of all names that some upstream takes for the same.

    `x_subject` and `x-subject` are HTTP_X_SUBJECT to CGI and its heirs. PHP makes that of HTTP_X.SUBJECT as well, which web
    servers hand on to it that replace nothing but the `-`.
    """
    return name.translate(_DASHES)
