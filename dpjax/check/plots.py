"""Pictures of a case: what cameras give the network, and how actions are spread."""

import jax
from matplotlib.figure import Figure
import numpy as np

from dpjax.check.context import Case, network
from dpjax.config import cameras
from dpjax.core.types import ACTION
from dpjax.data import frames, loader, windows
from dpjax.evaluation.html import COLORS, png

WINDOWS = 6  # of the first batch, whose frames are shown
DIMS = 16  # of the action that are drawn
TRACES = 4  # episodes whose actions are drawn
COLUMNS = 4  # plots side by side


def first_batch(case: Case, seen: bool) -> bytes:
    """Frames of the first batch: as they were recorded, and below as the network sees them; png.

    seen: whether the config's crops fit the frames, so that they can be shown.
    """
    horizon, config = case.config.horizon, case.config
    sizes = (horizon.predict, horizon.obs - 1, horizon.act - 1)
    rows = windows.window_indices(case.train.ends, *sizes)[0][:, horizon.obs - 1]
    ids = loader.batch_indices(len(rows), config.train.batch, config.seed, 0)[:WINDOWS]
    images = frames.split(case.train.columns)[1]
    whole = {name: x.read(rows[ids])[:, None] for name, x in images.items()}
    keys = jax.random.split(jax.random.key(config.seed), len(ids))
    known = {name: x for name, x in whole.items() if name in config.cameras}
    crops = cameras.view(config)(known, keys) if seen and len(known) == len(config.cameras) else {}
    bands = []
    for name, pixels in whole.items():
        bands.append((name, pixels))
        if name in crops:
            bands.append((f"{name}, seen", np.asarray(crops[name])))
    figure = Figure(figsize=(1.7 * len(ids) + 0.3, 1.8 * len(bands)), layout="constrained")
    grid = figure.subplots(len(bands), len(ids), squeeze=False)
    for line, (name, pixels) in zip(grid, bands):
        for axes, image in zip(line, pixels[:, 0]):
            axes.imshow(np.clip(np.round(image), 0, 255).astype(np.uint8))
            axes.set(xticks=[], yticks=[])
        height, width = pixels.shape[2:4]
        line[0].set_ylabel(f"{name}\n{height} x {width}", fontsize=8)
    return png(figure)


def histograms(case: Case) -> bytes:
    """Each action dim in the units of the network, with the sampler's clip as lines; png."""
    x, clip = network(case, ACTION, case.learned[ACTION]), case.config.sampler.clip
    figure, grid = _grid(min(x.shape[1], DIMS))
    for d, axes in enumerate(grid):
        axes.hist(x[:, d], bins=60, color=COLORS[0])
        for at in (-clip, clip) if np.isfinite(clip) else ():
            axes.axvline(at, color=COLORS[1], lw=1.2, ls="--")
        axes.set(yticks=[])
    return png(figure)


def traces(case: Case) -> bytes:
    """Each action dim over the steps of a few episodes, in the units of the data; png."""
    episodes = np.unique(np.linspace(0, len(case.train.ends) - 1, TRACES).astype(int))
    figure, grid = _grid(min(case.action.shape[1], DIMS))
    for d, axes in enumerate(grid):
        for e, color in zip(episodes, COLORS):
            part = case.action[case.train.starts[e] : case.train.ends[e], d]
            axes.plot(part, color=color, lw=1, label=case.labels[e])
    grid[0].legend(frameon=False, fontsize=7)
    return png(figure)


def _grid(count):
    """A figure of `count` pairs of axes."""
    columns = min(count, COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(2.3 * columns + 0.4, 1.7 * lines + 0.2), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    for d, axes in enumerate(grid[:count]):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{ACTION}[{d}]", fontsize=8)
    return figure, grid[:count]
