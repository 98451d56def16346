"""How sampled chunks compare with demonstrated ones: a number, a table, a picture."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from dpjax.evaluation.report import COLORS, png

WINDOWS, DIMS = 5, 8  # columns and rows of the picture, at most


def spread(actions: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square distance of recorded actions [B, Tp, Da] from their mean, data units.

    The error of a policy that always does the mean: what an action error is small against.
    """
    recorded = actions[mask > 0]
    return float(np.sqrt(np.square(recorded - recorded.mean(0)).mean()))


def table(rows: Sequence[Mapping], best: int, samples: int) -> str:
    """A line a checkpoint: its step, loss, and the errors of its chunks."""
    lines = [f"{'step':>8} {'loss':>10} {'action error':>13} {f'best of {samples}':>11}"]
    for i, row in enumerate(rows):
        mark = "  lowest" if i == best else ""
        lines.append(
            f"{row['step']:>8} {row['loss']:>10.4g} {row['action_error']:>13.4g} "
            f"{row['action_error_best']:>11.4g}{mark}"
        )
    return "\n".join(lines)


def picture(actions: np.ndarray, mask: np.ndarray, chunks: np.ndarray, horizon: Mapping) -> bytes:
    """Sampled chunks over the demonstrated actions, a row a dim, a column a window; png.

    actions: [B, Tp, Da]; chunks: [samples, B, Tp, Da]. The steps that would be executed
    are shaded.
    """
    whole = np.flatnonzero(mask.all(1))
    whole = whole if len(whole) else np.arange(len(actions))
    shown = whole[np.unique(np.linspace(0, len(whole) - 1, WINDOWS).astype(int))]
    dims = min(actions.shape[-1], DIMS)
    figure = Figure(figsize=(2.4 * len(shown), 1.3 * dims + 0.6), layout="constrained")
    grid = figure.subplots(dims, len(shown), squeeze=False, sharex=True, sharey="row")
    first = horizon["obs"] - 1
    for column, window in enumerate(shown):
        grid[0, column].set_title(f"window {window}", fontsize=9)
        for d in range(dims):
            axes = grid[d, column]
            axes.axvspan(first, first + horizon["act"] - 1, color="#000", alpha=0.06, lw=0)
            axes.plot(chunks[:, window, :, d].T, color=COLORS[0], lw=0.8, alpha=0.6)
            axes.plot(actions[window, :, d], color=COLORS[1], lw=1.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if column == 0:
                axes.set_ylabel(f"action {d}", fontsize=8)
        axes.set_xlabel("predicted step", fontsize=8)
    left = actions.shape[-1] - dims
    more = f" ({left} more dims are not shown)" if left else ""
    figure.suptitle(f"demonstrated (orange), sampled (blue), executed (shaded){more}", fontsize=9)
    return png(figure)
