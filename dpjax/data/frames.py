"""Image columns: uint8 frames that are looked up where they lie, never copied all at once.

A column of numbers is an array. A column of images is a `Frames`: the pixels of the data set, kept
once in memory or behind a memory map, and indices into them. Selecting episodes, joining them and
mirroring them changes the indices and copies no pixels.
"""

from collections.abc import Mapping
import hashlib
from pathlib import Path
import tempfile
from typing import NamedTuple

import numpy as np

# Frames that `merge` copies at a time: a data set's pixels may not fit into memory twice.
BLOCK = 1024


class Frames(NamedTuple):
    """Images [N, H, W, 3] uint8.

    pixels: [M, H, W, 3] uint8, an array or a memory map.
    indices: [N] int64 into the pixels.
    mirrored: bool [N], whether a frame is mirrored along the image's antidiagonal.
    digest: hex digits of the content of all pixels.
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
        """uint8, as of an array."""
        return self.pixels.dtype

    def take(self, indices: np.ndarray) -> "Frames":
        """The frames at these indices, in that order."""
        return self._replace(indices=self.indices[indices], mirrored=self.mirrored[indices])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The pixels of the frames at indices [...]: [..., H, W, 3]."""
        # Indexing with an array copies, so the pixels may be changed in place below.
        images = self.pixels[self.indices[indices]]
        mirrored = self.mirrored[indices]
        if mirrored.any():
            images[mirrored] = antidiagonal(images[mirrored])
        return images


Column = np.ndarray | Frames


def take(column: Column, indices: np.ndarray) -> Column:
    """The elements of a column at these indices."""
    return column.take(indices) if isinstance(column, Frames) else column[indices]


def join(first: Column, second: Column) -> Column:
    """Two columns of the same kind end to end; Frames must share their pixels (see `merge`)."""
    if not isinstance(first, Frames):
        return np.concatenate([first, second])
    # With shared pixels only the indices are joined.
    assert first.pixels is second.pixels, "images of two data sets are merged first"
    indices = np.concatenate([first.indices, second.indices])
    mirrored = np.concatenate([first.mirrored, second.mirrored])
    return first._replace(indices=indices, mirrored=mirrored)


def merge(parts: list[Frames], limit: int, folder: str | Path | None = None) -> list[Frames]:
    """The same frames over one array of pixels, which holds those of all parts end to end.

    Pixels that several parts share are stored once.

    Args:
        limit, folder: see `Store`.
    """
    store = Store(limit, folder)
    starts: dict[int, int] = {}  # identity of a part's pixels -> where the store has them
    # Training and validation frames of one set share their pixels, which are copied once.
    for part in parts:
        if id(part.pixels) in starts:
            continue
        starts[id(part.pixels)] = store.count
        for i in range(0, len(part.pixels), BLOCK):
            store.append(part.pixels[i : i + BLOCK])
    # Indices are moved to where the store has the pixels that they point at.
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
    if isinstance(images, Frames):
        return images._replace(mirrored=~images.mirrored)
    # Turning by 180 degrees and transposing is the mirror along the antidiagonal.
    return np.swapaxes(images[..., ::-1, ::-1, :], -3, -2)


def split(columns: Mapping[str, Column]) -> tuple[dict[str, np.ndarray], dict[str, Frames]]:
    """Columns {name: column} as their arrays and their Frames."""
    images = {key: x for key, x in columns.items() if isinstance(x, Frames)}
    return {key: x for key, x in columns.items() if key not in images}, images


class Store:
    """Collects the frames of one camera while a data set is read.

    They stay in memory up to `limit` bytes. Beyond that they lie in a file in `folder` (None: the
    system's temporary folder) and are read through a memory map. The file has no name, so that it
    is gone when the process ends.
    """

    def __init__(self, limit: int, folder: str | Path | None = None):
        self._limit = limit
        self._folder = folder
        self._pixels: np.ndarray | None = None
        self._file = None
        self._shape: tuple[int, ...] | None = None
        self._hash = hashlib.sha256()  # of all pixels, in the order in which they come

    @property
    def count(self) -> int:
        """The number of frames so far."""
        return 0 if self._shape is None else self._shape[0]

    def append(self, images: np.ndarray) -> None:
        """Adds images [T, H, W, 3] uint8, all of one size."""
        # The digest is computed while the pixels are at hand; a memory map is never read for it.
        images = np.ascontiguousarray(images)
        self._hash.update(images.data)
        count = self.count
        self._shape = (count + len(images), *images.shape[1:])
        # The first frames beyond the limit move everything before them to the file.
        if self._file is None and int(np.prod(self._shape)) > self._limit:
            self._file = tempfile.TemporaryFile(dir=self._folder)
            if self._pixels is not None:
                self._file.write(self._pixels.data)
            self._pixels = None
        # From then on all frames go to the file.
        if self._file is not None:
            self._file.write(images.data)
        elif self._pixels is None:
            self._pixels = images.copy()
        else:
            # realloc moves the pages of a block this large instead of copying it.
            self._pixels.resize(self._shape, refcheck=False)
            self._pixels[count:] = images

    def frames(self) -> Frames:
        """All frames that were appended; nothing can be appended afterwards."""
        # The memory map keeps the file open, and the file has no name: nothing to clean up.
        if self._file is not None:
            self._file.flush()
            self._pixels = np.memmap(self._file, np.uint8, "r", shape=self._shape)
        # Every frame once, in the order in which they came, and none mirrored.
        indices = np.arange(len(self._pixels))
        mirrored = np.zeros(len(indices), bool)
        return Frames(self._pixels, indices, mirrored, self._hash.hexdigest())


def describe(key: str, frames: Frames) -> str:
    """One line for the log: size of a camera's frames, and where they are kept."""
    count, height, width, _ = frames.pixels.shape
    where = "on disk" if isinstance(frames.pixels, np.memmap) else "in memory"
    size = frames.pixels.nbytes / 2**30
    return f"{key}: {count} frames of {height} x {width}, {size:.2f} GiB {where}"
