"""What is in force: read as a whole, replaced as a whole, and kept when its successor is faulty."""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pki import authority
from support.server import document, route_policy, server_spec
from support.tokens import AUDIENCE, ISSUER, jwks, signing_key

from ext_authz.config.load import Loaded
from ext_authz.errors import ConfigurationError
from ext_authz.need import KeysNeeded
from ext_authz.policy.index import PolicyIndex
from ext_authz.runtime import assembly as assembly_module
from ext_authz.runtime import deciding as deciding_module
from ext_authz.runtime import reload as reload_module
from ext_authz.runtime import server as server_module
from ext_authz.runtime.active import Active
from ext_authz.runtime.assembly import Assembly, assemble, assemble_watched
from ext_authz.runtime.deciding import Deciding
from ext_authz.runtime.key_fault import KeyFetchError, KeyFetchFault
from ext_authz.runtime.key_report import KeyReport
from ext_authz.runtime.reload import Reloader, restart_needed
from ext_authz.runtime.server import Server
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.watch import FileWatch
from ext_authz.snapshot import Snapshot
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import Line, LineSink
from ext_authz.telemetry.metrics import Metrics
from ext_authz.token.jwks import KeySet

PUBLIC = {"name": "public", "matches": [{"path": {"value": "/public"}}], "public": True}
ROOT = authority("cluster.local")
LEAF = ROOT.leaf(dns_sans=["server.test"])


class Collected(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.dropped = 0

    def put(self, line: Line) -> None:
        self.lines.append(line)

    def messages(self) -> list[str]:
        return [json.loads(line.render())["message"] for line in self.lines]


def issuer(name: str = "corp", iss: str = ISSUER) -> dict[str, object]:
    return {"name": name, "issuer": iss, "audiences": [AUDIENCE], "keys": {"file": f"{name}.json"}}


def configure(folder: Path, **spec: Any) -> str:
    """A configuration with a bundle, TLS, a policy and an issuer whose keys are in a file."""
    (folder / "bundle.pem").write_bytes(ROOT.pem)
    (folder / "chain.pem").write_bytes(LEAF.pem)
    (folder / "key.pem").write_bytes(LEAF.key_pem)
    for name in ("corp", "other"):
        (folder / f"{name}.json").write_bytes(jwks(signing_key()))
    (folder / "policy.yaml").write_text(route_policy(PUBLIC))
    parts: dict[str, Any] = {
        "listener": {"address": "127.0.0.1:0", "tls": {"certificate_file": "chain.pem", "key_file": "key.pem"}},
        "trust_bundles": [{"trust_domain": "cluster.local", "files": ["bundle.pem"]}],
        "evidence": {"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "bundles"},
        "issuers": [issuer()],
        "policies": ["policy.yaml"],
        **spec,
    }
    target = folder / "server.yaml"
    target.write_text(document("Server", "test", server_spec(**parts)))
    return str(target)


def test_an_assembly_holds_everything_and_names_every_file(tmp_path: Path) -> None:
    assembly = assemble(configure(tmp_path))
    assert len(assembly.bundles) == 1
    assert assembly.tls is not None
    names = {Path(file).name for file in assembly.configuration.watched_files}
    assert {"server.yaml", "policy.yaml", "bundle.pem", "chain.pem", "key.pem"} <= names
    snapshot = assembly.snapshot({}, 1)
    keys = KeySet.from_json(jwks(signing_key()))
    assert assembly.snapshot({"corp": keys}, 2, snapshot).issuers.cache is snapshot.issuers.cache


def test_files_that_break_after_they_were_named_are_problems_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configure(tmp_path)
    configuration = assemble(path).configuration
    loaded = Loaded(configuration, PolicyIndex(configuration.policies))
    monkeypatch.setattr(assembly_module, "load_compiled", lambda *_: loaded)
    (tmp_path / "bundle.pem").write_text("nonsense")
    (tmp_path / "key.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError) as error:
        assemble(path)
    assert [problem.partition(":")[0].rpartition("/")[2] for problem in error.value.problems] == [
        "bundle.pem",
        "key.pem",
    ]
    (tmp_path / "bundle.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"bundle\.pem: cannot be read: No such file or directory"):
        assemble(path)


def test_each_file_is_watched_from_before_it_was_read(tmp_path: Path) -> None:
    path = configure(tmp_path)
    assembly, watch = assemble_watched(path)
    assert set(watch.paths) == set(assembly.configuration.watched_files)
    assert watch.changed() == ()


@pytest.mark.parametrize("name", ["server.yaml", "policy.yaml", "bundle.pem", "chain.pem", "key.pem"])
def test_a_file_that_changes_while_it_is_read_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = configure(tmp_path)
    file = tmp_path / name
    look = FileWatch.look

    def change_after(watch: FileWatch, looked_at: str) -> None:
        look(watch, looked_at)
        if looked_at == str(file):
            file.write_bytes(file.read_bytes() + b"\n")

    monkeypatch.setattr(FileWatch, "look", change_after)
    _, watch = assemble_watched(path)
    assert watch.changed() == (str(file),)


def test_a_policy_that_comes_while_policies_are_read_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configure(tmp_path, policies=["policies/**/*.yaml"])
    late = tmp_path / "policies" / "deep" / "late.yaml"
    late.parent.mkdir(parents=True)
    (late.parent / "early.yaml").write_text(route_policy(PUBLIC))
    look = FileWatch.look

    def come_before(watch: FileWatch, looked_at: str) -> None:
        if looked_at == str(late.parent):
            late.write_text(route_policy({**PUBLIC, "matches": [{"path": {"value": "/late"}}]}, name="late"))
        look(watch, looked_at)

    monkeypatch.setattr(FileWatch, "look", come_before)
    assembly, watch = assemble_watched(path)
    assert {policy.name for policy in assembly.configuration.policies} >= {"late"}
    assert str(late) in watch.paths


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is tested offers no event to wait for
            await asyncio.sleep(0.01)


async def until_ready(server: Server) -> None:
    await until(lambda: not server.readiness().reasons)


class Setup:
    """An `Active` and a `Reloader` over real files."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.published: list[Snapshot] = []
        self.metrics = Metrics()
        assembly, watch = assemble_watched(path)
        self.active = Active(assembly, KeyReport(self.metrics), self.published.append)
        assert assembly.tls is not None
        self.certificates = ServerCertificates(assembly.tls)
        self.log = DecisionLog(Collected())
        self.reloader = Reloader(
            path, watch, self.active, certificates=self.certificates, metrics=self.metrics, log=self.log
        )

    def reloads(self, result: str) -> float | None:
        return self.metrics.registry().get_sample_value("ext_authz_reloads_total", {"result": result})


def run(path: str, scenario: Callable[[Setup], Awaitable[None]]) -> None:
    async def whole() -> None:
        setup = Setup(path)
        await setup.active.start()
        try:
            await scenario(setup)
        finally:
            await setup.active.close()

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("ext_authz")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_keys_that_arrive_make_a_new_snapshot(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        assert [snapshot.generation for snapshot in setup.published] == [1, 2]
        assert setup.active.keys.ready
        (source,) = setup.active.key_sources()
        assert (source.issuer, source.keys, source.failures, source.state) == ("corp", 1, 0, "serving")
        assert setup.active.snapshot is setup.published[-1]
        need = KeysNeeded("corp", "unknown")
        assert not setup.active.may_fetch(need, time.time())  # so soon after the first fetch
        await setup.active.fulfil(need, time.monotonic() + 1)
        assert [snapshot.generation for snapshot in setup.published] == [1, 2]

    run(configure(tmp_path), scenario)


def test_a_replacement_counts_at_once_with_the_keys_of_its_new_issuers(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        configure(tmp_path, issuers=[issuer(), issuer("other", "https://other.example")])
        assert await setup.reloader.reload()
        snapshot = setup.active.snapshot
        assert {trusted.issuer.name for trusted in snapshot.issuers if trusted.keys} == {"corp", "other"}
        assert snapshot.generation == 3
        assert setup.reloads("success") == 1

    run(configure(tmp_path), scenario)


def test_a_replacement_that_fails_late_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(setup: Setup) -> None:
        before = setup.active.snapshot

        def fail(*_: object) -> Snapshot:
            raise RuntimeError("s3cret")

        monkeypatch.setattr(Assembly, "snapshot", fail)
        assert not await setup.reloader.reload()
        assert setup.active.snapshot is before
        (problem,) = setup.reloader.problems
        assert "RuntimeError" in problem
        assert "s3cret" not in problem

    run(configure(tmp_path), scenario)


def test_a_faulty_file_is_reported_once_however_often_it_is_tried_again(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        (tmp_path / "policy.yaml").write_text("nonsense")
        assert not await setup.reloader.reload()
        assert not await setup.reloader.reload(quiet=True)
        assert setup.reloads("failure") == 1
        (tmp_path / "policy.yaml").write_text("other nonsense: [")
        assert not await setup.reloader.reload(quiet=True)
        assert setup.reloads("failure") == 2
        (tmp_path / "policy.yaml").write_text(route_policy(PUBLIC))
        assert await setup.reloader.reload(quiet=True)
        assert setup.reloader.problems == ()

    run(configure(tmp_path), scenario)


def test_a_renewed_certificate_is_put_in_force_and_a_moved_one_needs_a_restart(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        renewed = ROOT.leaf(dns_sans=["server.test"])
        (tmp_path / "chain.pem").write_bytes(renewed.pem)
        assert await setup.reloader.reload()
        assert setup.certificates.material.chain == renewed.pem
        (tmp_path / "moved.pem").write_bytes(LEAF.pem)
        tls = {"certificate_file": "moved.pem", "key_file": "key.pem"}
        configure(tmp_path, listener={"address": "127.0.0.1:0", "tls": tls}, log={"allowed": False})
        assert await setup.reloader.reload()
        assert setup.certificates.material.chain == renewed.pem
        assert not setup.log.allowed

    run(configure(tmp_path), scenario)


def test_what_is_fixed_at_the_start_needs_a_restart(tmp_path: Path) -> None:
    configuration = assemble(configure(tmp_path)).configuration
    listener, admin = configuration.listener, configuration.admin
    assert restart_needed(configuration, configuration) == ()
    leaving = replace(listener, lame_duck_seconds=1.0, drain_seconds=1.0)
    assert restart_needed(configuration, replace(configuration, listener=leaving)) == ()
    other = replace(configuration, listener=replace(listener, address="x:1"), admin=replace(admin, address=None))
    assert restart_needed(configuration, other) == ("listener", "admin")


def test_the_watch_reloads_what_changed_and_retries_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "RETRY_SECONDS", 0.15)

    async def scenario(setup: Setup) -> None:
        task = asyncio.create_task(setup.reloader.run())

        configure(tmp_path, policies=["policy.yaml", "late.yaml"])
        await until(lambda: setup.reloads("failure") == 1)
        # nothing that was watched changes any more
        (tmp_path / "late.yaml").write_text(
            route_policy({**PUBLIC, "name": "late"}, name="late", hostnames=["l.example"])
        )
        await until(lambda: setup.reloads("success") == 1)
        setup.reloader.ask()
        await until(lambda: setup.reloads("success") == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(configure(tmp_path), scenario)


def test_keys_are_counted_and_their_faults_logged(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    report = KeyReport(metrics)
    keys = KeySet.from_json(jwks(signing_key(), {"kty": "oct", "k": "AA", "kid": "symmetric"}))
    with caplog.at_level(logging.INFO, "ext_authz"):
        report.fetched("corp", keys, changed=True)
        report.fetched("corp", keys, changed=False)
        report.fetch_failed("corp", KeyFetchError(KeyFetchFault.TIMED_OUT, "no answer"), 1)
        report.expired("corp")
    assert [record.getMessage() for record in caplog.records] == [
        "keys loaded",
        "a key of the issuer is not used",
        "keys could not be fetched",
        "keys are too old and were dropped",
    ]
    sample = metrics.registry().get_sample_value
    assert sample("ext_authz_key_fetches_total", {"issuer": "corp", "result": "success"}) == 2
    assert sample("ext_authz_key_fetches_total", {"issuer": "corp", "result": "failure"}) == 1


class QuietTransport:
    """Serves nothing."""

    drained: float | None = None

    def __init__(self, *_: object, **__: object) -> None:
        """As `GrpcTransport`."""

    async def start(self) -> str:
        return "127.0.0.1:1"

    async def drain(self, seconds: float) -> None:
        type(self).drained = seconds


def serve(
    path: str, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Server], Awaitable[None]], *, ended: bool = False
) -> Collected:
    """`scenario` has told the server to end itself when `ended`."""
    monkeypatch.setattr(deciding_module, "transport_named", lambda _: QuietTransport)
    sink = Collected()

    async def whole() -> None:
        server = Server(path, sink)
        assert server.readiness().reasons == ("the configuration is not loaded",)
        task = asyncio.create_task(server.run())
        await until(lambda: "listening" in sink.messages() or task.done())
        await scenario(server)
        if not ended:
            os.kill(os.getpid(), signal.SIGTERM)
        await task

    asyncio.run(whole())
    return sink


def test_a_server_becomes_ready_reloads_on_sighup_and_drains_on_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: Server) -> None:
        await until_ready(server)
        assert server.readiness().notes == ()
        (tmp_path / "policy.yaml").write_text("nonsense")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: server.readiness().notes)
        assert server.readiness().reasons == ()

    path = configure(tmp_path, listener={"address": "127.0.0.1:0", "drain_seconds": 3})
    sink = serve(path, monkeypatch, scenario)
    assert sink.messages()[-2:] == ["draining", "stopped"]
    assert QuietTransport.drained == 3


def test_a_server_that_is_told_to_leave_says_so_and_goes_on_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0.0

    async def scenario(server: Server) -> None:
        await until_ready(server)
        os.kill(os.getpid(), signal.SIGTERM)
        began = time.monotonic()
        await until(lambda: server.readiness().reasons == ("draining",))
        assert isinstance(server._serving, Deciding)
        assert not server._serving._health.serving
        # keys that come now change nothing
        server._serving.update_health()
        assert not server._serving._health.serving
        await until(lambda: QuietTransport.drained is not None)
        nonlocal left
        left = time.monotonic() - began

    QuietTransport.drained = None
    path = configure(tmp_path, listener={"address": "127.0.0.1:0", "lame_duck_seconds": 0.5})
    sink = serve(path, monkeypatch, scenario, ended=True)
    assert sink.messages()[-3:] == ["leaving", "draining", "stopped"]
    assert left >= 0.5


def test_a_server_that_is_interrupted_does_not_wait_to_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: Server) -> None:
        await until_ready(server)
        os.kill(os.getpid(), signal.SIGINT)

    path = configure(tmp_path, listener={"address": "127.0.0.1:0", "lame_duck_seconds": 3600})
    assert serve(path, monkeypatch, scenario, ended=True).messages()[-2:] == ["draining", "stopped"]


def test_a_server_without_admin_or_keys_says_why_it_is_not_ready_and_what_is_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configure(tmp_path, admin="none")
    loaded = assemble_watched

    def with_findings(path: str) -> tuple[Assembly, FileWatch]:
        assembly, watch = loaded(path)
        (tmp_path / "corp.json").unlink()
        findings = replace(assembly.configuration, insecure=("unsafe",), warnings=("careful",))
        return replace(assembly, configuration=findings), watch

    monkeypatch.setattr(server_module, "assemble_watched", with_findings)

    async def scenario(server: Server) -> None:
        await until(lambda: server.readiness().notes)
        assert server.readiness().reasons == ("keys of issuer corp are not loaded",)
        (tmp_path / "corp.json").write_bytes(jwks(signing_key()))
        await until_ready(server)

    messages = serve(path, monkeypatch, scenario).messages()
    assert "insecure setting" in messages
    assert "configuration warning" in messages


def test_the_second_signal_exits_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    async def scenario() -> None:
        server = Server(str(tmp_path), Collected())
        server._stop_or_exit(signal.SIGTERM)
        assert server.readiness().reasons == ("draining",)
        assert codes == []
        server._stop_or_exit(signal.SIGINT)

    asyncio.run(scenario())
    assert codes == [130]


def test_a_warning_of_a_reload_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(setup: Setup) -> None:
        real = setup.active.configuration

        def with_warning(path: str) -> tuple[Assembly, FileWatch]:
            assembly, watch = assemble_watched(path)
            return replace(assembly, configuration=replace(real, warnings=("careful",))), watch

        monkeypatch.setattr(reload_module, "assemble_watched", with_warning)
        started = time.monotonic()
        assert await setup.reloader.reload(("a",))
        assert time.monotonic() - started < 10

    run(configure(tmp_path), scenario)
