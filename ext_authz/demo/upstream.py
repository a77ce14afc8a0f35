"""The demo's application: it answers with what it received, so that everyone sees what ext-authz did to a request."""

import json

from ext_authz.demo.arguments import single_argument
from ext_authz.demo.serving import Request, Response, serve_until_stopped

__all__ = ["echo", "serve_upstream"]


def echo(request: Request) -> Response:
    """Method, target and headers as JSON; header names lowercase, each with the list of its values."""
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    seen = {"method": request.method, "path": request.target, "headers": headers}
    return Response(200, json.dumps(seen, indent=2).encode() + b"\n", (("content-type", "application/json"),))


def serve_upstream(address: str) -> None:
    """Serve at `host:port` until stopped."""
    host, _, port = address.rpartition(":")
    serve_until_stopped(echo, host, int(port))


if __name__ == "__main__":
    serve_upstream(single_argument("HOST:PORT"))
