"""`ext-authz demo`: the whole thing on loopback, with a real Envoy; and its scenarios against a stack elsewhere."""

import argparse
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit, complain

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="show what it does, with a real Envoy on loopback",
        description=(
            "Generate certificates, start an authorization server, an upstream, ext-authz and a real Envoy on loopback, "
            "and send requests through it that must be allowed or denied. The stack then stays up until Ctrl-C."
        ),
    )
    parser.add_argument("--once", action="store_true", help="stop after the table; exit 0 if all is as expected")
    parser.add_argument(
        "--directory", type=Path, default=Path(".demo"), metavar="DIR", help="for files and logs (default: .demo)"
    )
    parser.add_argument("--any-ports", action="store_true", help="take whatever ports are free")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(metavar="[ACTION]")
    prepare = actions.add_parser(
        "prepare", help="only write the files of a stack of containers", description="Write the files and stop."
    )
    prepare.add_argument("directory", type=Path, metavar="DIR", help="where to write")
    prepare.add_argument("--root", default="/demo", metavar="PATH", help="where containers see it (default: /demo)")
    prepare.add_argument(
        "--keep-hours", type=float, default=0.0, metavar="HOURS", help="leave files that are younger as they are"
    )
    prepare.set_defaults(run=_prepare)
    scenarios = actions.add_parser(
        "scenarios", help="only send the requests", description="Send the requests to a stack that is up already."
    )
    scenarios.add_argument("--against", type=Path, required=True, metavar="FILE", help="its stack.json")
    scenarios.set_defaults(run=_scenarios)
    upstream = actions.add_parser("upstream", help="only the echoing upstream", description="Serve until stopped.")
    upstream.add_argument("--address", default="127.0.0.1:10903", metavar="HOST:PORT", help="where to listen")
    upstream.set_defaults(run=_upstream)
    authorization_server = actions.add_parser(
        "authorization-server", help="only the authorization server", description="Serve until stopped."
    )
    authorization_server.add_argument("--config", type=Path, required=True, metavar="FILE", help="its settings")
    authorization_server.set_defaults(run=_authorization_server)


def run(arguments: argparse.Namespace) -> int:
    """Show everything; 0 when all is as expected."""
    if not _is_installed("envoy", "envoy_data_plane", "httpx"):
        return Exit.USAGE
    # imported here, because Envoy's typed configuration takes half a second and an optional dependency
    from ext_authz.demo.run import demonstrate  # noqa: PLC0415

    return demonstrate(arguments.directory, once=arguments.once, any_ports=arguments.any_ports)


def _prepare(arguments: argparse.Namespace) -> int:
    if not _is_installed("envoy_data_plane", "httpx"):
        return Exit.USAGE
    from ext_authz.demo.layout import Placement, prepare  # noqa: PLC0415 - as in `run`

    now = time.time()
    written = arguments.directory / "stack.json"  # the last that is written
    if written.is_file() and now - written.stat().st_mtime < arguments.keep_hours * 3_600:
        print(f"{written} is there already")
        return Exit.OK
    prepare(arguments.directory, Placement.containers(arguments.root), now)
    return Exit.OK


def _scenarios(arguments: argparse.Namespace) -> int:
    if not _is_installed("envoy_data_plane", "httpx"):
        return Exit.USAGE
    from ext_authz.demo.stack import Stack  # noqa: PLC0415 - as in `run`
    from ext_authz.demo.table import run_table  # noqa: PLC0415 - as in `run`

    try:
        stack = Stack.read(arguments.against)
    except ValueError as error:
        complain([f"ext-authz: {error}"])
        return Exit.USAGE
    tally = run_table(stack)
    print(tally, flush=True)
    return Exit.OK if tally.all_good else Exit.FAILED


def _upstream(arguments: argparse.Namespace) -> int:
    from ext_authz.demo.upstream import serve_upstream  # noqa: PLC0415 - only the demo needs it

    serve_upstream(arguments.address)
    return Exit.OK


def _authorization_server(arguments: argparse.Namespace) -> int:
    from ext_authz.demo.authorization_server import serve_authorization_server  # noqa: PLC0415 - only the demo needs it

    serve_authorization_server(arguments.config)
    return Exit.OK


def _is_installed(*modules: str) -> bool:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        complain(["the demo needs more packages: pip install 'ext-authz[demo]'"])
    return not missing
