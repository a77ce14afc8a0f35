"""The workers of a server, told by its admin listener and its log."""

import os

from support.server import ServerProcess

__all__ = ["connections", "is_alive", "serving", "worker_pids"]


def serving(server: ServerProcess) -> int:
    """How many serve."""
    return int(server.metric("ext_authz_workers") or 0)


def worker_pids(server: ServerProcess) -> dict[int, int]:
    """Process ids of the workers that live, by number, as the log told them."""
    pids = {int(event["serving_worker"]): int(event["pid"]) for event in server.events("a worker serves")}
    return {number: pid for number, pid in pids.items() if is_alive(pid)}


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def connections(server: ServerProcess) -> list[int]:
    """How many connections each worker has, in the order of their numbers."""
    lines = server.admin("/metrics")[1].splitlines()
    return [int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("ext_authz_worker_connections{")]
