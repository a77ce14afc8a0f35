"""A running stack as its callers see it: where it listens, which certificates it has, where its decisions are logged.

One JSON file describes it, so that the same scenarios run against the processes of `ext-authz demo` and against
containers. Paths in the file are relative to its directory.
"""

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ext_authz.demo.key_pair import KeyPair

__all__ = ["STACK_FILE", "Endpoint", "Stack"]

STACK_FILE = "stack.json"
_LOG_COMMAND_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listener of Envoy.

    Attributes:
        host: address to connect to.
        port: TCP port.
        server_name: what it answers to: SNI, Host and the name in its certificate.
        is_tls: False for the plain-text listener.
    """

    host: str
    port: int
    server_name: str
    is_tls: bool = True


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything a scenario needs to know.

    Attributes:
        directory: where the files are.
        endpoints: `billing`, `catalog`, `edge`, `plain` and `auth`.
        issuer: the authorization server's identifier.
        ca_file: PEM roots that vouch for the listeners.
        credentials: client certificates by name.
        decision_log_file: ext-authz's log as a file, when it is one.
        decision_log_command: a command that prints ext-authz's log; ignored when there is a file.
    """

    directory: Path
    endpoints: dict[str, Endpoint]
    issuer: str
    ca_file: str
    credentials: dict[str, KeyPair]
    decision_log_file: str | None = None
    decision_log_command: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Self:
        """From the file that `write` wrote.

        Raises:
            ValueError: the file is not a description of a stack.
        """
        try:
            values = json.loads(file.read_text())
            return cls(
                directory=file.parent.absolute(),
                endpoints={name: Endpoint(**endpoint) for name, endpoint in values["endpoints"].items()},
                issuer=values["issuer"],
                ca_file=values["ca_file"],
                credentials={name: KeyPair(**pair) for name, pair in values["credentials"].items()},
                decision_log_file=values.get("decision_log_file"),
                decision_log_command=tuple(values.get("decision_log_command", ())),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{file} does not describe a stack: {error}") from None

    def write(self) -> Path:
        """Write `stack.json`."""
        file = self.directory / STACK_FILE
        values = asdict(self)
        del values["directory"]
        file.write_text(json.dumps(values, indent=2) + "\n")
        return file

    def path(self, relative: str) -> str:
        """A file of the stack, absolute."""
        return str(self.directory / relative)

    def credential(self, name: str) -> KeyPair:
        """A client certificate with absolute paths."""
        pair = self.credentials[name]
        return KeyPair(self.path(pair.certificate_file), self.path(pair.key_file))

    def decision_log(self) -> list[str] | None:
        """The lines of ext-authz's log so far; None when it cannot be read from here."""
        if self.decision_log_file is not None:
            return Path(self.path(self.decision_log_file)).read_text(errors="replace").splitlines()
        if self.decision_log_command and shutil.which(self.decision_log_command[0]) is not None:
            done = subprocess.run(
                self.decision_log_command, capture_output=True, check=False, timeout=_LOG_COMMAND_SECONDS
            )
            return done.stdout.decode(errors="replace").splitlines()
        return None
