"""Broken and hostile zarr replay buffers, in directories and in zips."""

import json
import pickle
import shutil
import struct
import zipfile

from bad_inputs.case import CANARY, HUGE, POINTER, Case, Payload, deflated_zeros, zip_of_zeros
import numpy as np
from support import foreign_sets
import zarr


def _buffer(folder, **options):
    return foreign_sets.write_zarr(folder / "buffer.zarr", **options)


def _meta(root, key, **changes):
    """Changes items of an array's .zarray."""
    file = root / "data" / key / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def zarr_chunk_cut(folder):
    root = _buffer(folder)
    file = root / "data" / "state" / "0.0"
    file.write_bytes(file.read_bytes()[:-7])
    return Case(("zarr", root), ("data/state: a chunk can't be decoded: 0.0", "Copy"))


def zarr_chunk_shorter_than_a_header(folder):
    root = _buffer(folder)
    (root / "data" / "state" / "0.0").write_bytes(b"\x02\x01")
    return Case(("zarr", root), ("data/state: a chunk can't be decoded: 0.0",))


def zarr_chunk_missing(folder):
    root = _buffer(folder, chunks=4)
    (root / "data" / "state" / "3.0").unlink()
    return Case(("zarr", root), (), code=0)


def zarr_chunk_of_noise(folder):
    root = _buffer(folder)
    noise = np.random.default_rng(0).integers(0, 256, 500, np.uint8).tobytes()
    (root / "data" / "action" / "0.0").write_bytes(noise)
    return Case(("zarr", root), ("data/action: a chunk can't be decoded: 0.0",))


def zarr_blosc_claims_2_gib(folder):
    import numcodecs

    root = _buffer(folder, compressors=numcodecs.Blosc())
    file = root / "data" / "state" / "0.0"
    raw = bytearray(file.read_bytes())
    raw[4:8] = struct.pack("<I", 2**31 - 1)
    file.write_bytes(raw)
    return Case(("zarr", root), ("data/state: a chunk can't be decoded: 0.0", "2147483647 for 512"))


def zarr_zlib_bomb(folder):
    """A chunk of 512 bytes that would be 2 GiB of zeros."""
    import numcodecs

    root = _buffer(folder, compressors=numcodecs.Zlib())
    (root / "data" / "state" / "0.0").write_bytes(b"\x78\x9c" + deflated_zeros(2048))
    return Case(("zarr", root), ("data/state: a chunk can't be decoded: 0.0", "bytes for 512"))


def zarr_objects(folder):
    root = _buffer(folder)
    filters = [{"id": "pickle", "protocol": 5}]
    _meta(root, "state", dtype="|O", filters=filters, compressor=None)
    (root / "data" / "state" / "0.0").write_bytes(pickle.dumps(Payload(folder)))
    return Case(("zarr", root), (), code=0)


def zarr_pickle_as_compressor(folder):
    root = _buffer(folder)
    _meta(root, "state", compressor={"id": "pickle"})
    (root / "data" / "state" / "0.0").write_bytes(pickle.dumps(Payload(folder)))
    return Case(("zarr", root), ("data/state", "compressor 'pickle' isn't read; expected blosc"))


def zarr_no_json(folder):
    root = _buffer(folder)
    (root / "data" / "state" / ".zarray").write_text("{'shape'")
    return Case(("zarr", root), ("data/state/.zarray: can't be read",))


def zarr_json_of_100000_brackets(folder):
    root = _buffer(folder)
    (root / "data" / "state" / ".zarray").write_text("[" * 100_000)
    return Case(("zarr", root), ("data/state/.zarray: can't be read",))


def zarr_of_2_40_rows(folder):
    # Not recorded in the steps of the actions: left out.
    root = _buffer(folder)
    _meta(root, "state", shape=[HUGE, 4])
    return Case(("zarr", root), (), code=0)


def zarr_episode_of_2_40_steps(folder):
    root = _buffer(folder)
    for key, shape in {"state": [4], "action": [7], "camera": [6, 4, 3], "count": []}.items():
        _meta(root, key, shape=[HUGE, *shape])
    shutil.rmtree(root / "meta" / "episode_ends")
    foreign_sets.put(root / "meta" / "episode_ends", np.array([HUGE]))
    return Case(("zarr", root), ("episode 0: 1099511627776 steps", "at most 4 GiB"))


def zarr_row_of_2_40_numbers(folder):
    root = _buffer(folder)
    _meta(root, "state", shape=[24, HUGE], chunks=[32, 4])
    return Case(("zarr", root), ("episode 0: 5 steps", "at most 4 GiB"))


def zarr_chunk_of_2_40_rows(folder):
    root = _buffer(folder)
    _meta(root, "state", chunks=[HUGE, 4])
    return Case(("zarr", root), ("data/state: chunks of [1099511627776, 4]", "more than 2 GiB"))


def zarr_2_40_chunks(folder):
    root = _buffer(folder)
    _meta(root, "state", shape=[24, 2**20], chunks=[1, 1])
    return Case(("zarr", root), ("data/state: 25165823 of 25165824 chunks",))


def zarr_v3(folder):
    root = folder / "v3.zarr"
    zarr.save_group(str(root), action=np.ones((3, 2), np.float32), zarr_format=3)
    return Case(("zarr", root), ("v3.zarr: not a zarr (v2) replay buffer", "zarr v3"))


def zarr_ends_that_fall(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "meta" / "episode_ends")
    foreign_sets.put(root / "meta" / "episode_ends", np.array([12, 5, 24]))
    return Case(("zarr", root), ("episode 1: expected an end after step 12, got 5",))


def zarr_nan(folder):
    root = _buffer(folder)
    zarr.open_array(str(root / "data" / "state"), mode="r+")[9, 2] = np.nan
    return Case(("zarr", root), ("episode 1, step 4, state[2]: expected finite numbers, got nan",))


def zarr_images_above_1(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "camera")
    foreign_sets.put(root / "data" / "camera", np.full((24, 6, 4, 3), 1.5, np.float32))
    return Case(("zarr", root), ("episode 0, camera: step 0: expected whole numbers", "got 1.5"))


def zarr_images_chw(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "camera")
    foreign_sets.put(root / "data" / "camera", np.zeros((24, 3, 6, 4), np.uint8))
    words = ("camera can't be converted: images are uint8 [T, H, W, 3]", "transpose it")
    return Case(("zarr", root, "--keys", "camera"), words)


def zarr_complex(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "action")
    foreign_sets.put(root / "data" / "action", np.ones((24, 2), np.complex64))
    return Case(("zarr", root), ("action can't be converted: only numbers", "complex64"))


def zarr_empty_folder(folder):
    (folder / "buffer.zarr").mkdir()
    return Case(("zarr", folder / "buffer.zarr"), ("buffer.zarr: not a zarr (v2) replay buffer",))


def _zip(folder):
    return foreign_sets.write_zip(folder / "buffer.zarr.zip", _buffer(folder))


def _zip_with(folder, item):
    """A zip of a good buffer and one more file."""
    path = _zip(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(item, b"x")
    return path


def zip_name_that_climbs(folder):
    return Case(
        ("zarr", _zip_with(folder, f"../../{CANARY}")), (f"'../../{CANARY}'", "leads out of it")
    )


def zip_absolute_name(folder):
    name = str(folder / CANARY)
    return Case(("zarr", _zip_with(folder, name)), ("buffer.zarr.zip", CANARY, "leads out of it"))


def zip_symbolic_link(folder):
    item = zipfile.ZipInfo("data/link")
    item.create_system = 3
    item.external_attr = 0o120777 << 16
    return Case(("zarr", _zip_with(folder, item)), ("'data/link' is a symbolic link",))


def zip_name_twice(folder):
    # The last one counts, and is noise.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = _zip_with(folder, "data/state/0.0")
    return Case(("zarr", path), ("data/state: a chunk can't be decoded",))


def zip_bomb(folder):
    """A chunk of 512 bytes that is 2 GiB of zeros in the zip."""
    root = _buffer(folder)
    path = folder / "buffer.zarr.zip"
    (root / "data" / "state" / "0.0").unlink()
    zip_of_zeros(path, {"data/state/0.0": (b"", 2048)})
    with zipfile.ZipFile(path, "a") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
    return Case(("zarr", path), ("data/state: a chunk can't be decoded: 0.0", "bytes for 512"))


def zip_cut(folder):
    path = _zip(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return Case(("zarr", path), ("buffer.zarr.zip: not a zip file",))


def zip_flipped_bit(folder):
    path = _zip(folder)
    with zipfile.ZipFile(path) as archive:
        item = archive.getinfo("data/state/0.0")
    raw = bytearray(path.read_bytes())
    raw[item.header_offset + 30 + len(item.filename) + 40] ^= 1
    path.write_bytes(raw)
    return Case(("zarr", path), ("data/state/0.0 can't be read (BadZipFile: Bad CRC-32",))


def zip_pointer(folder):
    (folder / "buffer.zarr.zip").write_text(POINTER)
    return Case(("zarr", folder / "buffer.zarr.zip"), ("a Git LFS pointer",))
