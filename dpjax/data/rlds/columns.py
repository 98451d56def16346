"""Columns of the records of an RLDS data set: which features can be read, and how.

A step of Open X-Embodiment holds encoded images, integers, flags, scalars and text in
nested dicts, and no two sets the same. Numbers become float32 where that loses nothing but
the digits of a float64; a scalar becomes a column of one number.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from dpjax.core.errors import UserError, choices
from dpjax.data import checks, images


class Column(NamedTuple):
    """Where a wanted feature lies in a record: key of the proto, and shape of one step.

    shape: None for images of which the data set promises no size.
    kind: "numbers", "integers", "pixels" (uint8 as whole numbers) or "encoded" (PNG, JPEG).
    """

    key: str
    shape: tuple[int, ...] | None
    kind: str = "numbers"


Parts = tuple[Column, ...]  # that one column is joined of, along its only axis

KINDS = {
    "numbers": "float_list",
    "integers": "int64_list",
    "pixels": "int64_list",
    "encoded": "bytes_list",
}


def steps(info: tfds.core.DatasetInfo) -> dict[str, Any]:
    """{path inside a step: feature}."""
    found = dict(_leaves(info.features)).get("steps")
    if not isinstance(found, tfds.features.Sequence):  # a Dataset is one
        raise UserError(f"{info.data_dir}: no RLDS data set: expected a feature 'steps'.")
    return dict(_leaves(found.feature))


def is_camera(parts: Parts) -> bool:
    """Whether a column is images."""
    return parts[0].kind in ("pixels", "encoded")


def shape(parts: Parts) -> tuple[int, ...] | None:
    """The shape of one step of a column; None for images of any size."""
    return parts[0].shape if len(parts) == 1 else (sum(part.shape[0] for part in parts),)


def _leaves(feature: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path inside a step, feature) of all the leaves."""
    if not isinstance(feature, tfds.features.FeaturesDict):
        return [(prefix.rstrip("/"), feature)]
    items = feature.items()
    return [leaf for key, child in items for leaf in _leaves(child, f"{prefix}{key}/")]


def column(info: tfds.core.DatasetInfo, path: str, leaves: Mapping[str, Any]) -> Parts:
    """How a wanted feature is stored; "a+b" joins two. Refuses what can't be read."""
    parts = []
    for name in path.split("+"):
        if name not in leaves:
            inside = [leaf for leaf in sorted(leaves) if leaf.startswith(f"{name}/")]
            hint = f"it is a dict, join what it holds: {'+'.join(inside)}"
            raise UserError(
                f"{info.data_dir}: no key {name!r}; {hint if inside else choices(name, leaves)}."
            )
        parts.append(_column(info, name, leaves[name]))
    for part in parts if len(parts) > 1 else ():
        if part.shape is None or len(part.shape) != 1:
            raise UserError(
                f"{info.data_dir}: {path}: only vectors are joined, and {part.key} has shape "
                f"{part.shape}."
            )
    return tuple(parts)


def _column(info: tfds.core.DatasetInfo, path: str, leaf: Any) -> Column:
    """How one feature is stored; refuses what is neither numbers nor images."""
    key = f"steps/{path}"
    shape = getattr(leaf, "shape", (None,))
    fixed = None not in shape
    if isinstance(leaf, tfds.features.Image) and shape[-1] == 3 and leaf.np_dtype == np.uint8:
        return Column(key, tuple(shape) if fixed else None, "encoded")
    known = isinstance(leaf, tfds.features.Tensor) and fixed
    if known and checks.is_image(shape, leaf.np_dtype):
        return Column(key, tuple(shape), "pixels")
    kind = np.dtype(leaf.np_dtype).kind if known else ""
    if kind not in ("f", "i", "u", "b") or len(shape) > 2 or 0 in shape:
        raise UserError(
            f"{info.data_dir}: {path}: expected numbers of fixed shape or uint8 images "
            f"[H, W, 3], got {type(leaf).__name__} of {np.dtype(leaf.np_dtype)} {shape}."
        )
    return Column(key, tuple(shape) or (1,), "numbers" if kind == "f" else "integers")


def parse(record: bytes, layout: Mapping[str, Parts]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns {name: [T, ...]} of one record, or what is wrong with it."""
    try:
        fields = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its backends
        return {}, [f"not a tf.Example ({error})"]
    # With is_first the number of steps is known apart from the shapes. Not every set has it.
    steps = None
    if "steps/is_first" in fields:
        steps = len(fields["steps/is_first"].int64_list.value)
    columns = {}
    for name, parts in layout.items():
        found = []
        for part in parts:
            if part.key not in fields:
                return {}, [f"{part.key}: missing in this episode"]
            values, problem = _values(fields[part.key], part, steps)
            if problem:
                return {}, [f"{part.key}: {problem}"]
            found.append(values)
        if len({len(values) for values in found}) > 1:
            counts = ", ".join(f"{len(x)} of {part.key}" for x, part in zip(found, parts))
            return {}, [f"{name}: expected one number of steps of its parts, got {counts}"]
        columns[name] = found[0] if len(found) == 1 else np.concatenate(found, -1)
    return columns, []


def _values(field: Any, column: Column, steps: int | None) -> tuple[np.ndarray, str]:
    """One column [T, ...] of a record, or what is wrong with it."""
    nothing = np.zeros(0, np.float32)
    want = KINDS[column.kind]
    kind = field.WhichOneof("kind") or want  # no kind: no values
    if kind != want:
        return nothing, f"expected {want}, got {kind}"
    if column.kind == "encoded":
        return images.decode(field.bytes_list.value, column.shape and column.shape[:2])
    flat, problem = _numbers(getattr(field, want).value, column.kind)
    if problem:
        return nothing, problem
    size = math.prod(column.shape)
    length = len(flat) // size if steps is None and size else steps or 0
    if len(flat) == length * size:
        return flat.reshape(length, *column.shape), ""
    if length and len(flat) % length == 0:  # a step of another shape: check names it
        return flat.reshape(length, -1), ""
    return nothing, f"expected {length} steps of {size} numbers, got {len(flat)} in all"


def _numbers(values: Any, kind: str) -> tuple[np.ndarray, str]:
    """The values [N] as float32, or uint8 for pixels, or what is wrong with them."""
    if kind == "numbers":
        return np.array(values, np.float32), ""
    whole = np.array(values, np.int64)
    if kind == "pixels":
        pixels = images.as_pixels(whole)
        if pixels is None:
            return whole, f"expected numbers from 0 to 255, got {whole.min()} to {whole.max()}"
        return pixels, ""
    flat = whole.astype(np.float32)
    bad = np.flatnonzero(~exact(whole, flat))
    if len(bad):
        return flat, f"expected integers that float32 has, got {whole[bad[0]]}"
    return flat, ""


def exact(whole: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Where the integers `whole` are the float32 numbers `flat`."""
    wide = flat.astype(np.float64)  # it has every int64 up to 2^53
    return (np.abs(wide) < 2.0**53) & (wide == whole)
