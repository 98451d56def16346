"""What is written comes back bit for bit, and tfds reads it; bad episodes are not written."""

import logging
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from support.rlds_sets import FEATURES, LENGTHS, WANT, make_episodes, shard, write
import tensorflow_datasets as tfds

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import fingerprint


@pytest.fixture
def good(tmp_path):
    metadata = [{"seed": 300000 + i, "coverage": 0.9, "done": True} for i in range(4)]
    write(tmp_path / "good", make_episodes(), metadata=metadata)
    return tmp_path / "good"


def test_what_is_written_comes_back_bit_for_bit(good):
    read = rlds.read(good, features=FEATURES)
    assert fingerprint(read) == WANT
    assert read.columns["points"].shape == (104, 3, 2)
    np.testing.assert_array_equal(read.lengths, LENGTHS)


def test_tfds_reads_it_as_rlds(good):
    source = tfds.builder_from_directory(str(good / "1.0.0")).as_data_source("train")
    steps = list(source[2]["steps"])
    want = make_episodes()[2]
    np.testing.assert_array_equal([s["action"] for s in steps], want["action"])
    np.testing.assert_array_equal([s["observation"]["state"] for s in steps], want["state"])
    assert [bool(s["is_first"]) for s in steps] == [True] + [False] * 32
    assert [bool(s["is_last"]) for s in steps] == [False] * 32 + [True]
    assert source[2]["episode_metadata"]["seed"] == 300002
    assert source[2]["episode_metadata"]["coverage"] == np.float32(0.9)


def test_episodes_and_metadata_stream(tmp_path):
    seen, metadata = [], []

    def stream():
        for number, episode in enumerate(make_episodes()):
            seen.append(number)
            metadata.append({"seed": number, "how": "scripted"})
            yield episode

    path = write(tmp_path / "out", stream(), metadata=metadata)
    source = tfds.builder_from_directory(str(path)).as_data_source("train")
    assert seen == [0, 1, 2, 3]
    assert [int(source[i]["episode_metadata"]["seed"]) for i in range(4)] == [0, 1, 2, 3]


def test_a_step_costs_its_floats_and_little_more(tmp_path):
    """200 episodes of 120 such steps stay under 1 MB."""
    rng = np.random.default_rng(0)  # a random walk: harder to compress than demonstrations
    walk = lambda n: 256 + 3 * np.cumsum(rng.normal(size=(120, n)), 0).astype(np.float32)
    episodes = ({"state": walk(5), "action": walk(2)} for _ in range(20))
    path = write(tmp_path / "out", episodes, observations=["state"])
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    size = files.pop("demos-train.array_record-00000")
    assert size <= 20 * 120 * 4 * (5 + 2) * 1.05 + 65536  # files end on 64 KiB
    assert sum(files.values()) < 10_000


def test_tensorflow_is_never_imported(good, tmp_path):
    code = (
        "import sys, numpy as np; from dpjax.data import rlds, loader, windows, checks;"
        "import dpjax.convert;"
        "rlds.read(sys.argv[1], features={'action': 'action'});"
        "e = {'action': np.ones((3, 2), np.float32), 's': np.ones((3, 1), np.float32)};"
        "rlds.write(sys.argv[2], [e], observations=['s'], description='');"
        "sys.exit('tensorflow' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, str(good), str(tmp_path / "out")]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])


def test_an_existing_directory_is_refused_and_left_alone(good):
    before = shard(good).read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write(good, make_episodes())
    assert shard(good).read_bytes() == before


def test_a_broken_stream_leaves_nothing_behind(tmp_path):
    def stream():
        yield make_episodes()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", stream())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_leaves_nothing_under_the_name(tmp_path):
    code = (
        "import sys, os, numpy as np; from dpjax.data import rlds\n"
        "def stream():\n"
        "    yield {'action': np.ones((3, 2), np.float32)}\n"
        "    os.kill(os.getpid(), 9)\n"
        "rlds.write(sys.argv[1], stream(), observations=[], description='')"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2])
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("out.incomplete.")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda e: e[2]["action"].__setitem__((7, 1), np.nan), "episode 2, step 7, action[1]"),
        (lambda e: e[1].update(action=np.ones((1, 3), np.float32)), "got (3,)"),
        (lambda e: e[1].pop("state"), "episode 1: expected the keys action, points, state"),
        (lambda e: e[3].update(state=np.ones((50, 5), int)), "float32 or images, got int64"),
        (lambda e: e[0].update(state=np.full((20, 5), "a")), "float32 or images, got <U1"),
        (lambda e: [x.update({k: v[:0] for k, v in x.items()}) for x in e[1:2]], "empty"),
        (lambda e: e.clear(), "at least 1 episode"),
    ],
)
def test_bad_episodes_are_not_written(tmp_path, spoil, words):
    episodes = make_episodes()
    spoil(episodes)
    with pytest.raises(UserError) as caught:
        write(tmp_path / "out", episodes)
    assert words in str(caught.value) and list(tmp_path.iterdir()) == []


def test_float64_is_cast_with_one_warning(tmp_path, caplog):
    episodes = [{"action": np.full((3, 2), 0.1)} for _ in range(3)]
    with caplog.at_level(logging.WARNING, "dpjax"):
        write(tmp_path / "out", episodes, observations=[])
    assert sum("float64 is cast" in line for line in caplog.messages) == 1
    read = rlds.read(tmp_path / "out", features={"action": "action"})
    assert (read.columns["action"] == np.float32(0.1)).all()
