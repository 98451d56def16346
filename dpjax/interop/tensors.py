"""Named arrays out of .safetensors files, checked, and as the float32 that networks take.

    8 bytes   n, the header's size
    n bytes   JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}}
    the rest  the numbers; the offsets cover it without a hole or an overlap

The library checks most of this too; twice the same name it does not notice.
"""

from collections.abc import Mapping
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np

from dpjax.core.errors import UserError

MAX_HEADER = 100_000_000  # the format's own bound
DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
EXACT = ("float32", "float16", "bfloat16")  # what float32 holds without rounding


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors file; one line on what is wrong with any other."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a .safetensors file, got {what}.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
        if head == b"version ":
            raise UserError(f"{path}: a Git LFS pointer, not the file: run git lfs pull.")
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(MAX_HEADER, size - 8):
            raise UserError(
                f"{path}: header: expected at most {max(size - 8, 0)} bytes, the file's size, got "
                f"{length}."
            )
        header = _header(path, file.read(length))
        _check_places(path, header, size - 8 - length)
        data = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else np.zeros(0)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[begin:end].tobytes(), DTYPES[entry["dtype"]])
        found[name] = flat.reshape(entry["shape"])
    return found


def _header(path: Path, text: bytes) -> dict[str, dict]:
    """{name: entry}, each entry with the three fields and numbers that make sense."""

    def once(pairs):
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:80]!r} is there twice")
            seen.add(name)
        return dict(pairs)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: header: expected UTF-8 JSON ({str(error)[:120]}).") from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: header: expected a JSON object, got {type(header).__name__}.")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if why := _why_no_entry(entry):
            raise UserError(f"{path}: {name[:80]}: {why}.")
    return header


def _why_no_entry(entry) -> str:
    """What is wrong with one entry of the header, or nothing."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "expected dtype, shape and data_offsets"
    if entry["dtype"] not in DTYPES:
        return f"expected a dtype of {', '.join(DTYPES)}, got {str(entry['dtype'])[:40]!r}"
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(x) is not int or x < 0 for x in numbers):
            return f"expected sizes and offsets of 0 or more, got {str(numbers)[:80]}"
    needed = math.prod(shape) * DTYPES[entry["dtype"]].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != needed:
        return f"expected {needed} bytes for {entry['dtype']}{shape}, got offsets {offsets}"
    return ""


def _check_places(path: Path, header: Mapping[str, dict], size: int) -> None:
    """Refuses arrays that overlap, leave a hole, or do not end where the file does."""
    end = 0
    order = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    for name, entry in order:
        begin, stop = entry["data_offsets"]
        if begin != end:
            what = "overlaps the array before it" if begin < end else "leaves a hole before it"
            where = f"{path}: {name[:80]}: data_offsets"
            raise UserError(f"{where}: expected to begin at {end}, got {begin}: {what}.")
        end = stop
    if end != size:
        raise UserError(f"{path}: expected {end} bytes of numbers, got {size}.")


def as_float32(source: str, arrays: Mapping[str, np.ndarray]) -> tuple[dict, list[str]]:
    """The arrays in float32, and a line where that rounds; no other types, NaN or infinity."""
    found, said = {}, []
    for name, x in arrays.items():
        if x.dtype.name not in (*EXACT, "float64"):
            raise UserError(f"{source}: {name}: expected floats, got {x.dtype.name}.")
        found[name] = x.astype(np.float32)
        bad = int(np.sum(~np.isfinite(found[name])))
        if bad:
            raise UserError(f"{source}: {name}: {bad} of {x.size} numbers are not finite.")
    rounded = [name for name, x in arrays.items() if x.dtype.name == "float64"]
    if rounded:
        said.append(f"{len(rounded)} float64 arrays are rounded to float32, {rounded[0]} first")
    return found, said
