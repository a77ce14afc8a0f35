"""`ext-authz schema`: the JSON Schemas that editors complete and check with."""

import argparse
import json
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit
from ext_authz.config.schema import KINDS, json_schema

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]

_SHORT = {"server": "Server", "policy": "RoutePolicy"}


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "schema",
        help="print a JSON Schema",
        description="Print the JSON Schema of one kind of document, or of all of them for files with several kinds.",
    )
    parser.add_argument("kind", nargs="?", choices=(*_SHORT, *KINDS), help="default: any kind")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(json_schema(_SHORT.get(arguments.kind, arguments.kind)), indent=2))
    return Exit.OK
