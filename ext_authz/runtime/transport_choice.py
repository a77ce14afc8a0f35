"""Which transports there are; each is imported when it is chosen, because gRPC's library takes its time."""

from collections.abc import Callable

from ext_authz.runtime.transport import Transport

__all__ = ["TRANSPORT_NAMES", "transport_named"]

TRANSPORT_NAMES = ("h2", "grpcio")
"""As `listener.transport` takes them."""


def transport_named(name: str) -> Callable[..., Transport]:
    """How to make the transport of that name; its arguments are those of `H2Transport` and `GrpcTransport`."""
    if name == "grpcio":
        from ext_authz.runtime.grpc_transport import GrpcTransport  # noqa: PLC0415 - see above

        return GrpcTransport
    from ext_authz.runtime.h2_transport import H2Transport  # noqa: PLC0415 - as above

    return H2Transport
