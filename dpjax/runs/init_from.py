"""config.train.init_from: a training that starts with the weights of a run.

They are its averaged weights, and its units with them: what the network learned is in
those. So the new data's own units are not used, which is said, and so is what the sampler
could not reach in the old ones.
"""

from collections.abc import Callable, Mapping
import logging

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax.config.keys import flatten
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Params
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

# Keys that say how the weights are meant, and that no leaf's shape shows.
MEANT = (
    "predict",
    "schedule",
    "method",
    "condition",
    "denoiser",
    "encoder",
    "representation",
    "cameras",
)
SHOWN = 20  # names of leaves in an error

log = logging.getLogger("dpjax")


def initial_params(
    config: ConfigDict,
    spec: Spec,
    workdir,
    like: Callable[[], Params],
    columns: Mapping[str, np.ndarray],
) -> Params | None:
    """The params that a new run begins with, or None where the config names none.

    like: () -> params of the run's own policy, as shapes. columns: what it is trained on. A run
    that has checkpoints goes on with them, and the run that it began with is not looked at.
    """
    source = config.train.init_from
    if not source or checkpoint.steps(workdir):
        return None
    if config.encoder.weights and config.cameras:
        raise UserError(
            f"config.train.init_from={source!r} and config.encoder.weights="
            f"{config.encoder.weights!r} both name the encoders' weights: give one."
        )
    began, began_spec = read_config(source)
    check_observations(source, began_spec, spec)
    params, step = checkpoint.load_params(source, which="ema")
    check_leaves(source, params, like())
    log.warning(
        "beginning with step %d of %s: its averaged weights, and its units in the place of those "
        "of the new data (config.train.init_from)",
        *(step, source),
    )
    said = differences(began, config)
    if not (
        config.representation.layouts or config.representation.relative
    ):  # else they are not the columns
        said += unreached(params["normalizer"], columns, config.sampler.clip)
    for text in said:
        log.warning("%s: %s", source, text)
    return params


def check_observations(source: str, began: Spec, spec: Spec) -> None:
    """Refuses data with other observations or actions, or in another order."""
    for what, old, new in (
        ("observations", list(began.observations.items()), list(spec.observations.items())),
        ("action", began.action, spec.action),
    ):
        if old != new:
            raise UserError(
                f"config.train.init_from={source!r}: {what}: expected {old}, as in that run, got "
                f"{new}: change config.data.columns, or begin with another run."
            )


def check_leaves(source: str, params: Params, like: Params) -> None:
    """Refuses weights of which a leaf is missing, left over or of another shape, by name."""
    shapes = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    there, here = shapes(params), shapes(like)
    wrong = [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} in this config"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"config.train.init_from={source!r}: {len(wrong)} of {len({*there, *here})} leaves do "
            f"not fit: {'; '.join(wrong[:SHOWN])}{more}."
        )


def differences(began: ConfigDict, config: ConfigDict) -> list[str]:
    """Lines on the keys of MEANT that are not those of the run that it begins with."""
    old, new = flatten(began.to_dict()), flatten(config.to_dict())
    return [
        f"config.{key} was {old.get(key)!r} there and is {new.get(key)!r} now"
        for key in sorted({*old, *new})
        if key.split(".")[0] in MEANT and old.get(key) != new.get(key)
    ]


def unreached(normalizer: Normalizer, columns: Mapping[str, np.ndarray], clip: float) -> list[str]:
    """Lines on the dims of the new actions that lie beyond what the sampler may predict."""
    actions = (columns[ACTION] - np.asarray(normalizer.offset[ACTION])) / np.asarray(
        normalizer.scale[ACTION]
    )
    largest = np.abs(actions).max(0)
    return [
        f"action[{dim}] of the new data reaches {largest[dim]:.2f} in the units that the weights "
        f"came with, beyond config.sampler.clip={clip:g}: raise it, or the sampler can't get there"
        for dim in np.flatnonzero(largest > 1.001 * clip)
    ]
