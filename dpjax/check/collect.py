"""Builds the Context of the rules: from a config, from a directory, or at the start of training."""

from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.check import looks
from dpjax.check.context import Context
from dpjax.check.rules import config as config_rules
from dpjax.config import build, cameras, checks, dataset, recipes, sources
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION
from dpjax.data import episodes as episodes_lib
from dpjax.data import loader, mixture, rlds
from dpjax.data.episodes import Episodes
from dpjax.data.rlds import reader

MAX_STEPS = 50_000  # steps that training checks before it starts; of more, every k-th episode
CLOCK_NAMES = ("timestamp", "timestamps", "time")  # last part of the path of recorded times


class _DataSet(NamedTuple):
    """One data set, read and split.

    train, val: training and held-out episodes, with the policy's observations.
    train_labels, val_labels: "episode 7" for each of them, numbered as in the data set.
    skipped: one line per episode that could not be read.
    clocks: {path: Episodes} of the recorded times.
    """

    train: Episodes
    val: Episodes
    train_labels: list[str]
    val_labels: list[str]
    skipped: list[str]
    clocks: dict[str, Episodes]


def from_config(config: ConfigDict) -> Context:
    """Reads everything as training would, but skips and records bad episodes.

    Raises a UserError if a key of the config is wrong by itself, or if no data can be read.
    """
    # Each key must have a valid name, type and value. Keys that do not fit together are a finding.
    checks.check_table(config)
    directories = sources.directories(config.data)
    config = sources.resolved(config)

    # Only columns that exist and can be read are read: for the rules, a missing column is a finding
    # and not an error.
    features = _shared_features(directories)
    readable = _readable_part(config, features)
    sets = {directory: _read(readable, directory, features) for directory in directories}
    # "episode 7" is ambiguous among several data sets.
    if len(sets) > 1:
        sets = {directory: _prefix(part, directory) for directory, part in sets.items()}

    # Joined to one training set and one held-out set, as `dataset.read` does for training.
    parts = {directory: (part.train, part.val) for directory, part in sets.items()}
    limit = cameras.image_memory(config.data.memory)
    train, val, _ = mixture.join(parts, directories, limit, config.data.spill)
    normalizer = dataset.normalizer(readable, train)
    mask = dataset.window_indices(config, train)[1]
    first = next(iter(directories))
    return Context(
        config=config,
        train=train,
        val=val,
        labels=[
            *(label for part in sets.values() for label in part.train_labels),
            *(label for part in sets.values() for label in part.val_labels),
        ],
        represented=dataset.learned_columns(readable, train),
        normalizer=normalizer,
        representation=build.representation(config),
        # Mirrored episodes are not read here, but training doubles the windows with them.
        num_windows=len(mask) * (2 if config.data.mirror else 1),
        padded_share=1 - float(mask.mean()),
        refusal=_refusal(config),
        features=features,
        skipped=[line for part in sets.values() for line in part.skipped],
        clocks={
            f"{directory}: {path}": clock
            for directory, part in sets.items()
            for path, clock in part.clocks.items()
        },
        fps=float(reader.metadata(first).get("fps", 0.0)),
        rates={d: float(reader.metadata(d).get("fps") or 0.0) for d in directories},
        frames=looks.sample_pairs(train),
        looks=looks.look_at_episodes(train, val),
    )


def from_directory(directory: str) -> Context:
    """Reads a data set without a config, by the recipe "custom", which observes every column."""
    config = recipes.load("custom")
    config.data.dir = str(directory)
    return from_config(config)


def from_training(
    config: ConfigDict, data: dataset.Data, normalizer: Normalizer, windows: loader.Windows
) -> Context:
    """The Context of data that training has already read; reads no files.

    Features, skipped episodes, clocks and frames stay empty, so rules about them find nothing.
    """
    recorded = _recorded_episodes(config, data)
    steps = int(data.train.lengths[recorded].sum())
    every = -(-steps // MAX_STEPS)  # rounded up
    kept = recorded[::every]
    train = episodes_lib.select(data.train, kept)
    return Context(
        config=config,
        train=train,
        val=data.val,
        labels=[
            *(f"training episode {e}" for e in kept),
            *(f"held-out episode {e}" for e in range(len(data.val.ends))),
        ],
        represented=dataset.learned_columns(config, train),
        normalizer=normalizer,
        representation=build.representation(config),
        num_windows=len(windows),
        padded_share=1 - float(windows.table.mask.mean()),
    )


def _recorded_episodes(config: ConfigDict, data: dataset.Data) -> np.ndarray:
    """[n] indices of the training episodes that were recorded, not mirrored."""
    # data.shares has the step at which each data set ends; it is converted to a count of episodes.
    ends = [int(np.searchsorted(data.train.ends, step)) + 1 for step, _ in data.shares.values()]
    # Within a data set, the recorded episodes come first and their mirrored copies follow.
    copies = 2 if config.data.mirror else 1
    ranges = zip([0, *ends[:-1]], ends)
    return np.concatenate([np.arange(a, a + (b - a) // copies) for a, b in ranges])


def _refusal(config: ConfigDict) -> str:
    """The message with which training would refuse the config, or ""."""
    try:
        checks.check(config)
    except UserError as error:
        return str(error)
    return ""


def _shared_features(directories) -> dict[str, reader.Feature]:
    """{path: Feature} of the columns that all data sets have."""
    # Training joins the data sets, so a column must exist and be readable in each of them.
    described = [reader.describe(directory) for directory in directories]
    first = described[0]
    shared = [path for path in first if all(path in other for other in described)]
    return {
        path: first[path]._replace(readable=all(other[path].readable for other in described))
        for path in shared
    }


def _readable_part(config: ConfigDict, features) -> ConfigDict:
    """A copy of the config without unreadable columns and without mirrored episodes.

    If the task needs a column that is left out, the task becomes "custom", which needs none.
    Raises a UserError if the action cannot be read: without it there is nothing to check.
    """
    columns = dict(config.data.columns)
    if ACTION not in columns:
        raise UserError(
            f"config.data.columns has no {ACTION!r}: add {ACTION}=<path inside an RLDS step>."
        )
    if why := config_rules.why_unreadable(ACTION, columns[ACTION], features):
        reason, remedy = why
        raise UserError(f"{config.data.dir}: {reason}: {remedy}.")
    readable = config.copy_and_resolve_references()
    with readable.unlocked():
        for name, path in columns.items():
            if not config_rules.why_unreadable(name, path, features):
                continue
            del readable.data.columns[name]  # and its camera, if the column is an image
            if name in readable.cameras:
                del readable.cameras[name]
        # A mirrored episode has the same faults as its original.
        readable.data.mirror = False
        if any(key not in readable.data.columns for key in tasks.get(config.task).columns):
            readable.task = "custom"
    return readable


def _read(config: ConfigDict, directory: str, features) -> _DataSet:
    """Reads a data set and its clocks, skips bad episodes, and splits the others."""
    # Recorded times are read as further columns; no column of a config has a space in its name.
    clock_paths = {
        f"clock {path}": path
        for path, x in features.items()
        if path.split("/")[-1] in CLOCK_NAMES and x.readable and x.shape in ((), (1,))
    }
    # on_bad="skip" even if the config has "refuse", so that all bad episodes are counted.
    bad = []  # numbers of the episodes that are left out
    skipped = []

    def on_skip(episode: int, line: str) -> None:
        bad.append(episode)
        skipped.append(line)

    try:
        raw = rlds.read(
            directory,
            features={**config.data.columns, **clock_paths},
            split=config.data.split,
            on_bad="skip",
            memory=cameras.image_memory(config.data.memory),
            folder=config.data.spill or None,
            on_skip=on_skip,
        )
    except UserError as error:
        # If all episodes were bad, what is wrong with the first helps more than "got 0 episodes".
        raise UserError(skipped[0] if skipped else str(error)) from error
    times = {path: raw.columns.pop(name).reshape(-1) for name, path in clock_paths.items()}

    # `ids` number the good episodes; labels have the numbers of the data set, bad ones included.
    ids = dataset.split_ids(config.data, len(raw.ends))
    train, val = dataset.parts(config.data, tasks.get(config.task), raw, ids)
    numbers = np.setdiff1d(np.arange(len(raw.ends) + len(bad)), bad)  # [E]
    train_labels, val_labels = ([f"episode {numbers[e]}" for e in part] for part in ids)
    clocks = {path: raw._replace(columns={path: x}) for path, x in times.items()}
    return _DataSet(train, val, train_labels, val_labels, skipped, clocks)


def _prefix(part: _DataSet, directory: str) -> _DataSet:
    """The data set with its directory in front of each label, to tell several sets apart."""
    return part._replace(
        train_labels=[f"{directory}: {label}" for label in part.train_labels],
        val_labels=[f"{directory}: {label}" for label in part.val_labels],
    )
