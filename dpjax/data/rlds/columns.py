"""Columns of the records of an RLDS data set: which features can be read, and how.

A step of an Open X-Embodiment set holds encoded images, integers, flags, scalars and text in nested
dicts, and no two sets are alike. Numbers become float32 where that loses nothing but the digits of
a float64; a scalar becomes a column of one number.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError, choices
from dpjax.data import checks, images

Shape = tuple[int, ...]


class Column(NamedTuple):
    """Where a feature lies in a record.

    key: its key in the proto.
    shape: of one step; None for images whose size the data set does not promise.
    kind: "numbers", "integers", "pixels" (uint8 as whole numbers) or "encoded" (PNG, JPEG).
    """

    key: str
    shape: Shape | None
    kind: str = "numbers"


# One column of the result is joined from these, along their only axis.
Parts = tuple[Column, ...]

# The field of a tf.train.Feature that holds each kind.
KINDS = {
    "numbers": "float_list",
    "integers": "int64_list",
    "pixels": "int64_list",
    "encoded": "bytes_list",
}


def steps(info: Any) -> dict[str, Any]:
    """{path inside a step: feature} of a data set's tfds.core.DatasetInfo."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    # The steps are a sequence of dicts, or a nested data set, which tfds makes a Sequence too.
    feature = dict(_leaves(info.features)).get("steps")
    if not isinstance(feature, tfds.features.Sequence):
        raise UserError(f"{info.data_dir}: not an RLDS data set: expected a feature 'steps'.")
    return dict(_leaves(feature.feature))


def is_camera(parts: Parts) -> bool:
    """Whether a column holds images."""
    return parts[0].kind in ("pixels", "encoded")


def shape(parts: Parts) -> Shape | None:
    """The shape of one step of a column; None for images of any size."""
    return parts[0].shape if len(parts) == 1 else (sum(part.shape[0] for part in parts),)


def _leaves(feature: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path, feature) of all leaves of nested features."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    if not isinstance(feature, tfds.features.FeaturesDict):
        return [(prefix.rstrip("/"), feature)]
    # Depth first, in the order of the description.
    items = feature.items()
    return [leaf for key, child in items for leaf in _leaves(child, f"{prefix}{key}/")]


def column(info: Any, path: str, leaves: Mapping[str, Any]) -> Parts:
    """How the feature at `path` is stored; "a+b" joins two.

    leaves: {path inside a step: feature}, see `steps`.

    Raises a UserError if there is no such feature, or if it cannot be read.
    """
    # Every part must be there; a dict in the place of a leaf gets a hint.
    parts = []
    for name in path.split("+"):
        if name not in leaves:
            inside = [leaf for leaf in sorted(leaves) if leaf.startswith(f"{name}/")]
            hint = f"it is a dict, join what it holds: {'+'.join(inside)}"
            raise UserError(
                f"{info.data_dir}: no key {name!r}; {hint if inside else choices(name, leaves)}."
            )
        parts.append(_column(info, name, leaves[name]))
    # Parts are joined along their axis, which only vectors have.
    if len(parts) == 1:
        return tuple(parts)
    for part in parts:
        if part.shape is None or len(part.shape) != 1:
            raise UserError(
                f"{info.data_dir}: {path}: only vectors are joined, and {part.key} has shape "
                f"{part.shape}."
            )
    return tuple(parts)


def _column(info: Any, path: str, leaf: Any) -> Column:
    """How one feature is stored; raises a UserError unless it is numbers or images."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    # The proto's keys are the paths of features; text and nested data sets have no shape.
    key = f"steps/{path}"
    shape = getattr(leaf, "shape", (None,))
    fixed = None not in shape
    # Images as files, of a fixed size or of any.
    if isinstance(leaf, tfds.features.Image) and shape[-1] == 3 and leaf.np_dtype == np.uint8:
        return Column(key, tuple(shape) if fixed else None, "encoded")
    # Images as bare pixels.
    is_tensor = isinstance(leaf, tfds.features.Tensor) and fixed
    if is_tensor and checks.is_image(shape, leaf.np_dtype):
        return Column(key, tuple(shape), "pixels")
    # Floats, signed and unsigned integers, and booleans.
    kind = np.dtype(leaf.np_dtype).kind if is_tensor else ""
    if kind not in ("f", "i", "u", "b") or len(shape) > 2 or 0 in shape:
        raise UserError(
            f"{info.data_dir}: {path}: expected numbers of fixed shape or uint8 images "
            f"[H, W, 3], got {type(leaf).__name__} of {np.dtype(leaf.np_dtype)} {shape}."
        )
    return Column(key, tuple(shape) or (1,), "numbers" if kind == "f" else "integers")


def parse(record: bytes, layout: Mapping[str, Parts]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the columns {name: [T, ...]} of one record.

    Returns (columns, []), or ({}, [what is wrong with the record]).
    """
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        fields = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its backends
        return {}, [f"not a tf.Example ({error})"]
    # is_first tells the number of steps whatever the shapes are. Not every set has it.
    num_steps = None
    if "steps/is_first" in fields:
        num_steps = len(fields["steps/is_first"].int64_list.value)
    # A column is one part, or several that are joined.
    columns = {}
    for name, parts in layout.items():
        arrays = []
        for part in parts:
            if part.key not in fields:
                return {}, [f"{part.key}: missing in this episode"]
            values, problem = _values(fields[part.key], part, num_steps)
            if problem:
                return {}, [f"{part.key}: {problem}"]
            arrays.append(values)
        # Without is_first, parts may still differ in their number of steps.
        if len({len(values) for values in arrays}) > 1:
            counts = ", ".join(f"{len(x)} of {part.key}" for x, part in zip(arrays, parts))
            return {}, [f"{name}: expected one number of steps in its parts, got {counts}"]
        columns[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, -1)
    return columns, []


def _values(field: Any, column: Column, num_steps: int | None) -> tuple[np.ndarray, str]:
    """(one column [T, ...] of a record, ""), or (nothing, what is wrong with it)."""
    # The proto must hold the kind of list that the data set's description promises.
    nothing = np.zeros(0, np.float32)
    want = KINDS[column.kind]
    kind = field.WhichOneof("kind") or want  # an empty list has no kind
    if kind != want:
        return nothing, f"expected {want}, got {kind}"
    if column.kind == "encoded":
        return images.decode(field.bytes_list.value, column.shape and column.shape[:2])
    flat, problem = _numbers(getattr(field, want).value, column.kind)
    if problem:
        return nothing, problem
    # The proto's list is flat: [T, ...] follows from the shape of one step.
    size = math.prod(column.shape)
    length = num_steps or 0
    if num_steps is None and size:
        length = len(flat) // size
    if len(flat) == length * size:
        return flat.reshape(length, *column.shape), ""
    # Steps of another shape are returned as they are: `checks.check_episode` names both shapes.
    if length and len(flat) % length == 0:
        return flat.reshape(length, -1), ""
    return nothing, f"expected {length} steps of {size} numbers, got {len(flat)} in all"


def _numbers(values: Any, kind: str) -> tuple[np.ndarray, str]:
    """(the values [N] as float32, or as uint8 for pixels, ""), or (…, what is wrong with them)."""
    if kind == "numbers":
        return np.array(values, np.float32), ""
    integers = np.array(values, np.int64)
    if kind == "pixels":
        pixels = images.as_pixels(integers)
        if pixels is None:
            span = f"{integers.min()} to {integers.max()}"
            return integers, f"expected numbers from 0 to 255, got {span}"
        return pixels, ""
    # float32 has all integers up to 2^24, and only some beyond.
    floats = integers.astype(np.float32)
    bad = np.flatnonzero(~exact(integers, floats))
    if len(bad):
        return floats, f"expected integers that float32 has, got {integers[bad[0]]}"
    return floats, ""


def exact(integers: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """Where the integers equal the float32 numbers beside them."""
    wide = floats.astype(np.float64)  # float64 has every int64 up to 2^53
    return (np.abs(wide) < 2.0**53) & (wide == integers)
