"""What policies and server say together: rules that nobody can meet, and what the policy room finds."""

from collections.abc import Iterable

from ext_authz.config.policies import LoadedPolicy
from ext_authz.config.problem import Problems
from ext_authz.config.server import Server
from ext_authz.config.validation import field_name
from ext_authz.config.yaml_source import ValuePath
from ext_authz.policy.findings import Severity
from ext_authz.policy.index import PolicyIndex
from ext_authz.policy.model import Rule
from ext_authz.policy.requirements import resolve_binding
from ext_authz.policy.spiffe_pattern import SpiffePattern
from ext_authz.requirement import BindingMethod, BindingMode

__all__ = ["check_against_server", "report_findings"]


def check_against_server(policies: Iterable[LoadedPolicy], server: Server, problems: Problems) -> None:
    """Warn of rules that no request can pass because the server never learns what they require."""
    for loaded in policies:
        for index, rule in enumerate(loaded.policy.rules):
            found = _unmeetable(rule, server)
            if found is not None:
                path: ValuePath = ("spec", "rules", index)
                problems.warn(loaded.document.place(path), field_name(path), *found)


def report_findings(policies: Iterable[LoadedPolicy], leniencies: frozenset[str], problems: Problems) -> PolicyIndex:
    """Record what the policy room finds questionable in policies that are each valid.

    Args:
        policies: with unique names; a name used twice is a problem already, and only the first one counts here.
        leniencies: names of `policy.path.Leniency`.
        problems: takes errors as problems and the rest as warnings.

    Returns:
        The policies, compiled.
    """
    by_name: dict[str, LoadedPolicy] = {}
    for loaded in policies:
        by_name.setdefault(loaded.policy.name, loaded)
    index = PolicyIndex((loaded.policy for loaded in by_name.values()), leniencies)
    rules = {
        (name, rule.name): position
        for name, loaded in by_name.items()
        for position, rule in enumerate(loaded.policy.rules)
    }
    for finding in index.findings():
        document = by_name[finding.policy].document
        path: ValuePath = ("metadata", "name")
        if finding.rule is not None:
            path = ("spec", "rules", rules[finding.policy, finding.rule])
        record = {Severity.ERROR: problems.add, Severity.WARNING: problems.warn, Severity.INFO: problems.note}
        record[finding.severity](document.place(path), field_name(path), finding.text)
    return index


def _unmeetable(rule: Rule, server: Server) -> tuple[str, str] | None:
    takes_token = any(requirement.token is not None for requirement in rule.requirements)
    takes_identity = any(requirement.peer is not None for requirement in rule.requirements)
    binding = resolve_binding(rule.requirements)
    sources = server.evidence.certificate_sources
    if takes_token and not server.issuers:
        return "the rule requires a token and there are no issuers, so it denies everyone", "write `issuers`"
    if takes_identity and not sources:
        return (
            "the rule requires a peer and there are no certificate sources, so it denies everyone",
            "write `evidence.certificate_sources` in the server's configuration",
        )
    if takes_identity and server.spec.evidence.chain_verified_by == "nobody":
        return (
            "the rule requires a peer and nobody verifies certificates, so it denies everyone",
            "write `chain_verified_by: proxy` or `bundles` in the server's configuration",
        )
    if binding is not None and binding.mode is BindingMode.REQUIRED and not sources:
        return (
            "the rule requires bound tokens and there are no certificate sources, so it denies everyone",
            "write `evidence.certificate_sources` in the server's configuration, or `binding: when-present`",
        )
    if (
        binding is not None
        and BindingMethod.SPIFFE_ID in binding.accept
        and server.spec.evidence.chain_verified_by == "nobody"
    ):
        return (
            "the rule accepts `spiffe-id` and nobody verifies certificates, so that never matches",
            "write `chain_verified_by: proxy` or `bundles` in the server's configuration",
        )
    return _unknown_trust_domain(rule, server)


def _unknown_trust_domain(rule: Rule, server: Server) -> tuple[str, str] | None:
    if server.spec.evidence.chain_verified_by != "bundles":
        return None
    known = {bundle.trust_domain.name for bundle in server.bundles}
    for requirement in rule.requirements:
        if requirement.peer is not None:
            patterns = (SpiffePattern(text) for text in requirement.peer.spiffe)
            named = {pattern.prefix.split("/")[2] for pattern in patterns} | set(requirement.peer.trust_domains)
            for name in sorted(named - known):
                return (
                    f"there is no trust bundle for `{name}`, so nobody of it is let in",
                    "write it in `trust_bundles`",
                )
    return None
