"""Where the server runs and what it shall protect: the arguments of every manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["MAXIMUM_TIMEOUT_SECONDS", "Setup"]

MAXIMUM_TIMEOUT_SECONDS = 10.0
"""A proxy that waits longer holds its clients' connections for a decision that takes microseconds."""

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Setup:
    """One installation of the server and one workload or gateway that asks it.

    Attributes:
        namespace: of the server.
        service: name of its Kubernetes service.
        port: of the Check service.
        timeout: seconds the proxy waits for a decision.
        target_namespace: of the workload or gateway that shall ask.
        selector: labels of its pods; for platforms that select pods.
        gateway: name of its Gateway; for platforms that attach to one.
        host: name that clients use; for platforms that attach to a virtual host.
        cluster_domain: in which services have their names.
    """

    namespace: str = "ext-authz"
    service: str = "ext-authz"
    port: int = 9000
    timeout: float = 0.25
    target_namespace: str = "default"
    selector: Mapping[str, str] = field(default_factory=lambda: {"app": "api"})
    gateway: str = "gateway"
    host: str = "api.example.com"
    cluster_domain: str = "cluster.local"

    def __post_init__(self) -> None:
        """Refuse what Kubernetes would refuse, with the word that is wrong."""
        for name, text in (
            ("namespace", self.namespace),
            ("service", self.service),
            ("target namespace", self.target_namespace),
            ("gateway", self.gateway),
        ):
            if not _LABEL.fullmatch(text):
                raise ValueError(f"the {name} is not lowercase letters, digits and `-`")
        if not _HOST.fullmatch(self.host):
            raise ValueError("the host is not a name such as `api.example.com`")
        if not _HOST.fullmatch(self.cluster_domain):
            raise ValueError("the cluster domain is not a name such as `cluster.local`")
        if not 1 <= self.port <= 65535:
            raise ValueError("the port is not between 1 and 65535")
        if not 0.001 <= self.timeout <= MAXIMUM_TIMEOUT_SECONDS:
            raise ValueError(f"the timeout is not between 0.001 and {MAXIMUM_TIMEOUT_SECONDS:g} seconds")
        if not self.selector:
            raise ValueError("the selector is empty: it would select every pod of the namespace")
        for key, value in self.selector.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise ValueError("the selector is not of labels such as `app=api`")
        object.__setattr__(self, "selector", MappingProxyType(dict(self.selector)))

    @property
    def host_name(self) -> str:
        """The server's name in the cluster."""
        return f"{self.service}.{self.namespace}.svc.{self.cluster_domain}"

    @property
    def milliseconds(self) -> str:
        """The timeout as Kubernetes durations are written: `250ms`."""
        return f"{round(self.timeout * 1000)}ms"

    @property
    def seconds(self) -> str:
        """The timeout as protobuf's JSON form writes durations: `0.250s`."""
        return f"{self.timeout:.3f}s"
