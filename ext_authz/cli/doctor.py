"""`ext-authz doctor`: what is missing in a proxy's setup, from the configuration and a captured request."""

import argparse
from dataclasses import replace
from textwrap import indent
from typing import TYPE_CHECKING

from ext_authz.cli.captured import read_captured
from ext_authz.cli.integrate import add_setup_to, setup_from
from ext_authz.cli.outcome import Exit
from ext_authz.config.load import load
from ext_authz.errors import Refusal
from ext_authz.facts import RequestFacts
from ext_authz.integrate.catalogue import PLATFORMS, as_yaml
from ext_authz.integrate.diagnosis import (
    diagnose_configuration,
    diagnose_metadata,
    diagnose_refusal,
    diagnose_request,
    guess_namespace,
    guess_platform,
)
from ext_authz.integrate.finding import Finding, Remedies
from ext_authz.integrate.platform import Document
from ext_authz.wire.check_request import parse_check_request

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="tell what is missing in a proxy's setup",
        description=(
            "Compare what the configuration reads and its policies need with what a captured CheckRequest holds, and "
            "print what to change in the proxy, with the manifest. The file is the CheckRequest in protobuf JSON; beside "
            "`attributes` it may have `metadata`, a mapping of the gRPC call's metadata. `capture` prints such a file. "
            "Exits with 0 when there is nothing to say, 1 with findings, 2 for a usage or configuration error."
        ),
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="server configuration")
    parser.add_argument("--request", metavar="REQUEST.json", help="a captured CheckRequest, or - for standard input")
    parser.add_argument(
        "--platform", choices=tuple(PLATFORMS), help="where the request comes from (default: what it looks like)"
    )
    add_setup_to(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything, then print everything. Raises ConfigurationError for files that cannot be used."""
    setup = setup_from(arguments)
    if setup is None:
        return Exit.USAGE
    configuration = load(arguments.config)
    findings = [*diagnose_configuration(configuration)]
    if arguments.request is not None:
        message, metadata = read_captured(arguments.request)
        try:
            facts: RequestFacts | None = parse_check_request(message)
        except Refusal as refusal:
            facts = None
            findings.append(diagnose_refusal(refusal))
        platform = arguments.platform or guess_platform(facts)
        if arguments.platform is None:
            print(f"The request looks like one of {PLATFORMS[platform].title}; `--platform` says otherwise.\n")
        setup = setup_from(arguments, platform) or setup
        if arguments.target_namespace is None and (namespace := guess_namespace(facts)) is not None:
            setup = replace(setup, target_namespace=namespace)
        remedies = Remedies(platform, setup)
        if facts is not None:
            findings += diagnose_request(facts, configuration, remedies)
        findings += diagnose_metadata(metadata, remedies)
    manifests: list[Document] = []
    for number, finding in enumerate(findings, start=1):
        print(_shown(number, finding, manifests))
    if not findings:
        print("Nothing to say.")
    return Exit.FAILED if findings else Exit.OK


def _shown(number: int, finding: Finding, manifests: list[Document]) -> str:
    """One finding in words; `manifests` are those printed before, and what is new is added."""
    lines = [f"{number}. {finding.title}", f"   {finding.follows}", f"   Change: {finding.change}"]
    if finding.manifest in manifests:
        lines.append("   The manifest above does this as well.")
    elif finding.manifest is not None:
        manifests.append(finding.manifest)
        lines += ["", indent(as_yaml(finding.manifest), "     ").rstrip()]
    return "\n".join([*lines, ""])
