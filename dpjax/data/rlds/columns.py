"""Which features of an RLDS data set can be read as columns, and how.

A step of an Open X-Embodiment data set is a nested dict of encoded images, integers, flags, scalars
and text, and every data set has its own. Floats become float32. Integers and flags become float32
too, provided that it represents them exactly. A scalar becomes a column of one number per step.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError, choices
from dpjax.data import checks, images

Shape = tuple[int, ...]


# A matrix per step of up to so many numbers is a column: keypoints, poses. A larger one is an image
# of one channel, such as depth, and a column only if somebody names it.
MATRIX_LIMIT = 1000


class Column(NamedTuple):
    """Where a record has a feature, and in which form.

    key: the key of the feature in the proto.
    shape: the shape of one step; None for images whose size the data set does not declare.
    kind: "numbers", "integers", "pixels" (uint8 as whole numbers) or "encoded" (PNG, JPEG).
    """

    key: str
    shape: Shape | None
    kind: str = "numbers"


# The features that make up one column of the result: a single one, or several vectors to be joined
# along their only axis.
Parts = tuple[Column, ...]

# For each kind, the field of a tf.train.Feature that holds the values.
KINDS = {
    "numbers": "float_list",
    "integers": "int64_list",
    "pixels": "int64_list",
    "encoded": "bytes_list",
}


def steps(info: Any) -> dict[str, Any]:
    """{path inside a step: feature} of a data set's tfds.core.DatasetInfo."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    # `steps` is declared as a Sequence of dicts or as a Dataset, which is a subclass of Sequence.
    feature = dict(_leaves(info.features)).get("steps")
    if not isinstance(feature, tfds.features.Sequence):
        raise UserError(f"{info.data_dir}: not an RLDS data set: expected a feature 'steps'.")
    return dict(_leaves(feature.feature))


def paths(info: Any) -> list[str]:
    """The paths of all features of an episode; those of its steps are one, "steps"."""
    return [path for path, _ in _leaves(info.features)]


def is_large_matrix(parts: Parts) -> bool:
    """Whether a column has two axes per step and more than MATRIX_LIMIT numbers, as depth has."""
    size = parts[0].shape
    return size is not None and len(size) == 2 and math.prod(size) > MATRIX_LIMIT


def is_camera(parts: Parts) -> bool:
    """Whether a column holds images."""
    # Images are never joined, so the first part is the only one.
    return parts[0].kind in ("pixels", "encoded")


def shape(parts: Parts) -> Shape | None:
    """The shape of one step of a column; None for images of any size."""
    # Joined vectors have the sum of their lengths.
    return parts[0].shape if len(parts) == 1 else (sum(part.shape[0] for part in parts),)


def _leaves(feature: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path, feature) of all leaves of nested features."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    if not isinstance(feature, tfds.features.FeaturesDict):
        return [(prefix.rstrip("/"), feature)]
    # Depth first, in the order in which the data set declares its features.
    items = feature.items()
    return [leaf for key, child in items for leaf in _leaves(child, f"{prefix}{key}/")]


def column(info: Any, path: str, leaves: Mapping[str, Any]) -> Parts:
    """Where and how the features at `path` are stored; the path "a+b" joins a and b.

    leaves: {path inside a step: feature}, see `steps`.

    Raises a UserError if there is no such feature, or if it cannot be read.
    """
    # Look up every part. If a path leads to a dict, the error suggests to join its leaves.
    parts = []
    for name in path.split("+"):
        if name not in leaves:
            inside = [leaf for leaf in sorted(leaves) if leaf.startswith(f"{name}/")]
            hint = f"it is a dict, join what it holds: {'+'.join(inside)}"
            raise UserError(
                f"{info.data_dir}: no key {name!r}; {hint if inside else choices(name, leaves)}."
            )
        parts.append(_column(info, name, leaves[name]))
    # Several parts are joined along their only axis, so each must be a vector.
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
    """Where and how one feature is stored; a UserError unless it is numbers or images."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    # The key in the proto is the path in the record. Text and nested data sets have no shape.
    key = f"steps/{path}"
    shape = getattr(leaf, "shape", (None,))
    fixed = None not in shape
    # Encoded images, of one size or of any.
    if isinstance(leaf, tfds.features.Image) and shape[-1] == 3 and leaf.np_dtype == np.uint8:
        return Column(key, tuple(shape) if fixed else None, "encoded")
    # Images stored as pixels.
    is_tensor = isinstance(leaf, tfds.features.Tensor) and fixed
    if is_tensor and checks.is_image(shape, leaf.np_dtype):
        return Column(key, tuple(shape), "pixels")
    # Compressed tensors are bytes in the record. They are rare, and are not decoded.
    is_tensor = is_tensor and leaf._encoding == tfds.features.Encoding.NONE
    # Floats, signed and unsigned integers, and booleans.
    kind = np.dtype(leaf.np_dtype).kind if is_tensor else ""
    if kind not in ("f", "i", "u", "b") or len(shape) > 2 or 0 in shape:
        raise UserError(
            f"{info.data_dir}: {path}: expected numbers of fixed shape or uint8 images "
            f"[H, W, 3], got {_describe(leaf)}."
        )
    # A scalar becomes a vector of length 1.
    return Column(key, tuple(shape) or (1,), "numbers" if kind == "f" else "integers")


def _describe(leaf: Any) -> str:
    """Class, type and shape of a feature that can't be read: "Image of uint16 (8, 8, 1)"."""
    name = type(leaf).__name__
    # A sequence of dicts has a dict of types and of shapes.
    if isinstance(leaf.np_dtype, Mapping):
        return f"{name} of {', '.join(leaf.np_dtype)}"
    encoding = getattr(leaf, "_encoding", None)
    compressed = f", {encoding.name.lower()}" if encoding and encoding.name != "NONE" else ""
    return f"{name} of {np.dtype(leaf.np_dtype)} {leaf.shape}{compressed}"


def parse(record: bytes, layout: Mapping[str, Parts]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the columns {name: [T, ...]} of one record.

    Returns (columns, []), or ({}, [the problem of the record]).
    """
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        fields = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its backends
        return {}, [f"not a tf.Example ({error})"]
    # The flag is_first has one value per step, so it gives the number of steps. Some data sets do
    # not have it; there the number follows from the shapes.
    num_steps = None
    if "steps/is_first" in fields:
        num_steps = len(fields["steps/is_first"].int64_list.value)
    # Read the parts of each column and join them.
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
    """(one column [T, ...] of a record, ""), or (no values, the problem)."""
    # The record must hold the kind of list that the data set declares.
    nothing = np.zeros(0, np.float32)
    want = KINDS[column.kind]
    kind = field.WhichOneof("kind") or want  # an empty list has no kind
    if kind != want:
        return nothing, f"expected {want}, got {kind}"
    # Images check their own size and number of channels.
    if column.kind == "encoded":
        return images.decode(field.bytes_list.value, column.shape and column.shape[:2])
    flat, problem = _numbers(getattr(field, want).value, column.kind)
    if problem:
        return nothing, problem
    # The list is flat. Without is_first its length gives the number of steps T.
    size = math.prod(column.shape)
    length = num_steps or 0
    if num_steps is None and size:
        length = len(flat) // size
    if len(flat) == length * size:
        return flat.reshape(length, *column.shape), ""
    # Steps of another shape are returned as they are, and `checks.check_episode` reports both
    # shapes. Values that cannot be divided into T steps are reported here.
    if length and len(flat) % length == 0:
        return flat.reshape(length, -1), ""
    return nothing, f"expected {length} steps of {size} numbers, got {len(flat)} in all"


def _numbers(values: Any, kind: str) -> tuple[np.ndarray, str]:
    """(the values [N] as float32, or as uint8 for pixels, ""), or (…, the problem)."""
    # Floats are rounded to float32.
    if kind == "numbers":
        return np.array(values, np.float32), ""
    # Pixels must be whole numbers from 0 to 255.
    integers = np.array(values, np.int64)
    if kind == "pixels":
        pixels = images.as_pixels(integers)
        if pixels is None:
            span = f"{integers.min()} to {integers.max()}"
            return integers, f"expected numbers from 0 to 255, got {span}"
        return pixels, ""
    # float32 represents all integers up to 2^24 and only some of the larger ones.
    floats = integers.astype(np.float32)
    bad = np.flatnonzero(~exact(integers, floats))
    if len(bad):
        return floats, f"expected integers that float32 has, got {integers[bad[0]]}"
    return floats, ""


def exact(integers: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """Which of the integers are equal to the corresponding float32 values; bool [N]."""
    # Compared in float64, which represents every float32, and every integer up to 2^53.
    wide = floats.astype(np.float64)
    return (np.abs(wide) < 2.0**53) & (wide == integers)
