"""`ext-authz capture`: stand where the server stands, and print one CheckRequest as the proxy sent it."""

import argparse
import asyncio
from typing import TYPE_CHECKING

from ext_authz.cli.captured import written
from ext_authz.cli.outcome import Exit, complain
from ext_authz.runtime.capture import CaptureServer

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "capture",
        help="print one CheckRequest as a proxy sends it",
        description=(
            "Answer Check in place of the server, print the first CheckRequest in protobuf JSON with the metadata of its call, "
            "for `doctor` and `check`, and end. Every request is denied, or decided by the server of `--forward`. "
            "Tokens, cookies and the body are left out unless `--with-credentials` is given."
        ),
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:9000",
        metavar="ADDRESS",
        help="host:port to listen on, without TLS (default: %(default)s)",
    )
    parser.add_argument(
        "--forward", metavar="ADDRESS", help="host:port of a server that decides meanwhile (without TLS)"
    )
    parser.add_argument(
        "--path",
        default="",
        metavar="PREFIX",
        help="wait for a request whose path begins so; others are answered alike",
    )
    parser.add_argument(
        "--with-credentials", action="store_true", help="print tokens too: `check` needs them, `doctor` does not"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Wait for a request and print it. Raises OSError where it cannot listen."""
    print(asyncio.run(_captured(arguments)))
    return Exit.OK


async def _captured(arguments: argparse.Namespace) -> str:
    async with CaptureServer(arguments.listen, path=arguments.path, forward=arguments.forward) as server:
        decides = f"{arguments.forward} decides" if arguments.forward else "every request is denied"
        complain([f"waiting for a request at {server.address}; {decides}"])
        message, metadata = await server.captured()
    return written(message, metadata, credentials=arguments.with_credentials)
