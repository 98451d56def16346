"""LeRobot's statistics, wherever a version of it keeps them, as our units.

since 0.4   policy_preprocessor.json and policy_postprocessor.json, whose steps name files
            with <feature>.<statistic>
before      in model.safetensors, normalize_inputs.buffer_<feature, _ for .>.<statistic>
"""

from collections.abc import Mapping
import json
from pathlib import Path

import numpy as np

from dpjax.interop import normalization, tensors
from dpjax.interop.imported import Observations, Units, only, refuse, split_numbers

INPUTS, OUTPUTS = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALIZERS = ("normalizer_processor", "unnormalizer_processor")
STEPS = (
    *("rename_observations_processor", "to_batch_processor", "device_processor"),
    *NORMALIZERS,
)
MODES = ("IDENTITY", "MEAN_STD", *normalization.RANGES)
MAX_JSON = 10_000_000  # bytes
Features = Mapping[str, tuple[str, tuple[int, ...]]]  # {feature: (type, shape)}
Stats = Mapping[str, np.ndarray]  # {"<feature>.<statistic>": numbers}


def read_json(path: Path) -> dict:
    """A JSON object out of a file of a policy."""
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        what = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        raise refuse(str(path), "the file", "JSON of a LeRobot policy", what)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise refuse(str(path), "the file", "JSON", f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise refuse(str(path), "the file", "a JSON object", type(content).__name__)
    return content


def statistics(folder: Path, written: Mapping, features: Features, old: Stats):
    """(modes {feature type: mode}, statistics of the inputs, those that restore the action)."""
    if (folder / INPUTS).exists() or (folder / OUTPUTS).exists():
        modes, inputs = _step(folder / INPUTS, NORMALIZERS[0])
        again, outputs = _step(folder / OUTPUTS, NORMALIZERS[1])
        if modes.get("ACTION") != again.get("ACTION"):
            where = f"{folder / OUTPUTS}"
            raise refuse(where, "norm_map.ACTION", modes.get("ACTION"), again.get("ACTION"))
        _check_same(str(folder / OUTPUTS), inputs, outputs, "action.")
        return modes, inputs, outputs
    if not old:
        raise refuse(str(folder), INPUTS, "the file, or statistics in model.safetensors", "neither")
    source = str(folder / "config.json")
    given = written.get("normalization_mapping")
    modes = _modes(source, "normalization_mapping", given)
    return modes, *_old(source, features, old)


def _old(source: str, features: Features, old: Stats) -> tuple[Stats, Stats]:
    """(statistics of the inputs, of the action) out of model.safetensors; no others are there."""
    found = {"normalize_inputs": {}, "normalize_targets": {}, "unnormalize_outputs": {}}
    names = {f"buffer_{feature.replace('.', '_')}": feature for feature in features}
    for key, x in old.items():
        part, buffer, stat = key.split(".")
        if buffer not in names:
            raise refuse(source, key, "statistics of its features", buffer)
        found[part][f"{names[buffer]}.{stat}"] = x
    _check_same(source, found["normalize_targets"], found["unnormalize_outputs"], "action.")
    return found["normalize_inputs"], found["unnormalize_outputs"]


def _check_same(source: str, one: Stats, other: Stats, prefix: str) -> None:
    """Refuses an action that is normalized in one way and restored in another."""
    for key in other:
        if key.startswith(prefix) and key in one and not np.array_equal(one[key], other[key]):
            raise refuse(source, key, "the numbers that it is normalized with", "others")


def _modes(source: str, key: str, given) -> dict[str, str]:
    """{feature type: one of MODES}."""
    if not isinstance(given, Mapping):
        raise refuse(source, key, "{feature type: mode}", given)
    allowed = {mode: mode for mode in MODES}
    return {kind: only(source, f"{key}.{kind}", mode, allowed) for kind, mode in given.items()}


def _step(path: Path, wanted: str) -> tuple[dict[str, str], Stats]:
    """(modes, statistics) of the one step that normalizes, in a processor's JSON."""
    source, found = str(path), []
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise refuse(source, "steps", "a list of steps", steps)
    for i, step in enumerate(steps):
        name, given = step.get("registry_name"), step.get("config") or {}
        only(source, f"steps.{i}.registry_name", name, dict.fromkeys(STEPS))
        if not isinstance(given, Mapping):
            raise refuse(source, f"steps.{i}.config", "a JSON object", given)
        if name == "rename_observations_processor" and given.get("rename_map"):
            raise refuse(source, f"steps.{i}.config.rename_map", "none", given["rename_map"])
        if name == wanted:
            found.append((f"steps.{i}.config", given, step.get("state_file")))
    if len(found) != 1:
        raise refuse(source, "steps", f"one {wanted}", len(found))
    where, given, name = found[0]
    only(
        source,
        f"{where}.eps",
        given.get("eps", normalization.EPSILON),
        {normalization.EPSILON: None},
    )
    if given.get("normalize_observation_keys") is not None:
        key = f"{where}.normalize_observation_keys"
        raise refuse(source, key, "none: all are normalized", given["normalize_observation_keys"])
    modes = _modes(source, f"{where}.norm_map", given.get("norm_map"))
    if not isinstance(name, str) or Path(name).name != name:
        raise refuse(source, f"{where}: state_file", "the name of a file beside it", name)
    return modes, tensors.read_safetensors(path.parent / name)


def units_of(
    folder: Path, features: Features, read, names: Mapping[str, int] | None
) -> tuple[Observations, Units, list[str]]:
    """(observations in our order, units of them and of the action, lines on constant dims).

    read: what `statistics` gives. names: {observation: size} of the numbers, in our order.
    """
    modes, inputs, outputs = read
    made, said = {}, []
    for feature, (kind, shape) in features.items():
        acts, image = kind == "ACTION", kind == "VISUAL"
        prefix = f"{feature}."
        table = outputs if acts else inputs
        stats = {k.removeprefix(prefix): x for k, x in table.items() if k.startswith(prefix)}
        mode, size = modes.get(kind, "IDENTITY"), shape[0]
        options = dict(unit=normalization.PIXELS if image else 1.0, acts=acts)
        offset, scale, dims = normalization.lerobot(
            str(folder), feature, mode, stats, size, **options
        )
        made[feature] = (offset, scale)
        said += [f"{feature}[{dim}]: min is max: to the network it is -1" for dim in dims]
    numbers = [name for name, (kind, _) in features.items() if kind in ("STATE", "ENV")]
    named = names or {own_name(name): len(made[name][0]) for name in numbers}
    joined = [
        np.concatenate([np.zeros(0, np.float32), *(made[n][i] for n in numbers)]) for i in (0, 1)
    ]
    named = split_numbers(str(folder), len(joined[0]), named)
    ends = np.cumsum([0, *named.values()])
    found = {k: (joined[0][a:b], joined[1][a:b]) for k, a, b in zip(named, ends, ends[1:])}
    observations: Observations = dict(named)
    for feature, (kind, (channels, *size)) in features.items():
        if kind == "VISUAL":
            observations[own_name(feature)] = (*size, channels)
            found[own_name(feature)] = made[feature]
    if len(found) != len(named) + len(features) - len(numbers) - 1 or "action" in found:
        raise refuse(str(folder), "features", "names that differ here", ", ".join(features))
    return observations, {**found, "action": made["action"]}, said


def own_name(feature: str) -> str:
    """observation.images.top -> top."""
    return feature.removeprefix("observation.").removeprefix("images.").replace(".", "_")
