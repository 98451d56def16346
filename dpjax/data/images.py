"""Encoded images (PNG, JPEG) to pixels, with what is wrong said instead of raised."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import io
import os

import numpy as np
from PIL import Image

Size = tuple[int, int]  # height, width

_pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes without holding the GIL


def encode(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> PNG, lossless."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png", compress_level=3)  # 6: three times the time
    return out.getvalue()


def as_pixels(x: np.ndarray) -> np.ndarray | None:
    """x [...] as uint8, or None where it is not all whole numbers from 0 to 255."""
    with np.errstate(invalid="ignore"):  # of NaN
        pixels = x.astype(np.uint8)
    return pixels if np.array_equal(pixels, x) else None


def size(payload: bytes) -> Size:
    """Height and width of an encoded image, from its header."""
    with Image.open(io.BytesIO(payload)) as image:
        return image.size[::-1]


def decode(payloads: Sequence[bytes], size: Size | None) -> tuple[np.ndarray, str]:
    """Images of one size -> ([T, H, W, 3] uint8, ""), or (nothing, what is wrong with which).

    size: height and width that they must have; None: those of the first.
    """
    nothing = np.zeros((0, *(size or (0, 0)), 3), np.uint8)
    found = list(_pool.map(lambda payload: _decode_one(payload, size), payloads))
    for step, image in enumerate(found):
        if isinstance(image, str):
            return nothing, f"step {step}: {image}"
        if image.shape != found[0].shape:
            want, got = found[0].shape, image.shape
            return nothing, f"step {step}: expected {want} as in step 0, got {got}"
    return np.stack(found) if found else nothing, ""


def _decode_one(payload: bytes, size: Size | None) -> np.ndarray | str:
    try:
        with Image.open(io.BytesIO(payload)) as image:
            got = image.size[::-1]
            if size is not None and got != size:  # before a pixel is decoded
                return f"expected {size[0]} x {size[1]} px, got {got[0]} x {got[1]}"
            if image.mode not in ("RGB", "P", "L"):  # convert() would clip 16 bits, drop alpha
                return f"expected RGB, got an image of mode {image.mode}"
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its decoders raise
        return f"not an image ({type(error).__name__}: {str(error)[:80]})"


def encode_all(frames: np.ndarray) -> list[bytes]:
    """uint8 [T, H, W, 3] -> T PNGs."""
    return list(_pool.map(encode, frames))
