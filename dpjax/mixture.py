"""Mixtures: config.data.dir="a,b" trains on both, config.data.weights="2,1" says how much."""

import math
from pathlib import Path

from ml_collections import ConfigDict
import numpy as np

from dpjax.data import episodes as episodes_lib
from dpjax.data import frames, pools
from dpjax.data.episodes import Episodes
from dpjax.errors import UserError

Shares = dict[str, tuple[int, float | None]]


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


def join(parts: dict, sets: dict, limit: int, folder: str) -> tuple[Episodes, Episodes, Shares]:
    """The (train, val) of all sets end to end, and each set's part in train.

    limit, folder: of the images (`frames.Store`).
    """
    if len(parts) > 1:
        _check(parts)
        parts = _over_one_store(parts, limit, folder or None)
    train, val = zip(*parts.values())
    ends = np.cumsum([part.ends[-1] for part in train])
    shares = {name: (int(end), sets[name]) for name, end in zip(parts, ends)}
    return _chain(train), _chain(val), shares


def _chain(parts):
    """Episodes end to end, under all their sources' names."""
    whole = parts[0]
    for part in parts[1:]:
        whole = episodes_lib.join(whole, part)
    return whole._replace(source=",".join(part.source for part in parts))


def _check(parts):
    """Refuses sets whose columns differ."""
    first, *others = parts
    describe = lambda name: {key: x.shape[1:] for key, x in parts[name][0].columns.items()}
    for name in others:
        for key, shape in describe(first).items():
            if describe(name)[key] != shape:
                raise UserError(
                    f"{name}: {key}: expected {list(shape)} a step as in {first}, got "
                    f"{list(describe(name)[key])}: sets of one mixture have the same columns."
                )


def _over_one_store(parts, limit, folder):
    """The parts with the images of each camera in one array of pixels."""
    flat = [part for pair in parts.values() for part in pair]
    cameras = frames.split(flat[0].columns)[1]
    for key in cameras:
        merged = frames.merge([part.columns[key] for part in flat], limit // len(cameras), folder)
        flat = [
            part._replace(columns={**part.columns, key: column})
            for part, column in zip(flat, merged)
        ]
    return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(parts)}


def windows(rows: np.ndarray, shares: Shares) -> pools.Pools | None:
    """How the windows rows [W, Tp] are drawn; None: each as often as any other."""
    ends, given = zip(*shares.values())
    if None in given:
        return None
    which = np.searchsorted(ends, rows[:, 0], side="right")  # the set of each window
    return pools.pools(tuple(np.bincount(which, minlength=len(ends))), given)
