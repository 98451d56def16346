"""The HDF5 files of robomimic and MimicGen.

data                    attrs: env_args (JSON: environment, control frequency)
data/demo_<i>           attrs: num_samples
data/demo_<i>/actions   [T, Da]
data/demo_<i>/obs/<key> [T, ...]    numbers, or images uint8 [T, H, W, 3]
mask/<filter key>       names of demos
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpjax.convert import hdf5
from dpjax.convert.source import ACTION, Columns, Feature, Source, as_user_error, natural_order
from dpjax.core.errors import UserError, choices

if TYPE_CHECKING:
    import h5py

# The actions. In robomimic's own files they are deltas for the controller.
ACTIONS = "actions"
# The same actions as absolute poses, which newer files have beside the deltas.
ABSOLUTE = "actions_abs"
POSE = 7  # numbers in an arm's absolute action: position 3, axis-angle 3, gripper 1
POSE_6D = 10  # the same with a 6-D rotation: 3 + 6 + 1

log = logging.getLogger("dpjax")


def open_source(
    path: Path, stack: ExitStack, *, filter_key: str = "", absolute: bool = False
) -> Source:
    """The demos of a file in natural order.

    filter_key: read only the demos that mask/<filter_key> names; "": all.
    absolute: actions are poses, [position 3, axis-angle 3, gripper 1] per arm. They are
        converted to [position 3, rotation 6, gripper 1], and read from `actions_abs` if the file
        has it, otherwise from `actions`.
    """
    # The file stays open, since `read` below is called later, one episode at a time.
    file = stack.enter_context(hdf5.open_file(path, "robomimic's .hdf5"))
    with as_user_error(f"{path}: can't be read"):
        data = hdf5.subgroup(file, "data", path)
        demos = _list_demos(file, data, filter_key, path)
        environment = _json(data.attrs.get("env_args"), f"{path}: data: env_args")
        datasets = [_datasets(demo, path) for demo in demos]
        # All demos must have the features of the first one.
        features = {key: _feature(item) for key, item in datasets[0].items()}
        lengths = [_length(*pair, features) for pair in zip(demos, datasets)]
    source = Source(
        path=path,
        features=features,
        lengths=lengths,
        read=lambda e, keys: {key: hdf5.read(datasets[e][key]) for key in keys},
        names={ACTIONS: ACTION},
        fps=_fps(environment),
        metadata=lambda e: _metadata(demos[e], environment, f"{path}: {demos[e].name}"),
        defaults=[key for key in features if key != ABSOLUTE],
    )
    # Without `absolute`, `defaults` leaves `actions_abs` out: it is not an observation.
    return _with_6d_rotations(source) if absolute else source


def _list_demos(file: h5py.File, data: h5py.Group, filter_key: str, path: Path) -> list[h5py.Group]:
    """The groups of the demos to convert."""
    # HDF5 sorts demo_10 before demo_2.
    names = sorted(data, key=natural_order)
    if filter_key:
        names = _filtered(file, filter_key, names, path)
    if not names:
        raise UserError(f"{path}: expected at least 1 demo in data, got 0.")
    return [hdf5.subgroup(data, name, path) for name in names]


def _filtered(file: h5py.File, filter_key: str, demos: Sequence[str], path: Path) -> list[str]:
    """The demos that mask/<filter_key> names."""
    masks = hdf5.subgroup(file, "mask", path) if "mask" in file else {}
    if filter_key not in masks:
        raise UserError(
            f"filter_key={filter_key} is not in mask/ of {path}; {choices(filter_key, masks)}.",
            argument="filter_key",
        )
    # The result keeps the order of the demos; the mask may have another one.
    chosen = set(hdf5.names(hdf5.child(masks, filter_key, path)))
    if missing := sorted(chosen - set(demos)):
        raise UserError(
            f"{path}: mask/{filter_key} names {missing[0]}, which is not among its demos."
        )
    return [demo for demo in demos if demo in chosen]


def _datasets(demo: h5py.Group, path: Path) -> dict[str, h5py.Dataset]:
    """{key: dataset} of a demo's observations and actions; no numbers are read."""
    # next_obs, rewards, dones and states are not converted: imitation learning needs none of them.
    obs = hdf5.subgroup(demo, "obs", path)
    datasets = {key: hdf5.dataset(obs, key, path) for key in obs}
    for key in (ACTIONS, ABSOLUTE):
        # Observations and actions share one dict, so an observation must not use these names.
        if key in datasets:
            raise UserError(f"{path}: {obs.name}/{key}: expected no observation of that name.")
        if key in demo or key == ACTIONS:
            datasets[key] = hdf5.dataset(demo, key, path)
    return datasets


def _feature(item: h5py.Dataset) -> Feature:
    # The first axis is time.
    return Feature(tuple(item.shape[1:]), item.dtype)


def _length(
    demo: h5py.Group, datasets: Mapping[str, h5py.Dataset], features: Mapping[str, Feature]
) -> int:
    """The number of steps of a demo.

    Raises a UserError if its keys, shapes or types differ from `features`, or if its arrays
    differ in length.
    """
    where = f"{demo.file.filename}: {demo.name}"
    if datasets.keys() != features.keys():
        raise UserError(
            f"{where}: expected the keys {', '.join(features)}, got {', '.join(datasets)}."
        )
    for key, item in datasets.items():
        expected = features[key]
        got = _feature(item)
        if got != expected:
            raise UserError(
                f"{where}: {key}: expected {expected.dtype} {list(expected.shape)} per step, got "
                f"{got.dtype} {list(got.shape)}."
            )
    # Every array must be as long as the actions. num_samples may be missing, but not differ.
    length = datasets[ACTIONS].shape[0]
    lengths = {"num_samples": demo.attrs.get("num_samples", length)}
    lengths |= {key: item.shape[0] for key, item in datasets.items()}
    for key, n in lengths.items():
        if np.ndim(n) or n != length:  # an attribute may hold an array
            raise UserError(f"{where}: expected {length} steps as of {ACTIONS}, got {n} of {key}.")
    return length


def _json(text: Any, where: str) -> dict:
    """The JSON object in an attribute; {} if there is no attribute."""
    if text is None:
        return {}
    # JSON also has lists and numbers, which would fail later without a hint to the file.
    with as_user_error(f"{where}: not JSON"):
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")
        return value


def _fps(environment: Mapping) -> float:
    """Steps per second, from the environment's control frequency; 0 if the file has none."""
    # robosuite's environments have control_freq; others may lack it, or env_kwargs.
    options = environment.get("env_kwargs")
    rate = options.get("control_freq") if isinstance(options, dict) else None
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else 0.0


def _metadata(demo: h5py.Group, environment: Mapping, where: str) -> dict[str, str]:
    """A demo's name and its task: the instruction if there is one, otherwise the environment."""
    # RoboCasa writes the attribute ep_meta, which has the instruction under "lang".
    with as_user_error(f"{where}: can't be read"):
        words = _json(demo.attrs.get("ep_meta"), f"{where}: ep_meta").get("lang")
    task = words or environment.get("env_name") or ""
    return {"demo": demo.name.rsplit("/", 1)[-1], "task": str(task)}


def _with_6d_rotations(source: Source) -> Source:
    """The same source with its poses' axis-angle rotations converted to 6-D (Zhou et al. 2019)."""
    # Imported here, because it imports jax, which takes a second.
    from dpjax.core import rotations

    # An arm's 7 numbers are consecutive; two arms have 14.
    key = ABSOLUTE if ABSOLUTE in source.features else ACTIONS
    shape, dtype = source.features[key]
    if len(shape) != 1 or shape[0] % POSE or not shape[0] or dtype.kind != "f":
        raise UserError(
            f"{source.path}: {key}: absolute=True expects floats [T, 7] or [T, 14] (position 3, "
            f"axis-angle 3, gripper 1, per arm), got {dtype} {[None, *shape]}.",
            argument="absolute",
        )
    arms = shape[0] // POSE

    def read(e: int, keys: Sequence[str]) -> Columns:
        columns = source.read(e, keys)
        if key in columns:
            # [T, arms * 7] -> [T, arms, 7], in float64 to round only once, in the cast below.
            poses = columns[key].astype(np.float64).reshape(len(columns[key]), arms, POSE)
            rotation = rotations.convert(poses[..., 3:6], "axis_angle", "rotation_6d")
            # [T, arms, 3 + 6 + 1] -> [T, arms * 10]
            parts = [poses[..., :3], rotation, poses[..., 6:]]
            actions = np.concatenate(parts, -1).reshape(len(poses), -1)
            columns[key] = actions.astype(np.float32)
        return columns

    # A data set has one action: with `actions_abs`, the deltas are dropped.
    observations = {
        name: feature
        for name, feature in source.features.items()
        if name not in (ACTIONS, ABSOLUTE)
    }
    features = {**observations, key: Feature((arms * POSE_6D,), np.dtype(np.float32))}
    log.info(
        "%s: read as poses, axis-angle converted to 6-D rotations: %d numbers -> %d",
        key, shape[0], arms * POSE_6D,
    )  # fmt: skip
    return source._replace(features=features, read=read, names={key: ACTION}, defaults=None)
