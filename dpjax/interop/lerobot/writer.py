"""Writes dpjax's policies in LeRobot's layout, which `reader` reads.

LeRobot normalizes images by mean and standard deviation, and all else by min and max. These
statistics are chosen so that reading them again gives the same offset and scale in float32.
"""

from collections.abc import Iterable, Mapping
import logging
import math
from pathlib import Path
from typing import Any

from flax import traverse_util
import numpy as np
from safetensors.numpy import save_file

from dpjax.core.errors import UserError
from dpjax.interop import normalization, resnets, weight_map
from dpjax.interop.imported import Observations, SettingError, Settings, Units, name_of
from dpjax.interop.lerobot import documents, reader, tables
from dpjax.interop.lerobot import stats as stats_lib
from dpjax.interop.lerobot.stats import Features, Stats

FIXED = {  # settings that have one possible value in LeRobot's policy
    "denoiser": {"name": "unet1d"},
    "policy": {"condition": "features", "method": "diffusion"},
    "sampler": {"diffusers": "current", "eta": 0.0, "warm_start": 0.0, "agree": "none"},
    "representation": {"relative": ""},
}
FIXED_WITH_CAMERAS = {"encoder": {"pool": "spatial_softmax", "width": 64}}
# The variance to which BatchNorm adds its epsilon and gets exactly 1.
UNIT_VARIANCE = np.float32(1) - np.float32(resnets.EPSILON)
DOWNSCALING = 32  # pixels per cell of a ResNet's last feature maps, along each axis

log = logging.getLogger("dpjax")


def check(settings: Settings, observations: Observations, levels: np.ndarray) -> None:
    """Raises SettingError for what LeRobot's diffusion policy cannot express.

    settings: all groups, in the form of `ImportedPolicy.settings`. levels: the noise levels that
    the sampler visits.
    """
    cameras = {key: size for key, size in observations.items() if isinstance(size, tuple)}
    # Settings that must have one value.
    for fixed in (FIXED, FIXED_WITH_CAMERAS if cameras else {}):
        for group, values in fixed.items():
            for name, value in values.items():
                if settings[group][name] != value:
                    raise _cannot((group, name), settings[group][name], repr(value))
    # Settings that must have one of a few values.
    for (group, name), table in documents.CHOICES.items():
        if settings[group][name] not in table.values():
            expected = " or ".join(map(repr, table.values()))
            raise _cannot((group, name), settings[group][name], expected)
    # LeRobot cannot convert rotations between the data's form and the network's.
    if layouts := settings["representation"]["layouts"]:
        key, layout = next(iter(layouts.items()))
        raise _cannot(("representation", f"layouts.{key}"), layout, "no rotations in 6-D")

    # The sampling steps must be those of diffusers' "leading" spacing: 0, d, 2d, … backwards.
    num_levels = settings["schedule"]["num_levels"]
    # [S], from the noisiest level to level 0.
    leading = np.arange(len(levels))[::-1] * (num_levels // len(levels))
    if not np.array_equal(levels, leading):
        spacing = settings["sampler"]["spacing"]
        raise _cannot(("sampler", "spacing"), spacing, "'leading', always")
    # LeRobot requires a state, and beside it a camera or an environment's state.
    if len(cameras) == len(observations) or len(observations) < 2:
        raise UserError(
            f"observations {', '.join(observations)}: LeRobot's diffusion policy observes a state, "
            "and a camera or an environment's state: expected two observations, one of numbers.",
            argument="observations",
        )
    if cameras:
        check_cameras(settings, cameras)


def check_cameras(settings: Settings, sizes: Mapping[str, tuple]) -> None:
    """Raises SettingError for cameras that LeRobot's encoders cannot express."""
    # LeRobot does not resize as dpjax does, and has one size and one crop for all cameras.
    seen = set()
    for key, size in sizes.items():
        view = settings["cameras"].get(key, {})
        if resize := tuple(view.get("resize") or ()):
            raise _cannot(("cameras", f"{key}.resize"), resize, "(): it resizes otherwise")
        seen.add((tuple(size), tuple(view.get("crop") or ())))
    if len(seen) > 1:
        raise _cannot(("cameras", ""), sorted(seen), "cameras of one size and one crop")
    # LeRobot's last layer has two outputs per keypoint.
    encoder = settings["encoder"]
    if encoder["features"] != 2 * encoder["keypoints"]:
        expected = "twice the number of keypoints"
        raise _cannot(("encoder", "features"), encoder["features"], expected)


def _cannot(setting: tuple[str, str], value: Any, expected: str) -> SettingError:
    return SettingError(
        f"{name_of(*setting)}={value!r}: LeRobot's diffusion policy can't express that; expected "
        f"{expected}.",
        [setting],
    )


def features_of(
    observations: Observations, action_size: int
) -> tuple[Features, dict[str, list[str]]]:
    """({feature: (type, shape)} in LeRobot's order, {feature of numbers: our keys in it}).

    With cameras, the state holds all numbers. Without cameras, the first key becomes the state,
    and the others become the environment's state.
    """
    cameras = {key: size for key, size in observations.items() if isinstance(size, tuple)}
    numbers = [key for key in observations if key not in cameras]
    # Which of our keys each feature of numbers holds, one after the other.
    parts = {"observation.state": numbers if cameras else numbers[:1]}
    if not cameras:
        parts["observation.environment_state"] = numbers[1:]
    size = lambda keys: (sum(observations[key] for key in keys),)
    # Inserted in LeRobot's order: state, cameras, environment's state, action.
    features = {"observation.state": ("STATE", size(parts["observation.state"]))}
    for key, (height, width, channels) in cameras.items():
        name = "observation.image" if key == "image" else f"observation.images.{key}"
        features[name] = ("VISUAL", (channels, height, width))
    if not cameras:
        features["observation.environment_state"] = ("ENV", size(numbers[1:]))
    return {**features, "action": ("ACTION", (action_size,))}, parts


def tensors_of(settings: Settings, features: Features, params: Mapping) -> dict[str, np.ndarray]:
    """The content of model.safetensors: our weights by LeRobot's names, and its buffers."""
    # The same weight tables as in `reader`, applied the other way round.
    shared = settings["encoder"]["shared"]
    count = tables.encoder_count(features, shared)
    order = tables.order_of(features, settings)
    table_of = {
        "encoder": lambda shapes: tables.encoder_table(count, shared, shapes),
        "denoiser": lambda shapes: tables.denoiser_table(order, shapes),
    }
    tensors = {}
    # The weights. Without cameras, the encoder has no leaves.
    for item, table in table_of.items():
        leaves = traverse_util.flatten_dict(params[item])
        leaves = {path: np.asarray(leaf) for path, leaf in leaves.items()}
        shapes = {path: leaf.shape for path, leaf in leaves.items()}
        if leaves:
            tensors.update(weight_map.tensors_from(table(shapes), leaves))

    # The buffers of LeRobot's modules. Its strict loading requires them in the file.
    sizes = [shape[1:] for feature_type, shape in features.values() if feature_type == "VISUAL"]
    for i in range(count):
        # The grid covers the crop, if there is one, because the ResNet sees only that.
        crop = next(iter(settings["cameras"].values())).get("crop") or ()
        grid = pixel_grid(tuple(crop) or sizes[i])
        tensors[f"{tables.encoder_name(i, shared)}.pool{reader.PIXEL_GRID}"] = grid
    if settings["encoder"]["norm"] == "frozen":
        tensors.update(batch_norm_statistics(tensors))
    return tensors


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """Coordinates (x, y) in [-1, 1] of the last feature maps' cells, row by row: [H W, 2]."""
    # Computed in float64 and rounded once, which gives the numbers of LeRobot's buffer.
    height, width = (math.ceil(x / DOWNSCALING) for x in size)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    return np.stack([x.reshape(-1), y.reshape(-1)], axis=-1).astype(np.float32)


def batch_norm_statistics(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of mean 0 and variance 1, with which a BatchNorm applies its scale and bias only.

    Our frozen norms have their statistics folded in, and folding these changes no number.
    """
    assert np.sqrt(UNIT_VARIANCE + np.float32(resnets.EPSILON)) == 1
    statistics = {}
    for name, x in tensors.items():
        # In the backbone, the norms have a bias and the convolutions have none.
        layer, _, part = name.rpartition(".")
        if ".backbone." in name and part == "bias":
            statistics[f"{layer}.running_mean"] = np.zeros_like(x)
            statistics[f"{layer}.running_var"] = np.full_like(x, UNIT_VARIANCE)
            statistics[f"{layer}{reader.COUNT}"] = np.array(0, np.int64)
    return statistics


def stats_of(features: Features, parts: Mapping[str, Iterable[str]], units: Units) -> Stats:
    """{"<feature>.<statistic>": numbers}, computed from our offsets and scales.

    Logs a warning for dimensions whose offset and scale will not be the same to the last bit
    when the statistics are read again.
    """
    stats = {}
    for feature, (feature_type, shape) in features.items():
        # A feature of numbers joins several of our observations; a camera's feature is one.
        keys = parts.get(feature, [stats_lib.our_name(feature)])
        # Vectors [D], since one table of statistics covers the feature.
        offset = np.concatenate([np.asarray(units[key][0]) for key in keys])
        scale = np.concatenate([np.asarray(units[key][1]) for key in keys])
        # min < max cannot express a negative scale, which mirrors a dimension. A constant dimension
        # of the action has the scale 0: min = max, from which LeRobot restores the constant.
        if not ((scale > 0) | ((scale == 0) & (feature_type == "ACTION"))).all():
            raise UserError(f"normalizer: {feature}: expected scales above 0, got {scale.min()}.")
        if feature_type == "VISUAL":
            names = ("mean", "std")
            *values, inexact = normalization.moments(offset, scale)
            size = (shape[0], 1, 1)  # one number per channel
        else:
            names = ("min", "max")
            *values, inexact = normalization.limits(offset, scale)
            size = shape
        # In LeRobot's shapes: [C, 1, 1] for images, [D] for numbers.
        for name, x in zip(names, values):
            stats[f"{feature}.{name}"] = np.ascontiguousarray(x.reshape(size))
        if inexact:
            log.warning(
                "%s%s: no float32 limits give back these units to the last bit", feature, inexact
            )
    return stats


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors file, marked as torch's, which LeRobot asks for."""
    # safetensors writes an array's memory as it is and ignores its strides.
    arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    save_file(arrays, path, {"format": "pt"})
