"""Reads the files of a LeRobot policy: JSON objects, and tensors in .safetensors."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.interop.imported import refuse

MAX_JSON = 10_000_000  # bytes, far more than any published policy needs


def read_json(path: Path) -> dict:
    """A JSON object; raises UserError for any other file."""
    # The size is checked first, because a hostile file could be larger than the memory.
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        problem = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        raise refuse(str(path), "the file", "JSON of a LeRobot policy", problem)
    # RecursionError: a file of brackets within brackets exceeds Python's stack.
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise refuse(str(path), "the file", "JSON", f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise refuse(str(path), "the file", "a JSON object", type(content).__name__)
    return content


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """{name: array}; raises UserError, in one line, for a damaged or any other file.

    The library checks sizes, offsets and types before it allocates anything. But if two tensors
    have the same name, it silently returns one of them, so names are checked here.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a .safetensors file, got {what}.")
    files.refuse_pointer(path)  # a Git LFS pointer instead of the file
    try:
        arrays = load_file(path)
        # load_file has checked that the header is valid JSON and ends within the file.
        json.loads(_header(path), object_pairs_hook=_refuse_repeated_names)
    except Exception as error:  # safetensors raises its own type, AttributeError and others
        reason = " ".join(f"{type(error).__name__}: {error}"[:200].split())
        raise UserError(f"{path}: can't be read as .safetensors ({reason}).") from error
    return arrays


def _header(path: Path) -> bytes:
    """The JSON at the start of a .safetensors file: its size in 8 bytes, then the text."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return file.read(size)


def _refuse_repeated_names(pairs: list[tuple]) -> dict:
    # json.loads calls this for every object, before a repeated name is lost in a dict.
    names = set()
    for name, _ in pairs:
        if name in names:
            raise ValueError(f"the name {name[:80]!r} is there twice")
        names.add(name)
    return dict(pairs)
