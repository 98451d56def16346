"""What the network sees: each camera's crop, and where its spatial softmax looks."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from dpjax.evaluation.webpage import png

Look = tuple[np.ndarray, np.ndarray]  # crop uint8 [h, w, 3], points [K, 2] in [-1, 1]


def still(moments: Sequence[tuple[str, np.ndarray, Mapping[str, Look]]]) -> bytes:
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
            _look(grid[row, column], *looks[name])
            if column == 0:
                grid[row, column].set_ylabel(name, fontsize=9)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    return png(figure)


def _look(axes, crop, points):
    height, width = crop.shape[:2]
    axes.imshow(crop, extent=(-1, 1, 1, -1), aspect=height / width)
    if len(points):
        x, y = points.T
        axes.scatter(x, y, c=np.arange(len(points)), cmap="hsv", s=14, edgecolors="k", lw=0.4)
    axes.set(xlim=(-1, 1), ylim=(1, -1))
