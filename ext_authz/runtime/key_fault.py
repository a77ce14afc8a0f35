"""Why keys could not be fetched."""

from enum import StrEnum

from ext_authz.errors import ExtAuthzError

__all__ = ["KeyFetchError", "KeyFetchFault"]


class KeyFetchFault(StrEnum):
    """Why keys could not be fetched; stable, for log and metrics."""

    URL_NOT_ALLOWED = "url_not_allowed"
    TLS_ROOTS_UNREADABLE = "tls_roots_unreadable"
    TIMED_OUT = "timed_out"
    NOT_REACHED = "not_reached"
    STATUS_NOT_OK = "status_not_ok"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    METADATA_MALFORMED = "metadata_malformed"
    ISSUER_MISMATCH = "issuer_mismatch"
    KEY_SET_MALFORMED = "key_set_malformed"
    FILE_UNREADABLE = "file_unreadable"
    UNEXPECTED = "unexpected"


class KeyFetchError(ExtAuthzError):
    """Keys that could not be fetched.

    Attributes:
        fault: why.
        detail: a sentence for the operator; may name what the configuration names, never what a server sent.
    """

    def __init__(self, fault: KeyFetchFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
