"""Collects what the rules look at: from a config, from a directory alone, or while training."""

from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.check.context import Context
from dpjax.check.rules import config as config_rules
from dpjax.config import build, cameras, checks, dataset, recipes, sources
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames, loader, mixture, rlds
from dpjax.data.episodes import Episodes
from dpjax.data.rlds import reader

FRAMES = 48  # frames per camera that are looked at, evenly spread, each with the next one
MAX_STEPS = 50_000  # steps that training checks before it starts; of more, every k-th episode
CLOCK_NAMES = ("timestamp", "timestamps", "time")  # last part of a path that holds times


class _DataSet(NamedTuple):
    """One data set, read and split.

    train, val: its episodes on either side of the split, with the policy's observations.
    train_labels, val_labels: "episode 7", numbered as in the data set.
    skipped: one line per episode that could not be read.
    clocks: {path: Episodes} recorded times.
    """

    train: Episodes
    val: Episodes
    train_labels: list[str]
    val_labels: list[str]
    skipped: list[str]
    clocks: dict[str, Episodes]


def from_config(config: ConfigDict) -> Context:
    """Reads everything as training would; bad episodes are left out and remembered."""
    # Names, types and ranges of keys must be right; whether keys fit together is a finding.
    checks.check_table(config)
    directories = sources.directories(config.data)
    config = sources.resolved(config)

    # What the data hold, and the part of the config that can be read from them: columns that
    # are missing become findings instead of errors here.
    features = _shared_features(directories)
    readable = _readable_part(config, features)
    sets = {directory: _read(readable, directory, features) for directory in directories}
    if len(sets) > 1:
        sets = {directory: _prefix(part, directory) for directory, part in sets.items()}

    # One training set and one held-out set, as `dataset.read` joins them.
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
        # Mirror images are not read, but training has them.
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
        frames=_sample_frames(train),
    )


def from_directory(directory: str) -> Context:
    """Reads a data set without a config: the recipe "custom", which observes all that is there."""
    config = recipes.load("custom")
    config.data.dir = str(directory)
    return from_config(config)


def from_training(
    config: ConfigDict, data: dataset.Data, normalizer: Normalizer, windows: loader.Windows
) -> Context:
    """What can be checked at the start of a training without reading anything again.

    Uses at most MAX_STEPS steps, so that the start does not wait.
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
    """Numbers of the training episodes that are not mirror images."""
    # data.shares has the last step of each data set; its episodes end there.
    ends = [int(np.searchsorted(data.train.ends, step)) + 1 for step, _ in data.shares.values()]
    # In each data set the mirror images follow the recorded episodes, one for each.
    copies = 2 if config.data.mirror else 1
    ranges = zip([0, *ends[:-1]], ends)
    return np.concatenate([np.arange(a, a + (b - a) // copies) for a, b in ranges])


def _refusal(config: ConfigDict) -> str:
    """The error with which training would refuse the config, or ""."""
    try:
        checks.check(config)
    except UserError as error:
        return str(error)
    return ""


def _shared_features(directories) -> dict[str, reader.Feature]:
    """{path: Feature} of what all data sets hold; readable if it is readable in all of them."""
    # Several sets are trained on together, so a column must be in all of them.
    described = [reader.describe(directory) for directory in directories]
    first = described[0]
    shared = [path for path in first if all(path in other for other in described)]
    return {
        path: first[path]._replace(readable=all(other[path].readable for other in described))
        for path in shared
    }


def _readable_part(config: ConfigDict, features) -> ConfigDict:
    """A copy of the config without columns that cannot be read and without mirror images.

    If its task needs one of the missing columns, all others are observed as they are.
    Raises if the action cannot be read: without it there is nothing to check.
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
            del readable.data.columns[name]
            if name in readable.cameras:
                del readable.cameras[name]
        # A mirror image has the same faults as its original.
        readable.data.mirror = False
        if any(key not in readable.data.columns for key in tasks.get(config.task).columns):
            readable.task = "custom"
    return readable


def _read(config: ConfigDict, directory: str, features) -> _DataSet:
    """Reads a data set and its clocks, leaves bad episodes out, and splits the others."""
    # Times are read as further columns, under names that no column of a config can have.
    clock_paths = {
        f"clock {path}": path
        for path, x in features.items()
        if path.split("/")[-1] in CLOCK_NAMES and x.readable and x.shape in ((), (1,))
    }
    # "skip" even if the config says "refuse": all bad episodes are to be counted.
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
        # If no episode was good, the first one's fault says more than "got 0 episodes".
        raise UserError(skipped[0] if skipped else str(error)) from error
    times = {path: raw.columns.pop(name).reshape(-1) for name, path in clock_paths.items()}

    ids = dataset.split_ids(config.data, len(raw.ends))
    train, val = dataset.parts(config.data, tasks.get(config.task), raw, ids)
    numbers = np.setdiff1d(np.arange(len(raw.ends) + len(bad)), bad)  # [E], in the data set
    train_labels, val_labels = ([f"episode {numbers[e]}" for e in part] for part in ids)
    clocks = {path: raw._replace(columns={path: x}) for path, x in times.items()}
    return _DataSet(train, val, train_labels, val_labels, skipped, clocks)


def _prefix(part: _DataSet, directory: str) -> _DataSet:
    """The data set with its directory in front of each label, to tell several sets apart."""
    return part._replace(
        train_labels=[f"{directory}: {label}" for label in part.train_labels],
        val_labels=[f"{directory}: {label}" for label in part.val_labels],
    )


def _sample_frames(train: Episodes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`Context.frames` of the training episodes."""
    # Every step but the last of an episode has a next frame.
    steps = np.setdiff1d(np.arange(train.ends[-1]), train.ends - 1)
    if not len(steps):  # all episodes have one step
        return {}
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, FRAMES).astype(np.int64))]
    pairs = np.stack([steps, steps + 1], axis=1)  # [n, 2]
    images = frames.split(train.columns)[1]
    return {name: (steps, x.read(pairs)) for name, x in images.items()}
