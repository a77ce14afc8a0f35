"""An injection compiled: what Envoy is to change on one allowed request."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias
from urllib.parse import quote, unquote_plus

from ext_authz.decision import Mutations
from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import Context
from ext_authz.policy.header_name import METHOD_OVERRIDE_HEADERS, dashed
from ext_authz.policy.injection import Injection
from ext_authz.policy.query import readings
from ext_authz.policy.template import Render, parse_template, printable_json
from ext_authz.principal import JsonValue

__all__ = ["CompiledInjection"]

_RenderJson: TypeAlias = Callable[[Context], JsonValue]

_OF_THE_CALLER = frozenset({"token", "peer"})
"""Families of attributes that are the same in every request of one peer with one token."""


class CompiledInjection:
    """Renders an injection. Every function raises Refusal INJECTION_NOT_POSSIBLE for values that cannot be sent.

    Attributes:
        has_metadata: there is dynamic metadata to render.
        depends_on_request: what is rendered depends on more than peer, token and, where there are any, the client's
            headers with a `_` or `.`.

    The headers to remove are listed whether or not the request seems to have them: the proxy may be configured to
    show us only some headers (`allowed_headers`), and what we cannot see must not pass.
    """

    __slots__ = (
        "_changes_query",
        "_guarded",
        "_metadata",
        "_parameters",
        "_query",
        "_read_as_ours",
        "_removed",
        "_request",
        "_response",
        "_unqueried",
        "depends_on_request",
        "has_metadata",
    )

    def __init__(self, injection: Injection, owned: frozenset[str]) -> None:
        """Compile `injection`.

        Args:
            injection: of the rule.
            owned: every header that some rule for the same destination sets; the client may supply none of them.
        """
        request = dict(injection.request_headers)
        if injection.client_certificate is not None:
            request[injection.client_certificate] = "${peer.certificate}"
        self._request = _renders(request)
        self._response = _renders(injection.response_headers)
        self._query = _renders(injection.set_query_parameters)
        self._unqueried = injection.remove_query_parameters
        self._parameters = frozenset((*injection.set_query_parameters, *self._unqueried))
        self._read_as_ours = frozenset[str]().union(*map(readings, self._parameters))
        self._changes_query = bool(self._parameters)
        self._metadata = {name: _render_json(value) for name, value in injection.dynamic_metadata.items()}
        self.has_metadata = bool(self._metadata)
        roots = {reference.partition(".")[0] for reference in injection.references}
        self.depends_on_request = self._changes_query or not roots <= _OF_THE_CALLER
        unwanted = {*owned, *request, *injection.remove_request_headers, *METHOD_OVERRIDE_HEADERS}
        self._guarded = frozenset(map(dashed, unwanted))
        self._removed = tuple(sorted((unwanted | self._guarded) - request.keys()))

    def mutations(self, context: Context) -> Mutations:
        """What to change on the request and its response."""
        headers: list[tuple[str, str]] = []
        removed = self._removed
        for name, render in self._request:
            text = render(context)
            if text is None:
                removed = (*removed, name)
            else:
                headers.append((name, text))
        seen = context.facts.headers
        if seen.has_other_dashes:
            removed += self._spelled_otherwise(seen.names(), removed)
        response = tuple(_rendered(self._response, context)) if self._response else ()
        if self._changes_query:
            return Mutations(tuple(headers), removed, response, *self._query_changes(context))
        return Mutations(tuple(headers), removed, response)

    def dynamic_metadata(self, context: Context) -> Mapping[str, JsonValue]:
        """What to hand to Envoy's log and later filters."""
        members = ((name, render(context)) for name, render in self._metadata.items())
        return {name: value for name, value in members if value is not None}

    def _spelled_otherwise(self, names: Iterable[str], removed: tuple[str, ...]) -> tuple[str, ...]:
        ours = {name for name, _ in self._request}
        return tuple(
            name
            for name in names
            if (plain := dashed(name)) != name and plain in self._guarded and name not in ours and name not in removed
        )

    def _query_changes(self, context: Context) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        if ";" in context.query:
            raise Refusal(Reason.PATH_AMBIGUOUS, "the query has a `;`, which could separate parameters")
        values: list[tuple[str, str]] = []
        removed = list(self._unqueried)
        for name, render in self._query:
            text = render(context)
            if text is None:
                removed.append(name)
            else:
                # Envoy writes the value as it is: an `&` in it would begin another parameter
                values.append((name, quote(text, safe="")))
        for pair in context.query.split("&"):
            name = pair.partition("=")[0]
            # Envoy compares names as sent: `us%65r` is our `user` to the upstream only
            if name not in self._parameters and not self._read_as_ours.isdisjoint(readings(unquote_plus(name))):
                removed.append(name)
        return tuple(values), tuple(dict.fromkeys(removed))


def _renders(templates: Mapping[str, str]) -> tuple[tuple[str, Render], ...]:
    return tuple((name, parse_template(text).render) for name, text in templates.items())


def _rendered(renders: tuple[tuple[str, Render], ...], context: Context) -> Iterable[tuple[str, str]]:
    for name, render in renders:
        text = render(context)
        if text is not None:
            yield name, text


def _render_json(value: JsonValue) -> _RenderJson:
    if isinstance(value, str):
        template = parse_template(value)
        attribute = template.attribute
        return template.render if attribute is None else lambda context: printable_json(attribute(context))
    if isinstance(value, Mapping):
        members = {name: _render_json(member) for name, member in value.items()}
        return lambda context: {
            name: rendered for name, render in members.items() if (rendered := render(context)) is not None
        }
    if isinstance(value, tuple):
        renders = tuple(_render_json(member) for member in value)
        return lambda context: tuple(rendered for render in renders if (rendered := render(context)) is not None)
    return lambda _context: value
