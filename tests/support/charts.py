"""The Helm chart rendered by the real Helm engine, and its mounts as the kubelet lays them out."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

__all__ = [
    "CHART",
    "CHARTS",
    "NAMESPACE",
    "RELEASE",
    "Manifest",
    "manifests",
    "mount",
    "notes",
    "of_kind",
    "pod_of",
    "project_files",
    "render",
]

Manifest = dict[str, Any]

CHARTS = Path(__file__).parents[2] / "charts"
CHART = CHARTS / "ext-authz"
RELEASE = "edge"
NAMESPACE = "security"


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, as the API server's strict decoding does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{twice} twice{node.start_mark}"
        return super().construct_mapping(node, deep)


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render(values: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Text by template, empty ones left out."""
    rendered = _chart().render(dict(values or {}), name=RELEASE, namespace=NAMESPACE)
    return {name: text for name, text in sorted(rendered.items()) if text.strip()}


def notes(values: Mapping[str, Any] | None = None) -> str:
    """What is printed after an installation."""
    return next(text for name, text in render(values).items() if name.endswith("NOTES.txt"))


def manifests(values: Mapping[str, Any] | None = None) -> list[Manifest]:
    """Every object."""
    return [
        document
        for name, text in render(values).items()
        if not name.endswith("NOTES.txt")
        for document in yaml.load_all(text, Loader=_StrictLoader)
        if document is not None
    ]


def of_kind(objects: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only object of its kind, or the one of that name."""
    (found,) = [item for item in objects if item["kind"] == kind and name in {None, item["metadata"]["name"]}]
    return found


def pod_of(objects: list[Manifest]) -> Manifest:
    """The pod template of the servers."""
    (workload,) = [item for item in objects if item["kind"] in {"Deployment", "DaemonSet"}]
    template: Manifest = workload["spec"]["template"]
    return template


def mount(objects: list[Manifest], others: Mapping[str, Mapping[str, str]], root: Path) -> Path:
    """Lay out what the server's container sees below `root`, as the kubelet does; returns the configuration file.

    Args:
        objects: rendered.
        others: data by name of ConfigMaps and Secrets that are not the chart's.
        root: stands for `/`, also in the files.
    """
    pod = pod_of(objects)["spec"]
    (container,) = pod["containers"]
    data = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"} | dict(others)
    volumes = {volume["name"]: _source(volume) for volume in pod["volumes"]}
    for place in container["volumeMounts"]:
        project_files(root / place["mountPath"].lstrip("/"), dict(_rooted(data[volumes[place["name"]]], root)))
    configuration: str = container["args"][-1]
    return root / configuration.lstrip("/")


def _source(volume: Manifest) -> str:
    source: str = volume["configMap"]["name"] if "configMap" in volume else volume["secret"]["secretName"]
    return source


def _rooted(files: Mapping[str, str], root: Path) -> Iterator[tuple[str, str]]:
    for name, text in files.items():
        yield name, text.replace("/etc/ext-authz/", f"{root}/etc/ext-authz/")


def project_files(directory: Path, files: Mapping[str, str]) -> None:
    """A directory of symlinks into `..data`, itself a symlink that is swapped when anything changes."""
    directory.mkdir(parents=True, exist_ok=True)
    generation = directory / f"..generation_{len(list(directory.glob('..generation_*')))}"
    generation.mkdir()
    for name, text in files.items():
        (generation / name).write_text(text)
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    swap = directory / "..data_tmp"
    swap.symlink_to(generation.name)
    swap.replace(directory / "..data")
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
