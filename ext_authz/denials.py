"""From a reason to what the denied client sees: one table, no attacker text, no hint beyond the standards.

RFC 6750 §3.1 gives the error codes, RFC 9110 §15.5.2 demands a challenge with every 401, RFC 9728 §5.1 adds
`resource_metadata`, RFC 9457 is the body. An unknown issuer, an unknown key and a bad signature are one answer.
"""

import json
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from string import Template
from types import MappingProxyType
from typing import TypeAlias

from ext_authz.decision import Deny, Diagnostics
from ext_authz.errors import Reason

__all__ = ["DenialSettings", "Denials", "Kind", "kind_of"]


@dataclass(frozen=True, slots=True)
class DenialSettings:
    """What a denied client sees.

    Attributes:
        realm: of the challenge (RFC 9110 §11.5), or None.
        resource_metadata: URL of the protected resource metadata (RFC 9728 §5.1), or None.
        body_template: None for RFC 9457 problem JSON; else a text with `${status}`, `${title}`, `${detail}` and
            `${decision_id}`.
        content_type: of a templated body.
        decision_id: problem JSON tells the decision id; a template does where it says so.
    """

    realm: str | None = None
    resource_metadata: str | None = None
    body_template: str | None = None
    content_type: str = "text/plain; charset=utf-8"
    decision_id: bool = True


class Kind(Enum):
    """The answers a client can get: HTTP status, RFC 6750 error code, whether it carries a challenge, detail."""

    BAD_REQUEST = (400, None, False, "The request is malformed.")
    INVALID_REQUEST = (400, "invalid_request", True, "The request presents its credentials in a malformed way.")
    UNAUTHENTICATED = (401, None, True, "The request needs credentials that it does not present.")
    INVALID_TOKEN = (401, "invalid_token", True, "The access token is not valid for this request.")
    INSUFFICIENT_SCOPE = (403, "insufficient_scope", True, "The access token does not have the scope this needs.")
    FORBIDDEN = (403, None, False, "This request is not allowed.")
    UNAVAILABLE = (503, None, False, "The request cannot be authorized at the moment.")
    INTERNAL = (500, None, False, "The request could not be authorized.")

    def __init__(self, status: int, error: str | None, challenge: bool, detail: str) -> None:
        self.status = status
        self.error = error
        self.challenge = challenge
        self.detail = detail


_TITLES = MappingProxyType(
    {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        500: "Internal Server Error",
        503: "Service Unavailable",
    }
)

_KINDS: dict[Kind, tuple[Reason, ...]] = {
    Kind.BAD_REQUEST: (
        Reason.REQUEST_MALFORMED,
        Reason.REQUEST_WITHOUT_HTTP,
        Reason.PATH_MALFORMED,
        Reason.PATH_AMBIGUOUS,
        Reason.HOST_MALFORMED,
        Reason.HEADER_MALFORMED,
        Reason.HEADER_TOO_LARGE,
    ),
    Kind.INVALID_REQUEST: (Reason.AUTHORIZATION_MALFORMED, Reason.MULTIPLE_CREDENTIALS),
    Kind.UNAUTHENTICATED: (
        # evidence and identity: the connection, not the token, is at fault
        Reason.XFCC_MALFORMED,
        Reason.XFCC_JSON_NOT_SUPPORTED,
        Reason.XFCC_TOO_FEW_ELEMENTS,
        Reason.XFCC_BY_MISMATCH,
        Reason.XFCC_VIA_MISMATCH,
        Reason.XFCC_HASH_MISMATCH,
        Reason.CERTIFICATE_HEADER_MALFORMED,
        Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF,
        Reason.CERTIFICATE_MALFORMED,
        Reason.CONFLICTING_EVIDENCE,
        Reason.PEER_MISSING,
        Reason.CHAIN_NOT_VERIFIED,
        Reason.CHAIN_NEEDS_CERTIFICATE,
        Reason.CERTIFICATE_EXPIRED,
        Reason.CERTIFICATE_NOT_YET_VALID,
        Reason.CERTIFICATE_UNTRUSTED,
        Reason.TRUST_DOMAIN_UNKNOWN,
        Reason.SVID_MALFORMED,
        Reason.SPIFFE_ID_MISSING,
        Reason.SPIFFE_ID_MALFORMED,
        # RFC 6750 §3.1: no credential, or one of another scheme: a challenge without an error code
        Reason.TOKEN_MISSING,
        Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED,
    ),
    Kind.INVALID_TOKEN: (
        Reason.TOKEN_IN_QUERY,
        Reason.TOKEN_TOO_LARGE,
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_HEADER_NOT_ALLOWED,
        Reason.TOKEN_TYPE_NOT_ALLOWED,
        Reason.TOKEN_ALGORITHM_NOT_ALLOWED,
        Reason.ISSUER_UNKNOWN,
        Reason.SIGNING_KEY_UNKNOWN,
        Reason.SIGNATURE_INVALID,
        Reason.CLAIM_MISSING,
        Reason.CLAIM_MALFORMED,
        Reason.AUDIENCE_MISMATCH,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_LIFETIME_TOO_LONG,
        # RFC 8705 §3: a certificate that does not match is 401 `invalid_token`
        Reason.BINDING_MISSING,
        Reason.BINDING_MALFORMED,
        Reason.BINDING_METHOD_NOT_SUPPORTED,
        Reason.BINDING_CERTIFICATE_MISSING,
        Reason.BINDING_THUMBPRINT_UNAVAILABLE,
        Reason.BINDING_THUMBPRINT_MISMATCH,
        Reason.BINDING_SPIFFE_ID_UNAVAILABLE,
        Reason.BINDING_SPIFFE_ID_MISMATCH,
        # a token of another issuer or for another audience is no token here
        Reason.ISSUER_NOT_ALLOWED,
        Reason.AUDIENCE_NOT_ALLOWED,
    ),
    Kind.INSUFFICIENT_SCOPE: (Reason.SCOPE_INSUFFICIENT,),
    Kind.FORBIDDEN: (
        Reason.METHOD_NOT_SUPPORTED,
        Reason.NO_POLICY,
        Reason.NO_RULE,
        Reason.HOST_SNI_MISMATCH,
        Reason.SOURCE_IP_NOT_ALLOWED,
        Reason.PEER_SPIFFE_ID_NOT_ALLOWED,
        Reason.PEER_TRUST_DOMAIN_NOT_ALLOWED,
        Reason.PEER_NAMESPACE_NOT_ALLOWED,
        Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED,
        Reason.CLIENT_NOT_ALLOWED,
        Reason.CLAIM_NOT_ALLOWED,
        Reason.INJECTION_NOT_POSSIBLE,
    ),
    Kind.UNAVAILABLE: (Reason.SIGNING_KEYS_UNAVAILABLE, Reason.DEADLINE_EXCEEDED),
    Kind.INTERNAL: (Reason.INTERNAL_ERROR,),
}

_KIND_OF = MappingProxyType({reason: kind for kind, reasons in _KINDS.items() for reason in reasons})


def kind_of(reason: Reason) -> Kind:
    """What a client sees for `reason`. Raises KeyError for the two reasons that allow."""
    return _KIND_OF[reason]


# stands in a body for the id, which differs with each denial; YAML texts hold no NUL unless they ask for it
_ID = "\x00decision_id\x00"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_Rendered: TypeAlias = tuple[tuple[tuple[str, str], ...], str, tuple[str, ...]]
"""Headers, body, and the parts of the body around the decision id."""


class Denials:
    """Builds every `Deny` of a snapshot. Bodies and challenges are rendered once for each kind and scope."""

    __slots__ = ("_rendered", "_settings", "_template")

    def __init__(self, settings: DenialSettings) -> None:
        """Render with `settings`."""
        self._settings = settings
        self._template = None if settings.body_template is None else Template(settings.body_template)
        # bounded: a rule has a handful of scope sets and there are eight kinds
        self._rendered = lru_cache(maxsize=4096)(self._render)

    def deny(
        self,
        reason: Reason,
        *,
        scopes: tuple[str, ...] = (),
        takes_token: bool = True,
        diagnostics: Diagnostics | None = None,
    ) -> Deny:
        """The denial for `reason`.

        Args:
            reason: any reason but the two that allow.
            scopes: what the rule needs, for `insufficient_scope` (RFC 6750 §3.1).
            takes_token: whether the rule looks at a token. A 401 must name an authentication scheme (RFC 9110
                §15.5.2) and there is none for client certificates, so a rule that takes none answers 403.
            diagnostics: for the decision log.
        """
        kind = _KIND_OF[reason]
        if kind is Kind.UNAUTHENTICATED and not takes_token:
            kind = Kind.FORBIDDEN
        headers, body, identified_body = self._rendered(kind, scopes if kind is Kind.INSUFFICIENT_SCOPE else ())
        return Deny(
            reason=reason,
            http_status=kind.status,
            headers=headers,
            body=body,
            diagnostics=diagnostics or Diagnostics(),
            identified_body=identified_body,
        )

    def _render(self, kind: Kind, scopes: tuple[str, ...]) -> _Rendered:
        title = _TITLES[kind.status]
        if self._template is None:
            content_type = "application/problem+json"
            body = json.dumps({"type": "about:blank", "title": title, "status": kind.status, "detail": kind.detail})
            # an extension member (RFC 9457 §3.2)
            parts: tuple[str, ...] = (f'{body[:-1]}, "decision_id": "', '"}') if self._settings.decision_id else ()
        else:
            content_type = self._settings.content_type
            values = {"status": kind.status, "title": title, "detail": kind.detail}
            body = self._template.safe_substitute(values, decision_id="")
            parts = tuple(self._template.safe_substitute(values, decision_id=_ID).split(_ID))
            parts = parts if len(parts) > 1 else ()
        headers = [("content-type", content_type), ("cache-control", "no-store")]
        if kind.challenge:
            headers.append(("www-authenticate", self._challenge(kind, scopes)))
        return tuple(headers), body, parts

    def _challenge(self, kind: Kind, scopes: tuple[str, ...]) -> str:
        parameters = []
        if self._settings.realm is not None:
            parameters.append(f"realm={_quoted(self._settings.realm)}")
        if kind.error is not None:
            parameters.append(f"error={_quoted(kind.error)}")
        if scopes:
            parameters.append(f"scope={_quoted(' '.join(scopes))}")
        if self._settings.resource_metadata is not None:
            parameters.append(f"resource_metadata={_quoted(self._settings.resource_metadata)}")
        return "Bearer" if not parameters else f"Bearer {', '.join(parameters)}"
