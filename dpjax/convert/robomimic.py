"""robomimic's HDF5 files, and MimicGen's.

    data                    attrs: env_args (JSON: environment, control frequency)
    data/demo_<i>           attrs: num_samples
    data/demo_<i>/actions   [T, Da]
    data/demo_<i>/obs/<key> [T, ...]    numbers, or images uint8 [T, H, W, 3]
    mask/<filter>           names of demos

HDF5 reads what was never written as zeros and follows links into other files; both are
refused here.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dpjax.convert.source import ACTION, Columns, Kind, Source, natural, reading
from dpjax.core.errors import UserError, choices
from dpjax.core.files import refuse_pointer

CHUNK_LIMIT = 2**31  # bytes of one chunk, decoded
ACTIONS, ABSOLUTE = "actions", "actions_abs"
POSE = 7  # numbers of an arm's absolute action: position, axis-angle, gripper


def open_source(path: Path, stack: ExitStack, *, only: str = "", absolute: bool = False) -> Source:
    """The demos in numeric order; `only`: those of that filter key.

    absolute: actions are poses, [position 3, axis-angle 3, gripper 1] an arm, and become
        [position 3, 6-D rotation, gripper 1]: `actions_abs` where the file has it.
    """
    file = stack.enter_context(_opened(path))
    with reading(f"{path}: can't be read"):
        demos, found, env = _walk(file, only, path)
        kinds = {key: _kind(x) for key, x in found[0].items()}
        lengths = [_length(*pair, kinds) for pair in zip(demos, found)]

    def read(e: int, keys: Sequence[str]) -> Columns:
        return {key: _read(found[e][key]) for key in keys}

    about = lambda e: _about(demos[e], env, f"{path}: {demos[e].name}")
    default = [key for key in kinds if key != ABSOLUTE]
    source = Source(path, kinds, lengths, read, {ACTIONS: ACTION}, _fps(env), about, default)
    return _absolute(source) if absolute else source


def _walk(file: h5py.File, only: str, path: Path) -> tuple[list, list, dict]:
    """The demos, {key: dataset} of each, and their environment."""
    data = _group(file, "data", path)
    names = sorted(data, key=natural)
    if only:
        names = _filtered(file, only, names, path)
    if not names:
        raise UserError(f"{path}: expected at least 1 demo in data, got 0.")
    demos = [_group(data, name, path) for name in names]
    env = _json(data.attrs.get("env_args"), f"{path}: data: env_args")
    return demos, [_datasets(demo, path) for demo in demos], env


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise UserError(f"{path}: no file; expected robomimic's .hdf5.")
    refuse_pointer(path)
    with reading(f"{path}: no HDF5 file, or cut"):
        return h5py.File(path, "r")


def _child(group: h5py.Group, name: str, path: Path) -> Any:
    """What `name` is a hard link to: links may lead into other files, or in circles."""
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    with reading(f"{where}: can't be read"):
        link = group.get(name, getlink=True)
        if link is None:
            raise UserError(f"{where}: missing.")
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{where}: expected the data, got a link ({type(link).__name__}).")
        return group[name]


def _group(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    found = _child(group, name, path)
    if not isinstance(found, h5py.Group):
        raise UserError(f"{path}: {found.name}: expected a group, got a {type(found).__name__}.")
    return found


def _filtered(file: h5py.File, only: str, demos: Sequence[str], path: Path) -> list[str]:
    masks = _group(file, "mask", path) if "mask" in file else {}
    if only not in masks:
        raise UserError(f"{path}: no filter key mask/{only}; {choices(only, masks)}.")
    names = np.ravel(_read(_child(masks, only, path)))
    chosen = {name.decode() if isinstance(name, bytes) else str(name) for name in names}
    if lost := sorted(chosen - set(demos)):
        raise UserError(f"{path}: mask/{only} names {lost[0]}, which is not among its demos.")
    return [demo for demo in demos if demo in chosen]


def _datasets(group: h5py.Group, path: Path) -> dict[str, h5py.Dataset]:
    """{key: dataset} of the observations and actions of one demo; nothing is read."""
    obs = _group(group, "obs", path)
    found = {key: _dataset(obs, key, path) for key in obs}
    for key in (ACTIONS, ABSOLUTE):
        if key in found:
            raise UserError(f"{path}: {obs.name}/{key}: expected no observation of that name.")
        if key in group or key == ACTIONS:
            found[key] = _dataset(group, key, path)
    return found


def _dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    x = _child(group, name, path)
    where = f"{path}: {group.name}/{name}"
    if not isinstance(x, h5py.Dataset) or not x.shape:
        raise UserError(f"{where}: expected an array [T, ...], got a {type(x).__name__}.")
    if x.dtype.hasobject:
        raise UserError(f"{where}: expected numbers, got objects ({x.dtype}).")
    if x.is_virtual or x.external:
        raise UserError(f"{where}: expected the data, got a reference to other files.")
    if missing := _missing(x):
        raise UserError(
            f"{where}: expected {list(x.shape)} {x.dtype}, got {missing}, which HDF5 would read "
            "as zeros. Copy it again."
        )
    return x


def _missing(x: h5py.Dataset) -> str:
    """How much less than its shape says is stored, or ""."""
    if 0 in x.shape:
        return ""
    if x.chunks is None:
        size, stored = math.prod(x.shape) * x.dtype.itemsize, x.id.get_storage_size()
        return "" if stored >= size else f"{stored} of {size} bytes"
    if math.prod(x.chunks) * x.dtype.itemsize > CHUNK_LIMIT:
        return f"chunks of {list(x.chunks)}, more than {CHUNK_LIMIT / 2**30:.0f} GiB each"
    total = math.prod(-(-n // chunk) for n, chunk in zip(x.shape, x.chunks))
    stored = x.id.get_num_chunks()
    return "" if stored == total else f"{stored} of {total} chunks"


def _kind(x: h5py.Dataset) -> Kind:
    return Kind(tuple(x.shape[1:]), x.dtype)


def _length(group: h5py.Group, columns: Mapping, kinds: Mapping[str, Kind]) -> int:
    """The steps of a demo; refuses one whose keys, shapes, types or lengths differ."""
    where = f"{group.file.filename}: {group.name}"
    if columns.keys() != kinds.keys():
        raise UserError(f"{where}: expected the keys {', '.join(kinds)}, got {', '.join(columns)}.")
    for key, x in columns.items():
        if _kind(x) != kinds[key]:
            want, got = kinds[key], _kind(x)
            raise UserError(
                f"{where}: {key}: expected {want.dtype} {list(want.shape)} a step, got {got.dtype} "
                f"{list(got.shape)}."
            )
    length = columns[ACTIONS].shape[0]
    lengths = {"num_samples": group.attrs.get("num_samples", length)}
    lengths |= {key: x.shape[0] for key, x in columns.items()}
    for key, n in lengths.items():
        if np.ndim(n) or n != length:
            raise UserError(f"{where}: expected {length} steps as of {ACTIONS}, got {n} of {key}.")
    return length


def _read(x: h5py.Dataset) -> np.ndarray:
    with reading(f"{x.file.filename}: {x.name}: can't be decoded"):
        return np.asarray(x[...])


def _json(text: Any, where: str) -> dict:
    """A JSON object in an attribute; {} where there is none."""
    if text is None:
        return {}
    with reading(f"{where}: no JSON"):
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
        return found


def _fps(env: Mapping) -> float:
    """Steps a second, from the environment's control frequency; 0 where it isn't there."""
    options = env.get("env_kwargs")
    rate = options.get("control_freq") if isinstance(options, dict) else None
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else 0.0


def _about(group: h5py.Group, env: Mapping, where: str) -> dict[str, str]:
    """The demo's name, and its task: in words where the file has them, else by name."""
    with reading(f"{where}: can't be read"):
        words = _json(group.attrs.get("ep_meta"), f"{where}: ep_meta").get("lang")
    task = words or env.get("env_name") or ""
    return {"demo": group.name.rsplit("/", 1)[-1], "task": str(task)}


def _absolute(source: Source) -> Source:
    """The same with actions as poses whose rotation is 6-D."""
    # Imported here: it brings jax, which takes a second.
    from dpjax.core import rotations

    key = ABSOLUTE if ABSOLUTE in source.kinds else ACTIONS
    shape, dtype = source.kinds[key]
    if len(shape) != 1 or shape[0] % POSE or not shape[0] or dtype.kind != "f":
        raise UserError(
            f"{source.path}: {key}: --absolute expects floats [T, 7] or [T, 14] (position 3, "
            f"axis-angle 3, gripper 1, an arm), got {dtype} {[None, *shape]}."
        )
    arms = shape[0] // POSE

    def read(e: int, keys: Sequence[str]) -> Columns:
        columns = source.read(e, keys)
        if key in columns:
            x = columns[key].astype(np.float64).reshape(len(columns[key]), arms, POSE)
            turn = rotations.convert(x[..., 3:6], "axis_angle", "rotation_6d")
            parts = [x[..., :3], turn, x[..., 6:]]
            columns[key] = np.concatenate(parts, -1).reshape(len(x), -1).astype(np.float32)
        return columns

    others = {name: kind for name, kind in source.kinds.items() if name not in (ACTIONS, ABSOLUTE)}
    kinds = {**others, key: Kind((arms * 10,), np.dtype(np.float32))}
    said = [
        f"{key}: taken as poses, axis-angle turned into 6-D rotations: {shape[0]} numbers -> "
        f"{arms * 10}"
    ]
    return source._replace(kinds=kinds, read=read, names={key: ACTION}, said=said, defaults=None)
