"""Pictures of evaluations and of action chunks, as png.

matplotlib is imported by the first picture: an evaluation without it still gives its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from dpjax.core import extras

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue, orange, green, purple, red, grey.
COLORS = ("#2563eb", "#e8590c", "#0f9d6b", "#9333ea", "#be123c", "#64748b")
# The most windows and action dims that `actions_over_demonstrations` shows.
WINDOWS = 5
DIMS = 8
# The most panels side by side in `actions_over_scene`.
PANELS = 6

Curve = tuple[np.ndarray, np.ndarray]  # x [n], y [n]
Crop = tuple[np.ndarray, np.ndarray]  # image uint8 [h, w, 3], keypoints [K, 2] in [-1, 1]


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches. Raises UserError if matplotlib is not installed."""
    # Figure itself, not pyplot, which would look for a screen and keep every figure in memory.
    module = extras.require("matplotlib.figure", extra="report")
    return module.Figure(figsize=(width, height), layout="constrained")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes and a light grid, sizes in inches."""
    canvas = figure(width, height)
    axes = canvas.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)  # the grid behind the data
    return canvas, axes


def png(figure: Figure) -> bytes:
    """The bytes of a figure's png file."""
    # The Agg backend draws without a screen.
    backend = extras.require("matplotlib.backends.backend_agg", extra="report")
    out = io.BytesIO()
    backend.FigureCanvasAgg(figure).print_figure(out, dpi=160, format="png")
    return out.getvalue()


def scores(scores: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Score and success rate of each label, each as a dot on a bar, its 95 % interval; png.

    scores: {label: what `evaluation.scores.summarize` returned}.
    """
    picture, axes = canvas(4.6, 1.3 + 0.62 * len(scores))
    # Two lines per label, the score a little above the success rate.
    for i, numbers in enumerate(scores.values()):
        for name, color, shift in (("score", COLORS[0], -0.15), ("success", COLORS[1], 0.15)):
            if numbers[name] is None:
                continue  # all episodes were broken
            # The bar is the interval, the dot on it the value, with its number above.
            y = i + shift
            low, high = numbers[f"{name}_interval"]
            axes.plot([low, high], [y, y], color=color, lw=5, alpha=0.3, solid_capstyle="butt")
            # One legend entry per metric, from the first label.
            axes.plot(numbers[name], y, "o", color=color, ms=8, label=None if i else name)
            note = f"{numbers[name]:.2f}"
            axes.annotate(note, (numbers[name], y), (0, 7), textcoords="offset points",
                          ha="center", fontsize=9, color=color)  # fmt: skip
    # y points down: the first label is on top, with room for its number. The margins beyond 0
    # and 1 keep dots at the ends whole.
    axes.set(xlim=(-0.07, 1.07), ylim=(len(scores) - 0.4, -0.6))
    axes.set_yticks(range(len(scores)), list(scores))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return png(picture)


def coverages(coverages: Sequence[float], threshold: float) -> bytes:
    """One bar per episode, the largest coverage first, green above the threshold; png."""
    picture, axes = canvas(4.6, 3.0)
    best = np.sort(np.asarray(coverages, np.float64))[::-1]
    # The episodes are sorted, so those that succeeded come first.
    passed = int((best > threshold).sum())
    colors = [COLORS[2]] * passed + ["#94a3b8"] * (len(best) - passed)
    axes.bar(np.arange(1, len(best) + 1), best, width=0.85, color=colors)
    # The threshold as a dashed line, with the count of successes at its right end.
    axes.axhline(threshold, color="#334155", lw=1, ls="--")
    note = f"{threshold:g}: {passed} of {len(best)}"
    axes.annotate(note, (1, threshold), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
    axes.set(xlabel="episode", ylim=(0, 1.08), xlim=(0.2, len(best) + 0.8))
    return png(picture)


def curves(curves: Mapping[str, Curve]) -> bytes:
    """Losses over steps, on a log scale if all are positive; png.

    A long curve is drawn twice: its raw values faintly, and on top a moving average.
    """
    picture, axes = canvas(8.4, 3.2)
    positive = True
    for (name, (x, y)), color in zip(curves.items(), COLORS * len(curves)):
        x = np.asarray(x, np.float64)
        y = np.asarray(y, np.float64)
        # A single value of 0 or less rules the log scale out.
        positive = positive and bool((y[np.isfinite(y)] > 0).all())
        # The average is over a hundredth of the curve, if that is more than one point. "valid"
        # leaves out the ends, where the window is not full.
        width = len(y) // 100
        if width > 1:
            axes.plot(x, y, color=color, lw=0.7, alpha=0.25)
            kernel = np.ones(width) / width
            x = np.convolve(x, kernel, "valid")
            y = np.convolve(y, kernel, "valid")
        # A short curve has markers too: a single point would not show as a line.
        marker = "o" if len(y) < 30 else None
        axes.plot(x, y, color=color, lw=1.8, label=name, marker=marker, ms=4)
    axes.set_yscale("log" if positive else "linear")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    return png(picture)


def actions_over_demonstrations(
    actions: np.ndarray, mask: np.ndarray, chunks: np.ndarray, *, observed: int, executed: int
) -> bytes:
    """Sampled action chunks over the demonstrated actions, as a grid of windows by dims; png.

    actions: [W, Tp, Da], mask: [W, Tp], chunks: [samples, W, Tp, Da]. observed, executed: To and
    Ta; the steps that would be executed are shaded.
    """
    # Which windows: those without padding, or all if every window has some, evenly spread.
    complete = np.flatnonzero(mask.all(1))
    complete = complete if len(complete) else np.arange(len(actions))
    shown = complete[np.unique(np.linspace(0, len(complete) - 1, WINDOWS).astype(int))]
    # A line of axes per dim, a column per window. A line shares its scale.
    dims = min(actions.shape[-1], DIMS)
    picture = figure(2.4 * len(shown), 1.3 * dims + 0.6)
    grid = picture.subplots(dims, len(shown), squeeze=False, sharex=True, sharey="row")
    first = observed - 1  # the step of the chunk that belongs to the present
    for column, window in enumerate(shown):
        grid[0, column].set_title(f"window {window}", fontsize=9)
        for d in range(dims):
            axes = grid[d, column]
            axes.axvspan(first, first + executed - 1, color="#000", alpha=0.06, lw=0)
            # Transposed to [Tp, samples]: one curve per sample.
            axes.plot(chunks[:, window, :, d].T, color=COLORS[0], lw=0.8, alpha=0.6)
            axes.plot(actions[window, :, d], color=COLORS[1], lw=1.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            axes.xaxis.get_major_locator().set_params(integer=True)  # steps are whole numbers
            if column == 0:
                axes.set_ylabel(f"action {d}", fontsize=8)
        axes.set_xlabel("predicted step", fontsize=8)
    # The title says which dims are not shown, so that nothing is left out silently.
    hidden = actions.shape[-1] - dims
    more = f" ({hidden} more dims are not shown)" if hidden else ""
    title = f"demonstrated (orange), sampled (blue), executed (shaded){more}"
    picture.suptitle(title, fontsize=9)
    return png(picture)


def actions_over_scene(
    frame: np.ndarray, panels: Sequence[tuple[str, np.ndarray]], *, extent: float = 512.0
) -> bytes:
    """Action chunks as paths in the plane over a scene, one panel per entry of `panels`; png.

    frame: uint8 [H, W, 3] of a scene that is `extent` units wide. panels: (label, action chunks
    [B, Tp, 2]), drawn from dark (now) to bright (the last predicted step).
    """
    collections = extras.require("matplotlib.collections", extra="report")
    # No axes are visible, so that the places after the last panel stay empty.
    columns = min(len(panels), PANELS)
    lines = -(-len(panels) // columns)  # rounded up
    picture = figure(2.2 * columns, 2.45 * lines)
    grid = np.atleast_1d(picture.subplots(lines, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (label, chunks) in zip(grid, panels):
        # The scene, pale, in the units of the actions. y points down as in the image.
        axes.imshow(frame, extent=(0, extent, extent, 0), alpha=0.55)
        chunks = np.asarray(chunks, np.float64)
        # A path of Tp points is Tp - 1 segments [2 ends, 2 coordinates], coloured by time. A
        # LineCollection draws the [B (Tp - 1), 2, 2] of all paths at once.
        segments = np.stack([chunks[:, :-1], chunks[:, 1:]], axis=2).reshape(-1, 2, 2)
        time = np.tile(np.linspace(0, 1, chunks.shape[1] - 1), len(chunks))
        # The more paths overlap, the fainter each is.
        opacity = max(0.25, 0.9 - len(chunks) / 100)
        style = dict(cmap="plasma", linewidths=1.1, alpha=opacity)
        axes.add_collection(collections.LineCollection(segments, array=time, **style))
        axes.set(xlim=(0, extent), ylim=(extent, 0))
        axes.set_title(label, fontsize=10)
    return png(picture)


def cameras(moments: Sequence[tuple[str, np.ndarray, Mapping[str, Crop]]]) -> bytes:
    """What the network sees: one column per moment, the scene above the crop of each camera; png.

    moments: (label, scene uint8 [H, W, 3], {camera: (crop, keypoints)}). A keypoint is where a
    channel of the spatial softmax looks; it has the same colour in all moments, so that one can
    see what it follows. An encoder without a spatial softmax has no keypoints: [0, 2].
    """
    # The scene in the first line, one camera in each of the others.
    names = list(moments[0][2])
    picture = figure(2.0 * len(moments), 2.1 * (1 + len(names)))
    grid = picture.subplots(1 + len(names), len(moments), squeeze=False)
    for column, (label, scene, crops) in enumerate(moments):
        grid[0, column].imshow(scene)
        grid[0, column].set_title(label, fontsize=9)
        for line, name in enumerate(names, start=1):
            _camera_panel(grid[line, column], *crops[name])
            if column == 0:
                grid[line, column].set_ylabel(name, fontsize=9)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    return png(picture)


def _camera_panel(axes: Axes, crop: np.ndarray, keypoints: np.ndarray) -> None:
    """One crop with its keypoints, in the coordinates of the spatial softmax: -1 to 1."""
    # The aspect undoes the square extent: pixels stay square.
    height, width = crop.shape[:2]
    axes.imshow(crop, extent=(-1, 1, 1, -1), aspect=height / width)
    if len(keypoints):
        x, y = keypoints.T
        # A keypoint's number is its colour, the same in all pictures.
        color = np.arange(len(keypoints))
        axes.scatter(x, y, c=color, cmap="hsv", s=14, edgecolors="k", lw=0.4)
    axes.set(xlim=(-1, 1), ylim=(1, -1))
