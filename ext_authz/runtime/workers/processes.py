"""`process_…` metrics of several processes as one: names and meaning stay those of a single process."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["ProcessesCollector"]

_CPU = "process_cpu_seconds_total"
_SUMS = ("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds")


class ProcessesCollector(Collector):
    """Processor time, memory and files of all; limits and start time of the first. Memory that is shared counts for each."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        """Ask `pids` at each scrape; what one that ended has used stays in the sum."""
        self._pids = pids
        self._cpu: dict[int, float] = {}
        self._retired = 0.0

    def collect(self) -> Iterator[Metric]:
        """The families of a `ProcessCollector`."""
        samples = {pid: _samples(pid) for pid in self._pids()}
        first = next(iter(samples.values()), {})
        for pid in [pid for pid in self._cpu if pid not in samples]:
            self._retired += self._cpu.pop(pid)
        for pid, values in samples.items():
            self._cpu[pid] = max(values.get(_CPU, 0.0), self._cpu.get(pid, 0.0))
        if not first:
            # no /proc
            return
        cpu = CounterMetricFamily(_CPU.removesuffix("_total"), "Total user and system CPU time spent in seconds.")
        cpu.add_metric([], self._retired + sum(self._cpu.values()))
        yield cpu
        for name, value in first.items():
            if name != _CPU:
                total = sum(values.get(name, 0.0) for values in samples.values()) if name in _SUMS else value
                yield GaugeMetricFamily(name, f"As of one process, {name}.", value=total)


def _samples(pid: int) -> dict[str, float]:
    try:
        families = list(ProcessCollector(pid=lambda: pid, registry=None).collect())
    except OSError:
        # it has just ended
        return {}
    return {sample.name: sample.value for family in families for sample in family.samples}
