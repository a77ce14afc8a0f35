"""`ext-authz serve`: run the server until it is told to stop."""

import argparse
import sys
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit
from ext_authz.runtime.event_loop import run_on_best_loop
from ext_authz.runtime.server import Server
from ext_authz.telemetry.line_sink import LineSink

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="run the server",
        description=(
            "Run the server. Files named in the configuration are watched and reloaded; SIGHUP reloads at once. "
            "SIGTERM and SIGINT drain; a second one ends the process at once."
        ),
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="server configuration")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve. Raises ConfigurationError or OSError when the server cannot start."""
    # Python's own word for a descriptor that was closed by whoever started it; the next socket would get its number, and the log
    if sys.stdout is None:
        raise OSError("standard output is closed, and decisions are logged there")
    sys.stdout.flush()
    sink = LineSink(sys.stdout.fileno())
    try:
        run_on_best_loop(Server(arguments.config, sink).run())
    finally:
        sink.close()
    return Exit.OK
