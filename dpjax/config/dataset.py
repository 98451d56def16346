"""Reads a config's demonstrations, and makes episodes, windows, units and sizes of them."""

from collections.abc import Mapping, Sequence
import logging
import math
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.config import build, cameras, normalization, sources
from dpjax.config.arguments import names_keys
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
    """Demonstrations: observations and actions in columns [N, …] of N steps.

    train, val: Episodes with the task's observations and "action".
    obs_keys: the names of the observations, in the order of the encoder's features.
    shares: {data set: (the end of its steps in train, its share of each batch)}, in order.
    """

    train: Episodes
    val: Episodes
    obs_keys: tuple[str, ...]
    shares: dict[str, tuple[int, float]]


@names_keys()
def read(config: ConfigDict) -> Data:
    """Reads the data sets, computes the task's observations, and holds out episodes."""
    # 1. Each data set is read and split separately. Then all are joined end to end.
    weights = sources.directories(config.data)
    task = tasks.get(config.task)
    memory = cameras.image_memory(config.data.memory)
    sets = {directory: _read_one(config, task, directory, memory) for directory in weights}
    train, val, shares = mixture.join(sets, weights, memory, config.data.spill)

    # 2. Log what the columns hold, and warn of numbers that look like mistakes.
    numbers, images = frames.split(train.columns)
    for key, column in images.items():
        log.info(frames.describe(key, column))
    for outlier in checks.outliers(numbers, train.ends):
        text = outlier.describe(f"episode {outlier.episode}")
        remedy = "mend the data, or convert it without these episodes (--episodes)"
        log.warning("%s: %s: %s", train.source, text, remedy)
    return Data(train, val, tuple(key for key in train.columns if key != ACTION), shares)


def _read_one(
    config: ConfigDict, task: Task, directory: str, memory: int
) -> tuple[Episodes, Episodes]:
    """Reads one data set; returns the episodes to train on, and those held out."""
    raw = rlds.read(
        directory,
        features=dict(config.data.columns),
        split=config.data.split,
        on_bad=config.data.on_bad,
        memory=memory,
        folder=config.data.spill or None,  # None: the system's temporary folder
    )
    cameras.check_columns(config.cameras, raw)
    return parts(config.data, task, raw, split_ids(config.data, len(raw.ends)))


def split_ids(data: ConfigDict, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids of the episodes to train on, ids of those held out), of `count` episodes.

    data: the section config.data.
    """
    # A seed of its own, so that runs with other seeds hold out the same episodes.
    train_ids, val_ids = episodes_lib.split(count, data.val_fraction, data.val_seed)
    limit = data.max_episodes
    if limit and limit < len(train_ids):
        # The order does not depend on the limit, so a larger limit gives a superset.
        order = np.random.default_rng(data.val_seed).permutation(len(train_ids))
        log.info("training on %d of %d episodes (config.data.max_episodes)", limit, len(order))
        train_ids = np.sort(train_ids[order[:limit]])
    return train_ids, val_ids


def parts(
    data: ConfigDict, task: Task, raw: Episodes, ids: Sequence[np.ndarray]
) -> tuple[Episodes, Episodes]:
    """(episodes to train on, episodes held out), with the observations of the task.

    data: the section config.data. raw: the recorded columns. ids: what `split_ids` returned.
    """
    # Columns that are not used are dropped. The others get the task's order.
    observed = tasks.observed_columns(task, data.columns)
    raw = raw._replace(columns={key: raw.columns[key] for key in (*observed, ACTION)})
    train, val = (episodes_lib.select(raw, part) for part in ids)
    # Mirror images double the training episodes. Held-out episodes stay as they were recorded.
    if data.mirror:
        train = episodes_lib.join(train, train._replace(columns=task.mirror(train.columns)))
    observed = [observe(task, part) for part in (train, val)]
    for key, x in matrices(observed[0]).items():
        size = list(x.shape[1:])
        log.warning("%s: %s: %s per step is flattened to one axis", raw.source, key, size)
    return tuple(with_goals(flattened(part), data.goals) for part in observed)


def matrices(episodes: Episodes) -> dict[str, np.ndarray]:
    """The columns {key: [N, m, n]} with a matrix per step: keypoints, an action of one row."""
    columns, _ = frames.split(episodes.columns)
    return {key: x for key, x in columns.items() if x.ndim == 3}


def flattened(episodes: Episodes) -> Episodes:
    """The episodes with a vector per step in place of a matrix: [N, m, n] -> [N, m * n]."""
    vectors = {
        key: x.reshape(len(x), math.prod(x.shape[1:])) for key, x in matrices(episodes).items()
    }
    return episodes._replace(columns={**episodes.columns, **vectors})


def observe(task: Task, raw: Episodes) -> Episodes:
    """Recorded columns -> the task's observations, and the action in float32."""
    # Rollouts call the same function, so the policy sees the same observations there.
    recorded = {key: x for key, x in raw.columns.items() if key != ACTION}
    try:
        obs = task.observe(recorded)
    except (IndexError, ValueError) as error:  # what numpy raises for columns of a wrong size
        sizes = ", ".join(f"{key} {list(x.shape[1:])}" for key, x in recorded.items())
        raise UserError(
            f"{raw.source}: config.task={task.name!r} cannot observe {sizes} ({error}): set "
            "config.data.columns to what it wants, or config.task=custom to take them as they are."
        ) from error
    action = np.asarray(raw.columns[ACTION], np.float32)
    return raw._replace(columns={**obs, ACTION: action})


def with_goals(episodes: Episodes, goals: Mapping[str, str]) -> Episodes:
    """The episodes with goals as further observations: what the episode reached in the end.

    goals: {name of the goal: the observation whose last value in the episode becomes the goal}.
    """
    # [N]: for each step the index of the last step of its episode.
    last = np.repeat(episodes.ends - 1, episodes.lengths)
    reached = {}
    for goal, key in goals.items():
        if key not in episodes.columns or key == ACTION or goal in episodes.columns:
            known = [name for name in episodes.columns if name != ACTION]
            raise UserError(
                f"config.data.goals.{goal}={key!r}: give a new name for the goal, and one of "
                f"the observations {', '.join(known)}."
            )
        reached[goal] = frames.take(episodes.columns[key], last)
    # The action stays the last column, since the encoder relies on the order of the observations.
    action = episodes.columns[ACTION]
    observations = {key: x for key, x in episodes.columns.items() if key != ACTION}
    return episodes._replace(columns={**observations, **reached, ACTION: action})


def normalizer(config: ConfigDict, episodes: Episodes) -> Normalizer:
    """The normalizer that fits the training episodes; dims that hardly move are logged."""
    columns = episodes.columns
    sizes = {key: x.shape[-1] for key, x in columns.items() if len(x.shape) == 2}
    learned = learned_columns(config, episodes)
    return normalization.fit(config, build.representation(config), sizes, learned)


def learned_columns(config: ConfigDict, episodes: Episodes) -> dict[str, np.ndarray]:
    """{key: [M, …]}: the columns in the representation that the network learns, unnormalized."""
    # An action relative to an observation depends on the window, so M counts the steps of windows.
    # Otherwise M is the number of steps.
    indices = window_indices(config, episodes)[0] if config.representation.relative else None
    return representations.learned_columns(build.representation(config), episodes.columns, indices)


def observed_steps(config: ConfigDict) -> int:
    """Steps of observations in a training batch: To, or Tp if they are denoised too."""
    horizon = config.horizon
    return horizon.predict if config.condition == "inpaint" else horizon.obs


def window_indices(
    config: ConfigDict, episodes: Episodes, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(indices, mask) of all windows of the episodes, both [W, Tp] (see `windows`).

    source: the data set's name in a warning about too short episodes; None for no warning.
    """
    # Windows reach beyond their episode and are padded there: by To - 1 observed steps at its
    # start, and by Ta - 1 actions at its end.
    horizon = config.horizon
    before = horizon.obs - 1
    after = horizon.act - 1
    return windows.window_indices(episodes.ends, horizon.predict, before, after, source=source)


def train_windows(config: ConfigDict, data: Data) -> loader.Windows:
    """The windows of the training episodes, with the share of each data set in a batch."""
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
    """The windows with these ids [B] as a batch."""
    # The examples are numbered 0, 1, …, and each number selects the noise of its example.
    index = np.arange(len(ids), dtype=np.int32)
    num_observed = windows.observed.shape[1]
    return loader.gather(windows.table, windows.inputs(ids), index, num_observed)


def spec(data: Data) -> Spec:
    """The sizes of observations and actions, and a fingerprint of the data."""
    # An image column is [N, H, W, 3], and its size is (H, W, 3). Other columns are [N, D].
    columns = data.train.columns
    observations = {
        key: columns[key].shape[1:] if len(columns[key].shape) == 4 else columns[key].shape[-1]
        for key in data.obs_keys
    }
    # A run can only be resumed with the same data. The fingerprint shows whether it is.
    prints = [episodes_lib.fingerprint(part) for part in (data.train, data.val)]
    return Spec(observations, int(columns[ACTION].shape[-1]), "-".join(prints))
