"""A zarr replay buffer comes back bit for bit as RLDS, or nothing is written."""

import json
from pathlib import Path
import shutil

import numpy as np
import pytest
from support import converting
from support.foreign_sets import put
import zarr

from dpjax.convert import __main__ as convert
from dpjax.core.errors import UserError
from dpjax.data import rlds

PUSHT = Path(__file__).parents[3] / "shared" / "data" / "pusht_cchi_v7_replay.zarr"
ENDS = np.array([30, 41, 100])


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    root = tmp_path_factory.mktemp("zarr") / "buffer.zarr"
    rng = np.random.default_rng(0)
    shapes = {"action": (2,), "state": (5,), "keypoint": (9, 2)}
    for key, shape in shapes.items():
        put(root / "data" / key, rng.normal(size=(100, *shape)).astype(np.float32))
    pixels = rng.integers(0, 256, (100, 6, 4, 3))
    put(root / "data" / "img", pixels.astype(np.float32))
    put(root / "data" / "depth", np.zeros((100, 4, 4, 1), np.float32))
    put(root / "data" / "count", np.zeros((100, 1), np.int64))
    put(root / "meta" / "episode_ends", ENDS)
    return root


@pytest.fixture
def source(buffer, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(buffer, tmp_path / "copy.zarr"))


def refusal(source, tmp_path, *options):
    return converting.refusal(tmp_path, "zarr", source, *options)


def test_what_was_in_the_buffer_is_in_the_set(buffer, tmp_path, capsys):
    assert convert.main(["zarr", str(buffer), str(tmp_path / "out")]) == 0
    features = {"s": "observation/state", "k": "observation/keypoint", "a": "action"}
    read = rlds.read(tmp_path / "out", features=features)
    for short, key in {"s": "state", "k": "keypoint", "a": "action"}.items():
        want = zarr.open_array(str(buffer / "data" / key), mode="r")[...]
        # A matrix per step is flattened.
        np.testing.assert_array_equal(read.columns[short], want.reshape(100, -1))
    np.testing.assert_array_equal(read.ends, ENDS)
    printed = capsys.readouterr().out
    assert "3 episodes, 100 steps, 11 to 59 per episode" in printed
    assert "keypoint: [9, 2] is flattened to [18]" in printed


def test_images_become_uint8_and_come_back_pixel_by_pixel(buffer, tmp_path, capsys):
    convert.main(["zarr", str(buffer), str(tmp_path / "out"), "--keys", "img"])
    assert "[6, 4, 3]" in capsys.readouterr().out
    features = {"camera": "observation/img", "action": "action"}
    camera = rlds.read(tmp_path / "out", features=features).columns["camera"]
    assert camera.shape == (100, 6, 4, 3) and camera.dtype == np.uint8
    want = zarr.open_array(str(buffer / "data" / "img"), mode="r")[...]
    np.testing.assert_array_equal(camera.read(np.arange(100)), want)


@pytest.mark.parametrize("value", [0.5, 256, -1, np.nan])
def test_numbers_that_are_not_pixels_are_refused(source, tmp_path, value):
    zarr.open_array(str(source / "data" / "img"), mode="a")[40, 1, 1, 1] = value
    line = refusal(source, tmp_path, "--keys", "img")
    assert "episode 1, img: step 10: expected whole numbers from 0 to 255" in line


def test_what_is_left_out_or_cast_is_printed(buffer, tmp_path, capsys):
    convert.main(["zarr", str(buffer), str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert (
        "left out: depth (images are uint8 [T, H, W, 3], and it has shape [None, 4, 4, " in printed
    )
    assert "count: int64 is cast to float32, where exact" in printed


def test_keys_choose_the_observations(buffer, tmp_path, capsys):
    convert.main(["zarr", str(buffer), str(tmp_path / "out"), "--keys", "state"])
    printed = capsys.readouterr().out
    assert "left out: count, depth, img, keypoint (not asked for)" in printed
    with pytest.raises(UserError, match="action, .*observation/state"):
        rlds.read(tmp_path / "out", features={"k": "observation/keypoint"})


def test_asking_for_what_cannot_be_converted_is_an_error(buffer, tmp_path):
    line = refusal(buffer, tmp_path, "--keys", "state,depth")
    assert "depth can't be converted: images are" in line
    assert "did you mean 'state'" in refusal(buffer, tmp_path, "--keys", "stat")


def test_an_output_that_exists_is_refused(buffer, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        convert.main(["zarr", str(buffer), str(tmp_path / "out")])


def test_a_directory_that_is_not_a_buffer_is_named(source, tmp_path):
    assert "no such file or directory" in refusal(tmp_path / "nowhere", tmp_path)
    shutil.rmtree(source / "meta")
    assert "expected meta/episode_ends" in refusal(source, tmp_path)
    shutil.rmtree(source / "data")
    assert "not a zarr (v2) replay buffer" in refusal(source, tmp_path)


def test_a_missing_action_is_named(source, tmp_path):
    shutil.rmtree(source / "data" / "action")
    assert "no key 'action'" in refusal(source, tmp_path)


def test_chunks_that_are_not_stored_are_the_fill_value(source, tmp_path, caplog):
    (source / "data" / "action" / "1.0").unlink()
    want = zarr.open_array(str(source / "data" / "action"), mode="r")[...]
    assert (want == 0).all(1).any()
    convert.main(["zarr", str(source), str(tmp_path / "out")])
    read = rlds.read(tmp_path / "out", features={"a": "action"})
    np.testing.assert_array_equal(read.columns["a"], want)
    assert "data/action: 1 of" in caplog.text and "the first is 1.0: they are 0.0" in caplog.text


def test_missing_chunks_that_look_like_an_interrupted_copy_are_called_so(source, tmp_path, caplog):
    """All chunks of an array, and one of which a temporary file is there."""
    for file in (source / "data" / "state").glob("[0-9]*"):
        file.unlink()
    (source / "data" / "action" / "1.0").rename(source / "data" / "action" / "1.0.a8f3.part")
    # Beyond the shape, as after a resize.
    shutil.copy(source / "data" / "action" / "0.0", source / "data" / "action" / "9.0")
    convert.main(["zarr", str(source), str(tmp_path / "out"), "--keys", "state"])
    assert "data/state: 4 of 4 chunks are not stored" in caplog.text
    assert "none is there: if it is not constant, it was not copied" in caplog.text
    assert "data/action: 1 of 4 chunks are not stored, the first is 1.0" in caplog.text
    assert "(beside 1.0.a8f3.part, 9.0, as in a copy that was interrupted)" in caplog.text
    assert "left out: 1.0.a8f3.part, 9.0: not chunks of its shape" in caplog.text


def test_what_lies_beside_the_keys_is_listed(source, tmp_path, caplog):
    put(source / "meta" / "success", np.ones(3, np.int64))
    put(source / "labels" / "good", np.ones(3, np.int64))
    (source / "videos").mkdir()
    (source / "videos" / "0.mp4").write_bytes(b"film")
    (source / "data" / ".zattrs").write_text(json.dumps({"rate": 10}))
    convert.main(["zarr", str(source), str(tmp_path / "out"), "--keys", "state"])
    lines = [record.message for record in caplog.records if "left out" in record.message]
    (beside,) = [line for line in lines if "not in data/" in line]
    for name in ("meta/success", "labels/good", "videos/0.mp4"):
        assert name in beside
    assert any("left out: data/rate: attributes" in line for line in lines)


@pytest.mark.parametrize("fill, value", [(-1.5, -1.5), ("-Infinity", None), (None, None)])
def test_fill_values_are_numbers_or_refused(source, tmp_path, fill, value):
    file = source / "data" / "action" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fill_value": fill}))
    (source / "data" / "action" / "1.0").unlink()
    if value is None:
        assert "data/action" in refusal(source, tmp_path) or "non-finite" in refusal(
            source, tmp_path
        )
    else:
        convert.main(["zarr", str(source), str(tmp_path / "out")])
        actions = rlds.read(tmp_path / "out", features={"a": "action"}).columns["a"]
        assert (actions == value).any()


def test_the_ends_have_no_fill_value(source, tmp_path):
    (source / "meta" / "episode_ends" / "0").unlink()
    line = refusal(source, tmp_path)
    assert "meta/episode_ends: 1 of 1 chunks are not stored, the first is 0" in line


def test_a_matrix_of_an_image_is_not_flattened(source, tmp_path, capsys):
    put(source / "data" / "gray", np.zeros((100, 48, 64), np.float32))
    convert.main(["zarr", str(source), str(tmp_path / "out")])
    assert "left out: gray (depth or another image of one channel" in capsys.readouterr().out


def test_what_is_not_wanted_is_not_looked_at(source, tmp_path):
    put(source / "data" / "longer", np.zeros((105, 1), np.float32))
    (source / "data" / "broken").mkdir()
    (source / "data" / "broken" / ".zarray").write_text("{")
    (source / "data" / "v3").mkdir()
    (source / "data" / "v3" / "zarr.json").write_text("{}")
    (source / "data" / "lost").mkdir()
    (source / "data" / "lost" / "0.0").write_bytes(b"")
    convert.main(["zarr", str(source), str(tmp_path / "out"), "--keys", "state"])
    # Without --keys everything is wanted, and what is broken is refused.
    with pytest.raises(UserError, match="(broken|lost|v3) can't be converted"):
        convert.main(["zarr", str(source), str(tmp_path / "other")])


@pytest.mark.parametrize("target", ["folder", "outside", "nothing"])
def test_links_out_of_the_source_are_refused(source, tmp_path, target):
    chunk = source / "data" / "state" / "0.0"
    moved = tmp_path / "moved"
    if target == "folder":
        shutil.move(chunk.parent, moved)
        chunk.parent.symlink_to(moved)
    else:
        if target == "outside":
            shutil.copy(chunk, moved)
        chunk.unlink()
        chunk.symlink_to(moved)
    line = refusal(source, tmp_path)
    assert "a link to" in line and "data/state" in line


def test_a_truncated_chunk_is_named(source, tmp_path):
    chunk = source / "data" / "state" / "2.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    assert "data/state: a chunk can't be decoded" in refusal(source, tmp_path)


def test_a_broken_zarray_is_named(source, tmp_path):
    (source / "data" / "state" / ".zarray").write_text("{")
    assert "state can't be converted: " in refusal(source, tmp_path)


@pytest.mark.parametrize(
    "ends, words",
    [
        ([30, 41, 99], "100 steps, where meta/episode_ends ends at 99"),
        ([30, 30, 100], "episode 1: expected an end after step 30, got 30"),
        ([41, 30, 100], "episode 1: expected an end after step 41, got 30"),
    ],
)
def test_ends_that_do_not_fit_are_refused(source, tmp_path, ends, words):
    zarr.open_array(str(source / "meta" / "episode_ends"), mode="r+")[...] = ends
    assert words in refusal(source, tmp_path)


def test_a_non_finite_number_is_named_by_episode_and_step(source, tmp_path):
    zarr.open_array(str(source / "data" / "keypoint"), mode="r+")[35, 4, 1] = np.nan
    assert "episode 1, step 5, keypoint[9]" in refusal(source, tmp_path)


def test_float64_is_cast(source, tmp_path):
    shutil.rmtree(source / "data" / "state")
    put(source / "data" / "state", np.full((100, 5), 0.1))
    convert.main(["zarr", str(source), str(tmp_path / "out")])
    read = rlds.read(tmp_path / "out", features={"s": "observation/state"})
    assert (read.columns["s"] == np.float32(0.1)).all()


@pytest.mark.skipif(not PUSHT.is_dir(), reason="the human demonstrations are not here")
def test_the_human_demonstrations_of_push_t(tmp_path, capsys):
    convert.main(["zarr", str(PUSHT), str(tmp_path / "out"), "--keys", "state"])
    assert "206 episodes, 25,650 steps, 49 to 246 per episode" in capsys.readouterr().out
    info = json.loads((tmp_path / "out" / "1.0.0" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["206"]
