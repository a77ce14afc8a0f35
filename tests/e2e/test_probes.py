"""The probes of the chart's pods, asked of a real server as the kubelet asks them."""

import http.client
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.charts import manifests, pod_of
from support.jwks_endpoint import JwksEndpoint
from support.mesh import mesh_policy, mesh_spec, wait_for
from support.server import ServerProcess
from support.tokens import AUDIENCE, ISSUER, jwks, signing_key

POD: dict[str, Any] = pod_of(manifests())["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
LAME_DUCK_SECONDS = 2.0


class Kubelet:
    """Asks a server."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    def says(self, name: str) -> bool:
        """Whether the probe of that name succeeds."""
        probe = CONTAINER[name]
        host, _, port = str(self._server.events("listening")[0]["admin"]).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=probe.get("timeoutSeconds", 1))
        try:
            connection.request("GET", probe["httpGet"]["path"])
            return 200 <= connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()

    def states(self) -> tuple[bool, bool, bool]:
        """Started, alive, ready."""
        return self.says("startupProbe"), self.says("livenessProbe"), self.says("readinessProbe")


@pytest.mark.slow
def test_a_pod_is_started_alive_and_ready_when_it_is_and_no_longer(tmp_path: Path) -> None:
    with JwksEndpoint(jwks(signing_key())) as endpoint:
        endpoint.status = 503
        issuer = {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "keys": {"url": endpoint.url}}
        spec = mesh_spec(
            listener={"address": "127.0.0.1:0", "lame_duck_seconds": LAME_DUCK_SECONDS},
            issuers=[issuer],
            key_fetch={"failure_backoff_seconds": 0.1, "refresh_seconds": 0.5},
        )
        server = ServerProcess(tmp_path, spec, policy__yaml=mesh_policy())
        began = time.monotonic()
        server.start(ready=False)
        try:
            kubelet = Kubelet(server)
            # an issuer that is down is no reason to start the pod anew, only to send it nothing
            assert kubelet.states() == (True, True, False)
            assert time.monotonic() - began < CONTAINER["startupProbe"]["failureThreshold"]
            endpoint.status = 200
            wait_for(lambda: kubelet.says("readinessProbe"), "the server is ready")
            # nor is one that is lost later: every pod would go at once
            endpoint.status = 503
            failures = 'ext_authz_key_source_failures{issuer="corp"}'
            wait_for(lambda: server.metric(failures), "a fetch has failed")
            assert kubelet.states() == (True, True, True)

            # a process that hangs answers nobody, and is started anew after so many silent periods
            server.signal(signal.SIGSTOP)
            assert not kubelet.says("livenessProbe")
            server.signal(signal.SIGCONT)
            assert kubelet.says("livenessProbe")

            # one that leaves is not killed for it
            server.signal(signal.SIGTERM)
            wait_for(lambda: not kubelet.says("readinessProbe"), "readiness says no")
            assert kubelet.says("livenessProbe")
            assert not server.events("draining")
            left = time.monotonic()
            assert server.stop(None) == 0
            assert time.monotonic() - left < LAME_DUCK_SECONDS + 5
        finally:
            server.stop(signal.SIGKILL)


def test_a_pod_that_hangs_is_given_up_before_a_minute_and_one_that_leaves_has_time_for_it() -> None:
    liveness = CONTAINER["livenessProbe"]
    silent = liveness["failureThreshold"] * max(liveness["periodSeconds"], liveness["timeoutSeconds"])
    assert 20 <= silent <= 60
    # the same path: a pod that is started is alive
    assert CONTAINER["startupProbe"]["httpGet"] == liveness["httpGet"]
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] != liveness["httpGet"]["path"]
    delay = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    # the defaults of `lame_duck_seconds` and `drain_seconds`
    assert POD["terminationGracePeriodSeconds"] > delay + 6 + 10
