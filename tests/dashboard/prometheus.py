"""A real Prometheus on loopback that scrapes our servers."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

__all__ = ["SCRAPE_SECONDS", "Prometheus", "prometheus"]

SCRAPE_SECONDS = 2
START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where it listens."""

    address: str

    def ask(self, what: str, **parameters: object) -> Any:
        """The `data` of an answer of its HTTP API."""
        texts = {name: str(value) for name, value in parameters.items()}
        answer = httpx.get(f"http://{self.address}/api/v1/{what}", params=texts, trust_env=False, timeout=30).json()
        if answer["status"] != "success":
            raise AssertionError(f"{parameters}: {answer}")
        return answer["data"]


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str], rules: Path | None = None) -> Iterator[Prometheus]:
    """Scrape `targets` (address by name of the instance) every two seconds, and judge by `rules` as often."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise SystemExit("prometheus is not installed (Debian: apt-get install prometheus)")
    scraped = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
    config = {
        "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE_SECONDS}s"),
        "rule_files": [] if rules is None else [str(rules)],
        "scrape_configs": [{"job_name": "ext-authz", "static_configs": scraped}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([binary, *options], stdout=log, stderr=log)
    try:
        until = time.monotonic() + START_SECONDS
        while not _is_ready(address):
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "prometheus.log").read_text())
            time.sleep(0.1)
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
