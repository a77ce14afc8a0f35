"""Nothing that an operator does fails a request: each test counts every answer of a steady load through a real Envoy."""

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpOptions
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions
from envoy_data_plane.google.protobuf import Any as Packed
from support.envoy_secrets import Secrets
from support.fronts import without_retries
from support.jwks_endpoint import JwksEndpoint
from support.mesh import BILLING, CALLER, HOST, Mesh, bound_token, mesh_policy, mesh_spec, wait_for
from support.pki import Leaf, authority, ec_key
from support.server import HEALTH_METHOD, ServerProcess
from support.steady_load import Answer, Ask, Caller, SteadyLoad
from support.tokens import AUDIENCE, ISSUER, jwks, signing_key

from ext_authz.demo.ports import choose_ports

pytestmark = [pytest.mark.envoy]

NOT_SERVING = b"\x08\x02"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One for a server, one for Envoy."""
    server, envoy = tmp_path / "server", tmp_path / "envoy"
    server.mkdir()
    envoy.mkdir()
    return server, envoy


@pytest.mark.slow
def test_a_load_tells_what_it_was_not_answered(folders: tuple[Path, Path]) -> None:
    with (
        ServerProcess(folders[0], mesh_spec(), policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], edit=without_retries) as mesh,
    ):
        with mesh.load() as load:
            load.wait_for_answers(60)
            server.stop(signal.SIGKILL)
            load.wait_for_answers(60)
        with pytest.raises(AssertionError, match=r"requests of \d+ failed\n(.*\n)+not as expected: .*503"):
            load.report.verify()
        assert load.report.answers["/invoices/1: 200"] >= 20
        with mesh.load(limit_seconds=0.2) as load:
            time.sleep(0.5)
        with pytest.raises(AssertionError, match="the load ended by itself"):
            load.report.verify()


class Versions:
    """The versions of the policy that allowed requests have shown, in the order of the answers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def verify(self, answer: Answer) -> str:
        self.seen.append(answer.headers.get("seen-x-policy-version", "none"))
        return "" if self.seen[-1] in {"one", "two"} else f"decided by version {self.seen[-1]}"

    def wait_for(self, version: str) -> None:
        wait_for(lambda: self.seen[-1:] == [version], f"requests are decided by version {version}")


@pytest.mark.slow
def test_policies_that_change_every_second_fail_no_request(folders: tuple[Path, Path]) -> None:
    versions = Versions()
    with (
        ServerProcess(folders[0], mesh_spec(), policy__yaml=mesh_policy("one")) as server,
        Mesh(folders[1], [server.address], edit=without_retries) as mesh,
        mesh.load(mesh.usual_asks(versions.verify)) as load,
    ):
        reloads, failures = (f'ext_authz_reloads_total{{result="{result}"}}' for result in ("success", "failure"))
        loaded = server.metric(reloads) or 0
        for number in range(8):
            began = time.monotonic()
            version = ("two", "one")[number % 2]
            server.write("policy.yaml", mesh_policy(version))
            versions.wait_for(version)
            if number == 3:
                generation = server.metric("ext_authz_configuration_generation")
                # half a policy, as an editor or a full disk leaves it
                server.write("policy.yaml", mesh_policy("three")[:-20])
                wait_for(lambda: server.metric(failures), "the failed reload is counted")
                load.wait_for_answers(100)
                assert versions.seen[-1] == version
                # what decides is whole, so the server is ready, and says what an operator should know
                assert server.admin("/readyz") == (200, "ok\n")
                assert "reload failed" in server.admin("/readyz?verbose")[1]
                assert server.metric("ext_authz_configuration_reload_failed") == 1
                assert server.metric("ext_authz_configuration_generation") == generation
            time.sleep(max(0.0, began + 1 - time.monotonic()))
        assert "reload failed" not in server.admin("/readyz?verbose")[1]
        assert server.metric("ext_authz_configuration_reload_failed") == 0
        assert (server.metric(reloads) or 0) - loaded >= 8
    load.report.verify(at_least=800)
    changes = [one for one, other in zip(versions.seen, versions.seen[1:], strict=False) if one != other]
    # a moment of both, while answers of one version are on their way, is all that a change may take
    assert len(changes) < 30


OLD, NEW = authority("cluster.local", key=ec_key("old root")), authority("cluster.local", key=ec_key("new root"))
CHECK = {"dns_sans": ["ext-authz.test"]}
WEBSITE = "spiffe://cluster.local/ns/applications/sa/website"


class Rotation:
    """A server and an Envoy with mutual TLS on both sides of Envoy; every certificate in it can be replaced."""

    def __init__(self, server_folder: Path, envoy_folder: Path) -> None:
        self.secrets = Secrets(envoy_folder)
        self.secrets.present("edge", OLD.svid(BILLING, key=ec_key("edge"), dns_sans=[HOST]))
        self.secrets.trust("clients", OLD.pem)
        self.secrets.present("envoy", OLD.leaf(key=ec_key("envoy")))
        self.secrets.trust("servers", OLD.pem)
        address = f"127.0.0.1:{choose_ports(1)[0]}"
        tls = {"certificate_file": "tls.pem", "key_file": "tls.key", "client_ca_file": "envoys.pem"}
        leaf = OLD.leaf(key=ec_key("check"), **CHECK)
        files: dict[str, str | bytes] = {"policy__yaml": mesh_policy(), "envoys__pem": OLD.pem, "bundle__pem": OLD.pem}
        files |= {"tls__pem": leaf.chain_pem, "tls__key": leaf.key_pem}
        spec = mesh_spec(
            listener={"address": address, "tls": tls},
            evidence={"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
            trust_bundles=[{"trust_domain": "cluster.local", "files": ["bundle.pem"]}],
        )
        self.server = ServerProcess(server_folder, spec, **files)
        self.mesh = Mesh(envoy_folder, [address], edit=self._edit)

    def _edit(self, config: Bootstrap) -> None:
        without_retries(config)
        assert config.static_resources is not None
        # Envoy takes secrets that change only when it knows what to call itself
        config.node = Node(id="edge", cluster="edge")
        chain = config.static_resources.listeners[0].filter_chains[0]
        chain.transport_socket = self.secrets.downstream("edge", "clients")
        cluster = config.static_resources.clusters[0]
        cluster.transport_socket = self.secrets.upstream("envoy", "servers", "ext-authz.test")
        # a handshake every few requests, as otherwise in the course of a day
        (name, packed), *_ = cluster.typed_extension_protocol_options.items()
        options = packed.unpack()
        assert isinstance(options, HttpProtocolOptions)
        options.common_http_protocol_options = CommonHttpOptions(max_requests_per_connection=20)
        cluster.typed_extension_protocol_options[name] = Packed.pack(options)

    def write(self, **files: bytes) -> None:
        """Files of the server, until they are in force."""
        sample = 'ext_authz_reloads_total{result="success"}'
        before = self.server.metric(sample)
        for name, content in files.items():
            self.server.write(name.replace("__", "."), content)
        wait_for(lambda: self.server.metric(sample) != before, "the server has reloaded")

    def settle(self, load: SteadyLoad) -> None:
        """Until requests have been answered over connections made after the last change, on both sides of Envoy."""
        before = self.mesh.stat("upstream_cx_total")
        load.wait_for_answers(100)
        wait_for(lambda: self.mesh.stat("upstream_cx_total") >= before + 3, "Envoy connects to the server again")

    def caller(self, leaf: Leaf, authorities: bytes) -> Caller:
        """Who presents `leaf`, with a token that is bound to it."""
        return self.mesh.caller(leaf, authorities=authorities)

    def status(self, caller: Caller) -> int:
        """Of one request on a connection of its own; 0 when Envoy did not take the certificate."""
        port = self.mesh.envoy.ports["edge"]
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
                caller.context.wrap_socket(raw, server_hostname=HOST) as connection,
            ):
                head = f"GET /invoices/1 HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {caller.token}\r\n\r\n"
                connection.sendall(head.encode())
                return int((connection.recv(64) or b"HTTP/1.1 0").split(b" ")[1])
        except OSError:
            return 0

    def takes_envoy(self, leaf: Leaf, folder: Path) -> bool:
        """Whether the server speaks with an Envoy that presents `leaf`."""
        context = Caller.of(leaf, OLD.pem + NEW.pem, "", folder).context
        context.set_alpn_protocols(["h2"])
        host, _, port = self.server.address.rpartition(":")
        try:
            with (
                socket.create_connection((host, int(port)), timeout=10) as raw,
                context.wrap_socket(raw, server_hostname="ext-authz.test") as connection,
            ):
                return bool(connection.recv(1))
        except OSError:
            return False


@pytest.mark.slow
def test_certificates_and_authorities_that_are_all_replaced_fail_no_request(folders: tuple[Path, Path]) -> None:
    world = Rotation(*folders)
    write, secrets = world.write, world.secrets
    both = OLD.pem + NEW.pem
    old_caller = OLD.svid(WEBSITE, key=ec_key("old caller"))
    old_envoy, new_envoy = OLD.leaf(key=ec_key("envoy")), NEW.leaf(key=ec_key("new envoy"))
    with world.server, world.mesh, world.mesh.load(caller=world.caller(old_caller, both)) as load:
        load.wait_for_answers(100)

        # the server's certificate, by the same authority
        leaf = OLD.leaf(key=ec_key("second check"), **CHECK)
        write(tls__pem=leaf.chain_pem, tls__key=leaf.key_pem)
        world.settle(load)

        # its authority: first Envoy trusts both, then the server presents the new, then Envoy forgets the old
        secrets.trust("servers", both)
        world.settle(load)
        leaf = NEW.leaf(key=ec_key("third check"), **CHECK)
        write(tls__pem=leaf.chain_pem, tls__key=leaf.key_pem)
        world.settle(load)
        secrets.trust("servers", NEW.pem)
        world.settle(load)

        # Envoy's certificate and its authority, in the same order
        assert not world.takes_envoy(new_envoy, folders[1])
        write(envoys__pem=both)
        secrets.present("envoy", new_envoy)
        world.settle(load)
        assert world.takes_envoy(old_envoy, folders[1])
        write(envoys__pem=NEW.pem)
        world.settle(load)
        assert not world.takes_envoy(old_envoy, folders[1])
        assert world.takes_envoy(new_envoy, folders[1])

        # the mesh's own: workloads are trusted by both authorities before the first has a certificate of the new one
        secrets.trust("clients", both)
        write(bundle__pem=both)
        world.settle(load)
        new_caller = world.caller(NEW.svid(WEBSITE, key=ec_key("new caller")), both)
        load.become(new_caller)
        secrets.present("edge", NEW.svid(BILLING, key=ec_key("new edge"), dns_sans=[HOST]))
        world.settle(load)
        former = world.caller(old_caller, both)
        assert world.status(former) == 200
        write(bundle__pem=NEW.pem)
        world.settle(load)
        # Envoy still lets it in, and we do not
        assert world.status(former) == 401
        secrets.trust("clients", NEW.pem)
        wait_for(lambda: world.status(former) == 0, "Envoy does not take the old certificate")
        assert world.status(new_caller) == 200
        world.settle(load)
        # nor did Envoy notice anything that it made good by itself
        assert [world.mesh.stat(name) for name in ("upstream_cx_connect_fail", "ssl.connection_error")] == [0, 0]
    load.report.verify(at_least=1000)


class Replicas:
    """Servers that are started one after the other."""

    def __init__(self, folder: Path, **listener: object) -> None:
        self._folder = folder
        self._listener = listener
        self._started: list[ServerProcess] = []

    def start(self, port: int) -> ServerProcess:
        folder = self._folder / f"{len(self._started)}"
        folder.mkdir()
        spec = mesh_spec(listener={"address": f"127.0.0.1:{port}", **self._listener})
        server = ServerProcess(folder, spec, policy__yaml=mesh_policy())
        server.start()
        self._started.append(server)
        return server

    def stop(self) -> None:
        for server in self._started:
            server.stop(signal.SIGKILL)


@pytest.fixture
def replicas(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> Iterator[Replicas]:
    started = Replicas(folders[0], lame_duck_seconds=2, **request.param)
    yield started
    started.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "replicas",
    [{"transport": "h2"}, {"transport": "h2", "workers": 2}, {"transport": "grpcio"}],
    ids=["h2", "two workers", "grpcio"],
    indirect=True,
)
def test_replacing_one_server_after_the_other_fails_no_request(replicas: Replicas, folders: tuple[Path, Path]) -> None:
    ports = choose_ports(2)
    servers = [replicas.start(port) for port in ports]
    addresses = [server.address for server in servers]

    def healthy(count: int) -> Callable[[], bool]:
        return lambda: mesh.stat("membership_healthy") == count

    with Mesh(folders[1], addresses, health_checks=True, edit=without_retries) as mesh:
        wait_for(healthy(2), "both servers are healthy")
        with mesh.load() as load:
            load.wait_for_answers(100)
            for number, port in enumerate(ports):
                leaving = servers[number]
                health = leaving.channel.unary_unary(HEALTH_METHOD, None, None)
                assert health(b"") != NOT_SERVING
                leaving.signal(signal.SIGTERM)
                # it says so before anyone is sent away, in every way there is, and answers all the same
                wait_for(lambda: health(b"") == NOT_SERVING, "health says no")  # noqa: B023 - called at once
                assert leaving.admin("/readyz") == (503, "draining\n")
                assert leaving.admin("/livez")[0] == 200
                assert not leaving.events("draining")
                wait_for(healthy(1), "Envoy has noticed")
                assert not leaving.events("draining")
                assert leaving.stop(None) == 0
                messages = [event["message"] for event in leaving.events()]
                assert messages[-3:] == ["leaving", "draining", "stopped"]
                load.wait_for_answers(100)
                servers[number] = replicas.start(port)
                wait_for(healthy(2), "both servers are healthy")
                load.wait_for_answers(100)
        load.report.verify(at_least=600)
        # both new ones decide
        assert all(server.decisions() for server in servers)


FASTER = 40
"""Every period of key fetching is so many times shorter than its default: 15 seconds stand for ten minutes."""

OUTAGE_SECONDS = 600 / FASTER


@pytest.mark.slow
def test_keys_that_cannot_be_fetched_for_ten_minutes_fail_no_request(folders: tuple[Path, Path]) -> None:
    key, next_key = signing_key(), signing_key(kid="next", index=1)
    unknown = Ask("/invoices/next", status=401)
    with JwksEndpoint(jwks(key)) as endpoint:
        issuer = {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": endpoint.url}}
        fetching = {
            "refresh_seconds": 300 / FASTER,
            "failure_backoff_seconds": 1 / FASTER,
            "unknown_key_cooldown_seconds": 10 / FASTER,
            # not as short as the others: a busy machine takes its time too
            "timeout_seconds": 1,
        }
        server = ServerProcess(folders[0], mesh_spec(issuers=[issuer], key_fetch=fetching), policy__yaml=mesh_policy())
        with server, Mesh(folders[1], [server.address], edit=without_retries) as mesh:
            state = 'ext_authz_key_source_state{{issuer="corp",state="{}"}}'.format
            age, failing = (
                'ext_authz_key_set_age_seconds{issuer="corp"}',
                'ext_authz_key_source_failures{issuer="corp"}',
            )
            fault = 'ext_authz_key_fetch_faults_total{{fault="{}",issuer="corp"}}'.format
            token = f"Bearer {bound_token(CALLER, key=next_key)}"
            asks = (*mesh.usual_asks(), replace(unknown, authorization=token))
            with mesh.load(asks) as load:
                load.wait_for_answers(100)
                assert server.metric(state("serving")) == 1
                generation = server.metric("ext_authz_configuration_generation")
                endpoint.status, before = 503, endpoint.requests
                began = time.monotonic()
                wait_for(lambda: server.metric(fault("status_not_ok")), "a fetch has failed")
                time.sleep(max(0.0, began + OUTAGE_SECONDS / 2 - time.monotonic()))
                # the endpoint that answered with an error does not answer at all
                endpoint.delay = 5.0
                time.sleep(max(0.0, began + OUTAGE_SECONDS - time.monotonic()))
                # what the alerts ExtAuthzKeysNotRefreshed and ExtAuthzKeysOld look at
                assert server.metric(state("failing")) == 1
                assert server.metric(state("unavailable")) == server.metric(state("serving")) == 0
                assert (server.metric(age) or 0) >= OUTAGE_SECONDS - 1
                assert (server.metric(failing) or 0) >= 5
                assert server.admin("/readyz") == (200, "ok\n")
                assert "keys of issuer corp" in server.admin("/readyz?verbose")[1]
                # pauses doubled from one second to five minutes of simulated time, whoever asked for unknown keys
                assert 5 <= endpoint.requests - before <= 20
                assert server.metric("ext_authz_configuration_generation") == generation

                endpoint.document = jwks(key, next_key)
                endpoint.status, endpoint.delay = 200, 0.0
                load.become(mesh.caller(), mesh.usual_asks())
                wait_for(lambda: server.metric(state("serving")) == 1, "the recovery is noticed")
                assert server.metric(failing) == 0
                assert (server.metric(age) or 99) < OUTAGE_SECONDS / 2
                assert (server.metric("ext_authz_configuration_generation") or 0) > (generation or 0)
                # and with it the key that was unknown
                load.become(mesh.caller(), (*mesh.usual_asks(), replace(unknown, status=200, authorization=token)))
                load.wait_for_answers(200)
            load.report.verify(at_least=1500)
            denied = {record["reason"] for record in server.decisions() if record["path"] == "/invoices/next"}
            assert denied == {"signing_key_unknown", "ok"}


@pytest.mark.slow
def test_a_part_of_the_allowed_and_every_denial_is_one_line_of_json(folders: tuple[Path, Path]) -> None:
    spec = mesh_spec(log={"allowed": 0.1})
    with (
        ServerProcess(folders[0], spec, policy__yaml=mesh_policy()) as server,
        Mesh(folders[1], [server.address], edit=without_retries) as mesh,
    ):
        with mesh.load() as load:
            load.wait_for_answers(600)
        load.report.verify(at_least=600)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.lines]
    assert server.stderr == ""
    decisions = [line for line in lines if line["log"] == "decision"]
    assert [line["log"] for line in lines].count("server") == len(lines) - len(decisions)
    answers = load.report.answers
    logged = Counter(line["decision"] for line in decisions)
    assert logged["deny"] == sum(count for what, count in answers.items() if not what.endswith(": 200"))
    allowed = sum(count for what, count in answers.items() if what.endswith(": 200"))
    # a tenth, give or take what chance does in a million runs
    assert 0.03 < logged["allow"] / allowed < 0.2
