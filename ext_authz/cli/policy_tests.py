"""`ext-authz test`: the decisions that a policy is expected to make, made."""

import argparse
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit
from ext_authz.config.load import load
from ext_authz.config.policy_tests import run_policy_tests

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "test",
        help="run the expected decisions of a policy",
        description=(
            "Decide every case of TESTS under the policies of POLICY, with peers and tokens as the cases state them, and "
            "print where a decision is not the expected one. Exits with 1 when there is one."
        ),
    )
    parser.add_argument("policy", metavar="POLICY", help="file with RoutePolicy documents")
    parser.add_argument("tests", metavar="TESTS", help="file with PolicyTests documents; may be the same")
    parser.add_argument("--config", metavar="FILE", help="server configuration whose `canonical_paths` count")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the cases. Raises ConfigurationError when a file cannot be used."""
    leniencies = frozenset() if arguments.config is None else load(arguments.config).canonical_paths
    results = run_policy_tests(arguments.policy, arguments.tests, leniencies)
    for result in results:
        print(f"{'ok  ' if result.passed else 'FAIL'} {result.name}")
        for difference in result.differences:
            print(f"     {result.place}: {difference}")
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed}/{len(results)} as expected")
    return Exit.FAILED if failed else Exit.OK
