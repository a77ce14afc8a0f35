"""What a captured request says about the caller, compared with what the configuration reads and the policies need."""

from collections.abc import Iterator
from typing import assert_never

from ext_authz.config.settings import Configuration
from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.connection import ConnectionEvidence, collect
from ext_authz.evidence.settings import (
    CertificateSource,
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    XfccSource,
)
from ext_authz.evidence.xfcc import parse_xfcc
from ext_authz.facts import RequestFacts
from ext_authz.integrate.finding import Finding, Remedies
from ext_authz.integrate.wants import Wants

__all__ = ["diagnose_caller"]

_XFCC = "x-forwarded-client-cert"


def diagnose_caller(
    facts: RequestFacts, configuration: Configuration, wants: Wants, remedies: Remedies
) -> Iterator[Finding]:
    """What is missing about who is calling."""
    settings = configuration.evidence
    present = {source: _is_present(source, facts) for source in settings.certificate_sources}
    if not any(present.values()):
        yield from _nothing_read(facts, settings, wants, remedies)
        return
    if _is_anothers_xfcc(facts, settings, remedies):
        yield Finding(
            "x-forwarded-client-cert is there, and the connection has no client certificate",
            "the proxy did not write it: it lets through what was sent (`ALWAYS_FORWARD_ONLY`), and a client can send anything; a "
            "waypoint of an ambient mesh, which does write it, is `--platform istio-ambient`",
            "have the proxy replace the header (`SANITIZE_SET`), or append to it (`APPEND_FORWARD`)",
            remedies.xfcc,
        )
    for source, is_present in present.items():
        if not is_present:
            yield _configured_and_absent(source, remedies)
    if facts.source_certificate and not _has(settings, SourceCertificateSource):
        yield Finding(
            "The certificate is sent and not read",
            "`source.certificate` is there, and the configuration does not name it",
            "add `{type: source-certificate}` to `evidence.certificate_sources`: it is the best evidence there is",
        )
    try:
        evidence = collect(facts, settings)
    except Refusal as refusal:
        yield _refused(refusal, facts, settings, remedies)
        return
    yield from _incomplete(evidence, configuration, wants, remedies)


def _is_present(source: CertificateSource, facts: RequestFacts) -> bool:
    match source:
        case XfccSource():
            return _XFCC in facts.headers
        case SourceCertificateSource():
            return bool(facts.source_certificate)
        case PrincipalSource():
            return bool(facts.source_principal)
        case PemHeaderSource(header=name) | ClientCertSource(header=name):
            return name in facts.headers
        case _:
            assert_never(source)


def _is_anothers_xfcc(facts: RequestFacts, settings: EvidenceSettings, remedies: Remedies) -> bool:
    """Whether the header that is read speaks of a certificate that its proxy cannot have seen.

    Envoy names the principal of every client certificate (`source.principal`), and removes the header where there is none.
    """
    return (
        _XFCC in facts.headers
        and _has(settings, XfccSource)
        and not (facts.source_principal or facts.source_certificate)
        and remedies.platform != "istio-ambient"
    )


def _has(settings: EvidenceSettings, kind: type[CertificateSource]) -> bool:
    return any(isinstance(source, kind) for source in settings.certificate_sources)


def _nothing_read(
    facts: RequestFacts, settings: EvidenceSettings, wants: Wants, remedies: Remedies
) -> Iterator[Finding]:
    """No configured source says anything."""
    unread = [
        written
        for written, is_there in (
            ("{type: source-certificate}", bool(facts.source_certificate)),
            ("{type: xfcc, trusted_hops: 1}", _XFCC in facts.headers),
        )
        if is_there
    ]
    if unread and wants.caller:
        yield Finding(
            "The request says who is calling, and the configuration does not read it",
            "rules that need the caller's certificate deny everyone",
            f"add {' or '.join(f'`{written}`' for written in unread)} to `evidence.certificate_sources`, if the proxy "
            "writes it and lets no client's own through",
        )
    elif wants.caller and facts.source_principal:
        yield Finding(
            "The connection has a client certificate, and neither it nor its hash is sent",
            "`source.principal` is there; tokens with `cnf` cannot be checked",
            _send_certificate(remedies),
            remedies.caller,
        )
    elif wants.caller or settings.certificate_sources:
        yield Finding(
            "Nothing says who is on the connection: no certificate, no x-forwarded-client-cert, no principal",
            "tokens with `cnf` are denied (binding_certificate_missing), rules that require a peer deny everyone",
            f"have clients connect with a certificate (mutual TLS), and {_send_certificate(remedies)}",
            remedies.caller,
        )


def _send_certificate(remedies: Remedies) -> str:
    if remedies.filter is not None:
        return "set `include_peer_certificate: true` in the filter"
    if remedies.caller is not None:
        return "have the platform pass on what it saw"
    return "use a platform that passes on the certificate or its hash: this one cannot"


def _configured_and_absent(source: CertificateSource, remedies: Remedies) -> Finding:
    manifest = None
    match source:
        case XfccSource():
            title, change = "x-forwarded-client-cert is read and was not sent", "have the proxy set it (`SANITIZE_SET`)"
            manifest = remedies.xfcc
        case SourceCertificateSource():
            title, change = (
                "The certificate is read and was not sent",
                "set `include_peer_certificate: true` in the filter",
            )
            manifest = remedies.filter
        case PrincipalSource():
            title, change = "The principal is read and is empty", "have clients connect with a certificate (mutual TLS)"
        case PemHeaderSource(header=name) | ClientCertSource(header=name):
            title, change = f"`{name}` is read and was not sent", "have the proxy set it, and remove a client's own"
        case _:
            assert_never(source)
    return Finding(
        title,
        "another source speaks for the caller; what only this one shows is missing",
        f"{change}, or remove the source from `evidence.certificate_sources`",
        manifest,
    )


def _refused(refusal: Refusal, facts: RequestFacts, settings: EvidenceSettings, remedies: Remedies) -> Finding:
    hops = [source.trusted_hops for source in settings.certificate_sources if isinstance(source, XfccSource)]
    match refusal.reason:
        case Reason.XFCC_JSON_NOT_SUPPORTED:
            return Finding(
                "x-forwarded-client-cert is in the JSON form",
                "every request with it is denied (xfcc_json_not_supported)",
                "have the proxy write the text form, which is its default",
                remedies.xfcc,
            )
        case Reason.XFCC_TOO_FEW_ELEMENTS | Reason.XFCC_BY_MISMATCH | Reason.XFCC_VIA_MISMATCH:
            count = len(parse_xfcc(facts.headers.joined(_XFCC) or ""))
            return Finding(
                f"x-forwarded-client-cert has {count} element(s), and `trusted_hops` is {hops[0]}",
                f"{refusal.detail}; the request is denied ({refusal.reason})",
                "count the proxies of yours that append to the header, from the right; have the outermost replace it "
                "(`SANITIZE_SET`), or name the proxies whose elements count in `by` and `via`",
                remedies.xfcc,
            )
        case _:
            return Finding(
                "What the proxy says about the caller cannot be used",
                f"{refusal.detail}; the request is denied ({refusal.reason})",
                "compare the source in `evidence.certificate_sources` with what the proxy really sends",
            )


def _incomplete(
    evidence: ConnectionEvidence, configuration: Configuration, wants: Wants, remedies: Remedies
) -> Iterator[Finding]:
    statements = evidence.statements
    has_certificate = any(statement.certificate is not None for statement in statements)
    if wants.thumbprint and not has_certificate and not any(s.thumbprint is not None for s in statements):
        yield Finding(
            "The caller has a name, and no certificate or hash",
            "tokens with `cnf` are denied (binding_thumbprint_unavailable); an ambient waypoint sends no more than this",
            f"{_send_certificate(remedies)}; where that is impossible, bind by `accept: [spiffe-id]`",
            remedies.thumbprint,
        )
    if not wants.identity:
        return
    if configuration.bundles and not has_certificate:
        yield Finding(
            "The bundles have nothing to verify",
            "`chain_verified_by: bundles` needs the certificate, and the request shows at most its hash: nobody is identified",
            f"{_send_certificate(remedies)}, or write `chain_verified_by: proxy` if the proxy verifies",
            remedies.filter,
        )
    elif not has_certificate and not any(_names_workload(s.uris, s.principal) for s in statements):
        yield Finding(
            "The caller's SPIFFE ID is not sent",
            "rules that require a peer deny this caller: no URI in x-forwarded-client-cert, no SPIFFE ID in the principal",
            "have the proxy add the URI (`set_current_client_cert_details: {uri: true}`); the caller's certificate must "
            "hold exactly one",
            remedies.caller,
        )


def _names_workload(uris: tuple[str, ...] | None, principal: str | None) -> bool:
    return any(text.startswith("spiffe://") for text in (*(uris or ()), principal or ""))
