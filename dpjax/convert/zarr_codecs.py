"""Decompresses the chunks of zarr arrays, never to more bytes than the array says."""

from collections.abc import Mapping
import struct
from typing import Any
import zlib

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError

# One encoded image per chunk. Their size is in a header, so they are checked after decoding.
IMAGE_CODECS = ("imagecodecs_jpeg2k", "imagecodecs_jpegxl", "imagecodecs_jpeg")


def decompress(
    raw: bytes, compressor: Mapping[str, Any], size: int, dtype: np.dtype, where: str
) -> np.ndarray:
    """The bytes of a chunk, uint8 [size]; the caller checks that there are that many.

    raw: the chunk as it is stored.
    compressor: the array's "compressor", {"id": name, ...}; {} for none.
    size: bytes that the chunk must have. dtype: of its numbers. where: the array, for messages.
    Raises a UserError if the codec isn't read, and other errors if the chunk is damaged.
    """
    codec = compressor.get("id")
    if codec is None:
        return np.frombuffer(raw, np.uint8)
    if codec in ("zlib", "gzip"):
        window = 15 if codec == "zlib" else 31  # zlib's own numbers for the two headers
        # One byte more than allowed shows that there is more; the rest is never decompressed.
        return np.frombuffer(zlib.decompressobj(window).decompress(raw, size + 1), np.uint8)
    if codec in IMAGE_CODECS:
        return _decode_image(raw, compressor, size, dtype, where)
    # Any other name would make numcodecs look for a codec, "pickle" among them.
    if codec not in ("blosc", "zstd", "lz4"):
        raise UserError(
            f"{where}: its compressor {codec!r} isn't read; expected blosc, zstd, lz4, zlib, gzip, "
            f"{', '.join(IMAGE_CODECS)} or none."
        )
    if codec == "blosc":
        # Blosc trusts its header, which has the sizes of the content and of the chunk.
        content, _, total = struct.unpack("<III", raw[4:16])
        if content != size or total != len(raw):
            raise ValueError(f"{len(raw)} bytes where {total} should be, {content} for {size}")
    numcodecs = extras.require("numcodecs", extra="data")
    # All three refuse to write beyond a buffer that they are given.
    out = np.empty(size, np.uint8)
    numcodecs.get_codec(compressor).decode(raw, out=out)
    return out


def _decode_image(
    raw: bytes, compressor: Mapping[str, Any], size: int, dtype: np.dtype, where: str
) -> np.ndarray:
    """The bytes of a chunk that is one encoded image, as in buffers of UMI and robomimic."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:  # too large for an extra that everybody installs
        raise UserError(
            f"{where}: its chunks are compressed by {compressor['id']}: pip install imagecodecs."
        ) from None
    numcodecs = extras.require("numcodecs", extra="data")
    # numcodecs finds a codec by its "id" once imagecodecs has registered its own.
    register_codecs(verbose=False)
    image = np.asarray(numcodecs.get_codec(compressor).decode(raw))
    if image.nbytes != size or image.dtype != dtype:
        raise ValueError(f"an image {list(image.shape)} of {image.dtype}")
    return np.frombuffer(np.ascontiguousarray(image), np.uint8)
