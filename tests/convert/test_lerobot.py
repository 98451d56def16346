"""LeRobot's data sets: numbers, videos, images in tables, and what the command prints of them."""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import foreign_sets
from support.converting import convert_to
import tensorflow_datasets as tfds

from dpjax.data import images
from dpjax.data.rlds import reader

WRITERS = {"v2.1": foreign_sets.write_lerobot_v2, "v3.0": foreign_sets.write_lerobot_v3}


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("version", WRITERS)
def test_lerobot_numbers_and_the_frames_of_their_times(tmp_path, version, codec, capsys, caplog):
    out = convert_to(tmp_path, "lerobot", WRITERS[version](tmp_path / "s", codec=codec))
    episodes = foreign_sets.converted(out, ("state", "action", "top"))
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("state", "action"))
    for episode, film in zip(episodes, foreign_sets.make_frames()):
        # A frame differs from all others by 10 or more, twice the error of the codecs.
        assert np.abs(episode["top"].astype(int) - film).max() <= 5
    assert reader.metadata(out)["fps"] == 10
    printed = capsys.readouterr().out
    assert "left out: next.reward, timestamp, frame_index" in printed
    assert ("dpjax", logging.INFO, f"s: LeRobot {version}, 10 frames per second") in (
        caplog.record_tuples
    )
    data = tfds.builder_from_directory(str(out / "1.0.0")).as_data_source("train")
    tasks = [data[i]["episode_metadata"]["task"] for i in range(3)]
    assert tasks == [b"task 0", b"task 1", b"task 2"]


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_row_groups_of_any_size(tmp_path, rows):
    source = foreign_sets.write_lerobot_v3(tmp_path / "s", video=False, row_group_size=rows)
    episodes = foreign_sets.converted(convert_to(tmp_path, "lerobot", source), ("state", "action"))
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("state", "action"))


def test_lerobot_images_in_the_table(tmp_path):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s", video=False)
    expected = foreign_sets.make_episodes()
    info = json.loads((source / "meta" / "info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [3, 6, 4], "names": None}
    (source / "meta" / "info.json").write_text(json.dumps(info))
    for i, episode in enumerate(expected):
        file = source / "data" / "chunk-000" / f"episode_{i:06d}.parquet"
        column = [{"bytes": images.encode(x), "path": ""} for x in episode["camera"]]
        table = pq.read_table(file).append_column("observation.image", pa.array(column))
        pq.write_table(table, file)
    episodes = foreign_sets.converted(convert_to(tmp_path, "lerobot", source), ("image", "action"))
    for episode, original in zip(episodes, expected):
        np.testing.assert_array_equal(episode["image"], original["camera"])


def test_frames_a_little_off_their_times_are_logged(tmp_path, caplog):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s")
    file = source / "data" / "chunk-000" / "episode_000001.parquet"
    table = pq.read_table(file)
    times = np.arange(12, dtype=np.float32) / foreign_sets.FPS
    times[3] += 0.02
    place = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", pa.array(times)), file)
    convert_to(tmp_path, "lerobot", source)
    words = "episode_000001.mp4: the clocks of rows and film disagree by up to 0.0200 s"
    assert words in caplog.text and "as many frames as rows, 12: paired by index" in caplog.text
