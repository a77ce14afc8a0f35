"""Other servers with the same job, on one core, under the same load as ours in the same run.

    python -m bench.peers [--effort quick]

Each is measured as it comes and, where it has caches that are off by default, also with those: the comparison is with
the faster of the two. What each of them leaves unchecked stands at the top of its policy.
"""

import functools
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from support.jwks_endpoint import JwksEndpoint
from support.tokens import AUDIENCE, ISSUER, jwks, signing_key

from bench import workload
from bench.figures import Effort, Report, Unavailable
from bench.load import on_core
from bench.peers.building import FOLDER, Program, build
from bench.serve import TRANSPORT_NAMES
from bench.server import Subject, measure, our_server, wait_for_check
from bench.timing import cores
from ext_authz.demo.ports import choose_ports
from ext_authz.demo.process import Process
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

__all__ = ["PROGRAMS", "run"]

CEILING = Program("ceiling", ".", "google.golang.org/grpc")
OPA = Program(
    "opa",
    "github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin",
    "github.com/open-policy-agent/opa-envoy-plugin",
)
AUTHORINO = Program("authorino", ".", "github.com/kuadrant/authorino")
PROGRAMS = (CEILING, OPA, AUTHORINO)

_AUTHENTICATION_CACHE = """\
      cache: {key: {selector: context.request.http.headers.authorization}, ttl: 300}
"""
_AUTHORIZATION_CACHE = """\
      cache: {key: {expression: "request.headers.authorization + source.certificate + request.path"}, ttl: 300}
"""


def run(effort: Effort) -> Report:
    """Every peer and both of our transports in turns; then the ratios of each turn."""
    report = Report("peers")
    message = workload.request()
    others: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
        "grpc_go_empty": _ceiling,
        "opa_envoy": functools.partial(_opa, cached=False),
        "opa_envoy_cached": functools.partial(_opa, cached=True),
        "authorino": functools.partial(_authorino, cached=False),
        "authorino_cached": functools.partial(_authorino, cached=True),
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        subjects: dict[str, Subject] = {}
        for transport in TRANSPORT_NAMES:
            address = servers.enter_context(our_server(transport, folder / transport))
            subjects[f"ext_authz_{transport}"] = Subject(address, workload.check_allowed)
        for other, start in others.items():
            try:
                address = servers.enter_context(start(folder / other))
            except Unavailable as error:
                report.skip(other, str(error))
                continue
            if other == "grpc_go_empty":
                subjects[other] = Subject(address)
            else:
                _refuses_another_certificate(address)
                subjects[other] = Subject(address, workload.check_allowed)
        try:
            rates = measure(report, subjects, message, effort)
        except Unavailable as error:
            report.skip("h2load", str(error))
            return report
    _compare(report, rates)
    return report


def _compare(report: Report, rates: Mapping[str, Sequence[float]]) -> None:
    def best(*names: str) -> Sequence[float]:
        """The samples of the fastest of those that were measured."""
        return max((rates[name] for name in names if name in rates), key=statistics.median, default=())

    ours = best(*(f"ext_authz_{transport}" for transport in TRANSPORT_NAMES))
    peers = {"opa_envoy": ("opa_envoy", "opa_envoy_cached"), "authorino": ("authorino", "authorino_cached")}
    for name, variants in peers.items():
        if theirs := best(*variants):
            _ratio(report, f"times_{name}", ours, theirs, "over its faster settings")
    if theirs := best(*peers["opa_envoy"], *peers["authorino"]):
        both = all(best(*variants) for variants in peers.values())
        _ratio(report, "times_better_peer", ours, theirs, "" if both else "only one of the two could be measured")


def _ratio(report: Report, name: str, ours: Sequence[float], theirs: Sequence[float], note: str) -> None:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    report.add(name, ratios, "ratio", f"checks per second, turn by turn; {note}".rstrip("; "))


def _refuses_another_certificate(address: str) -> None:
    """A peer that let a stolen token pass would not do the same job."""
    stolen = workload.request(1, text=workload.token(0))
    answer = CheckResponse.FromString(wait_for_check(address, stolen))
    if answer.HasField("status") and answer.status.code == 0:
        raise AssertionError("a token bound to another certificate was accepted")


@contextmanager
def _go_server(program: Program, arguments: list[str], folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    command = on_core(cores()[0], [str(build(program)), *arguments])
    process = Process(program.name, command, folder / "log", {**os.environ, "GOMAXPROCS": "1"})
    process.start()
    try:
        yield
    finally:
        process.stop()


@contextmanager
def _ceiling(folder: Path) -> Iterator[str]:
    (port,) = choose_ports(1)
    with _go_server(CEILING, ["--address", f"127.0.0.1:{port}"], folder):
        yield f"127.0.0.1:{port}"


@contextmanager
def _opa(folder: Path, *, cached: bool) -> Iterator[str]:
    check, api, diagnostics = choose_ports(3)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "opa" / "policy.rego", folder)
    keys = jwks(signing_key("RS256")).decode()
    (folder / "data.json").write_text(json.dumps({"bench": {"jwks": keys, "issuer": ISSUER, "audience": AUDIENCE}}))
    plugin = {"addr": f"127.0.0.1:{check}", "path": "bench/authz/result", "skip-request-body-parse": True}
    config: dict[str, object] = {"plugins": {"envoy_ext_authz_grpc": plugin}}
    if cached:
        named = {"io_jwt": {"max_num_entries": 100_000}}
        config["caching"] = {"inter_query_builtin_value_cache": {"named": named}}
    (folder / "config.json").write_text(json.dumps(config))
    arguments = ["run", "--server", "--addr", f"127.0.0.1:{api}", "--diagnostic-addr", f"127.0.0.1:{diagnostics}"]
    arguments += ["--disable-telemetry", "--log-level", "error", "--config-file", str(folder / "config.json")]
    arguments += [str(folder / "policy.rego"), str(folder / "data.json")]
    with _go_server(OPA, arguments, folder):
        yield f"127.0.0.1:{check}"


@contextmanager
def _authorino(folder: Path, *, cached: bool) -> Iterator[str]:
    (port,) = choose_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    with JwksEndpoint(jwks(signing_key("RS256"))) as endpoint:
        text = (FOLDER / "authorino" / "auth-config.yaml").read_text()
        values = {
            "host": workload.HOST,
            "jwks_url": endpoint.url,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "authentication_cache": _AUTHENTICATION_CACHE if cached else "",
            "authorization_cache": _AUTHORIZATION_CACHE if cached else "",
        }
        for name, value in values.items():
            text = text.replace(f"{{{{{name}}}}}", value.rstrip("\n"))
        (folder / "auth-config.yaml").write_text(text)
        arguments = ["--address", f"127.0.0.1:{port}", "--auth-config", str(folder / "auth-config.yaml")]
        # our own server logs each decision; with caches Authorino is given every advantage, so no log either
        arguments += ["--log-level", "error" if cached else "info", "--evaluator-cache-size", "64"]
        with _go_server(AUTHORINO, arguments, folder):
            yield f"127.0.0.1:{port}"
