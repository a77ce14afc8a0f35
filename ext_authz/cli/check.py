"""`ext-authz check`: decide one request as the server would, and say why."""

import argparse
import asyncio
import math
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from ext_authz.authorizer import Examination, authorize
from ext_authz.cli.captured import read_captured
from ext_authz.cli.explain import explanation
from ext_authz.cli.outcome import Exit, complain
from ext_authz.config.settings import Configuration
from ext_authz.decision import Allow, Decision, Diagnostics
from ext_authz.errors import ConfigurationError, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.need import Need
from ext_authz.runtime.assembly import Assembly, assemble
from ext_authz.runtime.key_fault import KeyFetchError
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.token.jwks import KeySet
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_to", "run"]


def add_to(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the subcommand."""
    parser = commands.add_parser(
        "check",
        help="decide one request",
        description=(
            "Decide one CheckRequest as the server would and print the CheckResponse, both in protobuf JSON. "
            "Signing keys are fetched from where the configuration says when the token needs them. "
            "Exits with 0 for allow, 1 for deny, 2 for a usage or configuration error."
        ),
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="server configuration")
    parser.add_argument("--explain", action="store_true", help="tell each step on standard error")
    parser.add_argument(
        "--now", type=_time, metavar="TIME", help="decide as if it were TIME: seconds since the epoch, or RFC 3339"
    )
    parser.add_argument(
        "--jwks",
        type=_named_file,
        action="append",
        default=[],
        metavar="ISSUER=FILE",
        help="use the keys in FILE for the issuer of that name instead of fetching them; may be repeated",
    )
    parser.add_argument("request", metavar="REQUEST.json", help="the CheckRequest, or - for standard input")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decide. Raises ConfigurationError for a configuration, request or key file that cannot be used."""
    assembly = assemble(arguments.config)
    for warning in assembly.configuration.warnings:
        complain([f"warning: {warning}"])
    given = _given_keys(assembly.configuration, arguments.jwks)
    request = read_captured(arguments.request)[0]
    now = time.time() if arguments.now is None else arguments.now
    decision, lines = asyncio.run(_decide(assembly, request, now, given))
    if arguments.explain:
        complain(lines)
    response = CheckResponse.FromString(serialize(decision))
    print(json_format.MessageToJson(response, preserving_proto_field_name=True))
    return Exit.OK if isinstance(decision, Allow) else Exit.DENIED


async def _decide(
    assembly: Assembly, request: bytes, now: float, given: dict[str, KeySet]
) -> tuple[Decision, list[str]]:
    snapshot = assembly.snapshot(given, generation=1)
    try:
        facts = parse_check_request(request)
    except Refusal as refusal:
        denial = snapshot.denials.deny(
            refusal.reason, takes_token=False, diagnostics=Diagnostics(detail=refusal.detail)
        )
        return denial, explanation(RequestFacts(method="", path="", host=""), Examination(), denial)
    keys = dict(given)
    unmet: frozenset[Need] = frozenset()
    notes: list[str] = []
    while True:
        seen = Examination()
        outcome = authorize(facts, snapshot, now, unmet, seen)
        if not isinstance(outcome, Need):
            return outcome, [*notes, *explanation(facts, seen, outcome)]
        unmet |= {outcome}
        if outcome.issuer_name not in given:
            notes.append(await _fetch(assembly.configuration, outcome.issuer_name, keys))
            snapshot = snapshot.with_keys(keys, snapshot.generation + 1)


async def _fetch(configuration: Configuration, issuer_name: str, keys: dict[str, KeySet]) -> str:
    """Fetch the keys of one issuer into `keys`; returns what to tell about it."""
    try:
        keys[issuer_name] = await fetch_keys(
            configuration.issuers[issuer_name], configuration.key_fetch.timeout_seconds
        )
    except KeyFetchError as error:
        return f"keys      of issuer {issuer_name} could not be fetched: {error.detail} ({error.fault})"
    return f"keys      of issuer {issuer_name} fetched: {len(keys[issuer_name].keys)} usable"


def _given_keys(configuration: Configuration, files: list[tuple[str, str]]) -> dict[str, KeySet]:
    keys: dict[str, KeySet] = {}
    for name, file in files:
        if name not in configuration.issuers:
            known = ", ".join(sorted(configuration.issuers)) or "none"
            raise ConfigurationError((f"--jwks: no issuer is called `{name}`; configured: {known}",))
        try:
            keys[name] = KeySet.from_json(Path(file).read_bytes())
        except Refusal as refusal:
            raise ConfigurationError((f"{file}: {refusal.detail}",)) from None
    return keys


def _named_file(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError("write ISSUER=FILE")
    return name, file


def _time(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError("write seconds since the epoch, or a time such as 2026-11-22T10:00:00Z")
    return moment.timestamp()
