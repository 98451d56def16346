"""Encoding images as PNG, and decoding PNG and JPEG to pixels.

A problem with an image is returned as text. The caller knows the file and the episode and adds them
to the message.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import io
import os

import numpy as np

from dpjax.core import extras

Size = tuple[int, int]  # height, width

# Threads are enough: Pillow releases the GIL while it encodes and decodes.
_pool = ThreadPoolExecutor(os.cpu_count())


def encode(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> PNG, lossless."""
    pillow = extras.require("PIL.Image", extra="data")
    out = io.BytesIO()
    # The default level, 6, is 3 times slower.
    pillow.fromarray(image).save(out, "png", compress_level=3)
    return out.getvalue()


def encode_all(images: np.ndarray) -> list[bytes]:
    """uint8 [T, H, W, 3] -> T PNGs."""
    return list(_pool.map(encode, images))


def as_pixels(x: np.ndarray) -> np.ndarray | None:
    """x [...] as uint8, or None if a value is not a whole number from 0 to 255."""
    # Only whole numbers from 0 to 255 come back unchanged from the cast.
    with np.errstate(invalid="ignore"):  # casting NaN warns
        pixels = x.astype(np.uint8)
    return pixels if np.array_equal(pixels, x) else None


def size(payload: bytes) -> Size:
    """Height and width of an encoded image, from its header."""
    pillow = extras.require("PIL.Image", extra="data")
    # `open` reads the header only. Pillow's size is (width, height).
    with pillow.open(io.BytesIO(payload)) as image:
        return image.size[::-1]


def decode(payloads: Sequence[bytes], size: Size | None) -> tuple[np.ndarray, str]:
    """Decodes images of one size.

    Args:
        size: the height and width that every image must have; None: as the first image.

    Returns:
        ([T, H, W, 3] uint8, ""), or (no images, the first bad step and its problem).
    """
    nothing = np.zeros((0, *(size or (0, 0)), 3), np.uint8)
    # Decoded in parallel. An image that cannot be decoded gives its problem as text instead.
    images = list(_pool.map(lambda payload: _decode_one(payload, size), payloads))
    for step, image in enumerate(images):
        if isinstance(image, str):
            return nothing, f"step {step}: {image}"
        # Where the caller gives no size, all images must have the size of the first.
        if image.shape != images[0].shape:
            return (
                nothing,
                f"step {step}: expected {images[0].shape} as in step 0, got {image.shape}",
            )
    return np.stack(images) if images else nothing, ""


def _decode_one(payload: bytes, size: Size | None) -> np.ndarray | str:
    """The pixels [H, W, 3] of one image, or its problem as text."""
    pillow = extras.require("PIL.Image", extra="data")
    try:
        with pillow.open(io.BytesIO(payload)) as image:
            got = image.size[::-1]
            # Checked before decoding: a header of a few bytes can ask for gigabytes of memory.
            if size is not None and got != size:
                return f"expected {size[0]} x {size[1]} px, got {got[0]} x {got[1]}"
            # `convert` would clip 16-bit values and drop transparency without a warning.
            if image.mode not in ("RGB", "P", "L"):
                return f"expected RGB, got an image of mode {image.mode}"
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its decoders raise
        return f"not an image ({type(error).__name__}: {str(error)[:80]})"
