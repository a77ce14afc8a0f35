"""Two servers with something to tell: clients that are right and wrong, an issuer that fails, files with a mistake."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grpc
from support.check_requests import check_request, envoy_certificate
from support.jwks_endpoint import JwksEndpoint
from support.pki import Leaf, authority
from support.server import ServerProcess, check_over, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, SigningKey, access_token, cnf_for, jwks, signing_key

__all__ = ["Scene", "perform", "scene"]

SEED = 8705
RATE = 70.0
"""Requests a second to each server: enough for smooth lines, nothing for the machine."""

PARTNER = "https://partner.example"
ROOT = authority("cluster.local")
WEB_ID, BATCH_ID = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("web", "batch"))
WEB, BATCH = ROOT.svid(WEB_ID), ROOT.svid(BATCH_ID)
KEY = signing_key("RS256")
PARTNER_KEY = signing_key("ES256", index=1)


def _rule(name: str, path: str, method: str, **parts: object) -> dict[str, object]:
    return {"name": name, "matches": [{"path": {"value": path}, "methods": [method]}], **parts}


def _token(issuer: str, *scopes: str) -> dict[str, object]:
    return {"token": {"issuers": [issuer]} | ({"scopes": {"all": list(scopes)}} if scopes else {})}


INVOICES = route_policy(
    _rule("health", "/healthz", "GET", public=True),
    _rule("read-invoices", "/invoices", "GET", require=_token("corp", "invoices.read")),
    _rule("write-invoices", "/invoices", "POST", require=_token("corp", "invoices.write")),
    _rule("approve", "/invoices/approvals", "POST", require=_token("corp", "invoices.approve")),
    name="invoices",
    hostnames=["invoices.example.com"],
)
ORDERS = route_policy(
    _rule("partner-orders", "/orders", "GET", require=_token("partner")),
    _rule("import", "/orders/import", "POST", require={"peer": {"spiffe": [BATCH_ID]}}),
    name="orders",
    hostnames=["orders.example.com"],
)
MISTAKEN = ORDERS.replace('"require"', '"requires"')


@dataclass(frozen=True, slots=True)
class Scene:
    """What runs.

    Attributes:
        servers: two replicas.
        corp: where the keys of one issuer are.
        partner: and those of another.
    """

    servers: tuple[ServerProcess, ServerProcess]
    corp: JwksEndpoint
    partner: JwksEndpoint


@contextmanager
def scene(folder: Path, refresh_seconds: int = 20) -> Iterator[Scene]:
    """Start everything on loopback; keys are fetched again after so many seconds."""
    with JwksEndpoint(jwks(KEY)) as corp, JwksEndpoint(jwks(PARTNER_KEY)) as partner:
        corp.delay, partner.delay = 0.02, 0.06
        spec = server_spec(
            listener={"address": "127.0.0.1:0", "workers": 2},
            evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "proxy"},
            issuers=[
                {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": corp.url}},
                {"name": "partner", "issuer": PARTNER, "audiences": [AUDIENCE], "keys": {"url": partner.url}},
            ],
            key_fetch={
                "refresh_seconds": refresh_seconds,
                "unknown_key_cooldown_seconds": 4,
                "failure_backoff_seconds": 2,
            },
            policies=["*.policy.yaml"],
            log={"allowed": 0.01},
            telemetry={"stage_interval": 8},
        )
        servers = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            server = ServerProcess(folder / name, spec)
            server.write("invoices.policy.yaml", INVOICES)
            server.write("orders.policy.yaml", ORDERS)
            servers.append(server)
        with servers[0], servers[1]:
            yield Scene((servers[0], servers[1]), corp, partner)


@dataclass(frozen=True, slots=True)
class _Client:
    """Sends the requests of one moment to one server.

    Attributes:
        channel: to it, a connection of its own.
        random: decides what is asked next.
    """

    channel: grpc.Channel
    random: random.Random

    def send(self, part: float) -> None:
        """One request; `part` of the whole time is over."""
        storm = 0.32 < part < 0.46  # a stolen token is tried everywhere
        sent = self.random.choices(
            (
                _read,
                _write,
                _health,
                _partner,
                _import,
                _unscoped,
                _stolen,
                _expired,
                _nobody,
                _elsewhere,
                _unknown_key,
            ),
            (46, 12, 10, 14, 6, 3, 30 if storm else 1, 2, 3, 2, 0.4),
        )[0]
        check_over(self.channel, sent(self.random))


def _request(path: str, leaf: Leaf | None, token: str | None, method: str = "GET", host: str = "invoices") -> bytes:
    return check_request(
        method=method,
        path=path,
        host=f"{host}.example.com",
        source_principal="" if leaf is None else BATCH_ID if leaf is BATCH else WEB_ID,
        source_certificate="" if leaf is None else envoy_certificate(leaf.pem),
        raw_headers=[] if token is None else [("authorization", f"Bearer {token}")],
    )


@cache
def _issued(key: SigningKey, now: float, user: str, leaf: Leaf, iss: str) -> str:
    return access_token(key, now, iss=iss, cnf=cnf_for(leaf.der), sub=user, jti=f"{user}-{now:.0f}")


def _bound(leaf: Leaf, user: int, age: float = 0.0) -> str:
    """Each user has a new token every 20 seconds."""
    return _issued(KEY, time.time() // 20 * 20 - age, f"user-{user}", leaf, ISSUER)


def _read(random: random.Random) -> bytes:
    return _request("/invoices/7", WEB, _bound(WEB, random.randrange(60)))


def _write(random: random.Random) -> bytes:
    return _request("/invoices/7", WEB, _bound(WEB, random.randrange(60)), "POST")


def _health(_: random.Random) -> bytes:
    return _request("/healthz", None, None)


def _partner(random: random.Random) -> bytes:
    token = _issued(PARTNER_KEY, time.time() // 20 * 20, f"partner-{random.randrange(8)}", WEB, PARTNER)
    return _request("/orders/9", WEB, token, host="orders")


def _import(_: random.Random) -> bytes:
    return _request("/orders/import", BATCH, None, "POST", "orders")


def _unscoped(random: random.Random) -> bytes:
    return _request("/invoices/approvals", WEB, _bound(WEB, random.randrange(60)), "POST")


def _stolen(random: random.Random) -> bytes:
    return _request("/invoices/7", BATCH, _bound(WEB, random.randrange(60)))


def _expired(random: random.Random) -> bytes:
    return _request("/invoices/7", WEB, _bound(WEB, random.randrange(10), age=900))


def _nobody(_: random.Random) -> bytes:
    return _request("/invoices/7", WEB, None)


def _elsewhere(_: random.Random) -> bytes:
    return _request("/metrics", WEB, None)


def _unknown_key(random: random.Random) -> bytes:
    token = access_token(KEY, time.time(), header={"kid": f"new-{random.randrange(1000)}"}, cnf=cnf_for(WEB.der))
    return _request("/invoices/7", WEB, token)


def perform(played: Scene, seconds: float) -> None:
    """Send requests to both servers for `seconds`, while things go wrong and right again."""
    begin = time.monotonic()
    stop = threading.Event()
    failures: list[BaseException] = []

    def client(server: ServerProcess, seed: int) -> None:
        try:
            with grpc.insecure_channel(server.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
                sender = _Client(channel, random.Random(seed))
                while True:
                    part = (time.monotonic() - begin) / seconds
                    # the day has its waves
                    pace = RATE * (1.0 + 0.25 * (1 if int(part * 8) % 2 else -1) * min(1.0, (part * 8) % 1 * 3))
                    if stop.wait(1 / pace) or part >= 1:
                        return
                    sender.send(part)
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    threads = [
        threading.Thread(target=client, args=(server, SEED + number), daemon=True)
        for number, server in enumerate(played.servers * 2)
    ]
    for thread in threads:
        thread.start()
    try:
        _events(played, seconds, begin)
        for thread in threads:
            thread.join(seconds)
    finally:
        stop.set()
    if failures:
        raise failures[0]


def _events(played: Scene, seconds: float, begin: float) -> None:
    def both(name: str, content: str) -> Callable[[], None]:
        def write() -> None:
            for server in played.servers:
                server.write(name, content)

        return write

    def partner(status: int) -> Callable[[], None]:
        return lambda: setattr(played.partner, "status", status)

    for part, event in (
        (0.18, both("invoices.policy.yaml", INVOICES + "\n")),
        (0.50, partner(500)),
        (0.64, both("orders.policy.yaml", MISTAKEN)),
        (0.72, both("orders.policy.yaml", ORDERS)),
        (0.76, partner(200)),
        (0.88, both("invoices.policy.yaml", INVOICES)),
    ):
        time.sleep(max(0.0, begin + part * seconds - time.monotonic()))
        event()
