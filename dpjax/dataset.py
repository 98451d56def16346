"""From a config to demonstrations as the policy sees them: its windows, units and sizes."""

import logging
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import cameras, tasks
from dpjax import normalizer as normalizers
from dpjax.data import check, frames, loader, rlds, windows
from dpjax.data import episodes as episodes_lib
from dpjax.data.episodes import Episodes
from dpjax.errors import UserError
from dpjax.normalizer import Normalizer
from dpjax.policy import ACTION
from dpjax.run_config import Spec

log = logging.getLogger("dpjax")


class Data(NamedTuple):
    """Demonstrations as the policy sees them: observations and actions, flat columns.

    train, val: Episodes with the task's observation keys and "action".
    obs_keys: the observation keys, in the order of the encoder.
    """

    train: Episodes
    val: Episodes
    obs_keys: tuple[str, ...]


def read(config: ConfigDict) -> Data:
    """Reads, checks, maps to the task's observations, and splits by episode."""
    if not config.data.dir:
        raise UserError("config.data.dir is empty: give an RLDS directory (--config.data.dir=…).")
    raw = rlds.read(
        config.data.dir,
        features=dict(config.data.columns),
        split=config.data.split,
        on_bad=config.data.on_bad,
        memory=cameras.memory(config),
        folder=config.data.spill or None,
    )
    cameras.check_columns(config, raw)
    train_ids, val_ids = episodes_lib.split(
        len(raw.ends), config.data.val_fraction, config.data.val_seed
    )
    limit = config.data.max_episodes
    if limit and limit < len(train_ids):
        order = np.random.default_rng(config.data.val_seed).permutation(len(train_ids))
        log.info("training on %d of %d episodes (config.data.max_episodes)", limit, len(order))
        train_ids = np.sort(train_ids[order[:limit]])
    task = tasks.get(config.task)
    used = {key: raw.columns[key] for key in (*task.columns, ACTION)}
    raw = raw._replace(columns=used)
    train, val = (episodes_lib.select(raw, ids) for ids in (train_ids, val_ids))
    if config.data.mirror:
        train = episodes_lib.join(train, train._replace(columns=task.mirror(train.columns)))
    seen = [see(task, part) for part in (train, val)]
    numbers, images = frames.split(seen[0].columns)
    for key, column in images.items():
        log.info(frames.say(key, column))
    for text in check.outliers(numbers, seen[0].ends):
        log.warning("%s: %s", raw.source, text)
    return Data(*seen, tuple(key for key in seen[0].columns if key != ACTION))


def see(task: tasks.Task, raw: Episodes) -> Episodes:
    """Raw columns -> the task's observations, and the action."""
    obs = task.observe({key: raw.columns[key] for key in task.columns})
    action = np.asarray(raw.columns[ACTION], np.float32)
    return raw._replace(columns={**obs, ACTION: action})


def normalizer(config: ConfigDict, episodes: Episodes) -> Normalizer:
    """Fitted on the training episodes; says which dims are constant."""
    modes = {
        key: config.normalize.image if key in config.cameras else config.normalize.obs
        for key in episodes.columns
    }
    modes[ACTION] = config.normalize.action
    fitted, said = normalizers.fit(
        episodes.columns,
        modes,
        quantile=config.normalize.quantile,
        min_range=config.normalize.min_range,
    )
    for text in said:
        log.warning(text)
    return fitted


def observed_steps(config: ConfigDict) -> int:
    """Steps of observations in a training batch: To, or Tp where they are denoised too."""
    horizon = config.horizon
    return horizon.predict if config.condition == "inpaint" else horizon.obs


def place(config: ConfigDict, episodes: Episodes, obs_keys: tuple[str, ...]) -> loader.Windows:
    """The windows of the episodes, with their columns, ready to be gathered from."""
    horizon = config.horizon
    rows, mask, said = windows.window_rows(
        episodes.ends, horizon.predict, horizon.obs - 1, horizon.act - 1
    )
    for text in said:
        log.warning("%s: %s", episodes.source, text)
    observed = observed_steps(config)
    return loader.place(episodes.columns, rows, mask, obs_keys, ACTION, observed)


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
