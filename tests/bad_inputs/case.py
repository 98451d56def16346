"""What the modules of this folder share: descriptions of cases, and hostile bytes."""

import os
from pathlib import Path
import struct
from typing import NamedTuple
import zlib

CANARY = "canary"  # the file that appears if code runs or a path escapes
HUGE = 2**40
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


class Case(NamedTuple):
    """A conversion to refuse. arguments: format, source, options. words: in the refusal.

    code: the exit code; 0 where the format allows it, or what is odd is left out.
    """

    arguments: tuple
    words: tuple[str, ...]
    code: int = 2


class Payload:
    """Creates the canary when it is unpickled."""

    def __init__(self, folder):
        self.path = str(folder / CANARY)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class ReadCase(NamedTuple):
    """An RLDS data set to refuse. features: to read. words: in the refusal."""

    directory: Path
    features: dict[str, str]
    words: tuple[str, ...]


def deflated_zeros(mebibytes):
    """A raw deflate stream of so many MiB of zeros; they are never in memory at once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zip_of_zeros(path, names):
    """A zip of deflated zeros, {name: (first bytes, MiB of zeros behind them)}."""
    local, central = b"", b""
    for name, (head, mebibytes) in names.items():
        first = b"\x00" + struct.pack("<HH", len(head), len(head) ^ 0xFFFF) + head if head else b""
        body, size = first + deflated_zeros(mebibytes), len(head) + mebibytes * 2**20
        sizes = struct.pack("<IIIHH", 0, len(body), size, len(name), 0)
        common = struct.pack("<HHHHH", 20, 0, 8, 0, 33)
        central += b"PK\x01\x02" + struct.pack("<H", 20) + common + sizes
        central += struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + name.encode()
        local += b"PK\x03\x04" + common + sizes + name.encode() + body
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(central), len(local), 0)
    path.write_bytes(local + central + b"PK\x05\x06" + end)


def png_header(height, width):
    """The header of a PNG that claims to be so large, and nothing behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + end + b"\x00\x00\x00\x00IDAT"


def npy_header(shape, dtype="<f4"):
    """The header of a .npy file, version 1.0."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    raw = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw
