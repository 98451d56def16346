"""Arrays on disk, and the verification that they are read as they were saved.

Orbax stores the arrays, one folder per item. A table beside them has the path, shape, dtype and
sha256 of every leaf, computed from the host copy that was passed to Orbax. Orbax itself does not
detect flipped bits and casts dtypes silently, so every item that is read is compared with the
table.

Here an item is a dict {path: array}, where a path is the tuple of the keys to a leaf. So the names
do not depend on whether a level of the tree was a dict, a NamedTuple or a dataclass.
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


# Not a UserError: the reader catches it and tries an older step.
class Damaged(Exception):
    """A file or leaf on disk differs from what was saved; the message names it."""


def by_path(tree: Any) -> Leaves:
    """Any tree as {path: leaf}, in the order in which jax flattens it."""
    # keystr(simple=True) turns dict keys, field names and tuple positions into plain strings.
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in flat
    }


def nest(leaves: Leaves) -> dict[str, Any]:
    """{path: leaf} as nested dicts."""
    # Not the inverse of `by_path`: tuples and dataclasses become dicts as well.
    return traverse_util.unflatten_dict(leaves)


def spec(entry: dict) -> str:
    """Dtype and shape for messages, such as float32[3, 4]."""
    return f"{entry['dtype']}{list(entry['shape'])}"


def sha256(x: np.ndarray) -> str:
    """Hex digest of the bytes of x in C order; shape and dtype are not included."""
    # Viewed as bytes, since hashlib cannot read bfloat16 arrays.
    flat = np.ascontiguousarray(x).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8)).hexdigest()


def count_non_finite(x: np.ndarray) -> int:
    """The number of NaNs and infinities in x; 0 for integers."""
    # Integers are always finite; `inexact` is floats (bfloat16 too) and complex numbers.
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return 0
    with np.errstate(all="ignore"):
        # Fast path: the sum is finite only if all values are; it takes half the time of a test of
        # each value. If it is not, which an overflow can cause too, the values are counted.
        return 0 if np.isfinite(x.sum()) else int((~np.isfinite(x)).sum())


def entries(leaves: Leaves) -> Entries:
    """The table of one item."""
    # Lists and strings only: the table is stored as JSON.
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
    """Compares a table with the expected leaves; one line for each leaf that differs.

    A leaf differs if it is missing, unexpected, or of another shape or dtype.

    expected: {path: array, or anything with `shape` and `dtype`}.
    """
    # Both sides as {path: dtype and shape}, then the paths of either side.
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
    """Writes one item with Orbax, and waits until it is on disk.

    Orbax accepts neither an empty tree nor an array of size 0. These are in the table only. For
    example, a policy without images has the encoder {}, for which there is no folder.
    """
    # Orbax gets nested dicts of arrays, whatever containers the tree was made of.
    filled = {path: x for path, x in leaves.items() if x.size}
    if filled:
        _orbax().save(directory.absolute(), args=ocp.args.PyTreeSave(nest(filled)))


def read_arrays(directory: Path, table: Entries) -> Leaves:
    """{path: numpy array} of one item, in the order of its table.

    Raises `Damaged` unless exactly the leaves of the table are there, with the same bytes.
    """
    # Read the whole folder, which exists if at least one leaf has a size above 0.
    where = directory.name
    restored = {}
    if any(0 not in entry["shape"] for entry in table):
        if not directory.is_dir():
            raise Damaged(f"{where}: the folder is missing")
        try:
            restored = by_path(_orbax().restore(directory.absolute()))
        # Damaged files raise errors of many classes, from KeyError to XlaRuntimeError.
        except Exception as error:
            # As one line: Orbax's messages may have many.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise Damaged(f"{where}: can't be read ({reason[:200]})") from error
    # Compare each leaf of the table with what was read. Arrays of size 0 follow from their shape.
    leaves = {}
    for entry in table:
        path = tuple(entry["path"])
        name = "/".join((where, *path))
        if 0 in entry["shape"]:
            restored[path] = np.zeros(entry["shape"], entry["dtype"])
        if path not in restored:
            raise Damaged(f"{name}: the leaf is missing")
        # What remains in `restored` at the end is not in the table.
        leaves[path] = np.asarray(restored.pop(path))
        _compare(name, leaves[path], entry)
    # A leaf in the folder that is not in the table was not saved with this checkpoint.
    if restored:
        raise Damaged(f"{where}/{'/'.join(min(restored))}: a leaf that was never saved")
    return leaves


def _compare(name: str, x: np.ndarray, entry: dict) -> None:
    """Raises `Damaged` if x is not the array that the entry describes."""
    # The hash covers the bytes only, so dtype and shape are compared as well.
    here = {"dtype": str(x.dtype), "shape": list(x.shape)}
    if spec(here) != spec(entry):
        raise Damaged(f"{name}: {spec(here)} was read, {spec(entry)} was saved")
    if sha256(x) != entry["sha256"]:
        raise Damaged(f"{name}: the values differ from those that were saved (sha256)")


def _orbax() -> ocp.Checkpointer:
    """An Orbax checkpointer for one tree, used by this process only.

    It does not compress: zstd made float weights 8 % smaller and saving three times as slow.
    """
    # By default Orbax waits for all processes of a distributed run, and only one of them saves.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"dpjax_{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def seal(content: Any) -> str:
    """JSON text that has the content and the sha256 of it; see `read_sealed`."""
    return json.dumps({"sha256": _text_hash(content), "content": content}, indent=1)


def read_sealed(path: Path) -> Any:
    """The content of a sealed file; `Damaged` if the file is missing or was changed."""
    # Three messages, for a file that is missing, that is not valid JSON, or that was changed.
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
    """Hex digest of JSON content; it does not depend on the order of keys or on indentation."""
    # Through JSON once, which turns tuples into lists and integer keys into strings: the content
    # must have the same hash before it is written and after it is read.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sync_folder(path: Path) -> None:
    """Writes a folder's list of names to disk, so that a rename survives a power cut."""
    # POSIX: a folder can be opened like a file, and fsync then writes its list of names.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
