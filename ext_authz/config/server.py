"""From a Server document to settings; what is unsafe is refused unless it is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509

from ext_authz.config.files import NamedFiles
from ext_authz.config.model_evidence import (
    ClientCert,
    PemHeader,
    SourceCertificate,
    SourcePrincipal,
    WrittenEvidence,
    WrittenSource,
    Xfcc,
)
from ext_authz.config.model_issuer import MAX_SKEW_SECONDS, WrittenIssuer, WrittenKeys
from ext_authz.config.model_server import ServerDocument, WrittenServerSpec
from ext_authz.config.naming import refuse_twice
from ext_authz.config.problem import Problems, shown
from ext_authz.config.server_words import is_plain_http
from ext_authz.config.settings import ListenerSettings, TlsSettings, TrustBundleSettings
from ext_authz.config.validation import field_name, validate, without_items
from ext_authz.config.yaml_source import Document, ValuePath
from ext_authz.errors import Refusal
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
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, Issuer, KeyFile, KeySource, KeyUrl
from ext_authz.token.jwk import KeyFault
from ext_authz.token.jwks import KeySet

__all__ = ["Server", "build_server"]

_GENERIC_TYPES = frozenset({"jwt", "jose", ""})
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
    issuers = _Issuers(document, files, problems)
    for index, raw in enumerate(raw_issuers):
        issuer = validate(WrittenIssuer, raw, document, problems, under=(*_ISSUERS, index))
        if issuer is not None:
            issuers.add(issuer, (*_ISSUERS, index))
    issuers.refuse_twice()
    if written is None:
        return None
    spec = written.spec
    listener = _listener(spec, files)
    bundles = _bundles(spec, document, files, problems)
    if len(problems) > before:
        return None
    return Server(
        spec=spec,
        listener=listener,
        evidence=_evidence(spec.evidence),
        issuers=MappingProxyType(issuers.built),
        bundles=bundles,
        insecure=tuple(issuers.insecure),
    )


def _listener(spec: WrittenServerSpec, files: NamedFiles) -> ListenerSettings:
    written, tls = spec.listener, None
    if written.tls is not None:
        at: ValuePath = ("spec", "listener", "tls")
        client_ca = written.tls.client_ca_file
        files.check_key_pair(written.tls.certificate_file, written.tls.key_file, at)
        if client_ca is not None:
            files.check(client_ca, (*at, "client_ca_file"), _check_roots, "write a PEM file with CA certificates")
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
        drain_seconds=written.drain_seconds,
        default_deadline=written.default_deadline_seconds,
    )


def _check_roots(pem: bytes) -> None:
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("it holds no certificate, or a malformed one") from None


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
            return XfccSource(source.trusted_hops, source.by)
        case PemHeader():
            return PemHeaderSource(source.header)
        case ClientCert():
            return ClientCertSource(source.header, source.chain_header)


class _Issuers:
    """Builds issuers one by one, and collects the flags that make them unsafe."""

    def __init__(self, document: Document, files: NamedFiles, problems: Problems) -> None:
        self._document = document
        self._files = files
        self._problems = problems
        self._names: list[tuple[Document, ValuePath, str]] = []
        self._identifiers: list[tuple[Document, ValuePath, str]] = []
        self.built: dict[str, Issuer] = {}
        self.insecure: list[str] = []

    def refuse_twice(self) -> None:
        """No two issuers have one name, nor one `iss`: whose keys would count?"""
        refuse_twice(self._names, self._problems)
        refuse_twice(self._identifiers, self._problems)

    def add(self, written: WrittenIssuer, at: ValuePath) -> None:
        self._names.append((self._document, (*at, "name"), written.name))
        self._identifiers.append((self._document, (*at, "issuer"), written.issuer))
        self._check_safety(written, at)
        self._check_keys(written, (*at, "keys"))
        self.built[written.name] = Issuer(
            name=written.name,
            issuer=written.issuer,
            audiences=frozenset(written.audiences),
            any_audience=written.insecure_any_audience,
            keys=self._keys(written.keys),
            algorithms=frozenset(written.algorithms),
            types=frozenset(written.types),
            required_claims=frozenset(written.required_claims),
            skew=written.skew_seconds,
            maximum_lifetime=written.maximum_lifetime_seconds,
            client_id_claim=written.client_id_claim,
            scope_claim=written.scope_claim,
            scope_array=written.scope_array,
            ignored_headers=frozenset(written.ignored_headers),
        )

    def _keys(self, keys: WrittenKeys) -> KeySource:
        ca_file = None if keys.ca_file is None else self._files.resolve(keys.ca_file)
        if keys.url is not None:
            return KeyUrl(keys.url, ca_file)
        if keys.file is not None:
            return KeyFile(self._files.resolve(keys.file))
        if keys.inline is not None:
            return InlineKeys(json.dumps(keys.inline))
        return DiscoveredKeys(keys.metadata_url, ca_file)

    def _check_keys(self, written: WrittenIssuer, at: ValuePath) -> None:
        keys = written.keys
        if keys.discovery and not written.issuer.startswith(("https://", "http://")):
            self._problem((*at, "discovery"), "the issuer is not a URL, so nothing can be discovered", "write `url`")
        if keys.ca_file is not None:
            self._files.check(keys.ca_file, (*at, "ca_file"), _check_roots, "write a PEM file with CA certificates")
        if keys.file is not None:
            self._files.check(keys.file, (*at, "file"), _check_key_set, "write a JWKS file with public keys")
        if keys.inline is not None:
            try:
                _check_key_set(json.dumps(keys.inline).encode())
            except ValueError as error:
                self._problem((*at, "inline"), str(error), "write a JWKS with public keys")

    def _check_safety(self, written: WrittenIssuer, at: ValuePath) -> None:
        """Each danger needs its own flag, and each flag its danger."""
        for key, url in (
            ("issuer", written.issuer),
            ("url", written.keys.url),
            ("metadata_url", written.keys.metadata_url),
        ):
            if url is not None and is_plain_http(url):
                path = (*at, key) if key == "issuer" else (*at, "keys", key)
                self._danger(
                    written.insecure_allow_http,
                    path,
                    f"{shown(url)} is plain http to another host",
                    "write `https`, or `insecure_allow_http: true` on a network where nobody else can listen or write",
                )
        self._check_audiences(written, at)
        generic = [name for name in written.types if name in _GENERIC_TYPES]
        if generic:
            self._danger(
                written.insecure_accept_generic_jwt_type,
                (*at, "types"),
                f"the type {shown(generic[0])} is also that of ID tokens and other JWTs (RFC 8725 §3.11)",
                "let the issuer send `at+jwt` (RFC 9068), or write `insecure_accept_generic_jwt_type: true` and "
                "require a claim that only its access tokens have",
            )
        if written.skew_seconds > MAX_SKEW_SECONDS:
            self._danger(
                written.insecure_large_skew,
                (*at, "skew_seconds"),
                f"tokens would be accepted for {written.skew_seconds:g} seconds after they expire",
                f"write at most {MAX_SKEW_SECONDS:g}, or `insecure_large_skew: true`",
            )
        self.insecure += [
            f"issuer `{written.name}`: {flag}: {sentence}"
            for flag, sentence in _INSECURE.items()
            if getattr(written, flag)
        ]

    def _check_audiences(self, written: WrittenIssuer, at: ValuePath) -> None:
        path = (*at, "audiences")
        if "*" in written.audiences:
            self._problem(
                (*path, written.audiences.index("*")),
                "`*` is compared as it stands, like any audience",
                "write this service's audience; to accept any, leave `audiences` out and write `insecure_any_audience: true`",
            )
        elif written.audiences and written.insecure_any_audience:
            self._problem(
                (*at, "insecure_any_audience"), "`audiences` would have no effect", "remove one of the two keys"
            )
        elif not written.audiences:
            self._danger(
                written.insecure_any_audience,
                path,
                "no audience is written, so tokens for other services would be accepted",
                "write this service's audience, or `insecure_any_audience: true`",
            )

    def _danger(self, allowed: bool, path: ValuePath, wrong: str, instead: str) -> None:
        if not allowed:
            self._problem(path, wrong, instead)

    def _problem(self, path: ValuePath, wrong: str, instead: str) -> None:
        self._problems.add(self._document.place(path), field_name(path), wrong, instead)


_INSECURE = MappingProxyType(
    {
        "insecure_allow_http": "whoever is between here and the issuer can replace its keys",
        "insecure_any_audience": "tokens that were issued for other services are accepted",
        "insecure_accept_generic_jwt_type": "other JWTs of the issuer, such as ID tokens, may pass as access tokens",
        "insecure_large_skew": "expired tokens are accepted for longer than clocks explain",
    }
)


def _check_key_set(data: bytes) -> None:
    try:
        keys = KeySet.from_json(data)
    except Refusal as refusal:
        raise ValueError(refusal.detail) from None
    for refused in keys.refused:
        # keys for encryption and of new kinds are passed over; a secret here has leaked
        if not keys.keys or refused.fault in {KeyFault.PRIVATE, KeyFault.SYMMETRIC}:
            raise ValueError(f"key {refused.position + 1} cannot be used: {refused.fault.replace('_', ' ')}")
