"""What every transport serves and how the server drives it; nothing here knows gRPC or HTTP/2.

A transport turns one `Check` call into `CheckCall(request, deadline)` and sends back the bytes. The service answers with
bytes at once when it can, so that a warm decision costs no task switch, and with an awaitable when it has to wait.
"""

from collections.abc import Awaitable
from typing import Protocol

__all__ = ["CHECK_METHOD", "CheckCall", "Transport", "message_ceiling"]

CHECK_METHOD = "/envoy.service.auth.v3.Authorization/Check"


class CheckCall(Protocol):
    """`CheckService.check`."""

    def __call__(
        self, request: bytes, deadline: float | None, traceparent: str | None = None
    ) -> bytes | Awaitable[bytes]:
        """Answer one serialized CheckRequest with a serialized CheckResponse.

        Args:
            request: the message, of any size up to `message_ceiling`, possibly malformed.
            deadline: `time.monotonic()` at which the caller gives up; None when it did not say.
            traceparent: of the call itself, which is Envoy's own span, empty when it is malformed; None when it has none
                or the transport does not look. The request's own is then taken.

        Returns:
            The response, or the promise of one. Neither ever raises for what the request holds.
        """
        ...


class Transport(Protocol):
    """A listening server."""

    async def start(self) -> str:
        """Listen. Returns the address with the port that was bound. Raises OSError when it cannot be bound."""
        ...

    async def drain(self, seconds: float) -> None:
        """Accept nothing new, tell clients to go elsewhere (GOAWAY) and return when calls in flight have ended.

        After `seconds` the calls that are left are cancelled.
        """
        ...


def message_ceiling(maximum_message_bytes: int) -> int:
    """The size at which the transport itself refuses a message.

    Beyond `maximum_message_bytes` the service answers with a denial. A transport can answer only with a gRPC error,
    which leaves the decision to Envoy's `failure_mode_allow`, so its own limit is there to bound memory and lies well
    above the other.
    """
    return 4 * maximum_message_bytes
