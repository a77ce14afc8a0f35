"""The server's configuration as immutable values; what `config.load` returns and the runtime runs on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ext_authz.denials import DenialSettings
from ext_authz.evidence.settings import EvidenceSettings
from ext_authz.policy.model import RoutePolicy
from ext_authz.spiffe import TrustDomain
from ext_authz.token.issuer import Issuer

__all__ = [
    "AdminSettings",
    "Configuration",
    "DenialSettings",
    "KeyFetchSettings",
    "ListenerSettings",
    "LogSettings",
    "TelemetrySettings",
    "TlsSettings",
    "TraceSettings",
    "TrustBundleSettings",
]


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS for the Check listener; all files are PEM and reloaded on change.

    Attributes:
        certificate_file: server chain, leaf first.
        key_file: its private key.
        client_ca_file: when set, Envoy must present a certificate that chains to it (mutual TLS).
    """

    certificate_file: str
    key_file: str
    client_ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where Check is served.

    Attributes:
        address: `host:port`, or `unix:/absolute/path`.
        tls: None for plain text.
        transport: `h2`, our own HTTP/2, or `grpcio`.
        maximum_message_bytes: a larger CheckRequest is refused.
        maximum_concurrent_streams: per connection.
        maximum_connections: at the same time.
        lame_duck_seconds: how long after SIGTERM calls are still taken although health says no.
        drain_seconds: how long in-flight calls may take after that.
        default_deadline: seconds a call may take when Envoy sends no deadline.
        workers: processes that decide; 1 for this one alone, None for one on each core that may be used.
        worker_timeout: seconds after which a worker that says nothing is replaced.
    """

    address: str = "127.0.0.1:9000"
    tls: TlsSettings | None = None
    maximum_message_bytes: int = 1_048_576
    maximum_concurrent_streams: int = 1_000
    maximum_connections: int = 10_000
    lame_duck_seconds: float = 6.0
    drain_seconds: float = 10.0
    default_deadline: float = 1.0
    transport: str = "h2"
    workers: int | None = 1
    worker_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """`/livez`, `/readyz`, `/metrics`: `host:port`, or None for no admin listener."""

    address: str | None = "127.0.0.1:9001"


@dataclass(frozen=True, slots=True)
class TrustBundleSettings:
    """The trust anchors of one trust domain.

    Attributes:
        trust_domain: the domain they vouch for, and no other.
        files: PEM files, reloaded on change. An empty file makes every SVID of the domain invalid.
    """

    trust_domain: TrustDomain
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFetchSettings:
    """How signing keys are fetched.

    Attributes:
        refresh_seconds: age at which a key set is fetched again in the background.
        stale_seconds: age up to which a key set serves when it cannot be fetched.
        timeout_seconds: for one fetch, connection included.
        unknown_key_cooldown_seconds: at most one fetch for an unknown `kid` in this time, per issuer.
        failure_backoff_seconds: first pause after a failed fetch; doubles up to `refresh_seconds`.
    """

    refresh_seconds: float = 300.0
    stale_seconds: float = 86_400.0
    timeout_seconds: float = 5.0
    unknown_key_cooldown_seconds: float = 10.0
    failure_backoff_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Decision and server log: JSON lines on standard output.

    Attributes:
        level: `debug`, `info`, `warning` or `error`.
        allowed: the part of the allow decisions that is logged, 0 to 1; denials always are.
    """

    level: str = "info"
    allowed: float = 1.0


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """OpenTelemetry traces, sent by OTLP over HTTP.

    Attributes:
        endpoint: URL of the collector's traces, such as `http://otel-collector:4318/v1/traces`.
        service_name: `service.name` of the spans.
        maximum_per_second: spans; a client may be the one that asks for them.
        timeout_seconds: for sending one batch.
    """

    endpoint: str
    service_name: str = "ext-authz"
    maximum_per_second: int = 100
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is told about decisions besides the log.

    Attributes:
        decision_metadata: Envoy's dynamic metadata tell each decision's id and reason.
        stage_interval: the stages of one decision in so many are measured; 0 for none.
        traces: None for none.
    """

    decision_metadata: bool = True
    stage_interval: int = 64
    traces: TraceSettings | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything one configuration file and the policy files it names say.

    Attributes:
        listener: the Check service.
        admin: probes and metrics.
        evidence: what may be read from a request.
        issuers: by name.
        bundles: in file order; trust domains are unique.
        policies: in file order (order never decides anything).
        key_fetch: how remote keys are fetched.
        denials: what a denied client sees.
        log: what is logged.
        telemetry: metadata, metrics and traces.
        reload_seconds: how often watched files are looked at.
        canonical_paths: named leniencies for ambiguous paths (see `policy.path`).
        insecure: the `insecure_...` flags that are on, each with the sentence to log at start.
        warnings: findings that do not stop the load, `file:line:column: text`.
        watched_files: every file whose change means a reload.
    """

    listener: ListenerSettings
    admin: AdminSettings
    evidence: EvidenceSettings
    issuers: Mapping[str, Issuer]
    bundles: tuple[TrustBundleSettings, ...]
    policies: tuple[RoutePolicy, ...]
    key_fetch: KeyFetchSettings = field(default_factory=KeyFetchSettings)
    denials: DenialSettings = field(default_factory=DenialSettings)
    log: LogSettings = field(default_factory=LogSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    reload_seconds: float = 1.0
    canonical_paths: frozenset[str] = frozenset()
    insecure: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    watched_files: tuple[str, ...] = ()
