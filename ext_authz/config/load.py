"""From files to a Configuration, or to every problem in every file at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ext_authz.config.crosscheck import check_against_server, report_findings
from ext_authz.config.files import NamedFiles, read_documents
from ext_authz.config.model_server import WrittenTelemetry
from ext_authz.config.naming import kind_of
from ext_authz.config.policies import LoadedPolicy, build_policies
from ext_authz.config.problem import Place, Problems, closest, shown
from ext_authz.config.server import Server, build_server
from ext_authz.config.settings import (
    AdminSettings,
    Configuration,
    DenialSettings,
    KeyFetchSettings,
    LogSettings,
    TelemetrySettings,
    TraceSettings,
)
from ext_authz.config.validation import field_name
from ext_authz.config.yaml_source import Document
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import RoutePolicy

__all__ = ["Loaded", "LoadedPolicies", "load", "load_compiled", "load_policies"]

_POLICY_KINDS = ("RoutePolicy", "RequirementSet")
_TESTS_KIND = "PolicyTests"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A server's configuration.

    Attributes:
        configuration: as written.
        policies: its policies, compiled; checking them took that.
    """

    configuration: Configuration
    policies: PolicyIndex


@dataclass(frozen=True, slots=True)
class LoadedPolicies:
    """Policies without a server.

    Attributes:
        policies: in file order (order never decides anything).
        warnings: findings, `file:line:column: text`.
    """

    policies: tuple[RoutePolicy, ...]
    warnings: tuple[str, ...]


def load(path: str | Path) -> Configuration:
    """Read a server's configuration and every file it names.

    Args:
        path: a YAML file with one `kind: Server` document; policies may stand beside it in the same file.

    Raises:
        ConfigurationError: with every problem in every file; under `strict: true` warnings are problems.
    """
    return load_compiled(path).configuration


def load_compiled(path: str | Path, before_reading: Callable[[str], None] = lambda _: None) -> Loaded:
    """As `load`.

    Args:
        path: as for `load`.
        before_reading: is told each path before anything is read from it.

    Raises:
        ConfigurationError: as `load`.
    """
    problems = Problems()
    before_reading(str(Path(path).absolute()))
    documents = read_documents(Path(path), problems)
    server_document = _one_server(documents, str(path), problems)
    if server_document is None:
        build_policies(_of_policies(documents, problems), None, problems)
        problems.raise_if_any()
        # an unreadable file has been raised; this one holds nothing
        raise AssertionError(path)
    files = NamedFiles(server_document, problems, before_reading)
    server = build_server(server_document, files, problems)
    policy_documents = [
        *_of_policies((document for document in documents if document is not server_document), problems),
        *_of_policies(_named_documents(server_document, files, problems), problems),
    ]
    issuers = frozenset(server.issuers) if server is not None else _issuer_names(server_document)
    policies = build_policies(policy_documents, issuers, problems)
    index: PolicyIndex | None = None
    if server is not None:
        check_against_server(policies, server, problems)
        index = report_findings(policies, frozenset(server.spec.canonical_paths), problems)
        if server.spec.strict:
            problems.promote_warnings()
    problems.raise_if_any()
    assert server is not None and index is not None, "without a server there are problems"  # noqa: S101, PT018 - for the type checker
    return Loaded(_configuration(server, policies, files, problems), index)


def load_policies(paths: Iterable[str | Path]) -> LoadedPolicies:
    """Read policy files alone; issuers they name are taken on trust.

    Args:
        paths: YAML files with documents of kind RoutePolicy and RequirementSet.

    Raises:
        ConfigurationError: with every problem in every file.
    """
    problems = Problems()
    documents = [document for path in paths for document in read_documents(Path(path), problems)]
    policies = build_policies(_of_policies(documents, problems), None, problems)
    report_findings(policies, frozenset(), problems)
    problems.raise_if_any()
    return LoadedPolicies(tuple(loaded.policy for loaded in policies), problems.warnings)


def _one_server(documents: Iterable[Document], file: str, problems: Problems) -> Document | None:
    servers = [document for document in documents if kind_of(document) == "Server"]
    if not servers and not len(problems):
        problems.add(
            Place(file), "", "there is no `kind: Server` document", "write one; see `ext-authz schema` for its fields"
        )
    for other in servers[1:]:
        problems.add(other.place(("kind",)), "kind", "a second server in one file", "keep one of the two")
    return servers[0] if servers else None


def _of_policies(documents: Iterable[Document], problems: Problems) -> list[Document]:
    """The documents that make policies; anything that is neither that nor expected decisions is a problem."""
    kept = []
    for document in documents:
        kind = kind_of(document)
        if kind in _POLICY_KINDS:
            kept.append(document)
        elif kind == "Server":
            problems.add(
                document.place(("kind",)), "kind", "a server among policies", "give this file to `--config` instead"
            )
        elif kind != _TESTS_KIND:
            wrong = "`kind` is missing" if kind is None else f"there is no kind {shown(kind)}"
            guess = "" if kind is None else closest(kind, (*_POLICY_KINDS, "Server"))
            problems.add(
                document.place(("kind",)), "kind", wrong, guess or "write `kind: RoutePolicy` or `kind: RequirementSet`"
            )
    return kept


def _named_documents(server: Document, files: NamedFiles, problems: Problems) -> list[Document]:
    """The documents of every file that `spec.policies` names, each file once."""
    value = server.value
    spec = value.get("spec") if isinstance(value, dict) else None
    patterns = spec.get("policies") if isinstance(spec, dict) else None
    found: list[Document] = []
    # the server's own file may match as well; its policies are read already
    seen = {Path(server.file).absolute()}
    for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
        at = ("spec", "policies", index)
        for path in files.expand(pattern, at) if isinstance(pattern, str) and pattern else ():
            if path.absolute() not in seen:
                seen.add(path.absolute())
                wrong = len(problems)
                documents = read_documents(path, problems, server.place(at), field_name(at))
                if not documents and len(problems) == wrong:
                    # a file that a tool has emptied looks like one that somebody has commented out
                    problems.warn(
                        Place(str(path)), "", "the file holds no policy", "remove it, or write what it should hold"
                    )
                found += documents
    return found


def _issuer_names(document: Document) -> frozenset[str]:
    """The names of issuers as written, where something else about them is wrong."""
    value = document.value
    spec = value.get("spec") if isinstance(value, dict) else None
    issuers = spec.get("issuers") if isinstance(spec, dict) else None
    return frozenset(
        name
        for issuer in (issuers if isinstance(issuers, list) else ())
        if isinstance(issuer, dict) and isinstance(name := issuer.get("name"), str)
    )


def _telemetry(written: WrittenTelemetry) -> TelemetrySettings:
    return TelemetrySettings(
        decision_metadata=written.decision_metadata,
        stage_interval=written.stage_interval,
        traces=None if written.traces is None else TraceSettings(**written.traces.model_dump()),
    )


def _configuration(
    server: Server, policies: tuple[LoadedPolicy, ...], files: NamedFiles, problems: Problems
) -> Configuration:
    spec = server.spec
    return Configuration(
        listener=server.listener,
        admin=AdminSettings(None if isinstance(spec.admin, str) else spec.admin.address),
        evidence=server.evidence,
        issuers=server.issuers,
        bundles=server.bundles,
        policies=tuple(loaded.policy for loaded in policies),
        key_fetch=KeyFetchSettings(**spec.key_fetch.model_dump()),
        denials=DenialSettings(**spec.denials.model_dump()),
        log=LogSettings(spec.log.level, spec.log.allowed_ratio),
        telemetry=_telemetry(spec.telemetry),
        reload_seconds=spec.reload_seconds,
        canonical_paths=frozenset(spec.canonical_paths),
        insecure=server.insecure,
        warnings=problems.warnings,
        watched_files=tuple(files.watched),
    )
