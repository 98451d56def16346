"""config.train.init_from: a training whose weights start as those of another run.

They are its averaged weights, together with its normalizer: the network learned in those units. So
the units of the new data are not used. A warning tells so, and another one tells which new actions
lie beyond what the sampler can reach in the old units.
"""

from collections.abc import Mapping
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

# Keys that change what the weights mean, although no leaf has another shape.
SEMANTIC = (
    *("predict", "schedule", "method", "condition", "denoiser", "encoder"),
    *("representation", "cameras"),
)
MAX_LEAVES = 20  # leaves that an error names
TOLERANCE = 1.001  # of the sampler's bound, for rounding

log = logging.getLogger("dpjax")


def initial_params(
    config: ConfigDict, spec: Spec, shapes: Params, columns: Mapping[str, np.ndarray]
) -> Params:
    """The averaged weights and the normalizer of the run config.train.init_from.

    spec, columns: of the new data, [N, …]. shapes: of the params of the new run's policy.
    Raises UserError where they do not fit; what fits but has another meaning is logged.
    """
    # Only one of the two can give the encoders their weights.
    source = config.train.init_from
    if config.encoder.weights and config.cameras:
        raise UserError(
            f"config.train.init_from={source!r} and config.encoder.weights="
            f"{config.encoder.weights!r} both name the encoders' weights: give one."
        )
    # What must fit: the observations, the actions, and each leaf of the parameters.
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
    # What may differ, but changes what the weights mean.
    warnings = differences(source_config, config)
    representation = config.representation
    if not (representation.layouts or representation.relative):
        # With another representation the columns are not what the network sees.
        warnings += unreachable(params["normalizer"], columns, config.sampler.clip)
    for text in warnings:
        log.warning("%s: %s", source, text)
    return params


def check_observations(source: str, old: Spec, new: Spec) -> None:
    """Refuses data with other observations or actions than the source's, or in another order."""
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
    """Refuses weights of which a leaf is missing, left over or of another shape, by name."""
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
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf))
        for path, leaf in leaves
    }


def differences(source: ConfigDict, config: ConfigDict) -> list[str]:
    """A warning for each key of SEMANTIC that has another value in the source's config."""
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
    """A warning for each dim of the new actions that reaches beyond the sampler's bound.

    normalizer: of the source. columns: {name: [N, …]} of the new data. clip: config.sampler.clip.
    """
    offset, scale = (np.asarray(part[ACTION]) for part in (normalizer.offset, normalizer.scale))
    # In network units the sampler's x_0 lies in [-clip, clip].
    largest = np.abs((columns[ACTION] - offset) / scale).max(0)  # [Da]
    return [
        f"action[{dim}] of the new data reaches {largest[dim]:.2f} in the units that the weights "
        f"came with, beyond config.sampler.clip={clip:g}: raise it, or the sampler can't get there"
        for dim in np.flatnonzero(largest > TOLERANCE * clip)
    ]
