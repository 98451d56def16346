"""How a config normalizes each column: the one place that decides it.

Training, its refusals and warnings, the check of the data and the exports all ask here. A column's
own mode in config.normalize.per_key comes before that of all images, observations or actions.
"""

from collections.abc import Iterable, Mapping
import logging

from ml_collections import ConfigDict
import numpy as np

from dpjax.config.arguments import names_keys
from dpjax.core import normalizer as normalizers
from dpjax.core import scaling
from dpjax.core.errors import UserError, choices
from dpjax.core.normalizer import Normalizer
from dpjax.core.scaling import Scaling
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION
from dpjax.inference.trained_range import FAR, Range
from dpjax.policies import representations
from dpjax.policies.representations import Representation

# Standard deviations beyond which an observation is far: three are common in training data.
GAUSSIAN_FAR = 10.0

log = logging.getLogger("dpjax")


def mode(config: ConfigDict, key: str) -> str:
    """The mode that normalizes a column, such as "limits"; for a camera one of IMAGE_MODES."""
    section = config.normalize
    return section.per_key.get(key) or section[_default_key(config, key)]


def deciding_key(config: ConfigDict, key: str) -> str:
    """The config key to change a column's mode with.

    For an observation that is its own entry of per_key, so that the others keep their mode.
    """
    name = _default_key(config, key)
    if key in config.normalize.per_key or name == "obs":
        name = f"per_key.{key}"
    return f"config.normalize.{name}"


def _default_key(config: ConfigDict, key: str) -> str:
    """The key of config.normalize that holds for a column without a mode of its own."""
    return "image" if key in config.cameras else "action" if key == ACTION else "obs"


def check(config: ConfigDict) -> None:
    """Raises UserError for unknown modes, or a sampler's bound that cuts actions off."""
    for key, value in config.normalize.per_key.items():
        allowed = normalizers.IMAGE_MODES if key in config.cameras else normalizers.MODES
        if value not in allowed:
            raise UserError(
                f"config.normalize.per_key.{key}={value!r} is unknown; {choices(value, allowed)}."
            )
    # The sampler's bound is in network units: a clip of 1 is the full range of the data for the
    # mode "limits", but only one standard deviation for "gaussian".
    clip = config.sampler.clip
    if mode(config, ACTION) == "gaussian" and np.isfinite(clip):
        raise UserError(
            f"{deciding_key(config, ACTION)}='gaussian' with config.sampler.clip={clip} would cut "
            f"actions beyond {clip} standard deviations: use 'limits', or config.sampler.clip=inf."
        )


def check_columns(config: ConfigDict, columns: Iterable[str]) -> None:
    """Raises UserError if config.normalize.per_key names a column that the data lacks."""
    columns = list(columns)
    for key in config.normalize.per_key:
        if key not in columns:
            raise UserError(
                f"config.normalize.per_key.{key}: no such key; the data has {', '.join(columns)}."
            )


@names_keys()
def fit(
    config: ConfigDict,
    representation: Representation,
    sizes: Mapping[str, int],
    columns: Mapping[str, np.ndarray],
) -> Normalizer:
    """The normalizer of the columns that the network learns. Dims that hardly move are logged.

    sizes: {column: D} in the data, before its rotations became 6-D.
    columns: {column: [M, D']} in the learned representation, not normalized.
    """
    check_columns(config, columns)
    section = config.normalize
    return normalizers.fit(
        columns,
        {key: mode(config, key) for key in columns},
        quantile=section.quantile,
        min_range=section.min_range,
        fixed=rotations(representation, sizes),
        # `fit` names its argument; here the config key is known.
        warn=lambda line: log.warning(line.replace("min_range=", "config.normalize.min_range=")),
    )


def rotations(representation: Representation, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """{column: bool [D']}: dims of 6-D rotations, which are in [-1, 1] and keep their units."""
    return {
        key: representations.rotation_dims(representation, key, size)
        for key, size in sizes.items()
        if key in representation.layouts
    }


def trained_ranges(
    config: ConfigDict, normalizer: Normalizer, spec: Spec, representation: Representation
) -> dict[str, Range]:
    """{observation: Range}: beyond it, a number is far outside of the training data.

    Rotations have no limits, since they are normalized as 6-D. Cameras, and observations that are
    not normalized, have no Range.
    """
    ranges = {}
    for key, size in spec.numbers.items():
        if mode(config, key) == "identity":
            continue
        units = GAUSSIAN_FAR if mode(config, key) == "gaussian" else FAR
        # The plain dims [D] of the data, in the order of the plain ones [D'] of the network.
        parts = representations.parts_of(representation, key, size)
        plain = np.repeat([not part.form for part in parts], [part.size for part in parts])
        learned = ~representations.rotation_dims(representation, key, size)
        offset = np.asarray(normalizer.offset[key], np.float32)[learned]
        margin = units * np.abs(np.asarray(normalizer.scale[key], np.float32)[learned])
        low = np.full(size, -np.inf, np.float32)
        high = np.full(size, np.inf, np.float32)
        low[plain] = offset - margin
        high[plain] = offset + margin
        ranges[key] = Range(low, high)
    return ranges


def measure(
    config: ConfigDict, key: str, x: np.ndarray, fixed: np.ndarray | None = None
) -> Scaling:
    """How `fit` scales one column [M, D'], and which dims are constant or move little.

    fixed: bool [D'], its dims of rotations.
    """
    section = config.normalize
    return scaling.measure(
        x,
        mode(config, key),
        is_action=key == ACTION,
        quantile=section.quantile,
        min_range=section.min_range,
        fixed=fixed,
    )
