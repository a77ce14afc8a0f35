"""What operators count and measure, in the Prometheus data model.

Counting a decision is one dictionary operation on the request path; label sets are spread into families only when
someone scrapes. Every label value is an enum member or a name from the configuration, never client text, and the
number of series is bounded even if that should fail one day.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ext_authz import __version__
from ext_authz.cache import CacheCounts
from ext_authz.decision import Allow, Decision
from ext_authz.telemetry.durations import STAGE_BUCKETS, Durations

__all__ = ["MAX_SERIES", "KeySource", "Metrics"]

MAX_SERIES = 20_000
"""Distinct (decision, reason, policy, rule, issuer) counted; beyond it only decision and reason are kept.

10,000 rules that each allow and deny stay below it; a scrape of it is a few megabytes.
"""

_Series: TypeAlias = tuple[str, str, str, str, str]

_STATES = ("serving", "failing", "unavailable")


class KeySource(NamedTuple):
    """How the keys of one issuer stand.

    Attributes:
        issuer: its name in the configuration.
        age: seconds since the keys that serve were fetched, or None when there are none.
        keys: how many serve.
        failures: attempts that failed since the last that did not.
    """

    issuer: str
    age: float | None
    keys: int
    failures: int

    @property
    def state(self) -> str:
        """`unavailable` without keys, `failing` when the last attempt to refresh them failed, else `serving`."""
        if self.age is None:
            return "unavailable"
        return "failing" if self.failures else "serving"


class Metrics(Collector):
    """Everything `/metrics` shows. Written by the event loop alone; any thread may scrape.

    Attributes:
        waiting: checks that wait for I/O right now.
        generation: of the snapshot that decides.
        reloaded_at: when the configuration was last loaded without error, seconds since the epoch.
        log_dropped: gives the number of log lines lost so far.
        key_sources: gives how the keys of each issuer stand.
        caches: gives, by name, what each cache has done so far.
        spans: gives, by outcome, how many spans of traces there were so far.
    """

    def __init__(self) -> None:
        """Start with every count at zero."""
        self.waiting = 0
        self.generation = 0
        self.reloaded_at = 0.0
        self.log_dropped: Callable[[], int] = int
        self.key_sources: Callable[[], Iterable[KeySource]] = tuple
        self.caches: Callable[[], Mapping[str, CacheCounts]] = dict
        self.spans: Callable[[], Mapping[str, int]] = dict
        self._checks: dict[_Series, int] = {}
        self._durations = Durations()
        self._waited = Durations()
        self._stages = {stage: Durations(STAGE_BUCKETS) for stage in ("parse", "authorize", "serialize")}
        self._reloads = Counter({"success": 0, "failure": 0})
        self._reload_failed = False
        self._key_fetches: Counter[tuple[str, str]] = Counter()
        self._key_faults: Counter[tuple[str, str]] = Counter()
        self._errors = 0
        self._refused = 0

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics and those of the process."""
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        return registry

    def check(
        self,
        decision: Decision,
        seconds: float,
        *,
        waited: bool,
        decision_id: str = "",
        trace_id: str = "",
        now: float = 0.0,
    ) -> None:
        """Count one decision.

        Args:
            decision: made.
            seconds: it took, from request bytes to response bytes.
            waited: it needed I/O.
            decision_id: for the exemplar of its bucket; none without.
            trace_id: as `decision_id`, of a trace that is recorded.
            now: seconds since the epoch.
        """
        verdict = "allow" if isinstance(decision, Allow) else "deny"
        about = decision.diagnostics
        reason = decision.reason._value_  # `value` is two calls of Python code
        series = (verdict, reason, about.policy or "", about.rule or "", about.issuer or "")
        checks = self._checks
        if series in checks:
            checks[series] += 1
        elif len(checks) < MAX_SERIES:
            checks[series] = 1
        else:
            bounded = (verdict, reason, "", "", "")
            checks[bounded] = checks.get(bounded, 0) + 1
        (self._waited if waited else self._durations).observe_decision(seconds, decision_id, trace_id, now)

    def stages(self, parse: float, authorize: float, serialize: float) -> None:
        """Observe how long the parts of one decision took, in seconds."""
        self._stages["parse"].observe(parse)
        self._stages["authorize"].observe(authorize)
        self._stages["serialize"].observe(serialize)

    def reload(self, *, succeeded: bool, now: float) -> None:
        """Count one attempt to load the configuration, at `now` (seconds since the epoch)."""
        self._reloads["success" if succeeded else "failure"] += 1
        self._reload_failed = not succeeded
        if succeeded:
            self.reloaded_at = now

    def key_fetch(self, issuer_name: str, *, fault: str | None = None) -> None:
        """Count one fetch of an issuer's keys, with the `fault` of one that failed."""
        self._key_fetches[issuer_name, "success" if fault is None else "failure"] += 1
        if fault is not None:
            self._key_faults[issuer_name, fault] += 1

    def internal_error(self) -> None:
        """Count one exception that became a denial."""
        self._errors += 1

    def connection_refused(self) -> None:
        """Count one connection that was one too many."""
        self._refused += 1

    def take(self) -> dict[str, Any]:
        """What was counted since this was last asked, as JSON values; it begins at zero again.

        What is not a count, such as `waiting` or what `caches` gives, stays as it is.
        """
        taken: dict[str, Any] = {
            "checks": [[*series, count] for series, count in self._checks.items()],
            "durations": self._durations.take(),
            "waited": self._waited.take(),
            "stages": {stage: durations.take() for stage, durations in self._stages.items()},
            "key_fetches": [[*of, count] for of, count in self._key_fetches.items()],
            "key_faults": [[*of, count] for of, count in self._key_faults.items()],
            "errors": self._errors,
            "refused": self._refused,
        }
        # the dictionaries stay the same objects: the request path may hold on to them
        for counts in (self._checks, self._key_fetches, self._key_faults):
            counts.clear()
        self._errors = self._refused = 0
        return taken

    def add(self, taken: Mapping[str, Any]) -> None:
        """Add what `take` of another process gave."""
        for *series, count in taken["checks"]:
            verdict, reason, policy, rule, issuer = series
            self._count((verdict, reason, policy, rule, issuer), count)
        self._durations.add(taken["durations"])
        self._waited.add(taken["waited"])
        for stage, durations in taken["stages"].items():
            self._stages[stage].add(durations)
        for issuer_name, result, count in taken["key_fetches"]:
            self._key_fetches[issuer_name, result] += count
        for issuer_name, fault, count in taken["key_faults"]:
            self._key_faults[issuer_name, fault] += count
        self._errors += taken["errors"]
        self._refused += taken["refused"]

    def _count(self, series: _Series, count: int) -> None:
        if series not in self._checks and len(self._checks) >= MAX_SERIES:
            series = (*series[:2], "", "", "")
        self._checks[series] = self._checks.get(series, 0) + count

    def collect(self) -> Iterator[Metric]:
        """The families, from copies that no later count changes."""
        yield from self._collect_checks(dict(self._checks))
        yield from self._collect_durations()
        yield _gauge("ext_authz_checks_waiting", "Checks that wait for I/O.", self.waiting)
        yield from self._collect_configuration()
        yield from self._collect_keys()
        yield from self._collect_caches()
        yield _counter("ext_authz_internal_errors", "Exceptions that became denials.", self._errors)
        yield _counter("ext_authz_connections_refused", "Connections beyond the configured maximum.", self._refused)
        yield _counter(
            "ext_authz_log_dropped", "Log lines lost because the reader was too slow or gone.", self.log_dropped()
        )
        yield _counters("ext_authz_spans", "Spans of traces by what became of them.", "result", self.spans())
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

    def _collect_durations(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "ext_authz_check_duration_seconds",
            "Time from request bytes to response bytes; `waited` when it needed I/O.",
            labels=["waited"],
        )
        for label, durations in (("false", self._durations), ("true", self._waited)):
            family.add_metric([label], durations.cumulative(), durations.total)
        yield family
        family = HistogramMetricFamily(
            "ext_authz_check_stage_duration_seconds",
            "Time of the parts of a decision that did not wait, measured for one in `stage_interval`.",
            labels=["stage"],
        )
        for stage, durations in self._stages.items():
            family.add_metric([stage], durations.cumulative(), durations.total)
        yield family

    def _collect_configuration(self) -> Iterator[Metric]:
        yield _gauge("ext_authz_configuration_generation", "Generation of the snapshot that decides.", self.generation)
        yield _gauge(
            "ext_authz_configuration_loaded_timestamp_seconds",
            "When the configuration was last loaded without error.",
            self.reloaded_at,
        )
        yield _gauge(
            "ext_authz_configuration_reload_failed",
            "1 while the files are not what decides, because they could not be loaded.",
            int(self._reload_failed),
        )
        yield _counters("ext_authz_reloads", "Attempts to load the configuration.", "result", self._reloads)

    def _collect_keys(self) -> Iterator[Metric]:
        fetches = CounterMetricFamily("ext_authz_key_fetches", "Fetches of signing keys.", labels=["issuer", "result"])
        for (issuer, result), count in dict(self._key_fetches).items():
            fetches.add_metric([issuer, result], count)
        yield fetches
        faults = CounterMetricFamily(
            "ext_authz_key_fetch_faults", "Why fetches of signing keys failed.", labels=["issuer", "fault"]
        )
        for (issuer, fault), count in dict(self._key_faults).items():
            faults.add_metric([issuer, fault], count)
        yield faults
        ages = GaugeMetricFamily(
            "ext_authz_key_set_age_seconds", "Time since the keys in use were fetched.", labels=["issuer"]
        )
        keys = GaugeMetricFamily("ext_authz_key_set_keys", "Keys that serve.", labels=["issuer"])
        failures = GaugeMetricFamily(
            "ext_authz_key_source_failures", "Fetches that failed since the last that did not.", labels=["issuer"]
        )
        states = GaugeMetricFamily(
            "ext_authz_key_source_state", "1 for the state that an issuer's keys are in.", labels=["issuer", "state"]
        )
        for source in self.key_sources():
            if source.age is not None:
                ages.add_metric([source.issuer], source.age)
            keys.add_metric([source.issuer], source.keys)
            failures.add_metric([source.issuer], source.failures)
            for state in _STATES:
                states.add_metric([source.issuer, state], int(state == source.state))
        yield from (ages, keys, failures, states)

    def _collect_caches(self) -> Iterator[Metric]:
        caches = self.caches()
        entries = GaugeMetricFamily("ext_authz_cache_entries", "Results remembered now.", labels=["cache"])
        for name, counts in caches.items():
            entries.add_metric([name], counts.entries)
        yield entries
        hits = {name: counts.hits for name, counts in caches.items()}
        yield _counters("ext_authz_cache_hits", "Look-ups that found a result.", "cache", hits)
        misses = {name: counts.misses for name, counts in caches.items()}
        yield _counters("ext_authz_cache_misses", "Look-ups that found none.", "cache", misses)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation)
    family.add_metric([], value)
    return family


def _counter(name: str, documentation: str, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation)
    family.add_metric([], value)
    return family


def _counters(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
