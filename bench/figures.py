"""What a benchmark yields: figures, and what could not be measured here and why."""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ext_authz.demo.process import ProcessFailed

__all__ = ["Effort", "Figure", "Report", "Unavailable", "percentile", "say", "standalone"]


class Effort(StrEnum):
    """How much time a run may take.

    FULL is for figures that are published, QUICK for a developer who waits, SMOKE for the test that everything runs.
    """

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"


class Unavailable(Exception):  # noqa: N818 - it says what is the matter, no error of the benchmark
    """Something is missing on this machine; the text says what, and it ends up in the report."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        section: which benchmark.
        name: stable; what targets and the chart refer to.
        value: the median where there are several samples.
        unit: `us`, `ms`, `1/s`, `MiB`, `s`, `ratio`, `count`, `bytes`.
        command: what measures it again.
        low: the tenth percentile of the samples, or None for a single measurement.
        high: the ninetieth.
        samples: how many there were.
        note: what a reader must know to compare it.
    """

    section: str
    name: str
    value: float
    unit: str
    command: str
    low: float | None = None
    high: float | None = None
    samples: int = 1
    note: str = ""


@dataclass(slots=True)
class Report:
    """Collects the figures of one section.

    Attributes:
        section: which benchmark.
        figures: in the order they were measured.
        skipped: what could not be measured, with the reason.
    """

    section: str
    figures: list[Figure] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, samples: Sequence[float] | float, unit: str, note: str = "") -> Figure:
        """Add the median of `samples` with their spread, or a single number."""
        command = f"python -m bench.{self.section}"
        if isinstance(samples, (int, float)):
            figure = Figure(self.section, name, float(samples), unit, command, note=note)
        else:
            figure = Figure(
                self.section,
                name,
                statistics.median(samples),
                unit,
                command,
                low=percentile(samples, 10),
                high=percentile(samples, 90),
                samples=len(samples),
                note=note,
            )
        self.figures.append(figure)
        spread = "" if figure.low is None else f"  ({figure.low:.4g} to {figure.high:.4g} in {figure.samples} samples)"
        say(f"  {name:<44} {figure.value:>11.5g} {unit}{spread}")
        return figure

    def skip(self, name: str, reason: str) -> None:
        """Note that `name` was not measured."""
        self.skipped.append((name, reason))
        say(f"  {name:<44} skipped: {reason}")

    def value(self, name: str) -> float | None:
        """The value of a figure measured earlier, or None."""
        return next((figure.value for figure in self.figures if figure.name == name), None)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that `percent` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def say(text: str) -> None:
    """Tell whoever waits; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def standalone(run: Callable[[Effort], Report], description: str | None) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--effort", type=Effort, choices=list(Effort), default=Effort.FULL)
    try:
        run(parser.parse_args().effort)
    except ProcessFailed as error:
        raise SystemExit(f"{error}\n{error.log_tail}") from None
