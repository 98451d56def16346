"""Image columns: uint8 frames that are read by index and never copied all at once.

A column of numbers is an array. A column of images is a `Frames`: one array with the pixels of the
data set, in memory or memory-mapped, and indices into it. Selecting, joining or mirroring episodes
changes the indices and copies no pixels.
"""

from collections.abc import Mapping
import hashlib
from pathlib import Path
import tempfile
from typing import NamedTuple

import numpy as np

# The number of frames that `merge` copies at a time. All at once would need memory for every pixel.
BLOCK = 1024


class Frames(NamedTuple):
    """Images [N, H, W, 3] uint8.

    pixels: [M, H, W, 3] uint8, an array or a memory map.
    indices: [N] int64, the position of each frame in `pixels`.
    mirrored: [N] bool, whether `read` mirrors the frame along its antidiagonal.
    digest: SHA-256 of `pixels`, in hex.
    """

    pixels: np.ndarray
    indices: np.ndarray
    mirrored: np.ndarray
    digest: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self.indices), *self.pixels.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """uint8; like `shape`, so that a column of images can stand for an array."""
        return self.pixels.dtype

    def take(self, indices: np.ndarray) -> "Frames":
        """The frames at these indices, in that order."""
        return self._replace(indices=self.indices[indices], mirrored=self.mirrored[indices])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The pixels of the frames at indices [...]: [..., H, W, 3]."""
        # Indexing with an array copies, so mirroring in place leaves the data set unchanged.
        images = self.pixels[self.indices[indices]]
        mirrored = self.mirrored[indices]
        if mirrored.any():
            images[mirrored] = antidiagonal(images[mirrored])
        return images


Column = np.ndarray | Frames


def take(column: Column, indices: np.ndarray) -> Column:
    """The elements of a column at these indices."""
    # Frames copy only their indices, an array copies its values.
    return column.take(indices) if isinstance(column, Frames) else column[indices]


def join(first: Column, second: Column) -> Column:
    """Two columns of the same kind end to end; Frames must share their pixels (see `merge`)."""
    # Columns of numbers are copied.
    if not isinstance(first, Frames):
        return np.concatenate([first, second])
    # Columns of images share one array of pixels, so it is enough to join the indices.
    assert first.pixels is second.pixels, "images of two data sets are merged first"
    indices = np.concatenate([first.indices, second.indices])
    mirrored = np.concatenate([first.mirrored, second.mirrored])
    return first._replace(indices=indices, mirrored=mirrored)


def merge(parts: list[Frames], limit: int, folder: str | Path | None = None) -> list[Frames]:
    """The same frames, all with one array of pixels that holds those of all parts end to end.

    Pixels that several parts share are stored once.

    Args:
        limit, folder: see `Store`.
    """
    store = Store(limit, folder)
    starts: dict[int, int] = {}  # id() of a part's pixels -> their first position in the store
    # The training and validation frames of a data set share their pixels, which are copied once.
    for part in parts:
        if id(part.pixels) in starts:
            continue
        starts[id(part.pixels)] = store.count
        for i in range(0, len(part.pixels), BLOCK):
            store.append(part.pixels[i : i + BLOCK])
    # Every part gets the merged pixels; its indices are shifted by where its pixels start.
    merged = store.frames()
    return [
        part._replace(
            pixels=merged.pixels,
            indices=part.indices + starts[id(part.pixels)],
            digest=merged.digest,
        )
        for part in parts
    ]


def antidiagonal(images: Column) -> Column:
    """Images [..., H, H, 3], or Frames of them, mirrored along the antidiagonal.

    The pixel in row i and column j moves to row H - 1 - j and column H - 1 - i.
    """
    # Frames only note it; `read` mirrors the pixels.
    if isinstance(images, Frames):
        return images._replace(mirrored=~images.mirrored)
    # Reversing both axes and swapping them mirrors along the antidiagonal.
    return np.swapaxes(images[..., ::-1, ::-1, :], -3, -2)


def split(columns: Mapping[str, Column]) -> tuple[dict[str, np.ndarray], dict[str, Frames]]:
    """Splits columns {name: column} into numbers {name: array} and images {name: Frames}."""
    images = {key: x for key, x in columns.items() if isinstance(x, Frames)}
    return {key: x for key, x in columns.items() if key not in images}, images


class Store:
    """Collects the frames of one camera while a data set is read.

    The frames stay in memory up to `limit` bytes. If there are more, all of them go to a file in
    `folder` (None: the system's temporary folder), which is read through a memory map. The file has
    no name, so the system deletes it when the process ends.
    """

    def __init__(self, limit: int, folder: str | Path | None = None):
        self._limit = limit
        self._folder = folder
        self._pixels: np.ndarray | None = None  # the frames while they fit into memory
        self._file = None  # the file that has them once they do not
        self._shape: tuple[int, ...] | None = None  # of all frames so far; None: there are none
        self._hash = hashlib.sha256()  # of all pixels, in the order in which they are appended

    @property
    def count(self) -> int:
        """The number of frames so far."""
        return 0 if self._shape is None else self._shape[0]

    def append(self, images: np.ndarray) -> None:
        """Adds images [T, H, W, 3] uint8, all of one size."""
        # The digest is updated here, where the pixels are in memory, and not from the file later.
        images = np.ascontiguousarray(images)  # hashing and writing need one block of memory
        self._hash.update(images.data)
        count = self.count
        self._shape = (count + len(images), *images.shape[1:])
        # The append that exceeds the limit opens the file and moves all earlier frames there.
        if self._file is None and int(np.prod(self._shape)) > self._limit:
            self._file = tempfile.TemporaryFile(dir=self._folder)
            if self._pixels is not None:
                self._file.write(self._pixels.data)
            self._pixels = None
        # The new frames follow them, in the file or in memory.
        if self._file is not None:
            self._file.write(images.data)
        elif self._pixels is None:
            self._pixels = images.copy()
        else:
            # `resize` calls realloc, which remaps the pages of a large block and copies nothing.
            self._pixels.resize(self._shape, refcheck=False)
            self._pixels[count:] = images

    def frames(self) -> Frames:
        """All frames that were appended; nothing can be appended afterwards."""
        # The memory map keeps the unnamed file alive, so there is nothing to delete later.
        if self._file is not None:
            self._file.flush()
            self._pixels = np.memmap(self._file, np.uint8, "r", shape=self._shape)
        # Every frame once, in the order in which it was appended, and none mirrored.
        indices = np.arange(len(self._pixels))
        mirrored = np.zeros(len(indices), bool)
        return Frames(self._pixels, indices, mirrored, self._hash.hexdigest())


def describe(key: str, frames: Frames) -> str:
    """One line for the log: the size of a camera's frames, and whether they are on disk."""
    # All pixels of the data set are counted, whether or not these frames use them.
    count, height, width, _ = frames.pixels.shape
    where = "on disk" if isinstance(frames.pixels, np.memmap) else "in memory"
    size = frames.pixels.nbytes / 2**30
    return f"{key}: {count} frames of {height} x {width}, {size:.2f} GiB {where}"
