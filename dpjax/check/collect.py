"""From a config, or from a directory alone, to what the rules see."""

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.check.context import Case
from dpjax.check.rules import config as config_lib
from dpjax.config import build, cameras, checks, dataset, recipes
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames, loader, mixture, rlds
from dpjax.data.episodes import Episodes
from dpjax.data.rlds import reader

FRAMES = 48  # of each camera that are looked at, evenly spread, and as many next ones
STEPS = 50_000  # that training looks at before it starts; of more, every k-th episode
CLOCKS = ("timestamp", "timestamps", "time")  # last parts of paths that keep times


def of_config(config: ConfigDict) -> Case:
    """Everything, read as training would read it; bad episodes are left out and remembered."""
    checks.check_table(config)
    sets = dataset.directories(config)
    config = dataset.resolved(config)
    features = _features(sets)
    seen = _seen(config, features)
    skipped, clocks, parts, labels = [], {}, {}, ([], [])
    for directory in sets:
        raw, times, names = _read(seen, directory, features, skipped)
        ids = dataset.split_ids(seen, len(raw.ends))
        parts[directory] = dataset.parts(seen, tasks.get(seen.task), raw, ids)
        clocks |= {f"{directory}: {path}": clock for path, clock in times.items()}
        before = f"{directory}: " if len(sets) > 1 else ""
        for side, part in zip(labels, ids):
            side += [f"{before}episode {names[e]}" for e in part]
    limit = cameras.image_memory(config.data.memory)
    train, val, _ = mixture.join(parts, sets, limit, config.data.spill)
    fitted = dataset.fit(seen, train)
    mask = dataset.windows_of(config, train)[1]
    return Case(
        config,
        train,
        val,
        [*labels[0], *labels[1]],
        dataset.learned(seen, train),
        fitted,
        build.representation(config),
        windows=len(mask) * (2 if config.data.mirror else 1),
        padding=1 - float(mask.mean()),
        refusal=_refusal(config),
        features=features,
        skipped=skipped,
        clocks=clocks,
        fps=float(reader.metadata(next(iter(sets))).get("fps", 0.0)),
        frames=_frames(train),
    )


def of_directory(directory: str) -> Case:
    """A data set without a config: as configs/custom.py takes it, all of it observed."""
    config = recipes.load("custom")
    config.data.dir = str(directory)
    return of_config(config)


def of_training(
    config: ConfigDict, data: dataset.Data, normalizer: Normalizer, placed: loader.Windows
) -> Case:
    """What can be seen at the start of a training without reading anything again.

    At most STEPS steps, so that the start does not wait: of more, every k-th episode.
    """
    recorded = _recorded(config, data)
    steps = int(data.train.lengths[recorded].sum())
    kept = recorded[:: -(-steps // STEPS)]
    train = episodes_lib.select(data.train, kept)
    labels = [f"training episode {e}" for e in kept]
    labels += [f"held-out episode {e}" for e in range(len(data.val.ends))]
    learned = dataset.learned(config, train)
    padding = 1 - float(placed.table.mask.mean())
    spaces = build.representation(config)
    return Case(config, train, data.val, labels, learned, normalizer, spaces, len(placed), padding)


def _recorded(config, data) -> np.ndarray:
    """The ids of the training episodes that are no mirror images: of each set the first half."""
    last = [int(np.searchsorted(data.train.ends, row)) + 1 for row, _ in data.shares.values()]
    halves = 2 if config.data.mirror else 1
    return np.concatenate(
        [np.arange(a, a + (b - a) // halves) for a, b in zip([0, *last[:-1]], last)]
    )


def _refusal(config):
    """Why training would refuse the config, or ""."""
    try:
        checks.check(config)
    except UserError as error:
        return str(error)
    return ""


def _features(sets):
    """{path: Feature} of what all the data sets keep; readable where it is in all."""
    found = [reader.describe(directory) for directory in sets]
    fits = lambda path: all(other[path].readable for other in found)
    shared = [path for path in found[0] if all(path in other for other in found)]
    return {path: found[0][path]._replace(readable=fits(path)) for path in shared}


def _seen(config, features) -> ConfigDict:
    """The config without what cannot be read, without mirror images, bad episodes left out.

    Where its task lacks a column, all the others are observed as they are.
    """
    columns = dict(config.data.columns)
    if ACTION not in columns:
        raise UserError(
            f"config.data.columns has no {ACTION!r}: add {ACTION}=<path inside an RLDS step>."
        )
    if why := config_lib.why_unreadable(ACTION, columns[ACTION], features):
        raise UserError(f"{config.data.dir}: {why[0]}: {why[1]}.")
    bad = [
        name for name, path in columns.items() if config_lib.why_unreadable(name, path, features)
    ]
    seen = config.copy_and_resolve_references()
    with seen.unlocked():
        for name in bad:
            del seen.data.columns[name]
            if name in seen.cameras:
                del seen.cameras[name]
        seen.data.mirror = False
        if any(key not in seen.data.columns for key in tasks.get(config.task).columns):
            seen.task = "custom"
    return seen


def _read(config, directory, features, skipped):
    """Raw columns of one data set, its clocks, and the number [E] of each episode in it."""
    columns, bad = dict(config.data.columns), []
    clocks = {
        f"clock {path}": path
        for path, x in features.items()
        if path.split("/")[-1] in CLOCKS and x.readable and x.shape in ((), (1,))
    }

    def on_skip(episode, line):
        bad.append(episode)
        skipped.append(line)

    try:
        raw = rlds.read(
            directory,
            features={**columns, **clocks},
            split=config.data.split,
            on_bad="skip",
            memory=cameras.image_memory(config.data.memory),
            folder=config.data.spill or None,
            on_skip=on_skip,
        )
    except UserError as error:  # none was good: then the first fault says more
        raise UserError(skipped[-len(bad)] if bad else str(error)) from error
    times = {path: raw.columns.pop(name).reshape(-1) for name, path in clocks.items()}
    times = {path: raw._replace(columns={path: x}) for path, x in times.items()}
    return raw, times, np.setdiff1d(np.arange(len(raw.ends) + len(bad)), bad)


def _frames(train: Episodes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{camera: (rows [n], uint8 [n, 2, H, W, 3])}: frames and the next ones of their episodes."""
    first = np.setdiff1d(np.arange(train.ends[-1]), train.ends - 1)
    if not len(first):  # episodes of one step
        return {}
    rows = first[np.unique(np.linspace(0, len(first) - 1, FRAMES).astype(np.int64))]
    images = frames.split(train.columns)[1]
    return {name: (rows, x.read(np.stack([rows, rows + 1], 1))) for name, x in images.items()}
