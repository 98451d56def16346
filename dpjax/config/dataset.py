"""From a config to demonstrations as the policy sees them: episodes, windows, normalizer, sizes."""

from collections.abc import Mapping, Sequence
import logging
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.config import build, cameras, sources
from dpjax.config.arguments import names_keys
from dpjax.core import normalizer as normalizers
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch
from dpjax.data import checks, frames, loader, mixture, rlds, windows
from dpjax.data import episodes as episodes_lib
from dpjax.data.episodes import Episodes
from dpjax.policies import representations
from dpjax.tasks.base import Task

log = logging.getLogger("dpjax")


class Data(NamedTuple):
    """Demonstrations as the policy sees them: observations and actions, flat columns [N, …].

    train, val: Episodes with the task's observations and "action".
    obs_keys: the names of the observations, in the order of the encoder.
    shares: {data set: (its last step in train + 1, its share of each batch)}, in order.
    """

    train: Episodes
    val: Episodes
    obs_keys: tuple[str, ...]
    shares: dict[str, tuple[int, float]]


@names_keys()
def read(config: ConfigDict) -> Data:
    """Reads the data sets, maps them to the task's observations, and splits them by episode."""
    # Each data set by itself, then all end to end.
    weights = sources.directories(config.data)
    task = tasks.get(config.task)
    memory = cameras.image_memory(config.data.memory)
    sets = {directory: _read_one(config, task, directory, memory) for directory in weights}
    train, val, shares = mixture.join(sets, weights, memory, config.data.spill)

    # What the columns hold, and numbers that look like mistakes.
    numbers, images = frames.split(train.columns)
    for key, column in images.items():
        log.info(frames.describe(key, column))
    for outlier in checks.outliers(numbers, train.ends):
        text = outlier.describe(f"episode {outlier.episode}")
        log.warning("%s: %s: mend the data, or normalize by 'quantile'", train.source, text)
    return Data(train, val, tuple(key for key in train.columns if key != ACTION), shares)


def _read_one(
    config: ConfigDict, task: Task, directory: str, memory: int
) -> tuple[Episodes, Episodes]:
    """One data set: the episodes to train on, and those held out."""
    raw = rlds.read(
        directory,
        features=dict(config.data.columns),
        split=config.data.split,
        on_bad=config.data.on_bad,
        memory=memory,
        folder=config.data.spill or None,
    )
    cameras.check_columns(config.cameras, raw)
    return parts(config.data, task, raw, split_ids(config.data, len(raw.ends)))


def split_ids(data: ConfigDict, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` episodes the numbers of those to train on, and of those held out.

    data: the section config.data.
    """
    train_ids, val_ids = episodes_lib.split(count, data.val_fraction, data.val_seed)
    limit = data.max_episodes
    if limit and limit < len(train_ids):
        # The first of a shuffle that does not depend on the limit: more episodes are a superset.
        order = np.random.default_rng(data.val_seed).permutation(len(train_ids))
        log.info("training on %d of %d episodes (config.data.max_episodes)", limit, len(order))
        train_ids = np.sort(train_ids[order[:limit]])
    return train_ids, val_ids


def parts(
    data: ConfigDict, task: Task, raw: Episodes, ids: Sequence[np.ndarray]
) -> tuple[Episodes, Episodes]:
    """The episodes to train on and those held out, as the policy sees them.

    data: the section config.data. raw: columns as recorded. ids: of `split_ids`.
    """
    # Only what is used, in the task's order.
    observed = tasks.observed_columns(task, data.columns)
    raw = raw._replace(columns={key: raw.columns[key] for key in (*observed, ACTION)})
    train, val = (episodes_lib.select(raw, part) for part in ids)
    # Mirror images are for training alone: held-out episodes stay as they were recorded.
    if data.mirror:
        train = episodes_lib.join(train, train._replace(columns=task.mirror(train.columns)))
    return tuple(with_goals(observe(task, part), data.goals) for part in (train, val))


def observe(task: Task, raw: Episodes) -> Episodes:
    """Recorded columns -> the task's observations, and the action in float32."""
    # The task's own function, the same in training and in rollouts.
    recorded = {key: x for key, x in raw.columns.items() if key != ACTION}
    try:
        obs = task.observe(recorded)
    except (IndexError, ValueError) as error:  # numpy's, for columns of another size
        sizes = ", ".join(f"{key} {list(x.shape[1:])}" for key, x in recorded.items())
        raise UserError(
            f"{raw.source}: config.task={task.name!r} cannot observe {sizes} ({error}): set "
            "config.data.columns to what it wants, or config.task=custom to take them as they are."
        ) from error
    action = np.asarray(raw.columns[ACTION], np.float32)
    return raw._replace(columns={**obs, ACTION: action})


def with_goals(episodes: Episodes, goals: Mapping[str, str]) -> Episodes:
    """The episodes with a goal as an observation of each step: what was reached in the end.

    goals: {name of the goal: the observation whose last value in the episode it is}.
    """
    last = np.repeat(episodes.ends - 1, episodes.lengths)  # [N], each step's last step
    reached = {}
    for goal, key in goals.items():
        if key not in episodes.columns or key == ACTION or goal in episodes.columns:
            known = [name for name in episodes.columns if name != ACTION]
            raise UserError(
                f"config.data.goals.{goal}={key!r}: give a new name for the goal, and one of "
                f"the observations {', '.join(known)}."
            )
        reached[goal] = frames.take(episodes.columns[key], last)
    # The action stays the last column: the order of observations is that of the encoder.
    action = episodes.columns[ACTION]
    observations = {key: x for key, x in episodes.columns.items() if key != ACTION}
    return episodes._replace(columns={**observations, **reached, ACTION: action})


@names_keys()
def normalizer(config: ConfigDict, episodes: Episodes) -> Normalizer:
    """Fitted on the training episodes as the network sees them; constant dims are logged."""
    section = config.normalize
    for key in section.per_key:
        if key not in episodes.columns:
            raise UserError(
                f"config.normalize.per_key.{key}: no such key; the data has "
                f"{', '.join(episodes.columns)}."
            )
    # The mode of each column: its own, or that of its kind.
    modes = {
        key: section.image if key in config.cameras else section.obs for key in episodes.columns
    }
    modes.update({ACTION: section.action, **section.per_key})
    # Numbers of a 6-D rotation keep their units, whatever the mode.
    representation = build.representation(config)
    fixed = {
        key: representations.rotation_dims(representation, key, episodes.columns[key].shape[-1])
        for key in representation.layouts
        if key in episodes.columns  # `build.policy` refuses the others
    }
    return normalizers.fit(
        learned_columns(config, episodes),
        modes,
        quantile=section.quantile,
        min_range=section.min_range,
        fixed=fixed,
    )


def learned_columns(config: ConfigDict, episodes: Episodes) -> dict[str, np.ndarray]:
    """Columns {key: [M, …]} in the representation that the network learns, not yet normalized."""
    # Relative actions differ from window to window: one of each is needed. Others do not.
    indices = window_indices(config, episodes)[0] if config.representation.relative else None
    return representations.learned_columns(build.representation(config), episodes.columns, indices)


def observed_steps(config: ConfigDict) -> int:
    """Steps of observations in a training batch: To, or Tp where they are denoised too."""
    horizon = config.horizon
    return horizon.predict if config.condition == "inpaint" else horizon.obs


def window_indices(
    config: ConfigDict, episodes: Episodes, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`windows.window_indices` of the episodes: indices [W, Tp] and mask [W, Tp].

    source: name of the data set for a warning about episodes that are too short; None for none.
    """
    horizon = config.horizon
    # At an episode's start To - 1 observed steps may be missing, at its end Ta - 1 actions.
    before = horizon.obs - 1
    after = horizon.act - 1
    return windows.window_indices(episodes.ends, horizon.predict, before, after, source=source)


def train_windows(config: ConfigDict, data: Data) -> loader.Windows:
    """The windows of the training episodes, in the shares that the config gives to the sets."""
    indices, mask = window_indices(config, data.train, source=data.train.source)
    shares = mixture.of_windows(indices, data.shares)
    return _windows(config, data.train, data.obs_keys, indices, mask, shares)


def val_windows(config: ConfigDict, data: Data) -> loader.Windows:
    """The windows of the held-out episodes."""
    indices, mask = window_indices(config, data.val, source=data.val.source)
    return _windows(config, data.val, data.obs_keys, indices, mask, None)


def _windows(config, episodes, obs_keys, indices, mask, shares) -> loader.Windows:
    """Windows with their columns, from which batches are gathered."""
    observed = observed_steps(config)
    return loader.place(episodes.columns, indices, mask, obs_keys, ACTION, observed, shares)


def batch_of(windows: loader.Windows, ids: np.ndarray) -> Batch:
    """The windows with these ids [B] as a batch, its examples numbered 0, 1, …"""
    index = np.arange(len(ids), dtype=np.int32)
    num_observed = windows.observed.shape[1]
    return loader.gather(windows.table, windows.inputs(ids), index, num_observed)


def spec(data: Data) -> Spec:
    """Names and sizes of observations and actions, and a fingerprint of the data."""
    columns = data.train.columns
    observations = {
        key: columns[key].shape[1:] if len(columns[key].shape) == 4 else columns[key].shape[-1]
        for key in data.obs_keys
    }
    # Runs are resumed with the same data only, which the fingerprint tells.
    prints = [episodes_lib.fingerprint(part) for part in (data.train, data.val)]
    return Spec(observations, int(columns[ACTION].shape[-1]), "-".join(prints))
