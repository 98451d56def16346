"""Decompresses chunks of zarr arrays, to at most the size that the array's shape implies."""

from collections.abc import Mapping
import struct
from typing import Any
import zlib

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError

# Codecs with one encoded image per chunk. The image's header has the size, so it is checked only
# after decoding.
IMAGE_CODECS = ("imagecodecs_jpeg2k", "imagecodecs_jpegxl", "imagecodecs_jpeg")


def decompress(
    raw: bytes, compressor: Mapping[str, Any], size: int, dtype: np.dtype, where: str
) -> np.ndarray:
    """Decompresses a chunk to uint8 [size]; the caller checks the length.

    raw: the chunk as it is stored.
    compressor: "compressor" in the array's .zarray, {"id": name, ...}; {} for none.
    size: bytes that the chunk must have. dtype: type of its numbers.
    where: the array, for messages.
    Raises a UserError if the codec is not supported, and other errors if the chunk is damaged.
    """
    codec = compressor.get("id")
    # Not compressed: the file is the chunk.
    if codec is None:
        return np.frombuffer(raw, np.uint8)
    if codec in ("zlib", "gzip"):
        # zlib's `wbits`: the largest window, 2^15 bytes; 16 more select the header of gzip.
        window = 15 if codec == "zlib" else 31
        # At most one byte too many is decompressed, which is enough to see that there are more.
        return np.frombuffer(zlib.decompressobj(window).decompress(raw, size + 1), np.uint8)
    if codec in IMAGE_CODECS:
        return _decode_image(raw, compressor, size, dtype, where)
    # numcodecs has codecs that run code, such as "pickle", so it only gets names of this list.
    if codec not in ("blosc", "zstd", "lz4"):
        raise UserError(
            f"{where}: its compressor {codec!r} isn't read; expected blosc, zstd, lz4, zlib, gzip, "
            f"{', '.join(IMAGE_CODECS)} or none."
        )
    if codec == "blosc":
        # Blosc trusts the sizes in its header: three little-endian uint32 at byte 4, the size of
        # the content, of a block, and of the compressed chunk.
        content, _, total = struct.unpack("<III", raw[4:16])
        if content != size or total != len(raw):
            raise ValueError(f"{len(raw)} bytes where {total} should be, {content} for {size}")
    numcodecs = extras.require("numcodecs", extra="data")
    # With a buffer as `out`, all three codecs refuse to write beyond its end.
    out = np.empty(size, np.uint8)
    numcodecs.get_codec(compressor).decode(raw, out=out)
    return out


def _decode_image(
    raw: bytes, compressor: Mapping[str, Any], size: int, dtype: np.dtype, where: str
) -> np.ndarray:
    """Decodes a chunk that is one image, as UMI and Chi et al.'s robomimic data sets have them."""
    # imagecodecs is not in the extra "data": few data sets need it, and it is large.
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        raise UserError(
            f"{where}: its chunks are compressed by {compressor['id']}: pip install imagecodecs."
        ) from None
    numcodecs = extras.require("numcodecs", extra="data")
    # imagecodecs registers its codecs with numcodecs, which then finds them by their "id".
    register_codecs(verbose=False)
    image = np.asarray(numcodecs.get_codec(compressor).decode(raw))
    if image.nbytes != size or image.dtype != dtype:
        raise ValueError(f"an image {list(image.shape)} of {image.dtype}")
    return np.frombuffer(np.ascontiguousarray(image), np.uint8)
