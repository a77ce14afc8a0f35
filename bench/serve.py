"""A transport with nothing behind it: `python -m bench.serve --transport h2 --address 127.0.0.1:9000`.

It answers every Check with the same prepared bytes, on the event loop that `ext-authz serve` uses, and so shows what the
transport alone costs.
"""

import argparse
import asyncio
import signal

from ext_authz.config.settings import ListenerSettings
from ext_authz.decision import Allow
from ext_authz.errors import Reason
from ext_authz.runtime.event_loop import run_on_best_loop
from ext_authz.runtime.health import Health
from ext_authz.runtime.transport_choice import TRANSPORT_NAMES, transport_named
from ext_authz.wire.check_response import serialize

__all__ = ["TRANSPORT_NAMES"]


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORT_NAMES, required=True)
    parser.add_argument("--address", required=True)
    arguments = parser.parse_args()
    run_on_best_loop(_serve(arguments.transport, arguments.address))


async def _serve(name: str, address: str) -> None:
    allowed = serialize(Allow(reason=Reason.OK))
    health = Health()
    health.set_serving(True)

    def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:
        del request, deadline, traceparent
        return allowed

    transport = transport_named(name)(ListenerSettings(address=address), check, health)
    await transport.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await transport.drain(0.1)


if __name__ == "__main__":
    main()
