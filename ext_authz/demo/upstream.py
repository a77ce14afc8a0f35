"""The demo's application: it answers with what it received, so that everyone sees what ext-authz did to a request."""

import json

from ext_authz.demo.serving import Request, Response

__all__ = ["echo"]


def echo(request: Request) -> Response:
    """Method, target and headers as JSON; header names lowercase, each with the list of its values."""
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    seen = {"method": request.method, "path": request.target, "headers": headers}
    return Response(200, json.dumps(seen, indent=2).encode() + b"\n", (("content-type", "application/json"),))
