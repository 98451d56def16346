"""Reads LeRobot's statistics, wherever a version of it keeps them, as our units.

since 0.4   policy_preprocessor.json and policy_postprocessor.json, whose steps name files
            with <feature>.<statistic>
before      model.safetensors, as normalize_inputs.buffer_<feature, _ for .>.<statistic>
"""

from collections.abc import Mapping
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpjax.interop import normalization
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
STEPS = (  # that dpjax knows in a processor; only the last two change numbers
    *("rename_observations_processor", "to_batch_processor", "device_processor"),
    *(NORMALIZER, UNNORMALIZER),
)
MODES = ("IDENTITY", "MEAN_STD", *normalization.RANGES)
Features = Mapping[str, tuple[str, tuple[int, ...]]]  # {feature: (type, shape)}
Stats = Mapping[str, np.ndarray]  # {"<feature>.<statistic>": numbers}

log = logging.getLogger("dpjax")


class Normalization(NamedTuple):
    """How a policy normalizes.

    modes: {feature type: one of MODES}. inputs: statistics of the observations.
    outputs: statistics that restore the action.
    """

    modes: Mapping[str, str]
    inputs: Stats
    outputs: Stats


def read(folder: Path, entries: Mapping, features: Features, buffers: Stats) -> Normalization:
    """The normalization of the policy in a folder.

    entries: config.json. buffers: the statistics in model.safetensors, of versions before 0.4.
    """
    # Since version 0.4: two processors, which must agree on the action.
    if (folder / INPUTS).exists() or (folder / OUTPUTS).exists():
        modes, inputs = _read_processor(folder / INPUTS, NORMALIZER)
        output_modes, outputs = _read_processor(folder / OUTPUTS, UNNORMALIZER)
        source = str(folder / OUTPUTS)
        if modes.get("ACTION") != output_modes.get("ACTION"):
            key = "norm_map.ACTION"
            raise refuse(source, key, modes.get("ACTION"), output_modes.get("ACTION"))
        _check_same(source, inputs, outputs)
        return Normalization(modes, inputs, outputs)
    # Before version 0.4: modes in config.json, statistics among the weights.
    if not buffers:
        raise refuse(str(folder), INPUTS, "the file, or statistics in model.safetensors", "neither")
    source = str(folder / "config.json")
    modes = _modes(source, "normalization_mapping", entries.get("normalization_mapping"))
    return Normalization(modes, *_from_buffers(source, features, buffers))


def _from_buffers(source: str, features: Features, buffers: Stats) -> tuple[Stats, Stats]:
    """(statistics of the observations, of the action) out of model.safetensors."""
    parts = {"normalize_inputs": {}, "normalize_targets": {}, "unnormalize_outputs": {}}
    # Dots cannot be in the name of a torch buffer: _ stands for them.
    names = {f"buffer_{feature.replace('.', '_')}": feature for feature in features}
    for key, x in buffers.items():
        part, buffer, statistic = key.split(".")
        if buffer not in names:
            raise refuse(source, key, "statistics of its features", buffer)
        parts[part][f"{names[buffer]}.{statistic}"] = x
    _check_same(source, parts["normalize_targets"], parts["unnormalize_outputs"])
    return parts["normalize_inputs"], parts["unnormalize_outputs"]


def _check_same(source: str, normalizing: Stats, restoring: Stats) -> None:
    """Refuses an action that is normalized with other numbers than it is restored with."""
    for key, x in restoring.items():
        # Only the action is in both.
        if not key.startswith("action.") or key not in normalizing:
            continue
        if not np.array_equal(normalizing[key], x):
            raise refuse(source, key, "the numbers that it is normalized with", "others")


def _modes(source: str, key: str, mapping: Any) -> dict[str, str]:
    """{feature type: one of MODES}."""
    if not isinstance(mapping, Mapping):
        raise refuse(source, key, "{feature type: mode}", mapping)
    allowed = {mode: mode for mode in MODES}
    return {
        feature_type: choose(source, f"{key}.{feature_type}", mode, allowed)
        for feature_type, mode in mapping.items()
    }


def _read_processor(path: Path, wanted: str) -> tuple[dict[str, str], Stats]:
    """(modes, statistics) of the only step that normalizes, in a processor's JSON."""
    source = str(path)
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise refuse(source, "steps", "a list of steps", steps)
    # Every step is checked, since an unknown one could change the numbers.
    matches = []
    for i, step in enumerate(steps):
        _check_step(source, f"steps.{i}", step)
        if step.get("registry_name") == wanted:
            matches.append((f"steps.{i}", step))
    if len(matches) != 1:
        raise refuse(source, "steps", f"one {wanted}", len(matches))

    where, step = matches[0]
    # The options of the step that normalizes, and the file with its statistics.
    entries = step.get("config") or {}
    eps = entries.get("eps", normalization.EPSILON)
    choose(source, f"{where}.config.eps", eps, {normalization.EPSILON: None})
    if (keys := entries.get("normalize_observation_keys")) is not None:
        key = f"{where}.config.normalize_observation_keys"
        raise refuse(source, key, "none: all are normalized", keys)
    modes = _modes(source, f"{where}.config.norm_map", entries.get("norm_map"))
    # The statistics are in a file of their own, beside the JSON.
    name = step.get("state_file")
    if not isinstance(name, str) or Path(name).name != name:  # never a path out of the folder
        raise refuse(source, f"{where}.state_file", "the name of a file beside it", name)
    return modes, read_safetensors(path.parent / name)


def _check_step(source: str, where: str, step: Mapping) -> None:
    """Refuses steps that dpjax does not know, and steps that rename observations."""
    name = step.get("registry_name")
    choose(source, f"{where}.registry_name", name, dict.fromkeys(STEPS))
    entries = step.get("config") or {}
    if not isinstance(entries, Mapping):
        raise refuse(source, f"{where}.config", "a JSON object", entries)
    if name == "rename_observations_processor" and entries.get("rename_map"):
        raise refuse(source, f"{where}.config.rename_map", "none", entries["rename_map"])


def units_of(
    folder: Path,
    features: Features,
    normalizers: Normalization,
    names: Mapping[str, int] | None,
) -> tuple[Observations, Units]:
    """(observations in our order, units of each and of the action).

    names: {observation: size} of the numbers, in our order; None for LeRobot's names. Logs a
    warning for every constant dimension.
    """
    # (offset, scale) of each feature, by LeRobot's name.
    by_feature = {
        feature: _feature_units(str(folder), feature, *description, normalizers)
        for feature, description in features.items()
    }
    numbers = [f for f, (feature_type, _) in features.items() if feature_type in ("STATE", "ENV")]
    # The user's names may divide the numbers elsewhere than LeRobot's features do.
    parts = [by_feature[feature] for feature in numbers]
    offset = np.concatenate([np.zeros(0, np.float32), *(offset for offset, _ in parts)])
    scale = np.concatenate([np.zeros(0, np.float32), *(scale for _, scale in parts)])
    # Without the user's names, each feature is an observation.
    usual = {our_name(feature): len(by_feature[feature][0]) for feature in numbers}
    sizes = split_numbers(str(folder), len(offset), names or usual)
    units = split_units(offset, scale, sizes)

    # Numbers first, then the cameras, as in every spec of dpjax.
    observations: Observations = dict(sizes)
    cameras = [f for f, (feature_type, _) in features.items() if feature_type == "VISUAL"]
    for feature in cameras:
        channels, *size = features[feature][1]
        observations[our_name(feature)] = (*size, channels)
        units[our_name(feature)] = by_feature[feature]
    # Two features may have got the same name, such as images.a_b and images.a.b.
    if len(units) != len(sizes) + len(cameras) or "action" in units:
        raise refuse(str(folder), "features", "names that differ here", ", ".join(features))
    return observations, {**units, "action": by_feature["action"]}


def _feature_units(
    source: str, feature: str, feature_type: str, shape: tuple, normalizers: Normalization
) -> normalization.Unit:
    """(offset, scale) of one feature."""
    # Observations are normalized, the action is restored: each with a table of its own.
    is_action = feature_type == "ACTION"
    # Statistics of all features are in one table, as <feature>.<statistic>.
    prefix = f"{feature}."
    table = normalizers.outputs if is_action else normalizers.inputs
    stats = {k.removeprefix(prefix): x for k, x in table.items() if k.startswith(prefix)}
    mode = normalizers.modes.get(feature_type, "IDENTITY")
    unit = normalization.PIXEL_MAX if feature_type == "VISUAL" else 1.0
    offset, scale, constant = normalization.from_lerobot(
        source, feature, mode, stats, shape[0], unit=unit, is_action=is_action
    )
    for dim in constant:
        log.warning("%s[%d]: min is max: to the network it is -1", feature, dim)
    return offset, scale


def our_name(feature: str) -> str:
    """observation.images.top -> top."""
    return feature.removeprefix("observation.").removeprefix("images.").replace(".", "_")
