"""What was in a source is in the RLDS set, bit for bit, whatever the format."""

import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import made_sets
import zarr

from dpjax.convert import __main__ as convert
from dpjax.convert import source as sources
from dpjax.core import rotations
from dpjax.core.errors import UserError
from dpjax.data.rlds import reader

ROOT = Path(__file__).parents[2]
KEYS = ("state", "action", "camera", "count")


def refusal(tmp_path, *arguments):
    """The one line that a conversion is refused with; nothing is left of it."""
    with pytest.raises(UserError) as caught:
        convert.main([*map(str, arguments[:2]), str(tmp_path / "out"), *arguments[2:]])
    assert not list(tmp_path.glob("out*")), "something was written"
    return " ".join(str(caught.value).split())


def run(tmp_path, *arguments):
    assert convert.main([*map(str, arguments[:2]), str(tmp_path / "out"), *arguments[2:]]) == 0
    return tmp_path / "out"


def write_zip(root):
    folder = made_sets.write_zarr(root.with_suffix(".zarr"))
    return made_sets.write_zip(root.with_suffix(".zarr.zip"), folder)


def write_small_chunks(root):
    """As robomimic's images are kept: a chunk an image."""
    return made_sets.write_zarr(root, chunks=1)


WRITERS = {
    "zarr": ("zarr", made_sets.write_zarr),
    "zarr_zip": ("zarr", write_zip),
    "zarr_chunk_a_frame": ("zarr", write_small_chunks),
    "robomimic": ("robomimic", made_sets.write_robomimic),
    "npz": ("arrays", made_sets.write_npz),
    "npz_deflated": ("arrays", lambda root: made_sets.write_npz(root, save=np.savez_compressed)),
    "npy": ("arrays", made_sets.write_npy),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_numbers_and_images_come_back_bit_for_bit(tmp_path, writer, capsys):
    name, write = WRITERS[writer]
    out = run(tmp_path, name, write(tmp_path / "source"))
    made = [made_sets.as_written(episode) for episode in made_sets.episodes()]
    made_sets.assert_same(made_sets.converted(out, KEYS), made, KEYS)
    said = capsys.readouterr().out
    assert "3 episodes, 24 steps, 5 to 12 an episode" in said
    assert "count: int64 is cast to float32 of shape [1], where exact" in said
    assert "camera           [6, 4, 3]" in said and "images" in said


def compressors():
    import numcodecs

    plain = [None, numcodecs.Zlib(1), numcodecs.GZip(1), numcodecs.LZ4(), numcodecs.Zstd()]
    return [*plain, numcodecs.Blosc("lz4"), numcodecs.Blosc("zlib", shuffle=2)]


@pytest.mark.parametrize("codec", compressors(), ids=str)
@pytest.mark.parametrize("order", "CF")
def test_every_compressor_and_order_of_zarr(tmp_path, codec, order):
    source = made_sets.write_zarr(tmp_path / "s", chunks=7, compressors=codec, order=order)
    made = [made_sets.as_written(episode) for episode in made_sets.episodes()]
    made_sets.assert_same(made_sets.converted(run(tmp_path, "zarr", source), KEYS), made, KEYS)


def test_chunks_may_cut_every_axis(tmp_path):
    source = made_sets.write_zarr(tmp_path / "s")
    column = zarr.open_array(str(source / "data" / "camera"), mode="r")[...]
    made_sets.put(source / "data" / "other", column, chunks=(5, 4, 3, 2))
    out = run(tmp_path, "zarr", source, "--keys", "camera,other")
    for episode in made_sets.converted(out, ("camera", "other")):
        np.testing.assert_array_equal(episode["camera"], episode["other"])


@pytest.mark.parametrize("codec", ["imagecodecs_jpeg2k", "imagecodecs_jpegxl"])
def test_encoded_images_are_read_or_the_codec_is_asked_for(tmp_path, codec):
    """As robomimic's image buffers and UMI's keep them: an encoded image a chunk."""
    source = made_sets.write_zarr(tmp_path / "s", chunks=1)
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
    frames = np.concatenate([episode["camera"] for episode in made_sets.episodes()])
    for i, frame in enumerate(frames):
        (source / "data" / "camera" / f"{i}.0.0.0").write_bytes(encode(frame))
    found = made_sets.converted(run(tmp_path, "zarr", source), ("camera", "action"))
    made_sets.assert_same(found, made_sets.episodes(), ("camera", "action"))


def test_demos_come_in_numeric_order_and_say_their_rate_and_task(tmp_path):
    made = made_sets.episodes(lengths=(3, 4, 5, 6))
    names = ["demo_10", "demo_9", "demo_0", "demo_2"]
    out = run(tmp_path, "robomimic", made_sets.write_robomimic(tmp_path / "s.hdf5", made, names))
    assert [len(e["action"]) for e in made_sets.converted(out, KEYS)] == [5, 6, 4, 3]
    assert reader.metadata(out)["fps"] == 20
    import tensorflow_datasets as tfds

    data = tfds.builder_from_directory(str(out / "1.0.0")).as_data_source("train")
    assert data[3]["episode_metadata"]["demo"] == b"demo_10"
    assert data[3]["episode_metadata"]["task"] == b"Lift"


def test_a_filter_key_chooses_demos(tmp_path):
    source = made_sets.write_robomimic(tmp_path / "s.hdf5")
    out = run(tmp_path, "robomimic", source, "--filter", "valid")
    assert [len(e["action"]) for e in made_sets.converted(out, KEYS)] == [7]
    line = refusal(tmp_path / "x", "robomimic", source, "--filter", "vaild")
    assert "no filter key mask/vaild; did you mean 'valid'" in line


@pytest.mark.parametrize("arms, own", [(1, True), (1, False), (2, True)])
def test_absolute_actions_are_poses_with_6d_rotations(tmp_path, arms, own):
    """The rotations come back from the six numbers; positions and grippers stay."""
    made = made_sets.episodes()
    rng = np.random.default_rng(1)
    poses = [rng.uniform(-1, 1, (len(e["action"]), 7 * arms)).astype(np.float32) for e in made]
    source = made_sets.write_robomimic(tmp_path / "s.hdf5", made)
    with h5py.File(source, "a") as file:
        for i, pose in enumerate(poses):
            if own:
                file[f"data/demo_{i}/actions_abs"] = pose
            else:
                file[f"data/demo_{i}/actions"][...] = pose
    out = run(tmp_path, "robomimic", source, "--absolute")
    for episode, pose in zip(made_sets.converted(out, ("action", "state")), poses):
        got = episode["action"].reshape(-1, arms, 10)
        want = pose.reshape(-1, arms, 7)
        np.testing.assert_array_equal(got[..., :3], want[..., :3])
        np.testing.assert_array_equal(got[..., 9], want[..., 6])
        back = rotations.convert(got[..., 3:9], "rotation_6d", "axis_angle")
        np.testing.assert_allclose(back, want[..., 3:6], atol=1e-6)


def test_without_absolute_the_deltas_are_taken(tmp_path, capsys):
    source = made_sets.write_robomimic(tmp_path / "s.hdf5")
    with h5py.File(source, "a") as file:
        for i, episode in enumerate(made_sets.episodes()):
            file[f"data/demo_{i}/actions_abs"] = episode["action"] + 1
    made = made_sets.episodes()
    made_sets.assert_same(
        made_sets.converted(run(tmp_path, "robomimic", source), ("action",)), made, ("action",)
    )
    said = capsys.readouterr().out
    assert "left out: actions_abs (not an observation; --keys asks for it)" in said


LEROBOT = {"v2.1": made_sets.write_lerobot_v2, "v3.0": made_sets.write_lerobot_v3}


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("version", LEROBOT)
def test_lerobot_numbers_and_the_frames_of_their_times(tmp_path, version, codec, capsys):
    out = run(tmp_path, "lerobot", LEROBOT[version](tmp_path / "s", codec=codec))
    found = made_sets.converted(out, ("state", "action", "top"))
    made_sets.assert_same(found, made_sets.episodes(), ("state", "action"))
    for episode, film in zip(found, made_sets.frames()):
        # A frame differs from all others by 10 or more, twice the error of the codecs.
        assert np.abs(episode["top"].astype(int) - film).max() <= 5
    assert reader.metadata(out)["fps"] == 10
    said = capsys.readouterr().out
    assert "left out: next.reward (not an observation; --keys asks for it)" in said
    import tensorflow_datasets as tfds

    data = tfds.builder_from_directory(str(out / "1.0.0")).as_data_source("train")
    tasks = [data[i]["episode_metadata"]["task"] for i in range(3)]
    assert tasks == [b"task 0", b"task 1", b"task 2"]


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_row_groups_of_any_size(tmp_path, rows):
    source = made_sets.write_lerobot_v3(tmp_path / "s", video=False, row_group_size=rows)
    found = made_sets.converted(run(tmp_path, "lerobot", source), ("state", "action"))
    made_sets.assert_same(found, made_sets.episodes(), ("state", "action"))


def test_lerobot_images_in_the_table(tmp_path):
    from dpjax.data import images

    source, made = made_sets.write_lerobot_v2(tmp_path / "s", video=False), made_sets.episodes()
    info = json.loads((source / "meta" / "info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [3, 6, 4], "names": None}
    (source / "meta" / "info.json").write_text(json.dumps(info))
    for i, episode in enumerate(made):
        file = source / "data" / "chunk-000" / f"episode_{i:06d}.parquet"
        column = [{"bytes": images.encode(x), "path": ""} for x in episode["camera"]]
        table = pq.read_table(file).append_column("observation.image", pa.array(column))
        pq.write_table(table, file)
    found = made_sets.converted(run(tmp_path, "lerobot", source), ("image", "action"))
    for there, here in zip(found, made):
        np.testing.assert_array_equal(there["image"], here["camera"])


def test_frames_a_little_off_their_times_are_said(tmp_path, caplog):
    source = made_sets.write_lerobot_v2(tmp_path / "s")
    file = source / "data" / "chunk-000" / "episode_000001.parquet"
    table = pq.read_table(file)
    times = np.arange(12, dtype=np.float32) / made_sets.FPS
    times[3] += 0.02
    place = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", pa.array(times)), file)
    run(tmp_path, "lerobot", source)
    words = "1 of 12 frames lie further than 0.001 s from their time, the furthest 0.0200 s"
    assert words in caplog.text


def test_mapping_renames_and_keys_select(tmp_path):
    source = made_sets.write_npz(
        tmp_path / "s", [{"q": e["state"], "u": e["action"]} for e in made_sets.episodes()]
    )
    assert "no key 'action' among its data (q, u)" in refusal(tmp_path, "arrays", source)
    out = run(tmp_path, "arrays", source, "--mapping", "u=action,q=joints", "--fps", "30")
    found = made_sets.converted(out, ("joints", "action"))
    for there, here in zip(found, made_sets.episodes()):
        np.testing.assert_array_equal(there["joints"], here["state"])
    assert reader.metadata(out)["fps"] == 30


@pytest.mark.parametrize(
    "options, words",
    [
        (["--mapping", "state=action"], "state and action would both be 'action'"),
        (["--mapping", "stat=x"], "no key 'stat'; did you mean 'state'"),
        (["--mapping", "state"], "expected old=new"),
        (["--mapping", "state=a/b"], "'a/b' is no name for RLDS"),
        (["--keys", "stat"], "no key 'stat'; did you mean 'state'"),
        (["--fps", "nan"], "--fps nan: expected a number above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    assert words in refusal(tmp_path, "arrays", made_sets.write_npz(tmp_path / "s"), *options)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8, np.uint8, np.int32, bool])
def test_what_float32_has_exactly_is_cast(tmp_path, dtype):
    x = np.array([[0, 1], [1, 0], [3, 100]]).astype(dtype)
    source = made_sets.write_npz(tmp_path / "s", [{"x": x, "action": np.ones((3, 2), np.float32)}])
    (episode,) = made_sets.converted(run(tmp_path, "arrays", source), ("x", "action"))
    assert episode["x"].dtype == np.float32
    np.testing.assert_array_equal(episode["x"], x.astype(np.float32))


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_integers_that_float32_has_not_are_refused(tmp_path, value):
    x = np.array([[0], [value], [2**24]], np.int64)
    source = made_sets.write_npz(tmp_path / "s", [{"x": x, "action": np.ones((3, 2), np.float32)}])
    line = refusal(tmp_path, "arrays", source)
    assert f"episode 0, x: step 1: expected an integer that float32 has, got {value}" in line


def test_an_episode_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EPISODE_LIMIT", 1000)
    line = refusal(tmp_path, "arrays", made_sets.write_npz(tmp_path / "s"))
    assert "episode 1: 12 steps of state, action, camera, count are 0.0 GiB by its header" in line


def test_a_changed_source_is_not_mixed_with_what_was_read_before(tmp_path, monkeypatch):
    source = made_sets.write_npz(tmp_path / "s")
    real = sources.as_columns

    def stop(source, e, names):
        if e == 2:
            raise KeyboardInterrupt
        return real(source, e, names)

    monkeypatch.setattr(sources, "as_columns", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "arrays", source)
    monkeypatch.undo()
    other = made_sets.episodes(seed=1)
    np.savez(source / "episode_0.npz", **other[0])
    with pytest.raises(UserError, match="was begun with state of the source="):
        run(tmp_path, "arrays", source)
    with pytest.raises(UserError, match="was begun with keys=None, now it is"):
        run(tmp_path, "arrays", source, "--keys", "state")


def start(*arguments, env=None, code=None):
    """The command in a process of its own."""
    program = ["-c", code] if code else ["-m", "dpjax.convert"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_reader_that_dies_is_one_line_of_the_command(tmp_path):
    """A file that makes HDF5 segfault is not at hand: its place is taken by a signal."""
    source = made_sets.write_robomimic(tmp_path / "s.hdf5")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if 'DPJAX_CONVERT_CHILD' in os.environ: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    run = start("robomimic", source, tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    _, said = run.communicate(timeout=300)
    assert run.returncode == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"dpjax: error: {source}: the process that read it died (SIGSEGV)")
    assert not list(tmp_path.glob("out*"))


def test_the_command_killed_and_started_again_goes_on(tmp_path):
    """The whole command, and a child that must not outlive it."""
    made = made_sets.episodes(lengths=[40] * 60)
    source, out = made_sets.write_robomimic(tmp_path / "s.hdf5", made), tmp_path / "out"
    journal = tmp_path / "out.incomplete" / "journal-00000"
    run = start("robomimic", source, out)
    while run.poll() is None and not (journal.exists() and journal.stat().st_size > 10**5):
        time.sleep(0.005)
    run.kill()
    run.wait()
    run.stderr.close()
    assert not out.exists() and journal.exists()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open(journal.with_name("lock")) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
    before = journal.read_bytes()
    again = start("robomimic", source, out)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    found = made_sets.converted(out, KEYS)
    made_sets.assert_same(found, [made_sets.as_written(e) for e in made], KEYS)
    assert len(before) > 10**5 and "/60" in said
