"""The vocabulary of refusal: stable reason codes and the one exception that carries them."""

from enum import StrEnum

__all__ = ["ConfigurationError", "ExtAuthzError", "Reason", "Refusal"]


class Reason(StrEnum):
    """Why a request was decided as it was.

    The values are a public interface: decision log, metrics, `explain` and dynamic metadata carry them. A value is
    never renamed or reused; the client never sees one (see `ext_authz.denials`).
    """

    # allowed
    OK = "ok"
    PUBLIC_ROUTE = "public_route"

    # the request itself
    REQUEST_MALFORMED = "request_malformed"
    REQUEST_WITHOUT_HTTP = "request_without_http"
    METHOD_NOT_SUPPORTED = "method_not_supported"
    PATH_MALFORMED = "path_malformed"
    PATH_AMBIGUOUS = "path_ambiguous"
    HOST_MALFORMED = "host_malformed"
    HEADER_MALFORMED = "header_malformed"
    HEADER_TOO_LARGE = "header_too_large"

    # where the request goes
    NO_POLICY = "no_policy"
    NO_RULE = "no_rule"
    HOST_SNI_MISMATCH = "host_sni_mismatch"

    # evidence of the connection
    XFCC_MALFORMED = "xfcc_malformed"
    XFCC_JSON_NOT_SUPPORTED = "xfcc_json_not_supported"
    XFCC_TOO_FEW_ELEMENTS = "xfcc_too_few_elements"
    XFCC_BY_MISMATCH = "xfcc_by_mismatch"
    XFCC_VIA_MISMATCH = "xfcc_via_mismatch"
    XFCC_HASH_MISMATCH = "xfcc_hash_mismatch"
    CERTIFICATE_HEADER_MALFORMED = "certificate_header_malformed"
    CERTIFICATE_CHAIN_WITHOUT_LEAF = "certificate_chain_without_leaf"
    CERTIFICATE_MALFORMED = "certificate_malformed"
    CONFLICTING_EVIDENCE = "conflicting_evidence"

    # identity of the peer
    PEER_MISSING = "peer_missing"
    CHAIN_NOT_VERIFIED = "chain_not_verified"
    CHAIN_NEEDS_CERTIFICATE = "chain_needs_certificate"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    TRUST_DOMAIN_UNKNOWN = "trust_domain_unknown"
    SVID_MALFORMED = "svid_malformed"
    SPIFFE_ID_MISSING = "spiffe_id_missing"
    SPIFFE_ID_MALFORMED = "spiffe_id_malformed"

    # presenting a token
    TOKEN_MISSING = "token_missing"
    AUTHORIZATION_MALFORMED = "authorization_malformed"
    AUTHORIZATION_SCHEME_NOT_SUPPORTED = "authorization_scheme_not_supported"
    MULTIPLE_CREDENTIALS = "multiple_credentials"
    TOKEN_IN_QUERY = "token_in_query"

    # the token itself
    TOKEN_TOO_LARGE = "token_too_large"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_HEADER_NOT_ALLOWED = "token_header_not_allowed"
    TOKEN_TYPE_NOT_ALLOWED = "token_type_not_allowed"
    TOKEN_ALGORITHM_NOT_ALLOWED = "token_algorithm_not_allowed"
    ISSUER_UNKNOWN = "issuer_unknown"
    SIGNING_KEY_UNKNOWN = "signing_key_unknown"
    SIGNING_KEYS_UNAVAILABLE = "signing_keys_unavailable"
    SIGNATURE_INVALID = "signature_invalid"
    CLAIM_MISSING = "claim_missing"
    CLAIM_MALFORMED = "claim_malformed"
    AUDIENCE_MISMATCH = "audience_mismatch"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_LIFETIME_TOO_LONG = "token_lifetime_too_long"

    # the binding of the token to the connection
    BINDING_MISSING = "binding_missing"
    BINDING_MALFORMED = "binding_malformed"
    BINDING_METHOD_NOT_SUPPORTED = "binding_method_not_supported"
    BINDING_CERTIFICATE_MISSING = "binding_certificate_missing"
    BINDING_THUMBPRINT_UNAVAILABLE = "binding_thumbprint_unavailable"
    BINDING_THUMBPRINT_MISMATCH = "binding_thumbprint_mismatch"
    BINDING_SPIFFE_ID_UNAVAILABLE = "binding_spiffe_id_unavailable"
    BINDING_SPIFFE_ID_MISMATCH = "binding_spiffe_id_mismatch"

    # the rule's requirements
    SOURCE_IP_NOT_ALLOWED = "source_ip_not_allowed"
    PEER_SPIFFE_ID_NOT_ALLOWED = "peer_spiffe_id_not_allowed"
    PEER_TRUST_DOMAIN_NOT_ALLOWED = "peer_trust_domain_not_allowed"
    PEER_NAMESPACE_NOT_ALLOWED = "peer_namespace_not_allowed"
    PEER_SERVICE_ACCOUNT_NOT_ALLOWED = "peer_service_account_not_allowed"
    ISSUER_NOT_ALLOWED = "issuer_not_allowed"
    AUDIENCE_NOT_ALLOWED = "audience_not_allowed"
    CLIENT_NOT_ALLOWED = "client_not_allowed"
    SCOPE_INSUFFICIENT = "scope_insufficient"
    CLAIM_NOT_ALLOWED = "claim_not_allowed"
    INJECTION_NOT_POSSIBLE = "injection_not_possible"

    # ourselves
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL_ERROR = "internal_error"


class ExtAuthzError(Exception):
    """Base of every error this package raises."""


class Refusal(ExtAuthzError):  # noqa: N818 - a refusal is a verdict, not a fault
    """A credential or request that must be denied, and why.

    Parsers and verifiers raise it; the authorizer turns it into a denial in one place.

    Attributes:
        reason: the stable code.
        detail: a fixed lowercase sentence for the operator. It never holds text that the client sent.
    """

    __slots__ = ("detail", "reason")

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class ConfigurationError(ExtAuthzError):
    """Configuration that cannot be used; every problem at once, each with its place.

    Attributes:
        problems: one line each, `file:line:column: what is wrong; what to write instead`.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
