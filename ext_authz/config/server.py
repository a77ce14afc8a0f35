"""From a Server document to settings; what is unsafe is refused unless it is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

from ext_authz.config.files import NamedFiles, check_roots
from ext_authz.config.issuers import Issuers
from ext_authz.config.model_evidence import (
    ClientCert,
    PemHeader,
    SourceCertificate,
    SourcePrincipal,
    WrittenEvidence,
    WrittenSource,
    Xfcc,
)
from ext_authz.config.model_issuer import WrittenIssuer
from ext_authz.config.model_server import ServerDocument, WrittenServerSpec
from ext_authz.config.naming import refuse_twice
from ext_authz.config.problem import Problems
from ext_authz.config.settings import ListenerSettings, TlsSettings, TrustBundleSettings
from ext_authz.config.validation import field_name, validate, without_items
from ext_authz.config.yaml_source import Document, ValuePath
from ext_authz.evidence.settings import (
    CertificateSource,
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    TokenSource,
    XfccSource,
)
from ext_authz.identity.bundle import Bundle
from ext_authz.spiffe import TrustDomain
from ext_authz.token.issuer import Issuer

__all__ = ["Server", "build_server"]

_ISSUERS: ValuePath = ("spec", "issuers")


@dataclass(frozen=True, slots=True)
class Server:
    """A Server document that is right in itself.

    Attributes:
        spec: as written.
        listener: with absolute file names.
        evidence: what may be read.
        issuers: by name.
        bundles: with absolute file names.
        insecure: a sentence for each `insecure_...` flag that is on.
    """

    spec: WrittenServerSpec
    listener: ListenerSettings
    evidence: EvidenceSettings
    issuers: Mapping[str, Issuer]
    bundles: tuple[TrustBundleSettings, ...]
    insecure: tuple[str, ...]


def build_server(document: Document, files: NamedFiles, problems: Problems) -> Server | None:
    """The settings of a Server document, or None when something is wrong; then `problems` says what."""
    before = len(problems)
    frame, raw_issuers = without_items(document.value, "issuers")
    written = validate(ServerDocument, frame, document, problems)
    issuers = Issuers(document, files, problems)
    for index, raw in enumerate(raw_issuers):
        issuer = validate(WrittenIssuer, raw, document, problems, under=(*_ISSUERS, index))
        if issuer is not None:
            issuers.add(issuer, (*_ISSUERS, index))
    issuers.refuse_twice()
    if written is None:
        return None
    spec = written.spec
    listener = _listener(spec, document, files, problems)
    bundles = _bundles(spec, document, files, problems)
    if len(problems) > before:
        return None
    return Server(
        spec=spec,
        listener=listener,
        evidence=_evidence(spec.evidence),
        issuers=MappingProxyType(issuers.built),
        # bundles that were written and are not to verify with must not identify anyone
        bundles=bundles if spec.evidence.chain_verified_by == "bundles" else (),
        insecure=tuple(issuers.insecure),
    )


def _listener(spec: WrittenServerSpec, document: Document, files: NamedFiles, problems: Problems) -> ListenerSettings:
    written, tls = spec.listener, None
    if written.transport == "grpcio" and written.workers != 1:
        path: ValuePath = ("spec", "listener", "workers")
        problems.add(
            document.place(path),
            field_name(path),
            "connections are shared among workers with `transport: h2` only",
            "write `transport: h2`, or `workers: 1`",
        )
    if written.tls is not None:
        at: ValuePath = ("spec", "listener", "tls")
        client_ca = written.tls.client_ca_file
        files.check_key_pair(written.tls.certificate_file, written.tls.key_file, at)
        if client_ca is not None:
            files.check(client_ca, (*at, "client_ca_file"), check_roots, "write a PEM file with CA certificates")
        tls = TlsSettings(
            certificate_file=files.resolve(written.tls.certificate_file),
            key_file=files.resolve(written.tls.key_file),
            client_ca_file=None if client_ca is None else files.resolve(client_ca),
        )
    return ListenerSettings(
        address=written.address,
        tls=tls,
        maximum_message_bytes=written.maximum_message_bytes,
        maximum_concurrent_streams=written.maximum_concurrent_streams,
        maximum_connections=written.maximum_connections,
        lame_duck_seconds=written.lame_duck_seconds,
        drain_seconds=written.drain_seconds,
        default_deadline=written.default_deadline_seconds,
        transport=written.transport,
        workers=None if written.workers == "auto" else written.workers,
        worker_timeout=written.worker_timeout_seconds,
    )


def _bundles(
    spec: WrittenServerSpec, document: Document, files: NamedFiles, problems: Problems
) -> tuple[TrustBundleSettings, ...]:
    at: ValuePath = ("spec", "trust_bundles")
    verified_by = spec.evidence.chain_verified_by
    if verified_by == "bundles" and not spec.trust_bundles:
        path = ("spec", "evidence", "chain_verified_by")
        problems.add(
            document.place(path),
            field_name(path),
            "there are no `trust_bundles` to verify with",
            "write `trust_bundles`",
        )
    if verified_by != "bundles" and spec.trust_bundles:
        problems.warn(
            document.place(at),
            field_name(at),
            "the bundles are never used",
            "write `chain_verified_by: bundles` under `evidence`, or remove them",
        )
    refuse_twice(
        (
            (document, (*at, index, "trust_domain"), bundle.trust_domain)
            for index, bundle in enumerate(spec.trust_bundles)
        ),
        problems,
    )
    built = []
    for index, bundle in enumerate(spec.trust_bundles):
        trust_domain = TrustDomain(bundle.trust_domain)

        def check(pem: bytes, trust_domain: TrustDomain = trust_domain) -> None:
            Bundle.from_pem(trust_domain, pem)

        for position, name in enumerate(bundle.files):
            files.check(name, (*at, index, "files", position), check, "write a PEM file with CA certificates")
        built.append(TrustBundleSettings(trust_domain, tuple(files.resolve(name) for name in bundle.files)))
    return tuple(built)


def _evidence(written: WrittenEvidence) -> EvidenceSettings:
    return EvidenceSettings(
        certificate_sources=tuple(_certificate_source(source) for source in written.certificate_sources),
        token_sources=tuple(
            TokenSource(source.header, None if source.scheme == "none" else source.scheme)
            for source in written.token_sources
        ),
        chain_verified_by_proxy=written.chain_verified_by == "proxy",
    )


def _certificate_source(source: WrittenSource) -> CertificateSource:
    match source:
        case SourceCertificate():
            return SourceCertificateSource()
        case SourcePrincipal():
            return PrincipalSource()
        case Xfcc():
            return XfccSource(source.trusted_hops, source.by, source.via)
        case PemHeader():
            return PemHeaderSource(source.header)
        case ClientCert():
            return ClientCertSource(source.header, source.chain_header)
        case _:
            assert_never(source)
