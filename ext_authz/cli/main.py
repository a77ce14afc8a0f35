"""The `ext-authz` command: picks the subcommand and turns its errors into plain words and an exit code."""

import argparse
import gc
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module

from ext_authz import __version__
from ext_authz.cli.outcome import Exit, complain
from ext_authz.errors import ConfigurationError

__all__ = ["command_line", "main"]

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve", "run the server"),
    "validate": ("validate", "check configuration and policy files"),
    "check": ("check", "decide one request"),
    "test": ("policy_tests", "run the expected decisions of a policy"),
    "integrate": ("integrate", "print what a platform needs to ask this server"),
    "doctor": ("doctor", "tell what is missing in a proxy's setup"),
    "capture": ("capture", "print one CheckRequest as a proxy sends it"),
    "schema": ("schema", "print a JSON Schema"),
    "demo": ("demo", "show what it does, with a real Envoy on loopback"),
}
"""The module of each and its line in the overview: what one command needs is imported for that command alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process when None) and return the exit code.

    Raises:
        SystemExit: 2 for a usage error, 0 after `--help` or `--version`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    # what is imported stays: looking it over while it grows takes a tenth of the time
    gc.disable()
    try:
        parser = command_line([name for name in _COMMANDS if name in words])
    finally:
        gc.enable()
    parsed = parser.parse_args(words)
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


def command_line(names: Collection[str] = tuple(_COMMANDS)) -> argparse.ArgumentParser:
    """Every subcommand and its arguments; the reference in the documentation is written from it.

    Args:
        names: subcommands whose arguments are wanted; of the others there is only a line in the overview.
    """
    parser = argparse.ArgumentParser(
        prog="ext-authz",
        description="Authorization server for Envoy and Istio.",
        epilog="Exit codes: 0 success or allowed, 1 denied or failed, 2 usage or configuration error.",
    )
    parser.add_argument("--version", action="version", version=f"ext-authz {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        if name in names:
            import_module(f"ext_authz.cli.{module}").add_to(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def _os_error(error: OSError) -> str:
    if error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)
