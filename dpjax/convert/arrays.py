"""A folder of .npz files, or of folders of .npy files: one an episode, arrays [T, ...].

    SRC/000.npz             keys are the names in it
    SRC/000/<key>.npy

Episodes come in natural order (2 before 10). Arrays of pickled objects are never loaded.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dpjax.convert import untrusted_zip
from dpjax.convert.source import EPISODE_LIMIT, Columns, Kind, Source, natural, reading
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

HEADER = 2**16  # bytes of a .npy file that hold its header


class Header(NamedTuple):
    """What the header of a .npy says: shape, type, and bytes before the numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a folder; only headers are read here."""
    del stack  # a file is opened when its episode is read
    episodes, said = _episodes(path)
    headers = [_headers(file) for file in tqdm(episodes, desc="headers", unit=" episodes")]
    first = headers[0]
    kinds = {key: Kind(header.shape[1:], header.dtype) for key, header in first.items()}
    lengths = [_length(*pair, kinds) for pair in zip(episodes, headers)]
    read = lambda e, keys: _read(episodes[e], keys)
    about = lambda e: {"file": episodes[e].name}
    return Source(path, kinds, lengths, read, about=about, said=said)


def _episodes(path: Path) -> tuple[list[Path], list[str]]:
    """The episodes in natural order, and a line on what is none."""
    if not path.is_dir():
        raise UserError(f"{path}: no directory; expected a folder of .npz files.")
    entries = sorted(path.iterdir(), key=lambda entry: natural(entry.name))
    files = [entry for entry in entries if entry.is_file() and entry.suffix == ".npz"]
    folders = [entry for entry in entries if entry.is_dir() and any(entry.glob("*.npy"))]
    if files and folders:
        raise UserError(
            f"{path}: {files[0].name} and {folders[0].name}/: expected either .npz files or "
            "folders of .npy files."
        )
    if not files and not folders:
        raise UserError(f"{path}: expected .npz files, or folders of .npy files, got none.")
    others = [entry.name for entry in entries if entry not in (files or folders)]
    said = [f"{path}: not read: {', '.join(others)}"] if others else []
    return files or folders, said


def _headers(episode: Path) -> dict[str, Header]:
    """{key: Header} of one episode."""
    found = {}
    if episode.is_dir():
        for file in sorted(episode.glob("*.npy")):
            refuse_pointer(file)
            with open(file, "rb") as opened:
                head, size = opened.read(HEADER), file.stat().st_size
            found[file.stem] = _header(head, size, str(file))
        return found
    with untrusted_zip.opened(episode) as zipped:
        for item in zipped.infolist():
            key, suffix = item.filename.removesuffix(".npy"), item.filename[-4:]
            if suffix != ".npy":
                raise UserError(f"{episode}: {item.filename}: expected .npy files in it.")
            head = untrusted_zip.read(episode, zipped, item.filename, min(HEADER, item.file_size))
            found[key] = _header(head, item.file_size, f"{episode}: {key}")
    if not found:
        raise UserError(f"{episode}: expected arrays in it, got none.")
    return found


def _header(head: bytes, size: int, where: str) -> Header:
    """Parses a header, and refuses one that claims another size than is there."""
    stream = io.BytesIO(head)
    with reading(f"{where}: no .npy"):
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise UserError(f"{where}: expected numbers, got pickled objects, which are never loaded.")
    if not shape:
        raise UserError(f"{where}: expected an array [T, ...], got a single number.")
    want = stream.tell() + math.prod(shape) * dtype.itemsize
    if want != size:
        raise UserError(
            f"{where}: expected {want} bytes for {list(shape)} {dtype}, got {size}. Copy it again."
        )
    return Header(shape, dtype, stream.tell())


def _length(episode: Path, headers: Mapping[str, Header], kinds: Mapping[str, Kind]) -> int:
    """The steps of an episode; refuses one whose keys, shapes, types or lengths differ."""
    if headers.keys() != kinds.keys():
        raise UserError(
            f"{episode}: expected the keys {', '.join(kinds)}, got {', '.join(headers)}."
        )
    for key, header in headers.items():
        want, got = kinds[key], Kind(header.shape[1:], header.dtype)
        if want != got:
            raise UserError(
                f"{episode}: {key}: expected {want.dtype} {list(want.shape)} a step, got "
                f"{got.dtype} {list(got.shape)}."
            )
    lengths = {key: header.shape[0] for key, header in headers.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        raise UserError(f"{episode}: expected one number of steps for all keys, got {counts}.")
    return next(iter(lengths.values()))


def _read(episode: Path, keys: Sequence[str]) -> Columns:
    if episode.is_dir():
        return {key: _load(episode / f"{key}.npy", f"{episode}: {key}") for key in keys}
    with untrusted_zip.opened(episode) as zipped:
        raw = {
            key: untrusted_zip.read(episode, zipped, f"{key}.npy", EPISODE_LIMIT) for key in keys
        }
    return {key: _load(io.BytesIO(x), f"{episode}: {key}") for key, x in raw.items()}


def _load(file: Any, where: str) -> np.ndarray:
    with reading(f"{where}: can't be read"):
        return np.load(file, allow_pickle=False)
