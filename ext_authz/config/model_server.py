"""`kind: Server` as it is written."""

from string import Template
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ext_authz.config.model_evidence import WrittenEvidence
from ext_authz.config.model_issuer import WrittenIssuer
from ext_authz.config.policy_words import TrustDomainName
from ext_authz.config.server_words import Address, HttpUrl, Seconds, TcpAddress
from ext_authz.config.written import ApiVersion, Items, Metadata, Text, Written, refuse, text_or_mapping

__all__ = [
    "ServerDocument",
    "WrittenAdmin",
    "WrittenDenials",
    "WrittenKeyFetch",
    "WrittenListener",
    "WrittenLog",
    "WrittenServerSpec",
    "WrittenTelemetry",
    "WrittenTls",
    "WrittenTraces",
    "WrittenTrustBundle",
]


class WrittenTls(Written):
    """TLS for the Check service. Files are PEM, relative to this file, and read again when they change."""

    certificate_file: Text = Field(examples=["tls/server.pem"])
    """The server's chain, leaf first."""

    key_file: Text = Field(examples=["tls/server.key"])
    """Its private key."""

    client_ca_file: Text | None = Field(default=None, examples=["tls/envoy-ca.pem"])
    """When given, Envoy must present a certificate that chains to it."""


MAX_WORKERS = 256
"""More than any machine needs that runs other things too; a slip of the finger beyond it starts nothing."""


def _written_workers(value: object) -> str:
    return "<text>" if isinstance(value, str) else "<number>"


class WrittenListener(Written):
    """Where Check is served."""

    address: Address = "127.0.0.1:9000"
    """`host:port`, or `unix:/absolute/path`."""

    tls: WrittenTls | None = Field(default=None, examples=[{"certificate_file": "a.pem", "key_file": "a.key"}])
    """Plain text when not given: right on loopback, a Unix socket, and inside a mesh."""

    transport: Literal["h2", "grpcio"] = "h2"
    """`h2` is our own HTTP/2 and several times as fast; `grpcio` is gRPC's own library."""

    maximum_message_bytes: Annotated[int, Field(ge=4096, le=67_108_864)] = 1_048_576
    """A larger CheckRequest is refused."""

    maximum_concurrent_streams: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """For each connection of Envoy."""

    maximum_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Of all Envoys; each opens one or two for each of its threads. Another one is closed as soon as it is opened."""

    lame_duck_seconds: Annotated[float, Field(ge=0, le=3600)] = 6.0
    """How long after SIGTERM calls are still taken, while readiness and health already say no: until every Envoy has
    noticed. More than the interval of its health checks times `unhealthy_threshold`, and a second until all its threads know.
    SIGINT does not wait for it."""

    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long calls in flight may take after that."""

    default_deadline_seconds: Annotated[float, Field(gt=0, le=600)] = 1.0
    """How long a call may take when Envoy sends no deadline."""

    workers: Annotated[
        Annotated[Literal["auto"], Tag("<text>")] | Annotated[int, Field(ge=1, le=MAX_WORKERS), Tag("<number>")],
        Discriminator(_written_workers),
    ] = 1
    """Processes that decide, for more than one core; `auto` for one on each core that this process may use. With 1 there is no
    process besides. Only with `transport: h2`."""

    worker_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """A worker that says nothing for so long hangs and is replaced."""


class WrittenAdmin(Written):
    """`/livez`, `/readyz` and `/metrics`."""

    address: TcpAddress = "127.0.0.1:9001"
    """`host:port`."""


class WrittenTrustBundle(Written):
    """The trust anchors of one trust domain."""

    trust_domain: TrustDomainName = Field(examples=["cluster.local"])
    """The domain they vouch for, and no other."""

    files: Annotated[Items[Text], Field(min_length=1)] = Field(examples=[["bundles/cluster.local.pem"]])
    """PEM files, relative to this file, read again when they change. Empty files make every SVID of the domain invalid."""


class WrittenKeyFetch(Written):
    """How signing keys are fetched."""

    refresh_seconds: Seconds = 300.0
    """Age at which keys are fetched again, in the background."""

    stale_seconds: Seconds = 86_400.0
    """Age up to which keys serve while they cannot be fetched."""

    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """For one fetch, connection included."""

    unknown_key_cooldown_seconds: Seconds = 10.0
    """At most one fetch for unknown key ids in this time, for each issuer."""

    failure_backoff_seconds: Seconds = 1.0
    """First pause after a failed fetch; doubles up to `refresh_seconds`."""

    @model_validator(mode="after")
    def _ordered(self) -> "WrittenKeyFetch":
        if self.stale_seconds < self.refresh_seconds:
            raise refuse(
                "keys would stop serving before they are fetched again; write at least `refresh_seconds`",
                at="stale_seconds",
            )
        return self


def _check_body(text: str) -> str:
    template = Template(text)
    if not template.is_valid():
        raise ValueError("a `$` begins no `${name}`; for a literal `$` write `$$`")
    unknown = sorted(set(template.get_identifiers()) - {"status", "title", "detail", "decision_id"})
    if unknown:
        raise ValueError(
            f"there is no `${{{unknown[0]}}}` here; write `${{status}}`, `${{title}}`, `${{detail}}` or `${{decision_id}}`"
        )
    return text


class WrittenDenials(Written):
    """What a denied client sees."""

    realm: Text | None = Field(default=None, examples=["billing"])
    """Of the challenge in `WWW-Authenticate`."""

    resource_metadata: HttpUrl | None = Field(
        default=None, examples=["https://api.example.com/.well-known/oauth-protected-resource"]
    )
    """URL of the protected resource metadata (RFC 9728), for the challenge."""

    body_template: Annotated[str, AfterValidator(_check_body)] | None = Field(
        default=None, examples=["${status} ${title}"]
    )
    """Text with `${status}`, `${title}`, `${detail}` and `${decision_id}`; problem JSON (RFC 9457) when not given."""

    content_type: Text = "text/plain; charset=utf-8"
    """Of `body_template`."""

    decision_id: bool = True
    """Problem JSON has a member `decision_id`; a template has it where it says so."""


def _written_allowed(value: object) -> str:
    if isinstance(value, bool):
        return "<boolean>"
    return "<number>" if isinstance(value, int | float) else "<text>"


class WrittenLog(Written):
    """The decision and server log: JSON lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below it are left out."""

    allowed: Annotated[
        Annotated[bool, Tag("<boolean>")]
        | Annotated[Literal["all", "none"], Tag("<text>")]
        | Annotated[float, Field(ge=0.0001, le=1), Tag("<number>")],
        Discriminator(_written_allowed),
    ] = True
    """Which allowed requests are logged: `all`, `none`, or the part of them as a number, 0.01 for one in a hundred. `true` and
    `false` say the same as `all` and `none`. Denied requests are always logged."""

    @property
    def allowed_ratio(self) -> float:
        """`allowed` as a number from 0 to 1."""
        if isinstance(self.allowed, str):
            return 1.0 if self.allowed == "all" else 0.0
        return float(self.allowed)


class WrittenTraces(Written):
    """OpenTelemetry traces, sent to a collector. Needs `pip install ext-authz[otel]`."""

    endpoint: HttpUrl = Field(examples=["http://otel-collector:4318/v1/traces"])
    """Where the collector takes OTLP over HTTP."""

    service_name: Text = "ext-authz"
    """`service.name` of the spans."""

    maximum_per_second: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Spans. The caller says which traces are recorded, and the caller may be anyone."""

    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """For sending one batch of spans."""


class WrittenTelemetry(Written):
    """What is told about decisions besides the log."""

    decision_metadata: bool = True
    """Envoy's dynamic metadata tell `decision_id` and `reason` of each decision, for its access log."""

    stage_interval: Annotated[int, Field(ge=0, le=1_000_000)] = 64
    """The stages of one decision in so many are measured; 0 for none."""

    traces: WrittenTraces | None = Field(default=None, examples=[{"endpoint": "http://otel-collector:4318/v1/traces"}])
    """No traces when not given."""


class WrittenServerSpec(Written):
    """The server itself."""

    listener: WrittenListener = WrittenListener()
    """The Check service that Envoy calls."""

    admin: Annotated[
        Annotated[Literal["none"], Tag("<text>")] | Annotated[WrittenAdmin, Tag("<mapping>")],
        Discriminator(text_or_mapping),
    ] = WrittenAdmin()
    """Probes and metrics, or `none`."""

    evidence: WrittenEvidence = WrittenEvidence()
    """What may be read from a request."""

    trust_bundles: Items[WrittenTrustBundle] = ()
    """Trust anchors, for `chain_verified_by: bundles`."""

    issuers: Items[WrittenIssuer] = ()
    """Who may issue tokens."""

    policies: Items[Text] = Field(default=(), examples=[["policies/*.yaml"]])
    """Policy files, relative to this file: `*` and `?` stand for parts of a name, `**` for folders."""

    key_fetch: WrittenKeyFetch = WrittenKeyFetch()
    """How signing keys are fetched."""

    denials: WrittenDenials = WrittenDenials()
    """What a denied client sees."""

    log: WrittenLog = WrittenLog()
    """What is logged."""

    telemetry: WrittenTelemetry = WrittenTelemetry()
    """What is told besides."""

    canonical_paths: Items[
        Literal[
            "merge_slashes",
            "allow_path_parameters",
            "allow_encoded_slash",
            "resolve_dot_segments",
            "allow_double_encoding",
            "case_sensitive",
            "allow_exclamation_mark",
            "ignore_host_port",
        ]
    ] = Field(default=(), examples=[["merge_slashes"]])
    """Paths and hosts that are ambiguous are refused with 400; each name here accepts one ambiguity, in one reading."""

    reload_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    """How often files are looked at for changes."""

    strict: bool = False
    """Warnings stop the load."""


class ServerDocument(Written):
    """One server and everything it trusts."""

    apiVersion: ApiVersion  # noqa: N815 - the key every Kubernetes-like document has
    """The version of this format."""

    kind: Literal["Server"]
    """This document configures a server."""

    metadata: Metadata | None = Field(default=None, examples=[{"name": "edge"}])
    """For people; nothing reads it."""

    spec: WrittenServerSpec
    """The server."""
