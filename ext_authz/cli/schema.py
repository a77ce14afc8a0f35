"""`ext-authz schema`: the JSON Schemas that editors complete and check with."""

import argparse
import json
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit
from ext_authz.config import schema

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "schema",
        help="print a JSON Schema",
        description="Print the JSON Schema of the server configuration or of policies.",
    )
    parser.add_argument("kind", nargs="?", choices=("server", "policy"), default="policy", help="default: policy")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema.of(arguments.kind), indent=2))
    return Exit.OK
