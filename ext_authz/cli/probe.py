"""`ext-authz-probe`: asks a running server whether it is ready, for health checks where there is no HTTP client.

A program of its own with nothing but the standard library behind it: it is started every few seconds.
"""

import argparse
import http.client
import sys
from collections.abc import Sequence

from ext_authz.cli.outcome import Exit, complain

__all__ = ["command_line", "main"]

_SECONDS = 2.0
# what is said of not being ready is a few lines
_SHOWN_BYTES = 4_096


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the admin listener, print what it says, and return the exit code: 0 when it says yes."""
    parser = command_line()
    asked = parser.parse_args(arguments)
    host, colon, port = asked.address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        parser.error(f"`{asked.address}` is no host:port")
    connection = http.client.HTTPConnection(host.strip("[]") or "127.0.0.1", int(port), timeout=_SECONDS)
    try:
        connection.request("GET", "/livez" if asked.live else "/readyz")
        answer = connection.getresponse()
        words = answer.read(_SHOWN_BYTES).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        complain([f"ext-authz-probe: {asked.address}: {str(error) or type(error).__name__}"])
        return Exit.FAILED
    finally:
        connection.close()
    print(words)
    return Exit.OK if answer.status == http.client.OK else Exit.FAILED


def command_line() -> argparse.ArgumentParser:
    """The arguments; the reference in the documentation is written from them."""
    parser = argparse.ArgumentParser(
        prog="ext-authz-probe",
        description="Ask the admin listener of a running server whether it is ready. Exits with 0 if it is, else with 1.",
    )
    parser.add_argument(
        "address",
        nargs="?",
        default="127.0.0.1:9001",
        metavar="HOST:PORT",
        help="`admin.address` (default: %(default)s)",
    )
    parser.add_argument("--live", action="store_true", help="ask whether the process lives, ready or not")
    return parser


if __name__ == "__main__":
    sys.exit(main())
