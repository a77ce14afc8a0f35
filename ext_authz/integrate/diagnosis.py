"""What a captured request shows to be missing in the setup of the proxy that sent it.

Nothing is decided here, and no token is looked at: `ext-authz check --explain` does that.
"""

import re
from collections.abc import Iterator, Mapping

from ext_authz.config.settings import Configuration
from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import PrincipalSource
from ext_authz.facts import RequestFacts
from ext_authz.integrate.caller_diagnosis import diagnose_caller
from ext_authz.integrate.finding import Finding, Remedies
from ext_authz.integrate.setup import MAXIMUM_TIMEOUT_SECONDS
from ext_authz.integrate.wants import Wants

__all__ = [
    "diagnose_configuration",
    "diagnose_metadata",
    "diagnose_refusal",
    "diagnose_request",
    "guess_namespace",
    "guess_platform",
]

# Envoy writes no more than ten seconds into the first, whatever it waits (seen with 1.40); the second is the call's own deadline
_TIMEOUT_METADATA = "x-envoy-expected-rq-timeout-ms"
_DEADLINE = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)  # grpc-timeout
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_FAILURE_MODE_HEADER = "x-envoy-auth-failure-mode-allowed"
_WORKLOAD = re.compile(r"spiffe://[^/]+/ns/([-a-z0-9]{1,63})/sa/[^/]+")
_DIGITS = 12  # of a number of milliseconds that is worth reading


def guess_platform(facts: RequestFacts | None) -> str:
    """The platform that a request looks like: a workload with a name as Istio gives them, or any Envoy."""
    principal = "" if facts is None else facts.destination_principal
    return "istio-sidecar" if principal.startswith("spiffe://") and "/ns/" in principal else "envoy"


def guess_namespace(facts: RequestFacts | None) -> str | None:
    """The namespace of the workload that a request was sent to, from the name that Istio gives it."""
    match = None if facts is None else _WORKLOAD.fullmatch(facts.destination_principal)
    return None if match is None else match[1]


def diagnose_configuration(configuration: Configuration) -> Iterator[Finding]:
    """What the configuration alone shows."""
    for warning in configuration.warnings:
        yield Finding("The configuration has a warning", warning, "see there")
    sources = configuration.evidence.certificate_sources
    if (
        Wants.of(configuration.policies).thumbprint
        and sources
        and all(isinstance(source, PrincipalSource) for source in sources)
    ):
        yield Finding(
            "Bound tokens can never be checked",
            "the only certificate source is `source-principal`, which has a name and no certificate; a token with `cnf` is "
            "denied (binding_thumbprint_unavailable)",
            "add `source-certificate` or `xfcc` and have the proxy send them, or bind by `accept: [spiffe-id]`",
        )


def diagnose_refusal(refusal: Refusal) -> Finding:
    """A message that the server itself refuses."""
    if refusal.reason is Reason.REQUEST_WITHOUT_HTTP:
        return Finding(
            "The message is not about an HTTP request",
            "every request is denied (request_without_http)",
            "use the HTTP filter `envoy.filters.http.ext_authz`, not the network filter of the same name",
        )
    return Finding(
        "The server refuses the message",
        f"{refusal.detail} ({refusal.reason})",
        "capture the message as Envoy sent it; if this is one, the client's request is malformed",
    )


def diagnose_metadata(metadata: Mapping[str, str], remedies: Remedies) -> Iterator[Finding]:
    """What came with the call beside the message.

    Args:
        metadata: of the gRPC call, names in lowercase.
        remedies: of the platform.
    """
    seconds = _deadline(metadata)
    told = _expected(metadata)
    waits = None
    if seconds is not None and seconds > MAXIMUM_TIMEOUT_SECONDS:
        waits = f"{seconds:.0f} seconds"  # some of it had passed when the call came
    elif seconds is None and told is not None and told >= MAXIMUM_TIMEOUT_SECONDS:
        waits = f"{told:g} seconds" if told > MAXIMUM_TIMEOUT_SECONDS else f"{told:g} seconds or more"
    if waits is not None:
        yield Finding(
            f"The proxy waits {waits} for a decision",
            "a server that hangs holds every client's connection that long; 600 seconds is Istio's default",
            f"set a timeout; {remedies.setup.milliseconds} is more than any decision takes",
            remedies.timeout,
        )


def _deadline(metadata: Mapping[str, str]) -> float | None:
    match = _DEADLINE.fullmatch(metadata.get("grpc-timeout", ""))
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def _expected(metadata: Mapping[str, str]) -> float | None:
    text = metadata.get(_TIMEOUT_METADATA, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def diagnose_request(facts: RequestFacts, configuration: Configuration, remedies: Remedies) -> Iterator[Finding]:
    """Everything a request shows, what is missing for the policies in force first."""
    wants = Wants.of(configuration.policies)
    yield from diagnose_caller(facts, configuration, wants, remedies)
    yield from _destination(facts, wants, remedies)
    if not facts.headers.is_raw and remedies.filter is not None:
        yield Finding(
            "Headers are not sent byte by byte",
            "Envoy joins repeated headers and replaces bytes that are not UTF-8 before the server sees them",
            "set `encode_raw_headers: true` in the filter",
            remedies.filter,
        )
    if _FAILURE_MODE_HEADER in facts.headers:
        yield Finding(
            "A proxy let this request pass without a decision",
            f"it has `{_FAILURE_MODE_HEADER}`, which a filter with `failure_mode_allow: true` adds when the server is away; "
            "unless the client wrote it itself",
            "set `failure_mode_allow: false` (`failOpen: false`) wherever the server is asked",
            remedies.fail_closed,
        )


def _destination(facts: RequestFacts, wants: Wants, remedies: Remedies) -> Iterator[Finding]:
    if wants.destination_principal and not facts.destination_principal:
        yield Finding(
            "The destination has no principal",
            "policies with `targets: [{destination_principal: …}]` never count for this request",
            "have the proxy itself serve TLS with a certificate that names the workload; where it does not (a waypoint, "
            "a gateway with a plain certificate), choose policies by `hostnames`, `sni` or `context_extensions`",
        )
    if wants.sni and not facts.sni:
        change = "set `include_tls_session: true` in the filter; clients must also send a server name"
        if remedies.filter is None:
            change = "this platform cannot send it: choose policies by `hostnames` or `context_extensions`"
        yield Finding(
            "The TLS server name is not sent",
            "policies with `targets: [{sni: …}]` never count for this request",
            change,
            remedies.filter,
        )
    missing = sorted(wants.context_extensions - facts.context_extensions.keys())
    if wants.context_extensions and len(missing) == len(wants.context_extensions):
        yield Finding(
            "The route has no context extensions",
            f"policies look for {', '.join(f'`{name}`' for name in missing)} and never count for this request",
            "set `check_settings.context_extensions` for the route or virtual host; Istio cannot",
            remedies.extensions,
        )
