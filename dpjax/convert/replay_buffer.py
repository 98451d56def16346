"""The replay buffers of Chi et al.'s code and of UMI: a zarr v2 directory or zip.

    data/<key>         [N, ...]  all steps of all episodes
    meta/episode_ends  [E]       for each episode, the index of the step after its last one

Images are uint8, or whole numbers in float32 as in the original Push-T data.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from dpjax.convert import zarr_store
from dpjax.convert.source import Columns, Feature, Source
from dpjax.core.errors import UserError
from dpjax.data import checks

ENDS = "meta/episode_ends"


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a replay buffer, which stays open as long as `stack`."""
    store = stack.enter_context(zarr_store.open_store(path))
    # Only the arrays' descriptions and the ends are read here.
    arrays = _arrays(store)
    ends = _ends(store)
    # The ends must increase up to the number of steps, which all arrays share.
    for key, array in arrays.items():
        checks.check_ends(ends, array.shape[0], f"{path}: {key}")
    # ends = [30, 41, 100] -> lengths = [30, 11, 59]
    lengths = np.diff(ends, prepend=0)
    # {key: function (start, end) -> steps}. Each has a cache, so it is made once and kept.
    readers: dict[str, Callable[[int, int], np.ndarray]] = {}

    def read(e: int, keys: Sequence[str]) -> Columns:
        for key in keys:
            if key not in readers:
                # On the first read of a key: keys that are not converted may lack chunks.
                zarr_store.check_chunks(arrays[key])
                readers[key] = zarr_store.reader(arrays[key])
        start = int(ends[e] - lengths[e])
        end = int(ends[e])
        return {key: readers[key](start, end) for key in keys}

    features = {key: Feature(array.shape[1:], array.dtype) for key, array in arrays.items()}
    return Source(path, features, lengths.tolist(), read)


def _arrays(store: zarr_store.Store) -> dict[str, zarr_store.Array]:
    """{key: array} of data/; only their descriptions are read."""
    # Keys are found in the list of file names, since a zip need not have entries for folders.
    names = [name.split("/") for name in sorted(store.names)]
    keys = [parts[1] for parts in names if parts[0] == "data" and parts[2:] == [".zarray"]]
    if not keys:
        hint = " It is zarr v3: write it as v2." if "zarr.json" in store.names else ""
        raise UserError(
            f"{store.path}: not a zarr (v2) replay buffer: expected data/<key>/.zarray.{hint}"
        )
    if f"{ENDS}/.zarray" not in store.names:
        raise UserError(f"{store.path}: not a replay buffer: expected {ENDS}.")
    return {key: zarr_store.read_array(store, f"data/{key}") for key in keys}


def _ends(store: zarr_store.Store) -> np.ndarray:
    """The ends of the episodes, int64 [E]."""
    array = zarr_store.read_array(store, ENDS)
    # Indices of steps: anything but integers in one dimension is another kind of file.
    if len(array.shape) != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{array}: expected integers [E], got {array.dtype} {list(array.shape)}.")
    # zarr would read a missing chunk as zeros, and episodes would be cut in the wrong places.
    zarr_store.check_chunks(array)
    return zarr_store.reader(array)(0, array.shape[0]).astype(np.int64)
