"""Initial weights from another run (config.train.init_from).

The training starts from the averaged weights of that run. It also keeps its normalizer, since the
network learned in those units. So the units of the new data are not used, which is logged as a
warning. A second warning names new actions that the sampler cannot reach in the old units.
"""

from collections.abc import Mapping
import logging

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax.config.keys import flatten
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer, to_network
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Params
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

# Keys and sections that change the meaning of the weights. A difference may leave all shapes the
# same, so it would not be noticed otherwise.
SEMANTIC = (
    *("predict", "schedule", "method", "condition", "denoiser", "encoder"),
    *("representation", "cameras"),
)
MAX_LEAVES = 20  # an error names at most so many leaves
TOLERANCE = 1.001  # for rounding: in the old data the largest action is exactly at the bound

log = logging.getLogger("dpjax")


def initial_params(
    config: ConfigDict, spec: Spec, shapes: Params, columns: Mapping[str, np.ndarray]
) -> Params:
    """The params (averaged weights and normalizer) of the run config.train.init_from.

    spec: the sizes of the new data.
    shapes: the shapes of the params of the new policy.
    columns: {name: [N, …]} of the new data.
    Raises UserError if the params do not fit. Logs a warning if they fit but mean something else.
    """
    # 1. Pretrained weights of the encoders would be lost.
    source = config.train.init_from
    if config.encoder.weights and config.cameras:
        raise UserError(
            f"config.train.init_from={source!r} and config.encoder.weights="
            f"{config.encoder.weights!r} both name the encoders' weights: give one."
        )
    # 2. What must fit: the observations, the actions, and the shape of each leaf.
    source_config, source_spec = read_config(source)
    check_observations(source, source_spec, spec)
    params, step = checkpoint.load_params(source, which="ema")
    check_leaves(source, params, shapes)
    log.warning(
        "starting from step %d of %s: its averaged weights, and its units instead of those "
        "of the new data (config.train.init_from)",
        step,
        source,
    )
    # 3. What may differ, but changes the meaning of the weights.
    warnings = differences(source_config, config)
    representation = config.representation
    if not (representation.layouts or representation.relative):
        # Only for the plain representation: in another one the network does not see the columns.
        warnings += unreachable(params["normalizer"], columns, config.sampler.clip)
    for text in warnings:
        log.warning("%s: %s", source, text)
    return params


def check_observations(source: str, old: Spec, new: Spec) -> None:
    """Raises UserError if observations (with their order) or actions differ from the source's."""
    # Lists, because dicts with another order are equal. The encoder joins features in this order.
    for what, expected, got in (
        ("observations", list(old.observations.items()), list(new.observations.items())),
        ("action", old.action, new.action),
    ):
        if expected != got:
            raise UserError(
                f"config.train.init_from={source!r}: {what}: expected {expected}, as in that run, "
                f"got {got}: change config.data.columns, or start from another run."
            )


def check_leaves(source: str, params: Params, shapes: Params) -> None:
    """Raises UserError, with names, if leaves are missing, left over or have another shape."""
    # {name: shape} of the source, and of the new policy.
    old = _shapes(params)
    new = _shapes(shapes)
    names = sorted({*old, *new})
    wrong = [
        f"{name}: {old.get(name, 'none')} there, {new.get(name, 'none')} in this config"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if wrong:
        more = f"; and {len(wrong) - MAX_LEAVES} more" if len(wrong) > MAX_LEAVES else ""
        raise UserError(
            f"config.train.init_from={source!r}: {len(wrong)} of {len(names)} leaves do "
            f"not fit: {'; '.join(wrong[:MAX_LEAVES])}{more}."
        )


def _shapes(tree: Params) -> dict[str, tuple[int, ...]]:
    """{"denoiser/block/kernel": shape} of all leaves."""
    # Works for arrays and for ShapeDtypeStructs: np.shape reads the attribute `shape`.
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf))
        for path, leaf in leaves
    }


def differences(source: ConfigDict, config: ConfigDict) -> list[str]:
    """A warning for each key of SEMANTIC whose value differs from the source's config."""
    # A section in SEMANTIC stands for all of its keys.
    old = flatten(source.to_dict())
    new = flatten(config.to_dict())
    return [
        f"config.{path} was {old.get(path)!r} there and is {new.get(path)!r} now"
        for path in sorted({*old, *new})
        if path.split(".")[0] in SEMANTIC and old.get(path) != new.get(path)
    ]


def unreachable(
    normalizer: Normalizer, columns: Mapping[str, np.ndarray], clip: float
) -> list[str]:
    """A warning for each action dim whose values in the new data exceed the sampler's bound.

    normalizer: the normalizer of the source.
    columns: {name: [N, …]} of the new data.
    clip: config.sampler.clip.
    """
    offset, scale = (np.asarray(part[ACTION]) for part in (normalizer.offset, normalizer.scale))
    # The sampler clips x_0 to [-clip, clip], in network units.
    largest = np.abs(to_network(columns[ACTION], offset, scale)).max(0)  # [Da]
    lines = [
        f"action[{dim}] of the new data reaches {largest[dim]:.2f} in the units that the weights "
        f"came with, beyond config.sampler.clip={clip:g}: raise it, or the sampler can't get there"
        for dim in np.flatnonzero(largest > TOLERANCE * clip)
    ]
    # A dim with scale 0 was constant in the data of the source, and comes back as that constant.
    moved = np.abs(columns[ACTION] - offset).max(0) > (TOLERANCE - 1) * np.abs(offset)
    lines += [
        f"action[{dim}] was {offset[dim]:g} in all data of that run, and is never anything else: "
        "the new data moves it"
        for dim in np.flatnonzero((scale == 0) & moved)
    ]
    return lines
