"""Arrays on disk, and the proof that they came back as they were.

Orbax stores the arrays, one folder per item. Beside them lies a table with the path, shape, dtype
and sha256 of every leaf, computed from the host copy that was handed to Orbax. Orbax itself
returns flipped bits and casts dtypes without a word, so an item that was read is used only if it
agrees with the table.

An item is handled as {path: array}, a path being the tuple of its keys. So names do not depend on
whether a level of the tree was a dict, a NamedTuple or a dataclass.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

# {path: array} of one item.
Leaves = dict[tuple[str, ...], Any]
# [{"path", "shape", "dtype", "sha256"}], one per leaf of an item.
Entries = list[dict]


class Damaged(Exception):
    """What is on disk is not what was saved; the message names the file or leaf."""


def by_path(tree: Any) -> Leaves:
    """Any tree as {path: leaf}, in the order in which jax flattens it."""
    # Keys of dicts, fields of dataclasses and positions in tuples all become plain strings.
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in flat
    }


def nest(leaves: Leaves) -> dict[str, Any]:
    """{path: leaf} as nested dicts."""
    return traverse_util.unflatten_dict(leaves)


def spec(entry: dict) -> str:
    """Dtype and shape as people write them: float32[3, 4]."""
    return f"{entry['dtype']}{list(entry['shape'])}"


def sha256(x: np.ndarray) -> str:
    """Hex digest of the bytes of x in C order; shape and dtype are not included."""
    # Hashed as bytes: a bfloat16 array itself has no memoryview.
    flat = np.ascontiguousarray(x).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8)).hexdigest()


def count_non_finite(x: np.ndarray) -> int:
    """How many NaNs and infinities are in x; 0 for integers."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return 0
    with np.errstate(all="ignore"):
        # A NaN or infinity survives the sum, which is twice as fast as looking at each number. A
        # sum that overflows is looked at again.
        return 0 if np.isfinite(x.sum()) else int((~np.isfinite(x)).sum())


def entries(leaves: Leaves) -> Entries:
    """The table of one item."""
    return [
        {
            "path": list(path),
            "shape": list(x.shape),
            "dtype": str(x.dtype),
            "sha256": sha256(x),
        }
        for path, x in leaves.items()
    ]


def mismatches(item: str, table: Entries, expected: Leaves) -> list[str]:
    """One line for each leaf whose presence, shape or dtype in the table is not the expected one.

    expected: {path: array, or anything with `shape` and `dtype`}.
    """
    # Both sides as {path: dtype and shape}.
    have = {tuple(entry["path"]): spec(entry) for entry in table}
    want = {
        path: spec({"dtype": np.dtype(x.dtype), "shape": x.shape}) for path, x in expected.items()
    }
    return [
        f"{'/'.join((item, *path))}: checkpoint has {have.get(path, 'no such leaf')}, "
        f"expected {want.get(path, 'no such leaf')}"
        for path in sorted({*have, *want})
        if have.get(path) != want.get(path)
    ]


def write_arrays(directory: Path, leaves: Leaves) -> None:
    """Writes one item with Orbax; it is on disk when this returns.

    Orbax takes neither an empty tree nor an array of size 0. Both are in the table alone: the
    encoder {} of a policy that sees numbers only has no folder.
    """
    # Orbax sees nested dicts of arrays and nothing else, whatever the tree was made of.
    filled = {path: x for path, x in leaves.items() if x.size}
    if filled:
        _orbax().save(directory.absolute(), args=ocp.args.PyTreeSave(nest(filled)))


def read_arrays(directory: Path, table: Entries) -> Leaves:
    """{path: numpy array} of one item, in the order of its table.

    Raises `Damaged` unless exactly the leaves of the table are there, with the same bytes.
    """
    # Everything that Orbax finds, as numpy arrays.
    where = directory.name
    restored = {}
    if any(0 not in entry["shape"] for entry in table):
        if not directory.is_dir():
            raise Damaged(f"{where}: the folder is missing")
        try:
            restored = by_path(_orbax().restore(directory.absolute()))
        # Torn files end in errors of many classes, from KeyError to XlaRuntimeError.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise Damaged(f"{where}: can't be read ({reason[:200]})") from error
    # Each leaf of the table must be among it; arrays of size 0 were never handed to Orbax.
    leaves = {}
    for entry in table:
        path = tuple(entry["path"])
        name = "/".join((where, *path))
        if 0 in entry["shape"]:
            restored[path] = np.zeros(entry["shape"], entry["dtype"])
        if path not in restored:
            raise Damaged(f"{name}: the leaf is missing")
        leaves[path] = np.asarray(restored.pop(path))
        _compare(name, leaves[path], entry)
    # Whatever is left over does not belong to this checkpoint.
    if restored:
        raise Damaged(f"{where}/{'/'.join(min(restored))}: a leaf that was never saved")
    return leaves


def _compare(name: str, x: np.ndarray, entry: dict) -> None:
    """Raises `Damaged` if x is not the array that the entry describes."""
    # Orbax would cast or reshape silently, so dtype and shape come before the bytes.
    here = {"dtype": str(x.dtype), "shape": list(x.shape)}
    if spec(here) != spec(entry):
        raise Damaged(f"{name}: {spec(here)} was read, {spec(entry)} was saved")
    if sha256(x) != entry["sha256"]:
        raise Damaged(f"{name}: the values differ from those that were saved (sha256)")


def _orbax() -> ocp.Checkpointer:
    """An Orbax checkpointer of one tree, for this process alone.

    Uncompressed: compression made float weights 8 % smaller and a save three times as slow (zstd).
    Without active_processes Orbax would wait for processes that do not save.
    """
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"dpjax_{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def seal(content: Any) -> str:
    """JSON text that carries the sha256 of its own content."""
    return json.dumps({"sha256": _text_hash(content), "content": content}, indent=1)


def read_sealed(path: Path) -> Any:
    """The content of a sealed file; `Damaged` if it is missing or not what was written."""
    # Missing, unreadable and changed are three different faults for whoever looks at the disk.
    try:
        sealed = json.loads(path.read_text(encoding="utf-8"))
        intact = sealed["sha256"] == _text_hash(sealed["content"])
    except FileNotFoundError:
        raise Damaged(f"{path.name}: missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Damaged(f"{path.name}: can't be read ({reason[:200]})") from error
    if not intact:
        raise Damaged(f"{path.name}: the content differs from what was written (sha256)")
    return sealed["content"]


def _text_hash(content: Any) -> str:
    """Hex digest of JSON content, whatever its order and indentation."""
    # Through JSON once more: tuples and integer keys are hashed as what will be read back.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sync_folder(path: Path) -> None:
    """Writes the names in a folder to disk, so that a rename survives a power cut."""
    # POSIX: a folder is opened like a file, and fsync then covers its names.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
