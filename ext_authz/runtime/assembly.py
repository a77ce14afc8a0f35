"""From files to everything a server runs on, checked as a whole before any of it counts. Blocking: call from a thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ext_authz.config.load import load
from ext_authz.config.settings import Configuration, TrustBundleSettings
from ext_authz.denials import Denials
from ext_authz.errors import ConfigurationError
from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.identity.peer import CertificateCache
from ext_authz.policy.index import PolicyIndex
from ext_authz.runtime.tls import TlsMaterial, read_tls, tls_files
from ext_authz.runtime.watch import FileWatch
from ext_authz.snapshot import Snapshot
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet

__all__ = ["Assembly", "assemble", "assemble_watched"]

_MAX_ROUNDS = 3
"""Attempts to read files that name other files while someone is changing which."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """One configuration with all that its files hold, compiled.

    Attributes:
        configuration: as loaded.
        policies: compiled.
        bundles: read.
        tls: for the listener; None for plain text.
    """

    configuration: Configuration
    policies: PolicyIndex
    bundles: Bundles
    tls: TlsMaterial | None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file whose change means another assembly. Key files are read again by the key store."""
        bundle_files = (file for bundle in self.configuration.bundles for file in bundle.files)
        return tuple(
            dict.fromkeys(
                (*self.configuration.watched_files, *bundle_files, *tls_files(self.configuration.listener.tls))
            )
        )

    def snapshot(self, keys: Mapping[str, KeySet], generation: int, previous: Snapshot | None = None) -> Snapshot:
        """Everything a decision depends on, with these signing keys by issuer name.

        Args:
            keys: those that are there; an issuer may lack them.
            generation: one more than that of `previous`.
            previous: issuers that did not change keep their verified tokens.
        """
        configuration = self.configuration
        return Snapshot(
            generation=generation,
            policies=self.policies,
            evidence=configuration.evidence,
            bundles=self.bundles,
            certificates=CertificateCache(),
            issuers=IssuerDirectory(
                configuration.issuers.values(), keys, previous=None if previous is None else previous.issuers
            ),
            denials=Denials(configuration.denials),
            id_in_metadata=configuration.telemetry.decision_metadata,
        )


def assemble(path: str) -> Assembly:
    """Read and check everything that the configuration file at `path` names.

    Raises:
        ConfigurationError: with every problem that could be found.
    """
    configuration = load(path)
    problems: list[str] = []
    bundles: list[Bundle] = []
    for settings in configuration.bundles:
        try:
            bundles.append(_bundle(settings))
        except ConfigurationError as error:
            problems += error.problems
    tls = None
    if configuration.listener.tls is not None:
        try:
            tls = read_tls(configuration.listener.tls)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(tuple(problems))
    policies = PolicyIndex(configuration.policies, configuration.canonical_paths)
    return Assembly(configuration, policies, Bundles(bundles), tls)


def assemble_watched(path: str, watch: FileWatch) -> tuple[Assembly, FileWatch]:
    """`assemble`, with a watch that looked at each file before it was read, so that no later change is missed.

    Args:
        path: of the configuration file.
        watch: one that looked just now; given back when it covers every file that was read.

    Raises:
        ConfigurationError: as `assemble`.
    """
    assembly = assemble(path)
    for _ in range(_MAX_ROUNDS):
        if set(assembly.files) | {path} == set(watch.paths):
            break
        watch = FileWatch((path, *assembly.files))
        assembly = assemble(path)
    return assembly, watch


def _bundle(settings: TrustBundleSettings) -> Bundle:
    parts: list[bytes] = []
    for file in settings.files:
        try:
            parts.append(Path(file).read_bytes())
        except OSError as error:
            raise ConfigurationError((f"{file}: cannot be read: {error.strerror}",)) from None
    try:
        return Bundle.from_pem(settings.trust_domain, b"\n".join(parts))
    except ValueError as error:
        raise ConfigurationError((f"{', '.join(settings.files)}: {error}",)) from None
