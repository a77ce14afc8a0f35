"""Free TCP ports on loopback."""

import random
import socket

__all__ = ["are_free", "choose_ports"]

# below the ports that Linux (32768) and macOS (49152) hand to outgoing connections, so that none is taken meanwhile
_FIRST, _LAST = 15_000, 32_000
_ATTEMPTS = 100


def are_free(ports: tuple[int, ...]) -> bool:
    """Whether nobody listens on any of them."""
    return all(map(_is_free, ports))


def choose_ports(count: int) -> tuple[int, ...]:
    """So many free ports, in a row.

    Raises:
        OSError: there are none.
    """
    generator = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        first = generator.randrange(_FIRST, _LAST)
        ports = tuple(range(first, first + count))
        if are_free(ports):
            return ports
    raise OSError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as the servers do: a port whose last connections are in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
