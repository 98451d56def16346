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
from dpjax.convert.absolute import with_6d_rotations
from dpjax.convert.compared import Header, source_fields
from dpjax.convert.source import ACTION, Columns, Source, as_user_error, natural_order
from dpjax.core.errors import UserError, choices
from dpjax.core.unread import warn_unread

if TYPE_CHECKING:
    import h5py

# The actions. In robomimic's own files they are deltas for the controller.
ACTIONS = "actions"
# The same actions as absolute poses, which newer files have beside the deltas.
ABSOLUTE = "actions_abs"
# Attributes that are read, or that follow from the data.
DATA_READ = ("env_args", "total")
DEMO_READ = ("num_samples", "ep_meta")

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
        headers, bad = _all_headers(demos, data, path)
        _report_unread(file, [data[demos[e]] for e in headers], filter_key, path)

    def read(e: int, keys: Sequence[str]) -> Columns:
        demo = data[demos[e]]
        return {key: hdf5.read(demo[_place(key)]) for key in keys}

    source = Source(
        path=path,
        read=read,
        names={ACTIONS: ACTION},
        fps=_fps(environment),
        metadata=lambda e: _metadata(data[demos[e]], environment, f"{path}: /data/{demos[e]}"),
        bad=bad,
        **source_fields(
            path, headers, len(demos), lambda e, key: f"/data/{demos[e]}/{_place(key)}"
        ),
    )
    # Without `absolute`, `defaults` leaves `actions_abs` out: it is not an observation.
    source = source._replace(
        defaults=[key for key in (*source.features, *source.problems) if key != ABSOLUTE],
        differs_in=_with_lengths(source, demos),
    )
    if not absolute:
        return source
    # A data set has one action: with `actions_abs`, the deltas are dropped.
    if ABSOLUTE in {**source.features, **source.problems, **source.damage}:
        return with_6d_rotations(source, ABSOLUTE, unused=(ACTIONS,))
    return with_6d_rotations(source, ACTIONS)


def _list_demos(file: h5py.File, data: h5py.Group, filter_key: str, path: Path) -> list[str]:
    """The names of the demos to convert, in natural order."""
    # HDF5 sorts demo_10 before demo_2.
    names = sorted(data, key=natural_order)
    others = [name for name in names if hdf5.is_array(data, name)]
    warn_unread(str(path), [f"data/{name}" for name in others], "an array, not a demo")
    names = [name for name in names if name not in others]
    if filter_key:
        total = len(names)
        names = _filtered(file, filter_key, names, path)
        log.info("%s: %d of %d demos are in mask/%s", path, len(names), total, filter_key)
    if not names:
        raise UserError(f"{path}: expected at least 1 demo in data, got 0.")
    return names


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


def _place(key: str) -> str:
    """Where a demo has a key."""
    return key if key in (ACTIONS, ABSOLUTE) or "/" in key else f"obs/{key}"


def _all_headers(
    demos: Sequence[str], data: h5py.Group, path: Path
) -> tuple[dict[int, dict[str, Header]], dict[int, str]]:
    """({e: {key: Header}} of the demos that can be read, {e: why another one can't be})."""
    headers, bad = {}, {}
    for e, name in enumerate(demos):
        try:
            with as_user_error(f"{path}: /data/{name}: can't be read"):
                headers[e] = _headers(hdf5.subgroup(data, name, path), path)
                if problem := _count_problem(data[name], headers[e]):
                    bad[e] = f"/data/{name}: {problem}"
        except UserError as error:
            headers.pop(e, None)
            bad[e] = str(error).removeprefix(f"{path}: ").rstrip(".")
    if not headers:
        raise UserError(f"{path}: {bad[0]}.")
    return headers, bad


def _headers(demo: h5py.Group, path: Path) -> dict[str, Header]:
    """{key: Header} of a demo's observations and actions; no numbers are read."""
    obs = hdf5.subgroup(demo, "obs", path)
    headers = {}
    for key in obs:
        # Observations and actions share one dict, so an observation must not use these names.
        if key in (ACTIONS, ABSOLUTE):
            headers[f"obs/{key}"] = Header(problem="an observation can't have this name")
        else:
            headers[key] = hdf5.header(obs, key, path)
    for key in (ACTIONS, ABSOLUTE):
        if demo.get(key, getlink=True) is not None:
            headers[key] = hdf5.header(demo, key, path)
        elif key == ACTIONS:
            headers[key] = Header(problem="missing")
    return headers


def _count_problem(demo: h5py.Group, headers: Mapping[str, Header]) -> str:
    """Whether the demo claims another number of steps than its actions have; "" if not."""
    # num_samples may be missing, but not differ. An attribute may hold an array.
    length = headers[ACTIONS].length
    count = demo.attrs.get("num_samples", length)
    if headers[ACTIONS].shape and (np.ndim(count) or count != length):
        return f"expected {length} steps as of {ACTIONS}, got {count} of num_samples"
    return ""


def _with_lengths(source: Source, demos: Sequence[str]) -> dict[str, dict[int, str]]:
    """`Source.differs_in` with the demos in which a key has other steps than the actions."""
    differs = {key: dict(faults) for key, faults in source.differs_in.items()}
    steps = source.key_lengths.get(ACTIONS, [0] * len(demos))
    for key, lengths in source.key_lengths.items():
        for e, (n, expected) in enumerate(zip(lengths, steps)):
            # 0: one of the two can't be read there, which is said elsewhere.
            if n and expected and n != expected:
                differs[key].setdefault(
                    e,
                    f"/data/{demos[e]}: expected {expected} steps as of {ACTIONS}, got {n} of "
                    f"{_place(key)}",
                )
    return differs


def _report_unread(
    file: h5py.File, demos: Sequence[h5py.Group], filter_key: str, path: Path
) -> None:
    """Logs what the file holds beside observations and actions."""
    others = [name for name in file if name not in ("data", "mask")]
    others += [f"attribute {name}" for name in file.attrs]
    others += [f"attribute data.{name}" for name in file["data"].attrs if name not in DATA_READ]
    for demo in demos:
        others += [name for name in demo if name not in ("obs", ACTIONS, ABSOLUTE)]
        others += [f"attribute {name}" for name in demo.attrs if name not in DEMO_READ]
        others += [f"attribute obs.{name}" for name in demo["obs"].attrs]
    warn_unread(str(path), others, "neither observations in obs/ nor actions")
    if "mask" in file and not filter_key:
        warn_unread(str(path), _masks(file, path), "all demos are read, in whatever mask they are")


def _masks(file: h5py.File, path: Path) -> list[str]:
    """The masks' names; "mask" if they can't be listed."""
    try:
        return [f"mask/{name}" for name in hdf5.subgroup(file, "mask", path)]
    except UserError:
        return ["mask"]


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
