"""Hostile and broken data sets: each function makes one in `folder`.

It returns a Case: what dpjax.convert is to be called with, and the words that the line of
the refusal must have. Where something would run or be written, it is the file CANARY.
"""

import json
import os
from pathlib import Path
import pickle
import shutil
import struct
from typing import NamedTuple
import zipfile
import zlib

import google_crc32c
import h5py
import made_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

CANARY = "canary"
HUGE = 2**40
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


class Case(NamedTuple):
    """arguments: format, source, options. words: all of them must be in the line."""

    arguments: tuple
    words: tuple[str, ...]


class Payload:
    """Makes the canary where it is unpickled."""

    def __init__(self, folder):
        self.path = str(folder / CANARY)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


# zarr


def _buffer(folder, **options):
    return made_sets.write_zarr(folder / "buffer.zarr", **options)


def _meta(root, key, **changes):
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
    return Case(("zarr", root), ("data/state", "expected 6 chunk files", "1 are missing", "3.0"))


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


def _deflated_zeros(mebibytes):
    """A raw deflate stream of so many MiB of zeros, made without making them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zarr_zlib_bomb(folder):
    """A chunk of 512 bytes that would be 2 GiB of zeros."""
    import numcodecs

    root = _buffer(folder, compressors=numcodecs.Zlib())
    (root / "data" / "state" / "0.0").write_bytes(b"\x78\x9c" + _deflated_zeros(2048))
    return Case(("zarr", root), ("data/state: a chunk can't be decoded: 0.0", "bytes for 512"))


def zarr_objects(folder):
    root = _buffer(folder)
    filters = [{"id": "pickle", "protocol": 5}]
    _meta(root, "state", dtype="|O", filters=filters, compressor=None)
    (root / "data" / "state" / "0.0").write_bytes(pickle.dumps(Payload(folder)))
    return Case(("zarr", root), ("data/state/.zarray", "'|O'", "expected numbers without filters"))


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
    root = _buffer(folder)
    _meta(root, "state", shape=[HUGE, 4])
    return Case(("zarr", root), ("state: expected the last episode to end", f"{HUGE} rows"))


def zarr_episode_of_2_40_steps(folder):
    root = _buffer(folder)
    for key, shape in {"state": [4], "action": [7], "camera": [6, 4, 3], "count": []}.items():
        _meta(root, key, shape=[HUGE, *shape])
    shutil.rmtree(root / "meta" / "episode_ends")
    made_sets.put(root / "meta" / "episode_ends", np.array([HUGE]))
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
    return Case(("zarr", root), ("data/state: expected 25165824 chunk files", "missing"))


def zarr_v3(folder):
    root = folder / "v3.zarr"
    zarr.save_group(str(root), action=np.ones((3, 2), np.float32), zarr_format=3)
    return Case(("zarr", root), ("v3.zarr: not a zarr (v2) replay buffer", "zarr v3"))


def zarr_ends_that_fall(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "meta" / "episode_ends")
    made_sets.put(root / "meta" / "episode_ends", np.array([12, 5, 24]))
    return Case(("zarr", root), ("episode 1: expected an end after row 12, got 5",))


def zarr_nan(folder):
    root = _buffer(folder)
    zarr.open_array(str(root / "data" / "state"), mode="r+")[9, 2] = np.nan
    return Case(("zarr", root), ("episode 1, step 4, state[2]: expected finite numbers, got nan",))


def zarr_images_above_1(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "camera")
    made_sets.put(root / "data" / "camera", np.full((24, 6, 4, 3), 1.5, np.float32))
    return Case(("zarr", root), ("episode 0, camera: step 0: expected whole numbers", "got 1.5"))


def zarr_images_chw(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "camera")
    made_sets.put(root / "data" / "camera", np.zeros((24, 3, 6, 4), np.uint8))
    words = ("camera can't be converted: images are uint8 [T, H, W, 3]", "transpose it")
    return Case(("zarr", root, "--keys", "camera"), words)


def zarr_complex(folder):
    root = _buffer(folder)
    shutil.rmtree(root / "data" / "action")
    made_sets.put(root / "data" / "action", np.ones((24, 2), np.complex64))
    return Case(("zarr", root), ("action can't be converted: only numbers", "complex64"))


def zarr_that_is_none(folder):
    (folder / "buffer.zarr").mkdir()
    return Case(("zarr", folder / "buffer.zarr"), ("buffer.zarr: not a zarr (v2) replay buffer",))


# zarr in a zip


def _zip(folder):
    return made_sets.write_zip(folder / "buffer.zarr.zip", _buffer(folder))


def _zip_with(folder, item):
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
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = _zip_with(folder, "data/state/0.0")
    return Case(("zarr", path), ("'data/state/0.0' is in it twice",))


def _zip_of_zeros(path, names):
    """A zip of deflated zeros, {name: (first bytes, MiB of zeros behind them)}."""
    local, central = b"", b""
    for name, (head, mebibytes) in names.items():
        first = b"\x00" + struct.pack("<HH", len(head), len(head) ^ 0xFFFF) + head if head else b""
        body, size = first + _deflated_zeros(mebibytes), len(head) + mebibytes * 2**20
        sizes = struct.pack("<IIIHH", 0, len(body), size, len(name), 0)
        common = struct.pack("<HHHHH", 20, 0, 8, 0, 33)
        central += b"PK\x01\x02" + struct.pack("<H", 20) + common + sizes
        central += struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + name.encode()
        local += b"PK\x03\x04" + common + sizes + name.encode() + body
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(central), len(local), 0)
    path.write_bytes(local + central + b"PK\x05\x06" + end)


def zip_bomb(folder):
    """A chunk of 512 bytes that is 2 GiB of zeros in the zip."""
    root, path = _buffer(folder), folder / "buffer.zarr.zip"
    (root / "data" / "state" / "0.0").unlink()
    _zip_of_zeros(path, {"data/state/0.0": (b"", 2048)})
    with zipfile.ZipFile(path, "a") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
    return Case(("zarr", path), ("data/state: a chunk can't be decoded: 0.0", "bytes for 512"))


def zip_cut(folder):
    path = _zip(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return Case(("zarr", path), ("buffer.zarr.zip: no zip file",))


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


# robomimic


def _hdf5(folder, change=lambda file: None, options=(), words=()):
    path = made_sets.write_robomimic(folder / "demos.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    return Case(("robomimic", path, *options), ("demos.hdf5", *words))


def hdf5_cut_in_half(folder):
    case = _hdf5(folder, words=("no HDF5 file, or cut",))
    path = case.arguments[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return case


def hdf5_that_is_text(folder):
    case = _hdf5(folder, words=("no HDF5 file, or cut",))
    case.arguments[1].write_text("data: none")
    return case


def hdf5_pointer(folder):
    case = _hdf5(folder, words=("a Git LFS pointer",))
    case.arguments[1].write_text(POINTER)
    return case


def hdf5_unequal_lengths(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = np.ones((11, 4), np.float32)

    words = ("demo_1: expected 12 steps as of actions, got 11 of state",)
    return _hdf5(folder, change, words=words)


def hdf5_num_samples_that_differ(folder):
    def change(file):
        file["data/demo_2"].attrs["num_samples"] = 8

    return _hdf5(folder, change, words=("demo_2: expected 7 steps", "got 8 of num_samples"))


def hdf5_missing_observation(folder):
    def change(file):
        del file["data/demo_1/obs/state"]

    words = ("demo_1: expected the keys camera, count, state, actions, got camera, count, actions",)
    return _hdf5(folder, change, words=words)


def hdf5_missing_actions(folder):
    def change(file):
        del file["data/demo_1/actions"]

    return _hdf5(folder, change, words=("/data/demo_1/actions: missing",))


def hdf5_link_into_another_file(folder):
    made_sets.write_robomimic(folder / "other.hdf5")

    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = h5py.ExternalLink("other.hdf5", "/data/demo_1/obs/state")

    words = ("/data/demo_1/obs/state: expected the data, got a link (ExternalLink)",)
    return _hdf5(folder, change, words=words)


def hdf5_links_in_a_circle(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = h5py.SoftLink("/data/demo_1/obs/other")
        file["data/demo_1/obs/other"] = h5py.SoftLink("/data/demo_1/obs/state")

    return _hdf5(folder, change, words=("expected the data, got a link (SoftLink)",))


def hdf5_group_in_itself(folder):
    def change(file):
        file["data/demo_1/obs/again"] = file["data/demo_1/obs"]

    return _hdf5(folder, change, words=("/again: expected an array [T, ...], got a Group",))


def hdf5_objects(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        text = h5py.string_dtype()
        file["data/demo_0/obs"].create_dataset("state", data=["a"] * 5, dtype=text)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state: expected numbers, got objects",))


def hdf5_virtual_dataset(folder):
    np.ones((5, 4), np.float32).tofile(folder / "other.bin")

    def change(file):
        del file["data/demo_0/obs/state"]
        layout = h5py.VirtualLayout((5, 4), np.float32)
        layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "x", (5, 4))
        file["data/demo_0/obs"].create_virtual_dataset("state", layout)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "a reference to other files"))


def hdf5_numbers_in_another_file(folder):
    np.ones((5, 4), np.float32).tofile(folder / "other.bin")

    def change(file):
        del file["data/demo_0/obs/state"]
        file["data/demo_0/obs"].create_dataset(
            "state", (5, 4), np.float32, external=[(str(folder / "other.bin"), 0, 80)]
        )

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "a reference to other files"))


def hdf5_of_2_40_rows_never_written(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        file["data/demo_0/obs"].create_dataset("state", (HUGE, 4), np.float32, chunks=(1024, 4))

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "got 0 of 1073741824 chunks"))


def hdf5_never_written(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs"].create_dataset("state", (12, 4), np.float32)

    words = ("/data/demo_1/obs/state: expected [12, 4] float32, got 0 of 192 bytes", "as zeros")
    return _hdf5(folder, change, words=words)


def hdf5_chunk_of_8_gib(folder):
    def change(file):
        for i, n in enumerate(made_sets.LENGTHS):
            del file[f"data/demo_{i}/obs/state"]
            file[f"data/demo_{i}/obs"].create_dataset(
                "state", (n, 2**18), np.uint8, chunks=(2**14, 2**18), maxshape=(None, 2**18)
            )

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "more than 2 GiB"))


def hdf5_filter_key_missing(folder):
    words = ("no filter key mask/trian; did you mean 'train'",)
    return _hdf5(folder, options=("--filter", "trian"), words=words)


def hdf5_mask_of_a_demo_that_is_not_there(folder):
    def change(file):
        file["mask/all"] = np.array([b"demo_0", b"demo_9"])

    words = ("mask/all names demo_9",)
    return _hdf5(folder, change, options=("--filter", "all"), words=words)


def hdf5_shapes_that_differ(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = np.ones((12, 5), np.float32)

    words = ("demo_1: state: expected float32 [4] a step, got float32 [5]",)
    return _hdf5(folder, change, words=words)


def hdf5_environment_that_is_no_json(folder):
    def change(file):
        file["data"].attrs["env_args"] = "{"

    return _hdf5(folder, change, words=("data: env_args: no JSON",))


def hdf5_no_demos(folder):
    def change(file):
        for i in range(3):
            del file[f"data/demo_{i}"]

    return _hdf5(folder, change, words=("expected at least 1 demo in data, got 0",))


def hdf5_actions_that_are_no_poses(folder):
    def change(file):
        for i, n in enumerate(made_sets.LENGTHS):
            del file[f"data/demo_{i}/actions"]
            file[f"data/demo_{i}/actions"] = np.ones((n, 6), np.float32)

    words = ("actions: --absolute expects floats [T, 7] or [T, 14]", "[None, 6]")
    return _hdf5(folder, change, options=("--absolute",), words=words)


def hdf5_spoilt_chunk(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        made = file["data/demo_0/obs"].create_dataset("state", data=x, compression=4)
        made.id.write_direct_chunk((0, 0), b"\x00\x01\x02\x03" * 20)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state: can't be decoded",))


# LeRobot


def _v2(folder, *words, info=None, video=True):
    root = made_sets.write_lerobot_v2(folder / "set", video=video)
    file = root / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (info or {})))
    return Case(("lerobot", root), words)


def _parquet(root, episode=1):
    return root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"


def _video(root, episode=1):
    folder = root / "videos" / "chunk-000" / "observation.images.top"
    return folder / f"episode_{episode:06d}.mp4"


def _column(root, name, column, episode=1):
    file = _parquet(root, episode)
    table = pq.read_table(file)
    place = table.schema.get_field_index(name)
    table = table.remove_column(place)
    pq.write_table(table if column is None else table.append_column(name, column), file)


def lerobot_no_json(folder):
    case = _v2(folder, "meta/info.json: no JSON")
    (case.arguments[1] / "meta" / "info.json").write_text("{")
    return case


def lerobot_no_info(folder):
    (folder / "set").mkdir()
    return Case(("lerobot", folder / "set"), ("meta/info.json: missing",))


def lerobot_path_that_climbs(folder):
    path = "../other/episode_{episode_index:06d}.parquet"
    return _v2(folder, "data_path: expected a path inside", "'../other/", info={"data_path": path})


def lerobot_absolute_video_path(folder):
    info = {"video_path": "/etc/{video_key}/{episode_index}.mp4"}
    return _v2(folder, "video_path: expected a path inside the data set, got '/etc/", info=info)


def lerobot_path_that_asks_for_attributes(folder):
    info = {"data_path": "{episode_index.__class__.__mro__}"}
    return _v2(folder, "data_path: expected a path with episode_chunk", info=info)


def lerobot_path_of_2_30_digits(folder):
    info = {"data_path": "{episode_index:01073741824d}"}
    return _v2(folder, "data_path: expected a path with episode_chunk", info=info)


def lerobot_of_2_40_episodes(folder):
    return _v2(folder, "total_episodes: expected episodes 0 to", info={"total_episodes": HUGE})


def lerobot_frames_that_differ(folder):
    return _v2(folder, "total_frames: expected 24, got 25", info={"total_frames": 25})


def lerobot_old_version(folder):
    words = "codebase_version 'v1.6' isn't read; choose one of v2.0, v2.1, v3.0"
    return _v2(folder, words, info={"codebase_version": "v1.6"})


def lerobot_no_rate(folder):
    return _v2(folder, "expected fps", info={"fps": 0})


def lerobot_shape_that_is_none(folder):
    features = {"action": {"dtype": "float32", "shape": "many"}}
    return _v2(folder, "meta/info.json: expected LeRobot's keys", info={"features": features})


def lerobot_gap_in_the_episodes(folder):
    case = _v2(folder, "total_episodes: expected episodes 0 to 2 in meta/")
    file = case.arguments[1] / "meta" / "episodes.jsonl"
    file.write_text(file.read_text().replace('"episode_index": 1', '"episode_index": 5'))
    return case


def lerobot_parquet_missing(folder):
    case = _v2(folder, "episode_000001.parquet: missing")
    _parquet(case.arguments[1]).unlink()
    return case


def lerobot_parquet_cut(folder):
    case = _v2(folder, "episode_000001.parquet: no Parquet, or cut")
    file = _parquet(case.arguments[1])
    file.write_bytes(file.read_bytes()[:-50])
    return case


def lerobot_parquet_flipped(folder):
    """The footer is whole, the data isn't."""
    case = _v2(folder, "episode_000001.parquet", "can't be read")
    file = _parquet(case.arguments[1])
    raw = bytearray(file.read_bytes())
    raw[4:400] = bytes(396)
    file.write_bytes(raw)
    return case


def lerobot_column_missing(folder):
    case = _v2(folder, "episode_000001.parquet: expected a column 'action', got observation.state")
    _column(case.arguments[1], "action", None)
    return case


def lerobot_column_of_text(folder):
    case = _v2(folder, "episode 1: action: expected numbers, got string")
    _column(case.arguments[1], "action", pa.array(["left"] * 12))
    return case


def lerobot_column_of_other_size(folder):
    case = _v2(folder, "episode 1: action: expected shape [7] by info.json, got [6]")
    column = pa.array(list(np.ones((12, 6), np.float32)), pa.list_(pa.float32()))
    _column(case.arguments[1], "action", column)
    return case


def lerobot_ragged_lists(folder):
    case = _v2(folder, "episode 1: action: expected lists of one length, got [6, 7]")
    lists = [np.ones(6 if t == 4 else 7, np.float32) for t in range(12)]
    _column(case.arguments[1], "action", pa.array(lists, pa.list_(pa.float32())))
    return case


def lerobot_nulls(folder):
    case = _v2(folder, "episode 1: action: expected a number in every row, got null")
    lists = [None if t == 4 else np.ones(7, np.float32) for t in range(12)]
    _column(case.arguments[1], "action", pa.array(lists, pa.list_(pa.float32())))
    return case


def lerobot_rows_missing(folder):
    case = _v2(folder, "episode_000001.parquet: expected 12 rows by meta/, got 11")
    file = _parquet(case.arguments[1])
    pq.write_table(pq.read_table(file).slice(0, 11), file)
    return case


def lerobot_times_that_fall(folder):
    case = _v2(folder, "episode_000001.mp4: expected times that increase", "step 3")
    times = np.arange(12, dtype=np.float32)
    times[4] = 1.0
    _column(case.arguments[1], "timestamp", pa.array(times))
    return case


def lerobot_video_missing(folder):
    case = _v2(folder, "episode_000001.mp4: missing")
    _video(case.arguments[1]).unlink()
    return case


def lerobot_video_shorter_than_the_data(folder):
    case = _v2(folder, "episode_000001.mp4: expected a frame within", "step 9", "3 of 12 steps")
    made_sets.write_video(_video(case.arguments[1]), made_sets.frames()[1][:9])
    return case


def lerobot_video_of_another_size(folder):
    case = _v2(folder, "episode_000001.mp4: expected 24 x 32 px by info.json, got 48 x 64")
    made_sets.write_video(_video(case.arguments[1]), np.zeros((12, 48, 64, 3), np.uint8))
    return case


def lerobot_video_cut(folder):
    case = _v2(folder, "episode_000001.mp4: can't be decoded")
    file = _video(case.arguments[1])
    file.write_bytes(file.read_bytes()[:300])
    return case


def lerobot_video_that_is_a_playlist(folder):
    """A demuxer that is chosen by content would read the files that it names."""
    case = _v2(folder, "episode_000001.mp4: can't be decoded")
    other = _video(case.arguments[1], 0)
    _video(case.arguments[1]).write_text(f"ffconcat version 1.0\nfile '{other}'\n")
    return case


def lerobot_video_pointer(folder):
    case = _v2(folder, "episode_000001.mp4: a Git LFS pointer")
    _video(case.arguments[1]).write_text(POINTER)
    return case


def _with_images(folder, payload, *words):
    case = _v2(folder, *words, video=False)
    file = case.arguments[1] / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [6, 4, 3], "names": None}
    file.write_text(json.dumps(info))
    from dpjax.data import images

    good = {"bytes": images.encode(np.zeros((6, 4, 3), np.uint8)), "path": ""}
    for i, n in enumerate(made_sets.LENGTHS):
        table = pq.read_table(_parquet(case.arguments[1], i))
        column = [good] * n
        if i == 1:
            column[4] = {"bytes": payload, "path": ""}
        pq.write_table(table.append_column("observation.image", pa.array(column)),
                       _parquet(case.arguments[1], i))  # fmt: skip
    return case


def _png(height, width):
    """The header of a PNG that claims to be so large, and nothing behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + end + b"\x00\x00\x00\x00IDAT"


def lerobot_image_of_9000_px(folder):
    words = "episode 1: observation.image: step 4: expected 6 x 4 px, got 9000 x 9000"
    return _with_images(folder, _png(9_000, 9_000), words)


def lerobot_image_of_30000_px(folder):
    words = "episode 1: observation.image: step 4: not an image (DecompressionBombError"
    return _with_images(folder, _png(30_000, 30_000), words)


def lerobot_image_that_is_none(folder):
    words = "episode 1: observation.image: step 4: not an image"
    return _with_images(folder, b"\x89PNG and then nothing", words)


def lerobot_image_that_is_null(folder):
    words = "episode 1: observation.image: row 4: expected an image's bytes, got null"
    return _with_images(folder, None, words)


def lerobot_v3_episodes_with_a_wrong_schema(folder):
    root = made_sets.write_lerobot_v3(folder / "set")
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["data/file_index"]), file)
    return Case(("lerobot", root), ("file-000.parquet: expected a column 'data/file_index'",))


def lerobot_v3_length_that_differs(folder):
    root = made_sets.write_lerobot_v3(folder / "set")
    file = root / "data" / "chunk-000" / "file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 16), file)
    words = ("file-000.parquet: expected 12 rows of episode 1 by meta/, got 11",)
    return Case(("lerobot", root), words)


# arrays


def _npz(folder, change, *words, options=()):
    made = made_sets.episodes()
    change(made)
    return Case(("arrays", made_sets.write_npz(folder / "set", made), *options), words)


def npz_of_pickled_objects(folder):
    def change(made):
        made[1]["state"] = np.array([Payload(folder)] * 12, object)

    return _npz(folder, change, "episode_1.npz: state: expected numbers, got pickled objects")


def npy_of_pickled_objects(folder):
    root = made_sets.write_npy(folder / "set")
    objects = np.array([Payload(folder)] * 12, object)
    np.save(root / "episode_1" / "state.npy", objects, allow_pickle=True)
    return Case(("arrays", root), ("episode_1/state.npy: expected numbers, got pickled objects",))


def npy_that_is_a_pickle(folder):
    root = made_sets.write_npy(folder / "set")
    (root / "episode_1" / "state.npy").write_bytes(pickle.dumps(Payload(folder)))
    return Case(("arrays", root), ("episode_1/state.npy: no .npy",))


def npy_header_with_code(folder):
    root = made_sets.write_npy(folder / "set")
    code = f"{{'descr': __import__('os').system('touch {folder / CANARY}'), 'shape': (1,)}}"
    raw = code.encode().ljust(118) + b"\n"
    path = root / "episode_1" / "state.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw)
    return Case(("arrays", root), ("episode_1/state.npy: no .npy",))


def npz_shapes_that_differ(folder):
    def change(made):
        made[1]["state"] = np.ones((12, 5), np.float32)

    words = "episode_1.npz: state: expected float32 [4] a step, got float32 [5]"
    return _npz(folder, change, words)


def npz_keys_that_differ(folder):
    def change(made):
        del made[1]["state"]

    words = "episode_1.npz: expected the keys state, action, camera, count, got"
    return _npz(folder, change, words)


def npz_lengths_that_differ(folder):
    def change(made):
        made[1]["state"] = made[1]["state"][:-1]

    return _npz(folder, change, "episode_1.npz: expected one number of steps", "11 of state")


def npz_nan(folder):
    def change(made):
        made[2]["action"][3, 6] = np.nan

    return _npz(folder, change, "episode 2, step 3, action[6]: expected finite numbers, got nan")


def npz_infinity(folder):
    def change(made):
        made[2]["state"][3, 1] = -np.inf

    return _npz(folder, change, "episode 2, step 3, state[1]: expected finite numbers, got -inf")


def npz_float64_beyond_float32(folder):
    def change(made):
        for episode in made:
            episode["state"] = episode["state"].astype(np.float64)
        made[1]["state"][2, 0] = 1e300

    return _npz(folder, change, "episode 1, state: step 2: expected a float32, got 1e+300")


def npz_empty_episode(folder):
    def change(made):
        made[1] = {key: x[:0] for key, x in made[1].items()}

    return _npz(folder, change, "episode 1, empty: expected at least 1 step, got 0")


def npz_images_chw(folder):
    def change(made):
        for episode in made:
            episode["camera"] = np.moveaxis(episode["camera"], -1, 1).copy()

    words = "camera can't be converted: images are uint8 [T, H, W, 3]", "transpose it"
    return _npz(folder, change, *words, options=("--keys", "camera"))


def npz_images_above_1(folder):
    def change(made):
        for episode in made:
            episode["camera"] = episode["camera"] / np.float32(100)

    return _npz(folder, change, "episode 0, camera: step 0: expected whole numbers from 0 to 255")


def npz_numbers_that_are_none(folder):
    def change(made):
        for episode in made:
            episode["action"] = np.full(len(episode["action"]), "left")

    return _npz(folder, change, "action can't be converted: only numbers are converted")


def npz_single_number(folder):
    def change(made):
        made[0]["goal"] = np.float32(3)

    return _npz(folder, change, "episode_0.npz: goal: expected an array [T, ...], got a single")


def _huge_header(shape, dtype="<f4"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    raw = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


def npy_of_2_40_rows(folder):
    root = made_sets.write_npy(folder / "set")
    path = root / "episode_1" / "state.npy"
    path.write_bytes(_huge_header((HUGE, 4)) + bytes(64))
    return Case(("arrays", root), ("episode_1/state.npy: expected 17592186044544 bytes", "got 192"))


def npz_bomb(folder):
    """4 GiB of zeros that are 4 MB of a zip, and headers that admit it."""
    root, rows = made_sets.write_npz(folder / "set"), 36 * 2**20
    names = {}
    for key, x in made_sets.episodes()[0].items():
        head = _huge_header((rows, *x.shape[1:]), x.dtype.str)
        names[f"{key}.npy"] = head, rows * x[0].nbytes // 2**20
    _zip_of_zeros(root / "episode_1.npz", names)
    return Case(("arrays", root), ("episode 1: 37748736 steps", "at most 4 GiB"))


def npz_sizes_that_lie(folder):
    """The zip's directory claims what the header claims: 8 GiB, of which 64 bytes are there."""
    root = made_sets.write_npz(folder / "set")
    path = root / "episode_1.npz"
    head = _huge_header((2**29, 4))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key in made_sets.episodes()[0]:
            archive.writestr(f"{key}.npy", head + bytes(64))
    raw = bytearray(path.read_bytes())
    true = struct.pack("<I", len(head) + 64)
    claimed = struct.pack("<I", 2**32 - 2)
    start = raw.index(b"PK\x01\x02")
    raw[start:] = raw[start:].replace(true, claimed)
    path.write_bytes(raw)
    return Case(("arrays", root), ("episode_1.npz: state.npy can't be read", "Copy it again"))


def npz_name_that_climbs(folder):
    root = made_sets.write_npz(folder / "set")
    with zipfile.ZipFile(root / "episode_1.npz", "a") as archive:
        archive.writestr(f"../../{CANARY}.npy", b"x")
    return Case(("arrays", root), ("episode_1.npz", f"'../../{CANARY}.npy'", "leads out of it"))


def npz_cut(folder):
    root = made_sets.write_npz(folder / "set")
    path = root / "episode_1.npz"
    path.write_bytes(path.read_bytes()[:-100])
    return Case(("arrays", root), ("episode_1.npz: no zip file",))


def arrays_that_are_none(folder):
    (folder / "set").mkdir()
    (folder / "set" / "notes.txt").write_text("none yet")
    return Case(("arrays", folder / "set"), ("set: expected .npz files, or folders of .npy",))


def arrays_of_both_kinds(folder):
    root = made_sets.write_npz(folder / "set")
    (root / "episode_7").mkdir()
    np.save(root / "episode_7" / "action.npy", np.ones((3, 2)))
    return Case(("arrays", root), ("episode_0.npz and episode_7/: expected either",))


def no_such_source(folder):
    return Case(("arrays", folder / "nowhere"), ("nowhere: no such file or directory",))


# RLDS, which is read and not converted


class ReadCase(NamedTuple):
    """directory: of the data set. features: to read. words: in the refusal."""

    directory: Path
    features: dict[str, str]
    words: tuple[str, ...]


FEATURES = {"state": "observation/state", "action": "action"}


def _masked(payload):
    crc = google_crc32c.value(payload)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _tfrecord(folder, change, *words, features=FEATURES):
    """A tfrecord set whose one shard `change` spoils: bytes -> bytes."""
    from array_record.python.array_record_module import ArrayRecordReader

    from dpjax.data import rlds

    keep = ("state", "action", "camera")
    made = ({key: episode[key] for key in keep} for episode in made_sets.episodes())
    root = folder / "set"
    rlds.write(root, made, observations=("state", "camera"), description="made up")
    old = root / "1.0.0" / "demos-train.array_record-00000"
    content = b""
    for record in ArrayRecordReader(str(old)).read_all():
        length = struct.pack("<Q", len(record))
        content += length + _masked(length) + record + _masked(record)
    old.unlink()
    shard = old.with_name("demos-train.tfrecord-00000")
    shard.write_bytes(change(content))
    info = root / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return ReadCase(root, features, (shard.name, *words))


def tfrecord_flipped_bit(folder):
    change = lambda raw: raw[:60] + bytes([raw[60] ^ 4]) + raw[61:]
    return _tfrecord(folder, change, "CRC of a record differs")


def tfrecord_of_2_60_bytes(folder):
    length = struct.pack("<Q", 2**60)
    return _tfrecord(folder, lambda raw: length + _masked(length) + raw[12:], "bytes short")


def tfrecord_cut(folder):
    return _tfrecord(folder, lambda raw: raw[:-5], "bytes short")


def tfrecord_pointer(folder):
    return _tfrecord(folder, lambda raw: POINTER.encode(), "a Git LFS pointer")


def tfrecord_empty(folder):
    return _tfrecord(folder, lambda raw: b"", "expected 3 episodes by dataset_info.json, got 0")


def rlds_image_of_30000_px(folder):
    """An encoded image whose header claims more pixels than any memory has."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    from dpjax.data import rlds

    made = ({"camera": e["camera"], "action": e["action"]} for e in made_sets.episodes())
    root = folder / "set"
    rlds.write(root, made, observations=("camera",), description="made up")
    shard = root / "1.0.0" / "demos-train.array_record-00000"
    found = [tf_example_pb2.Example.FromString(x) for x in ArrayRecordReader(str(shard)).read_all()]
    images = found[1].features.feature["steps/observation/camera"].bytes_list
    images.value[4] = _png(30_000, 30_000)
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for example in found:
        writer.write(example.SerializeToString())
    writer.close()
    words = (shard.name, "episode 1", "step 4: not an image (DecompressionBombError")
    return ReadCase(root, {"camera": "observation/camera", "action": "action"}, words)


MADE = [
    function
    for name, function in list(globals().items())
    if name.split("_")[0]
    in ("zarr", "zip", "hdf5", "lerobot", "npz", "npy", "arrays", "no", "tfrecord", "rlds")
    and callable(function)
]
