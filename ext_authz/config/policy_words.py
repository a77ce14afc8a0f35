"""The words policies are written with, each checked by the policy room's own parser where it is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic_core.core_schema import ValidationInfo

from ext_authz.config.problem import closest, shown
from ext_authz.config.written import Name, checked, refuse
from ext_authz.errors import Refusal
from ext_authz.policy.header_name import check_header_name, check_removed_header, check_set_header
from ext_authz.policy.host import HostPattern
from ext_authz.policy.injection import Injection
from ext_authz.policy.model import NO_PRINCIPAL
from ext_authz.policy.requirements import Requirement
from ext_authz.policy.spiffe_pattern import SpiffePattern
from ext_authz.policy.template import Template
from ext_authz.spiffe import SpiffeId, TrustDomain

__all__ = [
    "AddressBlock",
    "DestinationPrincipal",
    "HeaderTemplates",
    "Hostname",
    "IssuerName",
    "KnownNames",
    "KubernetesName",
    "MatchedHeader",
    "MetadataValue",
    "Method",
    "QueryName",
    "RemovedHeader",
    "SetHeader",
    "SetName",
    "SpiffeIdText",
    "SpiffePatternText",
    "TemplateText",
    "TrustDomainName",
]


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What a policy may name; the context of its validation.

    Attributes:
        issuers: names of configured issuers, or None when there is no server configuration to compare with.
        sets: names of RequirementSet documents.
    """

    issuers: frozenset[str] | None
    sets: frozenset[str]


def _known(kind: str, name: str, known: frozenset[str] | None) -> str:
    if known is None or name in known:
        return name
    have = ", ".join(f"`{one}`" for one in sorted(known)) or "none"
    guess = closest(name, known)
    raise ValueError(f"there is no {kind} {shown(name)}; {guess or f'write one of those configured: {have}'}")


def _known_issuer(name: str, info: ValidationInfo) -> str:
    return _known("issuer", name, info.context.issuers if isinstance(info.context, KnownNames) else None)


def _known_set(name: str, info: ValidationInfo) -> str:
    return _known("RequirementSet", name, info.context.sets if isinstance(info.context, KnownNames) else None)


IssuerName: TypeAlias = Annotated[Name, AfterValidator(_known_issuer)]
SetName: TypeAlias = Annotated[Name, AfterValidator(_known_set)]

Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


def _check_trust_domain(text: str) -> None:
    try:
        TrustDomain(text)
    except Refusal:
        raise ValueError(
            f"{shown(text)} is not a trust domain; write its bare name like `cluster.local`, lowercase, no `spiffe://`"
        ) from None


def _check_spiffe_id(text: str) -> None:
    try:
        SpiffeId.parse(text)
    except Refusal as refusal:
        raise ValueError(
            f"{shown(text)} is not a SPIFFE ID: {refusal.detail}; write `spiffe://trust.domain/path`"
        ) from None


def _check_block(text: str) -> None:
    Requirement(source_ips=(text,))


def _check_destination_principal(text: str) -> None:
    if text != NO_PRINCIPAL:
        SpiffePattern(text)


_SPIFFE_PATTERN = r"^spiffe://[a-z0-9._-]{1,255}(/([a-zA-Z0-9._-]+|\*))*(/\*\*)?$"
_SEGMENT_PATTERN = r"[a-zA-Z0-9._-]+"
_SEGMENT = re.compile(_SEGMENT_PATTERN)  # SPIFFE-ID §2.2


def _check_kubernetes_name(text: str) -> None:
    if not _SEGMENT.fullmatch(text):
        raise ValueError(
            f"{shown(text)} cannot be part of a SPIFFE ID; write the bare name, wildcards are for `spiffe`"
        )


TrustDomainName: TypeAlias = Annotated[
    str, checked(_check_trust_domain), Field(json_schema_extra={"pattern": "^[a-z0-9._-]{1,255}$"})
]
SpiffeIdText: TypeAlias = Annotated[
    str,
    checked(_check_spiffe_id),
    Field(json_schema_extra={"pattern": "^spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)*$"}),
]
SpiffePatternText: TypeAlias = Annotated[
    str,
    checked(SpiffePattern),
    Field(json_schema_extra={"pattern": _SPIFFE_PATTERN}),
]
DestinationPrincipal: TypeAlias = Annotated[
    str,
    checked(_check_destination_principal),
    Field(json_schema_extra={"pattern": rf"^{NO_PRINCIPAL}$|{_SPIFFE_PATTERN}"}),
]
AddressBlock: TypeAlias = Annotated[str, checked(_check_block), Field(json_schema_extra={"minLength": 1})]
Hostname: TypeAlias = Annotated[
    str, checked(HostPattern), Field(json_schema_extra={"pattern": r"^(\*\.)?[a-z0-9_.:\[\]-]+$"})
]
KubernetesName: TypeAlias = Annotated[
    str, checked(_check_kubernetes_name), Field(json_schema_extra={"pattern": f"^{_SEGMENT_PATTERN}$"})
]


_HEADER = Field(json_schema_extra={"pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$"})


def _lowercase(text: str) -> str:
    return text.lower()


# names are compared without case (RFC 9110 §5.1), so they are kept lowercase
MatchedHeader: TypeAlias = Annotated[str, AfterValidator(_lowercase), checked(check_header_name), _HEADER]
SetHeader: TypeAlias = Annotated[str, AfterValidator(_lowercase), checked(check_set_header), _HEADER]
RemovedHeader: TypeAlias = Annotated[str, AfterValidator(_lowercase), checked(check_removed_header), _HEADER]


def _check_query_name(text: str) -> None:
    Injection(remove_query_parameters=(text,))


QueryName: TypeAlias = Annotated[
    str, checked(_check_query_name), Field(json_schema_extra={"pattern": "^[A-Za-z0-9._~-]+$"})
]
TemplateText: TypeAlias = Annotated[str, checked(Template), Field(json_schema_extra={"minLength": 1})]


def _refuse_two_spellings(value: object) -> object:
    if isinstance(value, Mapping):
        seen: dict[str, str] = {}
        for name in value:
            first = seen.setdefault(str(name).lower(), str(name))
            if first != name:
                raise refuse(f"{shown(first)} and {shown(str(name))} are the same header; keep one of the two")
    return value


HeaderTemplates: TypeAlias = Annotated[dict[SetHeader, TemplateText], BeforeValidator(_refuse_two_spellings)]


def _check_templates(value: JsonValue) -> JsonValue:
    match value:
        case str():
            Template(value)
        case list():
            for item in value:
                _check_templates(item)
        case dict():
            for item in value.values():
                _check_templates(item)
        case _:
            pass
    return value


MetadataValue: TypeAlias = Annotated[JsonValue, AfterValidator(_check_templates)]
