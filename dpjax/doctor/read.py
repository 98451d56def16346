"""From a config, or from a directory alone, to what the rules see."""

from collections.abc import Mapping

from ml_collections import ConfigDict
import numpy as np

from dpjax import build, cameras, config_check, dataset, tasks
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames, loader, rlds, windows
from dpjax.data.episodes import Episodes
from dpjax.data.rlds_writer import FLAGS
from dpjax.doctor import rules_config
from dpjax.doctor.case import Case
from dpjax.errors import UserError
from dpjax.normalizer import Normalizer
from dpjax.policy import ACTION

FRAMES = 48  # of each camera that are looked at, evenly spread, and as many next ones
STEPS = 100_000  # that training looks at before it starts; of more, every k-th episode
CLOCKS = ("timestamp", "timestamps", "time")  # last parts of paths that keep times


def of_config(config: ConfigDict) -> Case:
    """Everything, read as training would read it; bad episodes are left out and remembered."""
    from configs import base  # not at the top: without configs/ dpjax is still a library

    config_check.check(config.to_dict(), base.get_config().to_dict())
    if not config.data.dir:
        raise UserError("config.data.dir is empty: give an RLDS directory (--config.data.dir=…).")
    features, skipped = rlds.describe(config.data.dir), []
    raw, clocks = _read(config, features, skipped)
    task = tasks.get(config.task)
    known = all(key in raw.columns for key in task.columns)
    see = (lambda part: dataset.see(task, part)) if known else _as_it_is
    return _case(config, raw, see, clocks, features, skipped, _refusal(config))


def of_directory(directory: str) -> Case:
    """A data set without a config: all that it has is observed, the rest is configs/base.py."""
    from configs import base

    config, features = base.get_config(), rlds.describe(directory)
    names = {path: path.split("/")[-1] for path in features}
    columns = {
        name if list(names.values()).count(name) == 1 else path.replace("/", "_"): path
        for path, name in names.items()
        if name not in (*FLAGS, *CLOCKS) and rules_config.readable(features[path])
    }
    config.data.dir, config.data.columns = str(directory), ConfigDict(columns)
    raw, clocks = _read(config, features, skipped := [])
    for name, column in frames.split(raw.columns)[1].items():
        config.cameras[name] = ConfigDict(dict(size=column.shape[1:3], resize=(), crop=()))
    return _case(config, raw, _as_it_is, clocks, features, skipped, "")


def of_training(
    config: ConfigDict, data: dataset.Data, normalizer: Normalizer, placed: loader.Windows
) -> Case:
    """What can be seen at the start of a training without reading anything again.

    At most STEPS steps, so that the start does not wait: of more, every k-th episode.
    """
    train, count = data.train, len(data.train.ends)
    if config.data.mirror:  # the mirror images are the second half
        count //= 2
    steps = int(train.ends[count - 1])
    train = episodes_lib.select(train, np.arange(0, count, -(-steps // STEPS)))
    padding = 1 - float(placed.table.mask.mean())
    return Case(config, train, data.val, normalizer, len(placed), padding)


def _refusal(config):
    """Why training would refuse the config, or ""."""
    try:
        build.check(config)
    except UserError as error:
        return str(error)
    return ""


def _read(config, features, skipped) -> tuple[Episodes, Mapping[str, np.ndarray]]:
    """The columns that can be read, and the clocks."""
    wanted = dict(config.data.columns)
    if ACTION not in wanted:
        raise UserError(
            f"config.data.columns has no {ACTION!r}: add {ACTION}=<path inside an RLDS step>."
        )
    fits = lambda path: rules_config.readable(features.get(path))
    columns = {key: path for key, path in wanted.items() if fits(path)}
    if ACTION not in columns:
        reason, remedy = rules_config.why_unreadable(ACTION, wanted[ACTION], features)
        raise UserError(f"{config.data.dir}: {reason}: {remedy}.")
    clocks = [
        path
        for path, (shape, dtype) in features.items()
        if path.split("/")[-1] in CLOCKS
        and np.issubdtype(dtype, np.floating)
        and shape in ((), (1,))
        and path not in columns.values()
    ]
    raw = rlds.read(
        config.data.dir,
        features={**columns, **{path: path for path in clocks}},
        split=config.data.split,
        on_bad="skip",
        memory=cameras.memory(config),
        folder=config.data.spill or None,
        tell=skipped.append,
    )
    times = {path: raw.columns.pop(path).reshape(-1) for path in clocks}
    return raw, times


def _as_it_is(raw: Episodes) -> Episodes:
    """All columns, as they were recorded."""
    return raw


def _case(config, raw, see, clocks, features, skipped, refusal) -> Case:
    """The case of raw episodes, split as for training."""
    fraction, seed = config.data.val_fraction, config.data.val_seed
    ids = episodes_lib.split(len(raw.ends), fraction, seed)
    kept = episodes_lib.select(raw._replace(columns={"": np.arange(raw.ends[-1])}), ids[0])
    train, val = (see(episodes_lib.select(raw, part)) for part in ids)
    horizon, rows = config.horizon, kept.columns[""]
    _, mask, _ = windows.window_rows(train.ends, horizon.predict, horizon.obs - 1, horizon.act - 1)
    return Case(
        config,
        train,
        val,
        dataset.normalizer(config, train),
        windows=len(mask) * (2 if config.data.mirror else 1),
        padding=1 - float(mask.mean()),
        refusal=refusal,
        features=features,
        skipped=skipped,
        clocks={path: times[rows] for path, times in clocks.items()},
        frames=_frames(train),
    )


def _frames(train: Episodes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{camera: (rows [n], uint8 [n, 2, H, W, 3])}: frames and the next ones of their episodes."""
    first = np.setdiff1d(np.arange(train.ends[-1]), train.ends - 1)
    rows = first[np.unique(np.linspace(0, len(first) - 1, FRAMES).astype(np.int64))]
    images = frames.split(train.columns)[1] if len(first) else {}
    return {name: (rows, x.read(np.stack([rows, rows + 1], 1))) for name, x in images.items()}
