"""The gRPC health protocol (`grpc.health.v1`), message bytes to message bytes, for any transport.

Two messages of one field each do not need generated code: `HealthCheckRequest {string service = 1}` and
`HealthCheckResponse {enum status = 1}` have the same bytes as the well-known wrapper types.
"""

import asyncio
from collections.abc import AsyncIterator
from enum import IntEnum

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from ext_authz.errors import Reason, Refusal

__all__ = ["AUTHORIZATION_SERVICE", "HEALTH_SERVICE", "Health", "Status"]

AUTHORIZATION_SERVICE = "envoy.service.auth.v3.Authorization"
HEALTH_SERVICE = "grpc.health.v1.Health"


class Status(IntEnum):
    """`HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health:
    """Whether this server wants checks. One answer for the whole server (the empty name) and for Authorization."""

    def __init__(self) -> None:
        """Not serving until said otherwise."""
        self._status = Status.NOT_SERVING
        self._ended = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether checks are wanted."""
        return self._status is Status.SERVING

    def set_serving(self, serving: bool) -> None:
        """Tell everyone who watches. Once `end` was called nothing changes any more."""
        status = Status.SERVING if serving else Status.NOT_SERVING
        if status is not self._status and not self._ended:
            self._status = status
            self._wake()

    def end(self) -> None:
        """Not serving, for good: each watch is told so and finishes, so that it cannot hold up the drain."""
        self._status = Status.NOT_SERVING
        self._ended = True
        self._wake()

    def check(self, request: bytes) -> bytes | None:
        """Answer `Check`; None stands for the gRPC status NOT_FOUND, for a service we do not have.

        Raises:
            Refusal: REQUEST_MALFORMED when `request` is not a HealthCheckRequest.
        """
        return _response(self._status) if self._knows(request) else None

    async def watch(self, request: bytes) -> AsyncIterator[bytes]:
        """Answer `Watch`: the status now and after each change, until the server ends.

        Raises:
            Refusal: as `check`.
        """
        if not self._knows(request):
            yield _response(Status.SERVICE_UNKNOWN)
            while not self._ended:
                await self._changed.wait()
            return
        told: Status | None = None
        while True:
            changed, status, ended = self._changed, self._status, self._ended
            if told is not status:
                told = status
                yield _response(status)
            if ended:
                return
            await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @staticmethod
    def _knows(request: bytes) -> bool:
        try:
            return StringValue.FromString(request).value in {"", AUTHORIZATION_SERVICE}
        except DecodeError:
            raise Refusal(Reason.REQUEST_MALFORMED, "not a HealthCheckRequest") from None


def _response(status: Status) -> bytes:
    return Int32Value(value=status).SerializeToString()
