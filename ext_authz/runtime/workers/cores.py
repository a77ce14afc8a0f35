"""How many cores this process may use."""

import math
import os
from pathlib import Path

__all__ = ["usable_cores"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of cgroup v2: `max 100000` or `200000 100000`, time in a period; what a container's CPU limit becomes."""


def usable_cores(quota: Path = _QUOTA) -> int:
    """The cores that the process is bound to, or fewer where a limit allows less time; a part of a core counts as one."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        limit = math.ceil(int(allowed) / int(period))
    except (OSError, ValueError):
        # no cgroup v2, or `max`
        return bound
    return max(1, min(bound, limit))
