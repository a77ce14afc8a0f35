"""The `ext-authz` command: picks the subcommand and turns its errors into plain words and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence

from ext_authz import __version__
from ext_authz.cli import check, demo, doctor, integrate, policy_tests, schema, serve, validate
from ext_authz.cli.outcome import Exit, complain
from ext_authz.errors import ConfigurationError

__all__ = ["command_line", "main"]

_COMMANDS = (serve, validate, check, policy_tests, integrate, doctor, schema, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process when None) and return the exit code.

    Raises:
        SystemExit: 2 for a usage error, 0 after `--help` or `--version`.
    """
    parsed = command_line().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except ConfigurationError as error:
        complain(error.problems)
        return Exit.USAGE
    except BrokenPipeError:
        # the reader of our output has seen enough (`| head`); keep the interpreter from flushing into it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except OSError as error:
        complain([f"ext-authz: {_os_error(error)}"])
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def command_line() -> argparse.ArgumentParser:
    """Every subcommand and its arguments; the reference in the documentation is written from it."""
    parser = argparse.ArgumentParser(
        prog="ext-authz",
        description="Authorization server for Envoy and Istio.",
        epilog="Exit codes: 0 success or allowed, 1 denied or failed, 2 usage or configuration error.",
    )
    parser.add_argument("--version", action="version", version=f"ext-authz {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def _os_error(error: OSError) -> str:
    if error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)
