"""Free TCP ports on loopback."""

import random
import socket

__all__ = ["choose_ports"]

# below the ports that Linux (32768) and macOS (49152) hand to outgoing connections, so that none is taken meanwhile
_FIRST, _LAST = 15_000, 32_000
_ATTEMPTS = 100


def choose_ports(preferred: tuple[int, ...]) -> tuple[int, ...]:
    """The preferred ports if every one is free, else as many free ones elsewhere."""
    if all(map(_is_free, preferred)):
        return preferred
    generator = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        first = generator.randrange(_FIRST, _LAST)
        ports = tuple(range(first, first + len(preferred)))
        if all(map(_is_free, ports)):
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
