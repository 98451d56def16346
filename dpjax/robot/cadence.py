"""How evenly a loop ran: late and long cycles, holds, and what became of each chunk."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dpjax.evaluation import plots


@dataclasses.dataclass
class Counts:
    """What happened in a loop, in numbers of cycles or of chunks."""

    # Cycles.
    sent: int = 0  # an action of the policy or of a person was sent
    held: int = 0  # nothing could be sent, and the robot held
    starting: int = 0  # held before the first chunk
    missed: int = 0  # the cycle began more than half a period late: nothing was sent
    over_budget: int = 0  # the cycle's work took longer than its period
    stale: int = 0  # a sensor's newest sample was too old for a new chunk
    # Chunks.
    chunks: int = 0  # executed
    late: int = 0  # came after the promised step, and joined at their own step
    outdated: int = 0  # came after all their steps were over
    refused: int = 0  # broke the limits, or were not finite
    clamped: int = 0  # brought back to the limits
    failed: int = 0  # sampling raised an error: the connection was lost, for example

    def __str__(self) -> str:
        values = dataclasses.asdict(self).items()
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in values if count)


def summary(counts: Counts, lateness: Sequence[float], work: Sequence[float]) -> dict[str, Any]:
    """The counts, the share of cycles over budget, and quantiles in milliseconds.

    lateness: seconds by which each cycle began late. work: seconds that each one took.
    """
    result: dict[str, Any] = dataclasses.asdict(counts)
    # An episode that ended before its first cycle has a share of 0, not an error.
    cycles = max(len(work), 1)
    result["cycles"] = len(work)
    result["over_budget_share"] = counts.over_budget / cycles
    for name, seconds in (("lateness_ms", lateness), ("work_ms", work)):
        quantiles = np.quantile(seconds, [0.5, 0.99, 1.0]) if len(seconds) else np.zeros(3)
        result[name] = dict(zip(("p50", "p99", "max"), (1e3 * quantiles).tolist(), strict=True))
    return result


def describe(result: dict[str, Any]) -> str:
    """`summary` in two lines, for the end of a session."""
    late = result["lateness_ms"]
    work = result["work_ms"]
    names = [field.name for field in dataclasses.fields(Counts)]
    counts = Counts(**{name: result[name] for name in names})
    return (
        f"{result['cycles']} cycles, {result['over_budget_share']:.2%} over budget; late by "
        f"{late['p50']:.2f} ms (p99 {late['p99']:.2f}, at most {late['max']:.2f}); work "
        f"{work['p50']:.2f} ms (p99 {work['p99']:.2f}, at most {work['max']:.2f})\n{counts}"
    )


def picture(lateness: Sequence[float], work: Sequence[float], period: float) -> bytes:
    """Histograms of lateness and work of all cycles, with the period as a line; png."""
    canvas, axes = plots.canvas(7.0, 3.2)
    # Logarithmic in both directions: the rare long cycles are what matters.
    largest = max(*lateness, *work, period, 1e-4)
    bins = np.geomspace(1e-5, 1.1 * largest, 60)
    for name, seconds, color in (
        ("lateness", lateness, plots.COLORS[0]),
        ("work", work, plots.COLORS[1]),
    ):
        inside = np.clip(seconds, bins[0], bins[-1])
        axes.hist(1e3 * inside, bins=1e3 * bins, histtype="step", label=name, color=color)
    axes.axvline(1e3 * period, color=plots.COLORS[5], lw=1, ls="--", label="period")
    axes.set(xscale="log", yscale="log", xlabel="milliseconds", ylabel="cycles")
    axes.legend(frameon=False)
    return plots.png(canvas)
