"""Plots of the check: frames as the network sees them, and distributions of actions.

They need matplotlib (extra "report"): drawing without it raises a UserError.
"""

import jax
import numpy as np

from dpjax.check.context import Context, normalize
from dpjax.config import cameras
from dpjax.core.types import ACTION
from dpjax.data import frames, loader, windows
from dpjax.evaluation.plots import COLORS, figure, png

EXAMPLES = 6  # examples of the first batch whose frames are drawn
DIMS = 16  # largest number of action dims that are drawn
EPISODES = 4  # episodes whose actions are drawn
COLUMNS = 4  # plots side by side


def first_batch(context: Context, crops: bool) -> bytes:
    """A PNG with frames of the first training batch, as recorded and as the network sees them.

    crops: whether the config's crops fit the frames; if not, only recorded frames are drawn.
    """
    config = context.config
    images = frames.split(context.train.columns)[1]
    steps = _first_steps(context)
    recorded = {name: x.read(steps)[:, None] for name, x in images.items()}  # [n, 1, H, W, 3]

    # The random crops and colours of training; one key per example. A camera whose column could not
    # be read is missing, and then `view`, which needs all cameras, is not called.
    keys = jax.random.split(jax.random.key(config.seed), len(steps))
    named = {name: x for name, x in recorded.items() if name in config.cameras}
    complete = len(named) == len(config.cameras)
    seen = cameras.view(config.cameras, config.augment)(named, keys) if crops and complete else {}

    # Two rows per camera: the recorded frames, and below them the network's.
    bands = []
    for name, pixels in recorded.items():
        bands.append((name, pixels))
        if name in seen:
            bands.append((f"{name}, seen", np.asarray(seen[name])))
    # One column per example. Sizes are in inches, with room for the labels.
    sheet = figure(1.7 * len(steps) + 0.3, 1.8 * len(bands))
    grid = sheet.subplots(len(bands), len(steps), squeeze=False)
    for line, (name, pixels) in zip(grid, bands):
        for axes, image in zip(line, pixels[:, 0]):
            # The network's images are float32 with values of pixels; imshow needs uint8.
            axes.imshow(np.clip(np.round(image), 0, 255).astype(np.uint8))
            axes.set(xticks=[], yticks=[])
        height, width = pixels.shape[2:4]
        line[0].set_ylabel(f"{name}\n{height} x {width}", fontsize=8)
    return png(sheet)


def _first_steps(context):
    """[n]: for the first examples of the first batch, the latest observed step of each."""
    config = context.config
    horizon = config.horizon
    sizes = (horizon.predict, horizon.obs - 1, horizon.act - 1)
    # The loader's order of windows follows from the config's seed, so this is the batch with which
    # training begins.
    indices = windows.window_indices(context.train.ends, *sizes)[0]  # [W, Tp]
    now = indices[:, horizon.obs - 1]  # [W] latest observed step of each window
    examples = loader.batch_indices(len(now), config.train.batch, config.seed, 0)[:EXAMPLES]
    return now[examples]


def histograms(context: Context) -> bytes:
    """A PNG with a histogram per action dim, normalized, and lines at the sampler's clip."""
    x = normalize(context, ACTION, context.represented[ACTION])
    clip = context.config.sampler.clip
    sheet, grid = _grid(min(x.shape[1], DIMS))
    for d, axes in enumerate(grid):
        axes.hist(x[:, d], bins=60, color=COLORS[0])
        # An infinite clip has no lines.
        for at in (-clip, clip) if np.isfinite(clip) else ():
            axes.axvline(at, color=COLORS[1], lw=1.2, ls="--")
        axes.set(yticks=[])
    return png(sheet)


def traces(context: Context) -> bytes:
    """A PNG with each action dim over the steps of a few episodes, in the units of the data."""
    train = context.train
    # Evenly spread over the data set. `unique` drops repetitions if there are fewer episodes.
    episodes = np.unique(np.linspace(0, len(train.ends) - 1, EPISODES).astype(int))
    sheet, grid = _grid(min(context.action.shape[1], DIMS))
    for d, axes in enumerate(grid):
        for e, color in zip(episodes, COLORS):
            trace = context.action[train.starts[e] : train.ends[e], d]
            axes.plot(trace, color=color, lw=1, label=context.labels[e])
    grid[0].legend(frameon=False, fontsize=7)
    return png(sheet)


def _grid(number):
    """A figure with one plot per action dim, and the list of these plots."""
    columns = min(number, COLUMNS)
    lines = -(-number // columns)
    sheet = figure(2.3 * columns + 0.4, 1.7 * lines + 0.2)
    grid = sheet.subplots(lines, columns, squeeze=False).ravel()
    # Unused places in the last line stay empty.
    for axes in grid[number:]:
        axes.set_axis_off()
    for d, axes in enumerate(grid[:number]):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{ACTION}[{d}]", fontsize=8)
    return sheet, grid[:number]
