"""Weight tables, which map our parameters to another library's tensors.

A weight table is a tuple of `WeightEntry`s and describes one network. The same table reads
weights (`params_from`) and writes them (`tensors_from`). Both check that the entries cover
every number of our leaves and of the other library's tensors. A tensor that is missing, left
over or of another shape raises an error with its name.
"""

from collections.abc import Iterable, Mapping
import logging
import math
from typing import Any, NamedTuple

from flax import traverse_util
import numpy as np

from dpjax.core.errors import UserError

Path = tuple[str, ...]
Shapes = dict[Path, tuple[int, ...]]  # {path of a leaf: shape} of our params
Tensors = Mapping[str, np.ndarray]  # {name: array} of the other library
MAX_NAMES = 5  # how many names an error lists, per kind of problem
EXACT = ("float32", "float16", "bfloat16")  # dtypes that float32 holds without rounding

log = logging.getLogger("dpjax")


class WeightEntry(NamedTuple):
    """One line of a table: leaf[path][index] = tensors[name][tensor_index], axes transposed.

    path: path of our leaf in the params.
    name: name of the other library's tensor.
    axes: order in which our leaf has the tensor's axes; () if the order is the same.
    index, tensor_index: one index per axis: an int, a slice with both ends, or an int array
        that reorders the axis; () for the entire array.
    """

    path: Path
    name: str
    axes: tuple[int, ...] = ()
    index: tuple = ()
    tensor_index: tuple = ()


Table = tuple[WeightEntry, ...]


def linear(path: Path, name: str, **indices: tuple) -> Table:
    """Entries of a linear layer: weights are [out, in] in torch and [in, out] here.

    indices: `index` or `tensor_index` of the weights' entry.
    """
    # Indices select input features. The bias has no input axis, so they do not apply to it.
    return (
        WeightEntry((*path, "kernel"), f"{name}.weight", (1, 0), **indices),
        WeightEntry((*path, "bias"), f"{name}.bias"),
    )


def norm(path: Path, name: str, scale: str = "scale", bias: str = "bias") -> Table:
    """Entries of a normalization layer with one scale and one bias per channel."""
    return (
        WeightEntry((*path, scale), f"{name}.weight"),
        WeightEntry((*path, bias), f"{name}.bias"),
    )


def params_from(
    source: str, table: Iterable[WeightEntry], shapes: Shapes, tensors: Tensors
) -> dict[str, Any]:
    """Our params as nested dicts, read from the other library's float32 tensors.

    source: name of the file in errors. shapes: of our leaves. Raises UserError unless the
    tensors are exactly those of the table.
    """
    table = tuple(table)  # an iterator could be read only once
    # Checks names and shapes, so that every index below is valid.
    check_tensors(source, table, shapes, tensors)
    leaves = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    filled = dict.fromkeys(shapes, 0)  # numbers written into each leaf
    # Copy each part into its leaf. The count tells whether a leaf stays incomplete.
    for entry in table:
        part = tensors[entry.name][entry.tensor_index]
        if entry.axes:
            part = part.transpose(entry.axes)
        leaves[entry.path][entry.index] = part
        filled[entry.path] += part.size
    incomplete = [path for path, count in filled.items() if count != math.prod(shapes[path])]
    # This would be a bug in the table and not in the file, so it is not a UserError.
    assert not incomplete, f"the table leaves out a part of {incomplete}"
    return traverse_util.unflatten_dict(leaves)


def tensors_from(
    table: Iterable[WeightEntry], leaves: Mapping[Path, np.ndarray]
) -> dict[str, np.ndarray]:
    """The other library's float32 tensors {name: array}, written from our leaves."""
    table = tuple(table)
    # Every tensor starts as zeros, and the entries fill it part by part.
    shapes = tensor_shapes(table, {path: leaf.shape for path, leaf in leaves.items()})
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for entry in table:
        part = np.asarray(leaves[entry.path])[entry.index]
        if entry.axes:
            part = part.transpose(np.argsort(entry.axes))  # the inverse permutation
        tensors[entry.name][entry.tensor_index] = part
    # A leaf of size 0, as in a policy without observations, needs no entry.
    with_numbers = {path for path, leaf in leaves.items() if np.size(leaf)}
    unused = sorted(with_numbers - {entry.path for entry in table})
    assert not unused, f"no entry of the table reads {unused}"
    return tensors


def check_tensors(
    source: str, table: Iterable[WeightEntry], shapes: Shapes, tensors: Tensors
) -> None:
    """Raises UserError unless the tensors have exactly the names and shapes of the table."""
    # The shapes that the table expects, by the other library's names.
    expected = tensor_shapes(table, shapes)
    reshaped = [
        f"{name}: expected {list(shape)}, got {list(tensors[name].shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    # One error lists all three kinds of problems, since one often explains the others.
    problems = {
        "missing": sorted(set(expected) - set(tensors)),
        "left over": sorted(set(tensors) - set(expected)),
        "of another shape": reshaped,
    }
    texts = [
        f"{len(names)} {problem} ({first_names(names)})"
        for problem, names in problems.items()
        if names
    ]
    if texts:
        raise UserError(f"{source}: these tensors are not of that network: {'; '.join(texts)}.")


def tensor_shapes(table: Iterable[WeightEntry], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """{name: shape} of all tensors of the table, derived from the shapes of our leaves.

    Several entries may cover parts of one tensor. Its size along an axis is the largest index
    that any of them reaches, plus one.
    """
    largest: dict[str, list[int]] = {}
    for entry in table:
        sizes = _sizes_in_tensor(entry, shapes[entry.path])
        # Entries of one tensor have the same number of axes, but reach different indices.
        known = largest.setdefault(entry.name, [0] * len(sizes))
        largest[entry.name] = [max(pair) for pair in zip(known, sizes)]
    return {name: tuple(sizes) for name, sizes in largest.items()}


def _sizes_in_tensor(entry: WeightEntry, leaf_shape: tuple[int, ...]) -> list[int]:
    """How far the entry reaches along each axis of the tensor."""
    # The shape of the indexed part of our leaf. broadcast_to allocates no memory for the leaf.
    part = list(np.broadcast_to(np.False_, leaf_shape)[entry.index].shape)
    if entry.axes:  # from the order of our axes to the order of the tensor's
        part = [part[entry.axes.index(axis)] for axis in range(len(part))]
    sizes = []
    # An int index removes the tensor's axis, so our part has no axis for it. Every other index
    # belongs to the next axis of our part.
    for at in (*(entry.tensor_index or ()), *[slice(None)] * len(part)):
        if isinstance(at, int):
            sizes.append(at + 1)
        elif part:
            sizes.append(_end(at, part.pop(0)))
    return sizes


def _end(at: Any, size: int) -> int:
    """One past the last number that a slice or an int array of `size` numbers reaches."""
    if isinstance(at, slice):
        return size if at.stop is None else at.stop
    return int(at.max()) + 1


def first_names(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    # The rest is only counted, so that the error stays one line.
    more = f", and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def as_float32(source: str, arrays: Tensors) -> dict[str, np.ndarray]:
    """The arrays in float32; logs a warning where float64 is rounded.

    Raises UserError for integers and other dtypes, and for numbers that are not finite.
    """
    converted = {}
    for name, x in arrays.items():
        # numpy itself has no bfloat16, so dtypes are compared by name.
        if x.dtype.name not in (*EXACT, "float64"):
            raise UserError(f"{source}: {name}: expected floats, got {x.dtype.name}.")
        converted[name] = x.astype(np.float32)
        # Checked after the conversion, which turns a large float64 into infinity.
        bad = int(np.sum(~np.isfinite(converted[name])))
        if bad:
            raise UserError(f"{source}: {name}: {bad} of {x.size} numbers are not finite.")
    rounded = [name for name, x in arrays.items() if x.dtype.name == "float64"]
    if rounded:
        log.warning("%d float64 arrays are rounded to float32, %s first", len(rounded), rounded[0])
    return converted
