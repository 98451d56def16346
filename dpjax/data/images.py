"""Encoded images (PNG, JPEG) to pixels and back.

What is wrong with an image is returned as text: whoever reads a file adds its name and the episode.
"""

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
    Image.fromarray(image).save(out, "png", compress_level=3)  # the default, 6, is 3 times slower
    return out.getvalue()


def encode_all(images: np.ndarray) -> list[bytes]:
    """uint8 [T, H, W, 3] -> T PNGs."""
    return list(_pool.map(encode, images))


def as_pixels(x: np.ndarray) -> np.ndarray | None:
    """x [...] as uint8, or None unless all of it is whole numbers from 0 to 255."""
    with np.errstate(invalid="ignore"):  # casting NaN warns
        pixels = x.astype(np.uint8)
    return pixels if np.array_equal(pixels, x) else None


def size(payload: bytes) -> Size:
    """Height and width of an encoded image, from its header."""
    # Pillow reads no pixels before they are asked for, and has the width first.
    with Image.open(io.BytesIO(payload)) as image:
        return image.size[::-1]


def decode(payloads: Sequence[bytes], size: Size | None) -> tuple[np.ndarray, str]:
    """Decodes images of one size.

    Args:
        size: height and width that all must have; None for those of the first.

    Returns:
        ([T, H, W, 3] uint8, ""), or (no images, which step is wrong and why).
    """
    nothing = np.zeros((0, *(size or (0, 0)), 3), np.uint8)
    # Decoded in parallel; a fault comes back as text in the place of an image.
    images = list(_pool.map(lambda payload: _decode_one(payload, size), payloads))
    for step, image in enumerate(images):
        if isinstance(image, str):
            return nothing, f"step {step}: {image}"
        # Without a promised size the first image sets it.
        if image.shape != images[0].shape:
            return (
                nothing,
                f"step {step}: expected {images[0].shape} as in step 0, got {image.shape}",
            )
    return np.stack(images) if images else nothing, ""


def _decode_one(payload: bytes, size: Size | None) -> np.ndarray | str:
    """The pixels [H, W, 3] of one image, or what is wrong with it."""
    try:
        with Image.open(io.BytesIO(payload)) as image:
            got = image.size[::-1]
            # Before a pixel is decoded: a few bytes can promise an image of many gigabytes.
            if size is not None and got != size:
                return f"expected {size[0]} x {size[1]} px, got {got[0]} x {got[1]}"
            # convert() would clip 16 bits and drop transparency without a word.
            if image.mode not in ("RGB", "P", "L"):
                return f"expected RGB, got an image of mode {image.mode}"
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its decoders raise
        return f"not an image ({type(error).__name__}: {str(error)[:80]})"
