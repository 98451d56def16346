"""A folder of .npz files, or of folders of .npy files: one per episode, arrays [T, ...].

    SRC/000.npz             its arrays' names are the keys
    SRC/000/<key>.npy

Episodes are sorted in natural order (2 before 10). Arrays of pickled objects are never loaded.
"""

from collections.abc import Sequence
from contextlib import ExitStack
import io
import math
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from dpjax.convert import untrusted_zip
from dpjax.convert.compared import Header, numbers, source_fields
from dpjax.convert.source import (
    EPISODE_LIMIT,
    Columns,
    Source,
    as_user_error,
    natural_order,
    plain_files,
)
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer
from dpjax.core.unread import warn_unread

# Bytes that are read of a .npy file to parse its header. numpy refuses headers of more than 10,000
# bytes anyway, because it parses them as a Python literal.
HEADER_LIMIT = 2**16


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a folder. Only headers are read here; `Source.read` reads the numbers."""
    del stack  # nothing stays open: a file is opened when its episode is read
    episodes = _list_episodes(path)
    # All headers are read before anything is written: an episode of another shape is reported
    # within seconds, not after hours of conversion.
    headers, bad = {}, {}
    others: list[str] = []
    for e, episode in enumerate(tqdm(episodes, desc="headers", unit=" episodes")):
        try:
            headers[e], beside = _headers(episode)
            others += [f"{episode.name}/{name}" for name in beside]
        except UserError as error:
            bad[e] = str(error).rstrip(".")
    warn_unread(str(path), others, "not a .npy file")
    if not headers:
        raise UserError(f"{path}: no episode can be read; {bad[0]}.")

    def label(e: int, key: str) -> str:
        inside = f"/{key}.npy" if episodes[e].is_dir() else f": {key}"
        return f"{episodes[e].name}{inside}"

    return Source(
        path=path,
        read=lambda e, keys: _read(episodes[e], keys),
        metadata=lambda e: {"file": episodes[e].name},
        bad=bad,
        **source_fields(path, headers, len(episodes), label),
    )


def _list_episodes(path: Path) -> list[Path]:
    """The files or folders of the episodes in natural order; logs what else is there."""
    if not path.is_dir():
        raise UserError(f"{path}: not a directory; expected a folder of .npz files.")
    for _ in plain_files(path):  # links that lead elsewhere are refused
        pass
    entries = sorted(path.iterdir(), key=lambda entry: natural_order(entry.name))
    # A folder without .npy files is not an episode: it may hold notes or videos.
    files = [entry for entry in entries if entry.is_file() and entry.suffix == ".npz"]
    folders = [entry for entry in entries if entry.is_dir() and any(entry.glob("*.npy"))]
    if files and folders:
        raise UserError(
            f"{path}: {files[0].name} and {folders[0].name}/: expected either .npz files or "
            "folders of .npy files."
        )
    episodes = files or folders
    if not episodes:
        raise UserError(f"{path}: expected .npz files, or folders of .npy files, got none.")
    # Everything else is left alone, but named: it may be a file with a misspelt suffix.
    others = [entry.name for entry in entries if entry not in episodes]
    warn_unread(str(path), others, "not an episode")
    return episodes


def _headers(episode: Path) -> tuple[dict[str, Header], list[str]]:
    """({key: Header} of one episode, the names of what is not an array in it)."""
    headers = {}
    # A folder: one key per .npy file.
    if episode.is_dir():
        for file in sorted(episode.glob("*.npy")):
            refuse_pointer(file)  # a small text that Git LFS leaves in place of the file
            with as_user_error(f"{file}: can't be read"), open(file, "rb") as opened:
                start = opened.read(HEADER_LIMIT)
            headers[file.stem] = _parse(start, file.stat().st_size)
        others = [entry.name for entry in sorted(episode.iterdir()) if entry.suffix != ".npy"]
        return headers, others
    # A .npz file is a zip of .npy files, one per key. Only the start of each is decompressed.
    with untrusted_zip.open_zip(episode) as archive:
        others = []
        for name in dict.fromkeys(archive.namelist()):  # the last of two of one name counts
            key = name.removesuffix(".npy")  # "state.npy" -> "state"
            if key == name:
                others.append(name)
                continue
            item = archive.getinfo(name)
            try:
                size = min(HEADER_LIMIT, item.file_size)
                start = untrusted_zip.read(episode, archive, name, size)
                headers[key] = _parse(start, item.file_size)
            except UserError as error:  # a wrong CRC, or a cut member
                headers[key] = Header(damage=str(error))
    if not headers:
        raise UserError(f"{episode}: expected arrays in it, got none.")
    return headers, others


def _parse(start: bytes, size: int) -> Header:
    """Parses a header; compares the file's size with it.

    start: the first bytes of the file. size: bytes of the whole file.
    """
    # numpy writes version 1.0, or 2.0 if the header is longer than 64 KiB. Version 3.0 is for
    # structured arrays with field names beyond Latin-1; plain numbers have no fields.
    stream = io.BytesIO(start)
    try:
        with as_user_error("not a .npy file"):
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(stream)
    except UserError as error:
        return Header(damage=str(error).rstrip("."))
    # Objects are stored as a pickle, and loading a pickle can run any code.
    if dtype.hasobject:
        return Header(problem="expected numbers, got pickled objects, which are never loaded")
    # The stream's position is now the end of the header; the numbers fill the rest of the file.
    expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if expected != size:
        return Header(
            damage=f"expected {expected} bytes for {list(shape)} {dtype}, got {size}; copy it again"
        )
    return numbers(shape, dtype)


def _read(episode: Path, keys: Sequence[str]) -> Columns:
    """{key: [T, ...]} of one episode."""
    if episode.is_dir():
        return {key: _load(episode / f"{key}.npy", f"{episode}: {key}") for key in keys}
    # An array larger than the limit is cut off there, and numpy then refuses it: there are fewer
    # numbers than the header promises.
    with untrusted_zip.open_zip(episode) as archive:
        files = {
            key: untrusted_zip.read(episode, archive, f"{key}.npy", EPISODE_LIMIT) for key in keys
        }
    return {key: _load(io.BytesIO(file), f"{episode}: {key}") for key, file in files.items()}


def _load(file: Path | IO[bytes], where: str) -> np.ndarray:
    # allow_pickle=False: a header that claims objects raises instead of running their code.
    with as_user_error(f"{where}: can't be read"):
        return np.load(file, allow_pickle=False)
