"""What is in a source is in the RLDS data set, bit for bit, in every format."""

import json

import numpy as np
import pytest
from support import foreign_sets
from support.converting import convert_to, refusal
import zarr

from dpjax.convert import source as sources

KEYS = ("state", "action", "camera", "count")


def write_zip(root):
    folder = foreign_sets.write_zarr(root.with_suffix(".zarr"))
    return foreign_sets.write_zip(root.with_suffix(".zarr.zip"), folder)


def write_small_chunks(root):
    """One chunk per image, as robomimic's image buffers have."""
    return foreign_sets.write_zarr(root, chunks=1)


WRITERS = {
    "zarr": ("zarr", foreign_sets.write_zarr),
    "zarr_zip": ("zarr", write_zip),
    "zarr_chunk_per_frame": ("zarr", write_small_chunks),
    "robomimic": ("robomimic", foreign_sets.write_robomimic),
    "npz": ("arrays", foreign_sets.write_npz),
    "npz_deflated": ("arrays", lambda root: foreign_sets.write_npz(root, save=np.savez_compressed)),
    "npy": ("arrays", foreign_sets.write_npy),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_numbers_and_images_come_back_bit_for_bit(tmp_path, writer, capsys):
    name, write = WRITERS[writer]
    out = convert_to(tmp_path, name, write(tmp_path / "source"))
    expected = [foreign_sets.as_written(episode) for episode in foreign_sets.make_episodes()]
    foreign_sets.assert_same(foreign_sets.converted(out, KEYS), expected, KEYS)
    printed = capsys.readouterr().out
    assert "3 episodes, 24 steps, 5 to 12 per episode" in printed
    assert "count: int64 is cast to float32 of shape [1], where exact" in printed
    assert "camera           [6, 4, 3]" in printed and "images" in printed


def compressors():
    import numcodecs

    plain = [None, numcodecs.Zlib(1), numcodecs.GZip(1), numcodecs.LZ4(), numcodecs.Zstd()]
    return [*plain, numcodecs.Blosc("lz4"), numcodecs.Blosc("zlib", shuffle=2)]


@pytest.mark.parametrize("codec", compressors(), ids=str)
@pytest.mark.parametrize("order", "CF")
def test_every_compressor_and_order_of_zarr(tmp_path, codec, order):
    source = foreign_sets.write_zarr(tmp_path / "s", chunks=7, compressors=codec, order=order)
    expected = [foreign_sets.as_written(episode) for episode in foreign_sets.make_episodes()]
    out = convert_to(tmp_path, "zarr", source)
    foreign_sets.assert_same(foreign_sets.converted(out, KEYS), expected, KEYS)


def test_chunks_may_cut_every_axis(tmp_path):
    source = foreign_sets.write_zarr(tmp_path / "s")
    column = zarr.open_array(str(source / "data" / "camera"), mode="r")[...]
    foreign_sets.put(source / "data" / "other", column, chunks=(5, 4, 3, 2))
    out = convert_to(tmp_path, "zarr", source, "--keys", "camera,other")
    for episode in foreign_sets.converted(out, ("camera", "other")):
        np.testing.assert_array_equal(episode["camera"], episode["other"])


@pytest.mark.parametrize("codec", ["imagecodecs_jpeg2k", "imagecodecs_jpegxl"])
def test_encoded_images_are_read_or_the_codec_is_named(tmp_path, codec):
    """One encoded image per chunk, as the image buffers of robomimic and UMI have."""
    source = foreign_sets.write_zarr(tmp_path / "s", chunks=1)
    meta = source / "data" / "camera" / ".zarray"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"compressor": {"id": codec}}))
    try:
        import imagecodecs
    except ImportError:
        line = refusal(tmp_path, "zarr", source)
        assert f"data/camera: its chunks are compressed by {codec}: pip install imagec" in line
        return
    encode = {
        "imagecodecs_jpeg2k": lambda x: imagecodecs.jpeg2k_encode(x, level=0, reversible=True),
        "imagecodecs_jpegxl": lambda x: imagecodecs.jpegxl_encode(x, lossless=True),
    }[codec]
    frames = np.concatenate([episode["camera"] for episode in foreign_sets.make_episodes()])
    for i, frame in enumerate(frames):
        (source / "data" / "camera" / f"{i}.0.0.0").write_bytes(encode(frame))
    episodes = foreign_sets.converted(convert_to(tmp_path, "zarr", source), ("camera", "action"))
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("camera", "action"))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8, np.uint8, np.int32, bool])
def test_what_float32_holds_exactly_is_cast(tmp_path, dtype):
    x = np.array([[0, 1], [1, 0], [3, 100]]).astype(dtype)
    source = foreign_sets.write_npz(
        tmp_path / "s", [{"x": x, "action": np.ones((3, 2), np.float32)}]
    )
    (episode,) = foreign_sets.converted(convert_to(tmp_path, "arrays", source), ("x", "action"))
    assert episode["x"].dtype == np.float32
    np.testing.assert_array_equal(episode["x"], x.astype(np.float32))


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_integers_that_float32_cannot_hold_are_refused(tmp_path, value):
    x = np.array([[0], [value], [2**24]], np.int64)
    source = foreign_sets.write_npz(
        tmp_path / "s", [{"x": x, "action": np.ones((3, 2), np.float32)}]
    )
    line = refusal(tmp_path, "arrays", source)
    assert f"episode 0, x: step 1: expected an integer that float32 has, got {value}" in line


def test_an_episode_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EPISODE_LIMIT", 1000)
    line = refusal(tmp_path, "arrays", foreign_sets.write_npz(tmp_path / "s"))
    assert "episode 1: 12 steps of state, action, camera, count are 0.0 GiB by its header" in line
