"""From a config to demonstrations as the policy sees them: its windows, units and sizes."""

import logging
import math
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.config import build, cameras
from dpjax.core import normalizer as normalizers
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION
from dpjax.data import checks, frames, loader, mixture, rlds, windows
from dpjax.data import episodes as episodes_lib
from dpjax.data.episodes import Episodes
from dpjax.data.rlds import reader
from dpjax.policies import representations
from dpjax.tasks import base


def directories(config: ConfigDict) -> dict[str, float | None]:
    """{directory: weight}, in order; None where the weights are left to the sizes."""
    names = [name.strip() for name in config.data.dir.split(",") if name.strip()]
    if names and Path(config.data.dir).is_dir():
        names = [config.data.dir]  # a name with a comma in it
    if not names:
        raise UserError("config.data.dir is empty: give an RLDS directory (--config.data.dir=…).")
    if len(set(names)) < len(names):
        raise UserError(f"config.data.dir={config.data.dir!r} names a directory twice.")
    if len(names) > 1 and config.data.max_episodes:
        raise UserError(
            f"config.data.max_episodes={config.data.max_episodes} goes with one data set, and "
            f"config.data.dir names {len(names)}: set it to 0, and give weights."
        )
    return dict(zip(names, weights(config, len(names))))


def weights(config: ConfigDict, count: int) -> list[float | None]:
    """config.data.weights, one a data set."""
    given = config.data.get("weights", "")
    if not given:
        return [None] * count
    try:
        found = [float(text) for text in given.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(math.isfinite(x) and x > 0 for x in found):
        raise UserError(
            f"config.data.weights={given!r} must be {count} numbers above 0, a comma between, "
            f"one for each directory of config.data.dir={config.data.dir!r}; '' for the sizes'."
        )
    return found


log = logging.getLogger("dpjax")


class Data(NamedTuple):
    """Demonstrations as the policy sees them: observations and actions, flat columns.

    train, val: Episodes with the task's observation keys and "action".
    obs_keys: the observation keys, in the order of the encoder.
    shares: {data set: (its last row in train + 1, its share of every batch)}, in order.
    """

    train: Episodes
    val: Episodes
    obs_keys: tuple[str, ...]
    shares: dict[str, tuple[int, float]]


def resolved(config: ConfigDict) -> ConfigDict:
    """A copy of the config that names what a task without columns of its own observes.

    Where config.data.columns is empty: the data set's observation/* and action, images as
    cameras.
    """
    config = config.copy_and_resolve_references()
    if config.data.columns or tasks.get(config.task).columns:
        return config
    directory = next(iter(directories(config)))
    usable = reader.usable(directory)
    shapes = {
        path: shape
        for path, shape in usable.items()
        if path == ACTION or path.startswith("observation/")
    }
    if ACTION not in shapes or len(shapes) < 2:
        raise UserError(
            f"{directory}: expected action and observation/* in its steps, got "
            f"{', '.join(usable)}: say which they are, "
            "--config.data.columns.action=PATH --config.data.columns.NAME=PATH."
        )
    with config.unlocked():
        for path, shape in shapes.items():
            key = path.removeprefix("observation/").replace("/", "_")
            config.data.columns[key] = path
            if (shape is None or len(shape) == 3) and key not in config.cameras:
                config.cameras[key] = _camera(directory, path, shape)
    seen = ", ".join(f"{path} {list(shape or ())}" for path, shape in shapes.items())
    log.info("%s: config.data.columns is empty: using all of %s", directory, seen)
    return config


def _camera(directory, path, shape) -> ConfigDict:
    """config.cameras of images that are seen whole."""
    if shape is None:
        raise UserError(
            f"{directory}: {path}: images of which the data set promises no size: name it as "
            "config.cameras.<key> = dict(size=(height, width), resize=(), crop=()) in a config "
            "file, and its path in config.data.columns."
        )
    return ConfigDict(dict(size=shape[:2], resize=(), crop=()))


def read(config: ConfigDict) -> Data:
    """Reads, checks, maps to the task's observations, and splits by episode."""
    sets = directories(config)
    task = tasks.get(config.task)
    parts = {directory: _read_one(config, task, directory) for directory in sets}
    train, val, shares = mixture.join(parts, sets, cameras.memory(config), config.data.spill)
    numbers, images = frames.split(train.columns)
    for key, column in images.items():
        log.info(frames.describe(key, column))
    for outlier in checks.outliers(numbers, train.ends):
        text = outlier.describe(f"episode {outlier.episode}")
        log.warning("%s: %s: mend the data, or normalize by 'quantile'", train.source, text)
    return Data(train, val, tuple(key for key in train.columns if key != ACTION), shares)


def _read_one(config: ConfigDict, task: base.Task, directory: str) -> tuple[Episodes, Episodes]:
    """One data set: the episodes to train on, and those held out."""
    raw = rlds.read(
        directory,
        features=dict(config.data.columns),
        split=config.data.split,
        on_bad=config.data.on_bad,
        memory=cameras.memory(config),
        folder=config.data.spill or None,
    )
    cameras.check_columns(config, raw)
    return parts(config, task, raw, split_ids(config, len(raw.ends)))


def split_ids(config: ConfigDict, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` episodes the ids of those to train on, and of those held out."""
    train_ids, val_ids = episodes_lib.split(count, config.data.val_fraction, config.data.val_seed)
    limit = config.data.max_episodes
    if limit and limit < len(train_ids):
        order = np.random.default_rng(config.data.val_seed).permutation(len(train_ids))
        log.info("training on %d of %d episodes (config.data.max_episodes)", limit, len(order))
        train_ids = np.sort(train_ids[order[:limit]])
    return train_ids, val_ids


def parts(config: ConfigDict, task: base.Task, raw: Episodes, ids) -> tuple[Episodes, Episodes]:
    """The episodes of raw columns with these ids, as the policy sees them."""
    observed = tasks.observed_columns(task, config.data.columns)
    raw = raw._replace(columns={key: raw.columns[key] for key in (*observed, ACTION)})
    train, val = (episodes_lib.select(raw, part) for part in ids)
    if config.data.mirror:
        train = episodes_lib.join(train, train._replace(columns=task.mirror(train.columns)))
    return tuple(with_goals(see(task, part), config.data.goals) for part in (train, val))


def see(task: base.Task, raw: Episodes) -> Episodes:
    """Raw columns -> the task's observations, and the action."""
    observed = {key: x for key, x in raw.columns.items() if key != ACTION}
    try:
        obs = task.observe(observed)
    except (IndexError, ValueError) as error:  # numpy's, of columns of another size
        sizes = ", ".join(f"{key} {list(x.shape[1:])}" for key, x in observed.items())
        raise UserError(
            f"{raw.source}: config.task={task.name!r} cannot observe {sizes} ({error}): set "
            "config.data.columns to what it wants, or config.task=custom to take them as they are."
        ) from error
    action = np.asarray(raw.columns[ACTION], np.float32)
    return raw._replace(columns={**obs, ACTION: action})


def with_goals(episodes: Episodes, goals) -> Episodes:
    """The episodes with what was reached in the end as an observation of every step.

    goals: {new key: the observation whose last value it is}.
    """
    last = np.repeat(episodes.ends - 1, episodes.lengths)
    made = {}
    for goal, key in goals.items():
        if key not in episodes.columns or key == ACTION or goal in episodes.columns:
            known = [name for name in episodes.columns if name != ACTION]
            raise UserError(
                f"config.data.goals.{goal}={key!r}: give a new name for the goal, and one of "
                f"the observations {', '.join(known)}."
            )
        made[goal] = frames.take(episodes.columns[key], last)
    action = episodes.columns[ACTION]
    observations = {key: x for key, x in episodes.columns.items() if key != ACTION}
    return episodes._replace(columns={**observations, **made, ACTION: action})


def normalizer(config: ConfigDict, episodes: Episodes) -> Normalizer:
    """Fitted on the training episodes, in the network's spaces; says which dims are constant."""
    fitted, said = fit(config, episodes)
    for text in said:
        log.warning(text)
    return fitted


def learned(config: ConfigDict, episodes: Episodes) -> dict:
    """Columns {key: [N, ...]} in the network's spaces, as a normalizer is fitted to them."""
    # Only relative actions differ from window to window.
    rows = windows_of(config, episodes)[0] if config.representation.relative else None
    return representations.flat(build.representation(config), episodes.columns, rows)


def fit(config: ConfigDict, episodes: Episodes) -> tuple[Normalizer, list[str]]:
    """The normalizer of the training episodes, and a line on each constant dim."""
    own = config.normalize.per_key
    for key in own:
        if key not in episodes.columns:
            raise UserError(
                f"config.normalize.per_key.{key}: no such key; the data has "
                f"{', '.join(episodes.columns)}."
            )
    modes = {
        key: config.normalize.image if key in config.cameras else config.normalize.obs
        for key in episodes.columns
    }
    modes.update({ACTION: config.normalize.action, **own})
    known = build.representation(config)
    fixed = {
        key: representations.rotation_dims(known, key, episodes.columns[key].shape[-1])
        for key in known.layouts
        if key in episodes.columns  # `build.policy` says which are no columns
    }
    return normalizers.fit(
        learned(config, episodes),
        modes,
        quantile=config.normalize.quantile,
        min_range=config.normalize.min_range,
        fixed=fixed,
    )


def observed_steps(config: ConfigDict) -> int:
    """Steps of observations in a training batch: To, or Tp where they are denoised too."""
    horizon = config.horizon
    return horizon.predict if config.condition == "inpaint" else horizon.obs


def windows_of(
    config: ConfigDict, episodes: Episodes, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`windows.window_indices` of the episodes: indices [W, Tp] and mask [W, Tp].

    source: name of the data set for a warning about episodes that are too short; None for none.
    """
    horizon = config.horizon
    before = horizon.obs - 1
    after = horizon.act - 1
    return windows.window_indices(episodes.ends, horizon.predict, before, after, source=source)


def place(config: ConfigDict, data: Data, part: str = "train") -> loader.Windows:
    """The windows of data.train (or val), with their columns, ready to be gathered from."""
    episodes = getattr(data, part)
    rows, mask = windows_of(config, episodes, source=episodes.source)
    observed = observed_steps(config)
    mixed = mixture.of_windows(rows, data.shares) if part == "train" else None
    return loader.place(episodes.columns, rows, mask, data.obs_keys, ACTION, observed, mixed)


def spec(data: Data) -> Spec:
    """The spec of a data set."""
    columns = data.train.columns
    size = lambda key: int(columns[key].shape[-1])
    observations = {
        key: columns[key].shape[1:] if len(columns[key].shape) == 4 else size(key)
        for key in data.obs_keys
    }
    prints = [episodes_lib.fingerprint(part) for part in (data.train, data.val)]
    return Spec(observations, size(ACTION), "-".join(prints))
