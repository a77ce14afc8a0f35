"""Metrics of the workers themselves."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ext_authz.runtime.workers.member import Member

__all__ = ["WorkersCollector"]


class WorkersCollector(Collector):
    """How many serve, what each has, and how many were replaced."""

    def __init__(self, members: Callable[[], Iterable[Member]], restarts: Mapping[str, int]) -> None:
        """Ask `members` at each scrape; `restarts` counts up by reason."""
        self._members = members
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        """The families."""
        members = sorted(self._members(), key=lambda member: member.number)
        serving = sum(member.is_serving for member in members)
        yield GaugeMetricFamily("ext_authz_workers", "Workers that serve.", value=serving)
        restarts = CounterMetricFamily("ext_authz_worker_restarts", "Workers that were replaced.", labels=["reason"])
        for reason, count in list(self._restarts.items()):
            restarts.add_metric([reason], count)
        yield restarts
        connections = GaugeMetricFamily(
            "ext_authz_worker_connections", "Connections that a worker has.", labels=["worker"]
        )
        generations = GaugeMetricFamily(
            "ext_authz_worker_configuration_generation", "Configuration that a worker decides by.", labels=["worker"]
        )
        for member in members:
            connections.add_metric([str(member.number)], member.connections)
            generations.add_metric([str(member.number)], member.revision)
        yield from (connections, generations)
