"""What is known about one platform: what it proves, and the documents that connect it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from ext_authz.integrate.setup import Setup

__all__ = ["Destination", "Document", "Part", "Platform", "metadata", "server_document"]

Document: TypeAlias = Mapping[str, object]


class Destination(StrEnum):
    """Who reads a document."""

    KUBERNETES = "kubernetes"
    ISTIOD = "istiod"
    ENVOY = "envoy"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Part:
    """One document and where it goes.

    Attributes:
        destination: who reads it.
        purpose: what it does, one sentence for a comment.
        document: as data.
    """

    destination: Destination
    purpose: str
    document: Document


@dataclass(frozen=True, slots=True)
class Platform:
    """One way to have a proxy ask this server.

    Attributes:
        name: as on the command line.
        title: for people.
        proves: what a request that comes this way can prove.
        cannot: what it cannot, and what follows.
        evidence: `spec.evidence` of the server, matching the documents.
        parts: makes the documents, without the server's.
        ignores_host_port: whether it routes by Host without the port, so that the server may do so too.
        setup: what is asked for where nothing else is said.
    """

    name: str
    title: str
    proves: tuple[str, ...]
    cannot: tuple[str, ...]
    evidence: Document
    parts: Callable[[Setup], tuple[Part, ...]]
    ignores_host_port: bool = False
    setup: Setup = field(default_factory=Setup)


def metadata(name: str, namespace: str) -> Document:
    """`metadata` of a Kubernetes object."""
    return {"name": name, "namespace": namespace}


def server_document(platform: Platform) -> Part:
    """The part of the server's configuration that matches the platform's documents."""
    spec: dict[str, object] = {"evidence": platform.evidence}
    purpose = "the server's configuration: what it may read from a request that comes this way"
    if platform.ignores_host_port:
        spec["canonical_paths"] = ["ignore_host_port"]
        purpose += ", and that the port in Host counts for nothing, as with this proxy"
    return Part(Destination.SERVER, purpose, {"apiVersion": "ext-authz/v1alpha1", "kind": "Server", "spec": spec})
