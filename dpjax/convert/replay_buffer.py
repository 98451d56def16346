"""The replay buffers of Chi et al.'s code and of UMI: a zarr v2 directory or zip.

    data/<key>         [N, ...]  all steps of all episodes
    meta/episode_ends  [E]       for each episode, the index of the step after its last one

Images are uint8, or whole numbers in float32 as in the original Push-T data.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
import re

import numpy as np

from dpjax.convert import zarr_store
from dpjax.convert.source import ACTION, COUNTERS, Columns, Feature, Source
from dpjax.convert.zarr_chunks import check_chunks
from dpjax.core.errors import UserError
from dpjax.core.unread import warn_unread
from dpjax.data import checks

ENDS = "meta/episode_ends"
# UMI stores where each demonstration begins and ends, repeated in every step: a policy that saw
# the end would know its future.
GOALS = re.compile(r"_demo_(start|end)_pose$")
# UMI records no actions: they are what the robot reached a step later.
ACTION_PARTS = ("eef_pos", "eef_rot_axis_angle", "gripper_width")


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a replay buffer, which stays open as long as `stack`."""
    store = stack.enter_context(zarr_store.open_store(path))
    # Only the arrays' descriptions and the ends are read here.
    arrays, problems, damage = _arrays(store)
    ends = _ends(store)
    total = int(ends[-1]) if len(ends) else 0
    checks.check_ends(ends, total, f"{path}: {ENDS}")
    for key, array in arrays.items():
        if array.shape[0] != total:
            problems[key] = f"{array.shape[0]} steps, where {ENDS} ends at {total}"
    # ends = [30, 41, 100] -> lengths = [30, 11, 59]
    lengths = np.diff(ends, prepend=0)
    # {key: function (start, end) -> steps}. Each has a cache, so it is made once and kept.
    readers: dict[str, Callable[[int, int], np.ndarray]] = {}

    def read(e: int, keys: Sequence[str]) -> Columns:
        for key in keys:
            if key not in readers:
                # On the first read of a key: only what is converted is looked at.
                check_chunks(arrays[key])
                readers[key] = zarr_store.reader(arrays[key])
        start = int(ends[e] - lengths[e])
        end = int(ends[e])
        return {key: readers[key](start, end) for key in keys}

    features = {key: Feature(array.shape[1:], array.dtype) for key, array in arrays.items()}
    return Source(
        path, features, lengths.tolist(), read,
        defaults=[key for key in features if not GOALS.search(key) and key not in COUNTERS],
        problems=problems,
        damage=damage,
        actions=[] if ACTION in features else _robot_poses(features),
    )  # fmt: skip


def _robot_poses(features: Mapping[str, Feature]) -> list[str]:
    """What an action of UMI consists of: pose and gripper width of every arm, in order."""
    poses: list[str] = []
    arm = 0
    while all(f"robot{arm}_{part}" in features for part in ACTION_PARTS):
        poses += [f"robot{arm}_{part}" for part in ACTION_PARTS]
        arm += 1
    return poses


def _arrays(
    store: zarr_store.Store,
) -> tuple[dict[str, zarr_store.Array], dict[str, str], dict[str, str]]:
    """({key: array} of data/, {key: why it can't be converted}, {key: why it is broken}).

    Only descriptions are read. What lies elsewhere in the store is listed in a line.
    """
    # Keys are found in the list of file names, since a zip need not have entries for folders.
    paths = [name.split("/") for name in sorted(store.names)]
    keys = dict.fromkeys(parts[1] for parts in paths if parts[0] == "data" and len(parts) > 2)
    if not any(f"data/{key}/.zarray" in store.names for key in keys):
        hint = " It is zarr v3: write it as v2." if "zarr.json" in store.names else ""
        raise UserError(
            f"{store.path}: not a zarr (v2) replay buffer: expected data/<key>/.zarray.{hint}"
        )
    if f"{ENDS}/.zarray" not in store.names:
        raise UserError(f"{store.path}: not a replay buffer: expected {ENDS}.")
    arrays: dict[str, zarr_store.Array] = {}
    problems: dict[str, str] = {}
    damage: dict[str, str] = {}
    for key in keys:
        if f"data/{key}/.zarray" in store.names:
            try:
                arrays[key] = zarr_store.read_array(store, f"data/{key}")
            except zarr_store.Unsupported as error:
                problems[key] = str(error).rstrip(".")
            except UserError as error:
                damage[key] = str(error).rstrip(".")
        elif f"data/{key}/zarr.json" in store.names:
            damage[key] = "an array of zarr v3 among those of v2: write it as v2"
        elif any(name.startswith(f"data/{key}/") and name.endswith(".zarray")
                 for name in store.names):  # fmt: skip
            problems[key] = "a group, not an array"
        else:
            damage[key] = f"data/{key} has files but no .zarray: copy it again"
    _report_unread(store, paths)
    return arrays, problems, damage


def _report_unread(store: zarr_store.Store, paths: Sequence[Sequence[str]]) -> None:
    """Logs which arrays, attributes and files are elsewhere. paths: all names, split at "/"."""
    arrays = {
        tuple(parts[:-1]) for parts in paths if parts[-1] in (".zarray", "zarr.json") and parts[:-1]
    }
    # Arrays in data/ are keys, which are selected or left out one by one.
    others = ["/".join(array) for array in sorted(arrays) if array[0] != "data"]
    # Files that belong to no array and no key: films, notes, what an interrupted copy left.
    for parts in paths:
        inside = any(tuple(parts[:n]) in arrays for n in range(1, len(parts)))
        is_key = parts[0] == "data" and len(parts) > 2
        if not inside and not is_key and parts[-1] not in zarr_store.GROUP_FILES:
            others.append("/".join(parts))
    warn_unread(str(store.path), [name for name in others if name != ENDS], "not in data/")
    attributes = [
        f"{name.removesuffix('.zattrs')}{key}"
        for name in sorted(store.names)
        if name.rsplit("/", 1)[-1] == ".zattrs"
        for key in zarr_store.read_attributes(store, name)
    ]
    warn_unread(str(store.path), attributes, "attributes")


def _ends(store: zarr_store.Store) -> np.ndarray:
    """The ends of the episodes, int64 [E]."""
    array = zarr_store.read_array(store, ENDS)
    # Indices of steps: anything but integers in one dimension is another kind of file.
    if len(array.shape) != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{array}: expected integers [E], got {array.dtype} {list(array.shape)}.")
    # An episode that ends at 0 does not exist, so no chunk is all zeros.
    check_chunks(array, complete=True)
    return zarr_store.reader(array)(0, array.shape[0]).astype(np.int64)
