"""`ext-authz integrate`: the documents that have a platform's proxy ask this server."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ext_authz.cli.outcome import Exit, complain
from ext_authz.integrate.catalogue import PLATFORMS, as_text
from ext_authz.integrate.platform import Destination
from ext_authz.integrate.setup import Setup

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_setup_to", "add_to", "run", "setup_from"]

_DEFAULTS = Setup()


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "integrate",
        help="print what a platform needs to ask this server",
        description=(
            "Print the manifests with which a platform asks this server about every request, the matching part of the "
            "server's configuration, and what can and cannot be proved that way. "
            "`--only kubernetes` prints what `kubectl apply -f -` takes."
        ),
    )
    parser.add_argument("platform", choices=tuple(PLATFORMS), help="where the proxy comes from")
    parser.add_argument(
        "--only",
        type=Destination,
        choices=tuple(Destination),
        action="append",
        default=[],
        metavar="READER",
        help=f"only documents for that reader: {', '.join(Destination)}; may be repeated",
    )
    add_setup_to(parser)
    parser.set_defaults(run=run)


def add_setup_to(parser: argparse.ArgumentParser) -> None:
    """The arguments that a `Setup` is made of."""
    gateway = PLATFORMS["istio-gateway"].setup
    selector, of_gateway = (
        ",".join(f"{key}={value}" for key, value in setup.selector.items()) for setup in (_DEFAULTS, gateway)
    )
    for option, metavar, words in (
        ("--namespace", "NAME", f"namespace of the server (default: {_DEFAULTS.namespace})"),
        ("--service", "NAME", f"service of the server (default: {_DEFAULTS.service})"),
        (
            "--target-namespace",
            "NAME",
            f"namespace of what asks (default: {_DEFAULTS.target_namespace}; istio-gateway: {gateway.target_namespace})",
        ),
        ("--gateway", "NAME", f"Gateway or waypoint that asks (default: {_DEFAULTS.gateway})"),
        (
            "--cluster-domain",
            "NAME",
            f"domain of the cluster's services (default: {_DEFAULTS.cluster_domain})",
        ),
        ("--host", "NAME", f"name that clients use (default: {_DEFAULTS.host})"),
    ):
        parser.add_argument(option, metavar=metavar, help=words)
    parser.add_argument("--port", type=int, metavar="PORT", help=f"port of the service (default: {_DEFAULTS.port})")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help=f"how long the proxy waits (default: {_DEFAULTS.timeout})"
    )
    parser.add_argument(
        "--selector",
        type=_labels,
        metavar="KEY=VALUE,…",
        help=f"labels of the pods that ask (default: {selector}; istio-gateway: {of_gateway})",
    )


def setup_from(arguments: argparse.Namespace, platform: str | None = None) -> Setup | None:
    """The setup that the arguments describe, or None after saying what is wrong with them.

    Args:
        arguments: those that are None are left as they are for the platform.
        platform: its name; None for any.
    """
    usual = _DEFAULTS if platform is None else PLATFORMS[platform].setup
    names = (
        "namespace",
        "service",
        "port",
        "timeout",
        "target_namespace",
        "selector",
        "gateway",
        "host",
        "cluster_domain",
    )
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    try:
        return replace(usual, **given)
    except ValueError as error:
        complain([f"ext-authz: {error}"])
        return None


def run(arguments: argparse.Namespace) -> int:
    """Print the documents."""
    setup = setup_from(arguments, arguments.platform)
    if setup is None:
        return Exit.USAGE
    print(as_text(PLATFORMS[arguments.platform], setup, arguments.only), end="")
    return Exit.OK


def _labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise argparse.ArgumentTypeError("write KEY=VALUE, several with commas")
    return {key: value for key, _, value in pairs}
