"""From files to everything a server runs on, checked as a whole before any of it counts. Blocking: call from a thread."""

from collections.abc import Callable
from pathlib import Path

from ext_authz.config.load import load_compiled
from ext_authz.config.settings import TrustBundleSettings
from ext_authz.errors import ConfigurationError
from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.runtime.assembled import Assembly
from ext_authz.runtime.collector import without_collector
from ext_authz.runtime.tls import read_tls
from ext_authz.runtime.watch import FileWatch

__all__ = ["Assembly", "assemble", "assemble_watched"]


def assemble(path: str, before_reading: Callable[[str], None] = lambda _: None) -> Assembly:
    """Read and check everything that the configuration file at `path` names.

    Args:
        path: of the configuration file.
        before_reading: is told each path before anything is read from it.

    Raises:
        ConfigurationError: with every problem that could be found.
    """
    loaded = load_compiled(path, before_reading)
    configuration = loaded.configuration
    problems: list[str] = []
    bundles: list[Bundle] = []
    for settings in configuration.bundles:
        try:
            bundles.append(_bundle(settings))
        except ConfigurationError as error:
            problems += error.problems
    tls = None
    if configuration.listener.tls is not None:
        try:
            tls = read_tls(configuration.listener.tls)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(tuple(problems))
    return Assembly(configuration, loaded.policies, Bundles(bundles), tls)


def assemble_watched(path: str) -> tuple[Assembly, FileWatch]:
    """`assemble`, with a watch that looked at each file before it was read, so that no later change is missed.

    Raises:
        ConfigurationError: as `assemble`.
    """
    watch = FileWatch()
    with without_collector():
        return assemble(path, watch.look), watch


def _bundle(settings: TrustBundleSettings) -> Bundle:
    parts: list[bytes] = []
    for file in settings.files:
        try:
            parts.append(Path(file).read_bytes())
        except OSError as error:
            raise ConfigurationError((f"{file}: cannot be read: {error.strerror}",)) from None
    try:
        return Bundle.from_pem(settings.trust_domain, b"\n".join(parts))
    except ValueError as error:
        raise ConfigurationError((f"{', '.join(settings.files)}: {error}",)) from None
