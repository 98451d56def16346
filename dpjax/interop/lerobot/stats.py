"""Reads LeRobot's statistics and converts them to offset and scale.

since 0.4   policy_preprocessor.json and policy_postprocessor.json; their steps name files with
            tensors <feature>.<statistic>
before      model.safetensors, as tensors normalize_inputs.buffer_<feature>.<statistic>, with _
            for every dot in the feature's name
"""

from collections.abc import Mapping
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.unread import warn_unread
from dpjax.interop import normalization, unknown
from dpjax.interop.imported import (
    Observations,
    Units,
    choose,
    refuse,
    split_numbers,
    split_units,
)
from dpjax.interop.lerobot.files import read_json, read_safetensors

INPUTS = "policy_preprocessor.json"
OUTPUTS = "policy_postprocessor.json"
NORMALIZER = "normalizer_processor"
UNNORMALIZER = "unnormalizer_processor"
# {step of a processor that dpjax accepts: its options}; only the last two change numbers.
NORMALIZING = ("eps", "features", "norm_map", "normalize_observation_keys")
STEPS = {
    "rename_observations_processor": ("rename_map",),
    "to_batch_processor": (),
    "device_processor": ("device", "float_dtype"),
    NORMALIZER: NORMALIZING,
    UNNORMALIZER: NORMALIZING,
}
STEP_KEYS = ("registry_name", "class", "config", "state_file")
# The ways to normalize that `normalization.from_lerobot` can convert.
MODES = ("IDENTITY", "MEAN_STD", *normalization.RANGES)
Features = Mapping[str, tuple[str, tuple[int, ...]]]  # {feature: (type, shape)}
Stats = Mapping[str, np.ndarray]  # {"<feature>.<statistic>": numbers}

log = logging.getLogger("dpjax")


class Normalization(NamedTuple):
    """How a policy normalizes.

    modes: {feature type: one of MODES}. inputs: statistics that normalize the observations.
    outputs: statistics that unnormalize the action.
    """

    modes: Mapping[str, str]
    inputs: Stats
    outputs: Stats


def read(folder: Path, entries: Mapping, features: Features, buffers: Stats) -> Normalization:
    """The normalization of the policy in a folder.

    entries: config.json. buffers: the statistics in model.safetensors, of versions before 0.4.
    """
    # Since version 0.4 there are two processors, which must agree on the action.
    if (folder / INPUTS).exists() or (folder / OUTPUTS).exists():
        modes, inputs = _read_processor(folder / INPUTS, NORMALIZER)
        output_modes, outputs = _read_processor(folder / OUTPUTS, UNNORMALIZER)
        source = str(folder / OUTPUTS)
        if modes.get("ACTION") != output_modes.get("ACTION"):
            key = "norm_map.ACTION"
            raise refuse(source, key, modes.get("ACTION"), output_modes.get("ACTION"))
        _check_same(source, inputs, outputs)
        reason = f"{INPUTS} and {OUTPUTS} have the statistics that count"
        warn_unread(str(folder), list(buffers), reason)
        return Normalization(modes, inputs, outputs)
    # Before version 0.4 the modes are in config.json, and the statistics among the weights.
    if not buffers:
        raise refuse(str(folder), INPUTS, "the file, or statistics in model.safetensors", "neither")
    source = str(folder / "config.json")
    modes = _modes(source, "normalization_mapping", entries.get("normalization_mapping"))
    return Normalization(modes, *_from_buffers(source, features, buffers))


def _from_buffers(source: str, features: Features, buffers: Stats) -> tuple[Stats, Stats]:
    """(statistics of the observations, statistics of the action), from model.safetensors."""
    # The modules of an old policy that have statistics.
    parts = {"normalize_inputs": {}, "normalize_targets": {}, "unnormalize_outputs": {}}
    # The name of a torch buffer cannot contain dots, so LeRobot replaces them by _.
    names = {f"buffer_{feature.replace('.', '_')}": feature for feature in features}
    for key, x in buffers.items():
        # Three parts: the pattern `reader.STATISTICS` has matched the key.
        part, buffer, statistic = key.split(".")
        if buffer not in names:
            raise refuse(source, key, "statistics of its features", buffer)
        parts[part][f"{names[buffer]}.{statistic}"] = x
    _check_same(source, parts["normalize_targets"], parts["unnormalize_outputs"])
    return parts["normalize_inputs"], parts["unnormalize_outputs"]


def _check_same(source: str, normalizing: Stats, restoring: Stats) -> None:
    """Raises UserError if the action is normalized and unnormalized with different numbers."""
    for key, x in restoring.items():
        # Observations are never unnormalized, so only the action is compared.
        if not key.startswith("action.") or key not in normalizing:
            continue
        if not np.array_equal(normalizing[key], x):
            raise refuse(source, key, "the numbers that it is normalized with", "others")


def _modes(source: str, key: str, mapping: Any) -> dict[str, str]:
    """{feature type: mode}, checked: every mode is one of MODES."""
    if not isinstance(mapping, Mapping):
        raise refuse(source, key, "{feature type: mode}", mapping)
    allowed = {mode: mode for mode in MODES}
    return {
        feature_type: choose(source, f"{key}.{feature_type}", mode, allowed)
        for feature_type, mode in mapping.items()
    }


def _read_processor(path: Path, wanted: str) -> tuple[dict[str, str], Stats]:
    """(modes, statistics) of the step named `wanted`, the only one of a processor."""
    source = str(path)
    content = read_json(path)
    unknown.check(source, content, ("name", "steps"))
    steps = content.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise refuse(source, "steps", "a list of steps", steps)
    # Every step is checked, because an unknown step could change the numbers.
    matches = []
    for i, step in enumerate(steps):
        _check_step(source, f"steps.{i}", step)
        if step.get("registry_name") == wanted:
            matches.append((f"steps.{i}", step))
    if len(matches) != 1:
        raise refuse(source, "steps", f"one {wanted}", len(matches))

    # The options of that step. dpjax has LeRobot's defaults only.
    where, step = matches[0]
    entries = step.get("config") or {}
    eps = entries.get("eps", normalization.EPSILON)
    choose(source, f"{where}.config.eps", eps, {normalization.EPSILON: None})
    if (keys := entries.get("normalize_observation_keys")) is not None:
        key = f"{where}.config.normalize_observation_keys"
        raise refuse(source, key, "none: all are normalized", keys)
    modes = _modes(source, f"{where}.config.norm_map", entries.get("norm_map"))
    # The statistics are in a separate file beside the JSON.
    name = step.get("state_file")
    # A path could lead out of the folder.
    if not isinstance(name, str) or Path(name).name != name:
        raise refuse(source, f"{where}.state_file", "the name of a file beside it", name)
    return modes, read_safetensors(path.parent / name)


def _check_step(source: str, where: str, step: Mapping) -> None:
    """Raises UserError for unknown steps and options, and for steps that change observations."""
    name = step.get("registry_name")
    choose(source, f"{where}.registry_name", name, dict.fromkeys(STEPS))
    unknown.check(source, step, STEP_KEYS, where=where)
    entries = step.get("config") or {}
    if not isinstance(entries, Mapping):
        raise refuse(source, f"{where}.config", "a JSON object", entries)
    # A renamed or rounded observation is another one.
    neutral = {"rename_map": ({},), "float_dtype": ("float32",)}
    neutral = {key: values for key, values in neutral.items() if key in STEPS[name]}
    unknown.check(source, entries, STEPS[name], neutral, where=f"{where}.config")


def units_of(
    folder: Path,
    features: Features,
    normalizers: Normalization,
    names: Mapping[str, int] | None,
) -> tuple[Observations, Units]:
    """(observations in our order, normalization of each of them and of the action).

    names: the user's {observation: size} of the numbers; None for LeRobot's names. Logs a warning
    for every constant dimension.
    """
    # {LeRobot's feature: (offset, scale)}.
    by_feature = {
        feature: _feature_units(str(folder), feature, *description, normalizers)
        for feature, description in features.items()
    }
    numbers = [f for f, (feature_type, _) in features.items() if feature_type in ("STATE", "ENV")]
    # All numbers as one vector, which the user may divide otherwise than LeRobot does.
    parts = [by_feature[feature] for feature in numbers]
    offset = np.concatenate([np.zeros(0, np.float32), *(offset for offset, _ in parts)])
    scale = np.concatenate([np.zeros(0, np.float32), *(scale for _, scale in parts)])
    # By default, each of LeRobot's features is one observation.
    usual = {our_name(feature): len(by_feature[feature][0]) for feature in numbers}
    sizes = split_numbers(str(folder), len(offset), names or usual)
    units = split_units(offset, scale, sizes)

    # Numbers first, then the cameras, as in every spec of dpjax.
    observations: Observations = dict(sizes)
    cameras = [f for f, (feature_type, _) in features.items() if feature_type == "VISUAL"]
    for feature in cameras:
        # [3, height, width] in LeRobot, (height, width, 3) here.
        channels, *size = features[feature][1]
        observations[our_name(feature)] = (*size, channels)
        units[our_name(feature)] = by_feature[feature]
    # Two features may get the same name here, such as images.a_b and images.a.b.
    if len(units) != len(sizes) + len(cameras) or "action" in units:
        raise refuse(str(folder), "features", "names that differ here", ", ".join(features))
    return observations, {**units, "action": by_feature["action"]}


def _feature_units(
    source: str, feature: str, feature_type: str, shape: tuple, normalizers: Normalization
) -> normalization.Unit:
    """(offset, scale) of one feature."""
    # Observations are normalized, the action is unnormalized, and each has its table.
    is_action = feature_type == "ACTION"
    # A table has the statistics of all features, as <feature>.<statistic>.
    prefix = f"{feature}."
    table = normalizers.outputs if is_action else normalizers.inputs
    stats = {k.removeprefix(prefix): x for k, x in table.items() if k.startswith(prefix)}
    mode = normalizers.modes.get(feature_type, "IDENTITY")
    # A type without a mode is not normalized. Images are 0..1 in LeRobot and 0..255 here.
    unit = normalization.PIXEL_MAX if feature_type == "VISUAL" else 1.0
    offset, scale, constant = normalization.from_lerobot(
        source, feature, mode, stats, shape[0], unit=unit, is_action=is_action
    )
    # LeRobot maps these to -1, whatever the observation is.
    for dim in constant:
        log.warning("%s[%d]: min is max: to the network it is -1", feature, dim)
    return offset, scale


def our_name(feature: str) -> str:
    """Our name of LeRobot's feature: observation.images.top -> top."""
    return feature.removeprefix("observation.").removeprefix("images.").replace(".", "_")
