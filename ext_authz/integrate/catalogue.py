"""Every platform, and its documents as text."""

from collections.abc import Collection, Iterator
from textwrap import wrap

import yaml

from ext_authz.integrate.contour import CONTOUR
from ext_authz.integrate.gateway_api import ENVOY_GATEWAY, GATEWAY_API, KGATEWAY
from ext_authz.integrate.istio import AMBIENT, GATEWAY, SIDECAR
from ext_authz.integrate.plain_envoy import ENVOY
from ext_authz.integrate.platform import Destination, Document, Part, Platform, server_document
from ext_authz.integrate.setup import Setup

__all__ = ["PLATFORMS", "as_text", "as_yaml"]

PLATFORMS = {
    platform.name: platform
    for platform in (SIDECAR, GATEWAY, AMBIENT, ENVOY_GATEWAY, CONTOUR, KGATEWAY, GATEWAY_API, ENVOY)
}
"""By name."""

_COMMENT_WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: what is the same in two places is written twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def as_yaml(document: Document) -> str:
    """One document, keys in the order they were given."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=110)


def as_text(platform: Platform, setup: Setup, only: Collection[Destination] = ()) -> str:
    """A stream of YAML documents; comments say what each is for, and what the platform can and cannot prove.

    Args:
        platform: which.
        setup: its arguments.
        only: those documents alone; all when empty.
    """
    parts = [
        part for part in (*platform.parts(setup), server_document(platform)) if not only or part.destination in only
    ]
    return "".join([*_preface(platform), *(_section(part) for part in parts)])


def _preface(platform: Platform) -> Iterator[str]:
    yield f"# {platform.title}\n#\n"
    for heading, sentences in (("A request can prove:", platform.proves), ("It cannot:", platform.cannot)):
        yield f"# {heading}\n"
        for sentence in sentences:
            yield _comment(sentence, "- ", "  ")
        yield "#\n"


def _section(part: Part) -> str:
    return f"---\n{_comment(f'for {part.destination}: {part.purpose}')}{as_yaml(part.document)}"


def _comment(text: str, first: str = "", later: str = "") -> str:
    lines = wrap(text, _COMMENT_WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
