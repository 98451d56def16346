"""What the network sees: each camera's crop, and where its spatial softmax looks."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from dpjax.evaluation.html import COLORS, png

WINDOWS, DIMS = 5, 8  # columns and rows of the picture, at most


def chunks_over_demonstrations(
    actions: np.ndarray, mask: np.ndarray, chunks: np.ndarray, horizon: Mapping
) -> bytes:
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


Look = tuple[np.ndarray, np.ndarray]  # crop uint8 [h, w, 3], points [K, 2] in [-1, 1]


def cameras_still(moments: Sequence[tuple[str, np.ndarray, Mapping[str, Look]]]) -> bytes:
    """One column a moment: the scene with the plan, and below it what each camera gives; png.

    moments: (label, scene uint8 [H, W, 3], {camera: (crop, points)}). A point keeps its
    colour over the moments, so that one can see what it follows. No points: the crop alone.
    """
    cameras = list(moments[0][2])
    size = (2.0 * len(moments), 2.1 * (1 + len(cameras)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1 + len(cameras), len(moments), squeeze=False)
    for column, (label, scene, looks) in enumerate(moments):
        grid[0, column].imshow(scene)
        grid[0, column].set_title(label, fontsize=9)
        for row, name in enumerate(cameras, start=1):
            _camera_panel(grid[row, column], *looks[name])
            if column == 0:
                grid[row, column].set_ylabel(name, fontsize=9)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    return png(figure)


def _camera_panel(axes, crop, points):
    height, width = crop.shape[:2]
    axes.imshow(crop, extent=(-1, 1, 1, -1), aspect=height / width)
    if len(points):
        x, y = points.T
        axes.scatter(x, y, c=np.arange(len(points)), cmap="hsv", s=14, edgecolors="k", lw=0.4)
    axes.set(xlim=(-1, 1), ylim=(1, -1))
