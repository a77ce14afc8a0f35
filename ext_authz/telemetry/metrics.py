"""What operators count and measure, in the Prometheus data model.

Counting a decision is one dictionary operation on the request path; label sets are spread into families only when
someone scrapes. Every label value is an enum member or a name from the configuration, never client text, and the
number of series is bounded even if that should fail one day.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ext_authz import __version__
from ext_authz.decision import Allow, Decision

__all__ = ["BUCKETS", "MAX_SERIES", "Metrics"]

BUCKETS = (
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,  # Envoy's default timeout for the filter
    0.5,
    1.0,
    5.0,
)
"""Upper bounds in seconds: from a warm decision to a fetch that takes as long as it may."""

MAX_SERIES = 20_000
"""Distinct (decision, reason, policy, rule, issuer) counted; beyond it only decision and reason are kept.

10,000 rules that each allow and deny stay below it; a scrape of it is a few megabytes.
"""

_Series: TypeAlias = tuple[str, str, str, str, str]


class _Durations:
    """One histogram's counts; `bisect_left` because a bucket's upper bound is inclusive."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        bounds = [*map(repr, BUCKETS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts.copy())), strict=True))


class Metrics(Collector):
    """Everything `/metrics` shows. Written by the event loop alone; any thread may scrape.

    Attributes:
        waiting: checks that wait for I/O right now.
        generation: of the snapshot that decides.
        reloaded_at: when the configuration was last loaded without error, seconds since the epoch.
        log_dropped: gives the number of log lines lost so far.
        key_set_ages: gives, by issuer, the age in seconds of the keys in use.
    """

    def __init__(self) -> None:
        """Start with every count at zero."""
        self.waiting = 0
        self.generation = 0
        self.reloaded_at = 0.0
        self.log_dropped: Callable[[], int] = int
        self.key_set_ages: Callable[[], Mapping[str, float]] = dict
        self._checks: dict[_Series, int] = {}
        self._durations = _Durations()
        self._waited = _Durations()
        self._reloads = Counter({"success": 0, "failure": 0})
        self._key_fetches: Counter[tuple[str, str]] = Counter()
        self._errors = 0

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics and those of the process."""
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        return registry

    def check(self, decision: Decision, seconds: float, *, waited: bool) -> None:
        """Count one decision that took `seconds`; `waited` when it needed I/O."""
        verdict = "allow" if isinstance(decision, Allow) else "deny"
        about = decision.diagnostics
        series = (verdict, decision.reason.value, about.policy or "", about.rule or "", about.issuer or "")
        checks = self._checks
        if series in checks:
            checks[series] += 1
        elif len(checks) < MAX_SERIES:
            checks[series] = 1
        else:
            bounded = (verdict, decision.reason.value, "", "", "")
            checks[bounded] = checks.get(bounded, 0) + 1
        (self._waited if waited else self._durations).observe(seconds)

    def reload(self, *, succeeded: bool, now: float) -> None:
        """Count one attempt to load the configuration, at `now` (seconds since the epoch)."""
        self._reloads["success" if succeeded else "failure"] += 1
        if succeeded:
            self.reloaded_at = now

    def key_fetch(self, issuer_name: str, *, succeeded: bool) -> None:
        """Count one fetch of an issuer's keys."""
        self._key_fetches[issuer_name, "success" if succeeded else "failure"] += 1

    def internal_error(self) -> None:
        """Count one exception that became a denial."""
        self._errors += 1

    def collect(self) -> Iterator[Metric]:
        """The families, from copies that no later count changes."""
        yield from self._collect_checks(dict(self._checks))
        yield self._collect_durations()
        yield _gauge("ext_authz_checks_waiting", "Checks that wait for I/O.", self.waiting)
        yield _gauge("ext_authz_configuration_generation", "Generation of the snapshot that decides.", self.generation)
        yield _gauge(
            "ext_authz_configuration_loaded_timestamp_seconds",
            "When the configuration was last loaded without error.",
            self.reloaded_at,
        )
        reloads = CounterMetricFamily("ext_authz_reloads", "Attempts to load the configuration.", labels=["result"])
        for result, count in self._reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        yield from self._collect_keys()
        errors = CounterMetricFamily("ext_authz_internal_errors", "Exceptions that became denials.")
        errors.add_metric([], self._errors)
        yield errors
        dropped = CounterMetricFamily("ext_authz_log_dropped", "Log lines lost because the reader was too slow.")
        dropped.add_metric([], self.log_dropped())
        yield dropped
        build = GaugeMetricFamily("ext_authz_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _collect_checks(self, checks: dict[_Series, int]) -> Iterator[Metric]:
        by_reason: Counter[tuple[str, str]] = Counter()
        by_rule: Counter[tuple[str, str, str]] = Counter()
        by_issuer: Counter[tuple[str, str]] = Counter()
        for (verdict, reason, policy, rule, issuer), count in checks.items():
            by_reason[verdict, reason] += count
            if policy:
                by_rule[verdict, policy, rule] += count
            if issuer:
                by_issuer[verdict, issuer] += count
        for name, documentation, labels, counts in (
            ("ext_authz_checks", "Decisions.", ["decision", "reason"], by_reason),
            ("ext_authz_rule_checks", "Decisions by rule.", ["decision", "policy", "rule"], by_rule),
            ("ext_authz_issuer_checks", "Decisions on verified tokens.", ["decision", "issuer"], by_issuer),
        ):
            family = CounterMetricFamily(name, documentation, labels=labels)
            for values, count in counts.items():
                family.add_metric(list(values), count)
            yield family

    def _collect_durations(self) -> Metric:
        family = HistogramMetricFamily(
            "ext_authz_check_duration_seconds",
            "Time from request bytes to response bytes; `waited` when it needed I/O.",
            labels=["waited"],
        )
        for label, durations in (("false", self._durations), ("true", self._waited)):
            family.add_metric([label], durations.cumulative(), durations.total)
        return family

    def _collect_keys(self) -> Iterator[Metric]:
        fetches = CounterMetricFamily("ext_authz_key_fetches", "Fetches of signing keys.", labels=["issuer", "result"])
        for (issuer, result), count in dict(self._key_fetches).items():
            fetches.add_metric([issuer, result], count)
        yield fetches
        ages = GaugeMetricFamily(
            "ext_authz_key_set_age_seconds", "Time since the keys in use were fetched.", labels=["issuer"]
        )
        for issuer, age in self.key_set_ages().items():
            ages.add_metric([issuer], age)
        yield ages


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation)
    family.add_metric([], value)
    return family
