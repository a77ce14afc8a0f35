"""A configuration that is to come into force is made ready by all workers first, so that none is found that cannot follow."""

import asyncio
import time
from collections.abc import Mapping

from ext_authz.runtime.workers.member import Member, State

__all__ = ["PREPARE_SECONDS", "prepare_all"]

PREPARE_SECONDS = 60.0
"""For a worker to compile a configuration and to try keys that are new; then nothing is changed."""


async def prepare_all(
    members: Mapping[int, Member], packed: bytes, revision: int
) -> tuple[list[Member], tuple[str, ...]]:
    """Have all that decide prepare `packed`, also those that begin to meanwhile.

    Returns:
        Those that were asked, and their problems. With the last answer all that decide have been asked.
    """
    until = time.monotonic() + PREPARE_SECONDS
    asked: list[Member] = []
    futures: list[asyncio.Future[tuple[str, ...] | None]] = []
    while new := [member for member in members.values() if member.state is not State.STARTING and member not in asked]:
        for member in new:
            member.prepared = asyncio.get_running_loop().create_future()
            futures.append(member.prepared)
            member.send("prepare", packed, revision=revision)
        asked += new
        await asyncio.wait(futures, timeout=max(0.0, until - time.monotonic()))
    problems: dict[str, None] = {}
    for member, future in zip(asked, futures, strict=True):
        if not future.done():
            problems[f"worker {member.number} has not prepared the configuration in {PREPARE_SECONDS:.0f} s"] = None
        else:
            # one that ended has nothing against it: its successor starts with what is in force then
            problems.update(dict.fromkeys(future.result() or ()))
    return asked, tuple(problems)
