"""Image columns: uint8 frames that are looked up where they lie, never copied as a whole.

A column of low-dim data is an array. One of images is a `Frames`: the pixels of the data
set once, in memory or behind a memory map, and the rows of them that are meant. Selecting
episodes, joining them and taking mirror images moves rows, not pixels.
"""

from collections.abc import Mapping
import hashlib
from pathlib import Path
import tempfile
from typing import NamedTuple

import numpy as np

MERGED = 1024  # frames copied at once


class Frames(NamedTuple):
    """Images [N, H, W, 3] uint8.

    pixels: [M, H, W, 3] uint8, an array or a memory map.
    rows: [N] int64 into them.
    mirrored: bool [N], seen in a mirror along the image's antidiagonal.
    digest: hex digits of all the pixels' content.
    """

    pixels: np.ndarray
    rows: np.ndarray
    mirrored: np.ndarray
    digest: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self.rows), *self.pixels.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    def take(self, rows: np.ndarray) -> "Frames":
        """The frames `rows`, in that order."""
        return self._replace(rows=self.rows[rows], mirrored=self.mirrored[rows])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of rows [...]: [..., H, W, 3]."""
        images = self.pixels[self.rows[rows]]
        mirrored = self.mirrored[rows]
        if mirrored.any():
            images[mirrored] = antidiagonal(images[mirrored])
        return images


def take(column, rows: np.ndarray):
    """Those rows of an array or of Frames."""
    return column.take(rows) if isinstance(column, Frames) else column[rows]


def join(first, second):
    """Two columns of one kind end to end; Frames must be of the same pixels (`merge`)."""
    if not isinstance(first, Frames):
        return np.concatenate([first, second])
    assert first.pixels is second.pixels, "images of two data sets are merged first"
    both = {key: np.concatenate([getattr(first, key), getattr(second, key)])
            for key in ("rows", "mirrored")}  # fmt: skip
    return first._replace(**both)


def merge(parts: list[Frames], limit: int, folder: str | Path | None = None) -> list[Frames]:
    """The same frames over one array of pixels, those of all parts end to end.

    limit, folder: see `Store`. Pixels that several parts share are stored once, in blocks.
    """
    store, starts = Store(limit, folder), {}
    for part in parts:
        if id(part.pixels) in starts:
            continue
        starts[id(part.pixels)] = store.count
        for i in range(0, len(part.pixels), MERGED):
            store.append(part.pixels[i : i + MERGED])
    whole = store.frames()
    return [
        part._replace(
            pixels=whole.pixels, rows=part.rows + starts[id(part.pixels)], digest=whole.digest
        )
        for part in parts
    ]


def antidiagonal(images):
    """Images [..., H, H, 3], or Frames of them, seen in a mirror along the antidiagonal.

    Pixel (row i, column j) goes to (H - 1 - j, H - 1 - i).
    """
    if isinstance(images, Frames):
        return images._replace(mirrored=~images.mirrored)
    return np.swapaxes(images[..., ::-1, ::-1, :], -3, -2)


def split(columns: Mapping) -> tuple[dict[str, np.ndarray], dict[str, Frames]]:
    """The arrays and the Frames of {name: column}."""
    images = {key: x for key, x in columns.items() if isinstance(x, Frames)}
    return {key: x for key, x in columns.items() if key not in images}, images


class Store:
    """Where the frames of one camera are put while a data set is read.

    They stay in memory up to `limit` bytes; beyond it they lie in a file in `folder`
    that has no name and is gone with the process, and are read through a memory map.
    """

    def __init__(self, limit: int, folder: str | Path | None = None):
        self._limit, self._folder = limit, folder
        self._pixels, self._file, self._shape = None, None, None
        self._hash = hashlib.sha256()

    @property
    def count(self) -> int:
        """Frames so far."""
        return 0 if self._shape is None else self._shape[0]

    def append(self, images: np.ndarray) -> None:
        """images [T, H, W, 3] uint8; of one size."""
        images = np.ascontiguousarray(images)
        self._hash.update(images.data)
        count = self.count
        self._shape = (count + len(images), *images.shape[1:])
        if self._file is None and int(np.prod(self._shape)) > self._limit:
            self._file = tempfile.TemporaryFile(dir=self._folder)
            if self._pixels is not None:
                self._file.write(self._pixels.data)
            self._pixels = None
        if self._file is not None:
            self._file.write(images.data)
        elif self._pixels is None:
            self._pixels = images.copy()
        else:  # realloc: a block this large is moved by its pages, not copied
            self._pixels.resize(self._shape, refcheck=False)
            self._pixels[count:] = images

    def frames(self) -> Frames:
        """All that was appended; afterwards nothing can be."""
        if self._file is not None:
            self._file.flush()
            self._pixels = np.memmap(self._file, np.uint8, "r", shape=self._shape)
        rows = np.arange(len(self._pixels))
        mirrored = np.zeros(len(rows), bool)
        return Frames(self._pixels, rows, mirrored, self._hash.hexdigest())


def describe(key: str, frames: Frames) -> str:
    """A line on what a camera's frames are and where they lie."""
    count, height, width, _ = frames.pixels.shape
    where = "on disk" if isinstance(frames.pixels, np.memmap) else "in memory"
    size = frames.pixels.nbytes / 2**30
    return f"{key}: {count} frames of {height} x {width}, {size:.2f} GiB {where}"
