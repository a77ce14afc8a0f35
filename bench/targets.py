"""What the figures are to be; ratios of one run decide."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TARGETS", "Target", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure.

    Attributes:
        figure: its name.
        bound: what it must not exceed, or reach.
        unit: of both.
        at_least: the bound is to be reached.
        what: in words.
    """

    figure: str
    bound: float
    unit: str
    what: str
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether `value` is on the right side."""
        return value >= self.bound if self.at_least else value <= self.bound


TARGETS = (
    Target("warm_decision_us", 25.0, "us", "warm decision, bytes to bytes"),
    Target("cold_token_overhead_us", 60.0, "us", "first sight of a token, beyond the raw signature verification"),
    Target("route_scaling_ratio", 1.2, "ratio", "a decision among 10,000 routes, over one among 10"),
    Target("checks_per_second", 15_000.0, "1/s", "whole server on one core with the full job", at_least=True),
    Target("half_load_p99_ms", 5.0, "ms", "ninety-ninth percentile at half that load"),
    Target(
        "times_better_peer",
        3.0,
        "ratio",
        "checks per second, over the better of OPA-Envoy and Authorino",
        at_least=True,
    ),
    Target(
        "rss_full_mib", 250.0 * 1e6 / 2**20, "MiB", "a worker with 10,000 routes and 100,000 cached tokens (250 MB)"
    ),
    Target("ready_seconds", 1.5, "s", "from start to ready with 1,000 routes"),
    Target("cold_to_quiet_p99_ratio", 2.0, "ratio", "warm p99 beside cold work, over its quiet value"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was measured; None where it was not."""

    target: Target
    value: float | None

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        return None if self.value is None else self.target.is_met(self.value)


def verdicts(values: Mapping[str, float]) -> tuple[Verdict, ...]:
    """One for each target."""
    return tuple(Verdict(target, values.get(target.figure)) for target in TARGETS)
