"""Listening sockets, bound here rather than by a server so that they outlive one server and can be handed to several."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Self

__all__ = ["Listening", "split_address"]

BACKLOG = 1_024
"""Connections waiting to be accepted; Envoy opens one or two for each of its threads."""

_KEEPALIVE = (
    # a peer that vanished without closing the connection is noticed within 80 seconds; accepted sockets inherit this
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0x10), 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of `host:port`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Listening:
    """The sockets of one address.

    Attributes:
        sockets: one, or one for each address that a host name has.
        address: as configured, with the real port.
    """

    def __init__(self, sockets: tuple[socket.socket, ...], address: str) -> None:
        """Own `sockets`; `open` makes them."""
        self.sockets = sockets
        self.address = address
        self._path: tuple[str, os.stat_result] | None = None

    @classmethod
    def open(cls, address: str) -> Self:
        """Bind and listen on `host:port` or `unix:/path`.

        Raises:
            OSError: it cannot be bound.
        """
        if address.startswith("unix:"):
            return cls._open_unix(address)
        host, port = split_address(address)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError:
            raise OSError(f"cannot listen on `{address}`: not an address of this machine") from None
        sockets: list[socket.socket] = []
        try:
            for family, _, _, _, target in dict.fromkeys(found):
                # the second address of one name gets the port that the kernel chose for the first
                bound_port = sockets[0].getsockname()[1] if sockets else target[1]
                sockets.append(_listen_tcp(family, (str(target[0]), int(bound_port), *target[2:])))
        except OSError as error:
            for listening in sockets:
                listening.close()
            raise OSError(
                error.errno, f"cannot listen on `{address}`: is it in use, or not an address of this machine?"
            ) from None
        return cls(tuple(sockets), f"{address.rpartition(':')[0]}:{sockets[0].getsockname()[1]}")

    @classmethod
    def _open_unix(cls, address: str) -> Self:
        path = address.removeprefix("unix:")
        _remove_stale(path, address)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(path)
            listening.listen(BACKLOG)
            listening.setblocking(False)
            opened = cls((listening,), address)
            opened._path = path, os.lstat(path)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"cannot listen on `{address}`: {error.strerror}") from None
        return opened

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still ours."""
        for listening in self.sockets:
            listening.close()
        if self._path is not None:
            path, ours = self._path
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), ours):
                    Path(path).unlink()


def _listen_tcp(family: int, target: tuple[str | int, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # a restarted server need not wait for its old connections; two servers still cannot share the port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(target[0] != "::"))
        for level, option, value in _KEEPALIVE:
            listening.setsockopt(level, option, value)
        listening.bind(target)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str, address: str) -> None:
    """Remove the socket file of a server that ended without removing it; never one that is served, or another file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"cannot listen on `{address}`: the file is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, f"cannot listen on `{address}`: is it in use?")
