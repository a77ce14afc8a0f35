"""`ext-authz validate`: every problem in configuration and policy files, without running anything."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit, complain
from ext_authz.config.files import read_documents
from ext_authz.config.load import load_policies
from ext_authz.config.naming import kind_of
from ext_authz.config.problem import Problems
from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import assemble

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "validate",
        help="check configuration and policy files",
        description=(
            "Check files and print every problem with its place. A file with a server's configuration is checked with "
            "all files it names; the others are checked together as policies, their issuers taken on trust. "
            "Exits with 2 when there is a problem; warnings alone do not."
        ),
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="server configuration or policies")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then print everything."""
    servers = [file for file in arguments.files if _holds_server(file)]
    policies = [file for file in arguments.files if file not in servers]
    problems: list[str] = []
    warnings: list[str] = []
    for file in servers:
        try:
            warnings += assemble(file).configuration.warnings
        except ConfigurationError as error:
            problems += error.problems
    if policies:
        try:
            warnings += load_policies(policies).warnings
        except ConfigurationError as error:
            problems += error.problems
    complain(f"warning: {warning}" for warning in dict.fromkeys(warnings))
    complain(dict.fromkeys(problems))
    if problems:
        return Exit.USAGE
    for file in arguments.files:
        print(f"{file}: ok")
    return Exit.OK


def _holds_server(file: str) -> bool:
    # problems of reading are reported by whoever reads the file for its content
    return any(kind_of(document) == "Server" for document in read_documents(Path(file), Problems()))
