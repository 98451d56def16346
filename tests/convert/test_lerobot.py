"""LeRobot's data sets: numbers, videos, images in tables, and what the command prints of them."""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import foreign_sets
from support.converting import convert_to, refusal
import tensorflow_datasets as tfds

from dpjax.core.errors import UserError
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


def _edit_info(source, **changes):
    """Changes info.json; `features` are added to those that are there."""
    file = source / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"].update(changes.pop("features", {}))
    file.write_text(json.dumps({**info, **changes}))


@pytest.mark.parametrize("version", WRITERS)
def test_gaps_in_the_episodes_are_read_and_counted(tmp_path, version, caplog):
    source = WRITERS[version](tmp_path / "s")
    # Episode 1 was deleted from meta/, its rows and frames were not.
    if version == "v3.0":
        file = source / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        rows = pq.read_table(file).to_pylist()
        pq.write_table(pa.Table.from_pylist([rows[0], rows[2]]), file)
    else:
        file = source / "meta" / "episodes.jsonl"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], lines[2]]))
    out = convert_to(tmp_path, "lerobot", source)
    episodes = foreign_sets.converted(out, ("state", "action", "top"))
    expected, films = foreign_sets.make_episodes(), foreign_sets.make_frames()
    foreign_sets.assert_same(episodes, [expected[0], expected[2]], ("state", "action"))
    for episode, film in zip(episodes, (films[0], films[2])):
        assert np.abs(episode["top"].astype(int) - film).max() <= 5
    assert "2 episodes in meta/, 3 by total_episodes; 1 numbers below 3 are missing" in caplog.text
    if version == "v2.1":
        assert "left out: data/chunk-000/episode_000001.parquet" in caplog.text
    else:
        assert "17 frames for the 5 rows of its 1 episodes" in caplog.text


@pytest.mark.parametrize("what", ["table", "film"])
def test_episodes_without_a_file_are_left_out_and_counted(tmp_path, what, caplog):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s")
    paths = {
        "table": source / "data" / "chunk-000" / "episode_000001.parquet",
        "film": source / "videos/chunk-000/observation.images.top/episode_000001.mp4",
    }
    paths[what].unlink()
    out = convert_to(tmp_path, "lerobot", source)
    expected = foreign_sets.make_episodes()
    episodes = foreign_sets.converted(out, ("state", "action"))
    foreign_sets.assert_same(episodes, [expected[0], expected[2]], ("state", "action"))
    assert "1 of 3 episodes are left out, because a file of theirs is missing" in caplog.text


def test_films_of_a_camera_that_is_not_asked_for_are_not_opened(tmp_path):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s")
    for film in source.rglob("*.mp4"):
        film.write_bytes(b"not a film")
    episodes = foreign_sets.converted(
        convert_to(tmp_path, "lerobot", source, "--keys", "state"), ("state", "action")
    )
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("state", "action"))


def test_what_is_not_read_is_listed(tmp_path, caplog, capsys):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s")
    image = {"dtype": "video", "shape": [*foreign_sets.SIZE, 3], "names": None}
    _edit_info(
        source,
        features={
            "language": {"dtype": "language", "shape": [1]},
            "observation.images.far": {**image, "video_info": {"video.is_depth_map": True}},
            "observation.images.near": {**image, "info": {"video.pix_fmt": "gray16le"}},
        },
    )
    lines = (source / "meta" / "episodes.jsonl").read_text().splitlines()
    lines = [json.dumps({**json.loads(line), "operator": "k"}) for line in lines]
    (source / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    (source / "meta" / "modality.json").write_text("{}")
    (source / "data" / "chunk-000" / "episode_000009.parquet").write_bytes(b"")
    (source / "videos" / "chunk-000" / "gone").mkdir()
    for i in range(3):
        (source / "videos" / "chunk-000" / "gone" / f"{i}.mp4").write_bytes(b"")
    table = source / "data" / "chunk-000" / "episode_000001.parquet"
    rows = pq.read_table(table)
    pq.write_table(rows.append_column("force", pa.array(np.zeros(len(rows)))), table)
    convert_to(tmp_path, "lerobot", source)
    for words in (
        "left out: operator: metadata of episodes",
        "data/chunk-000/episode_000009.parquet, videos/chunk-000/gone/ (3 files)",
        "left out: meta/modality.json",
        "left out: force: columns of data/",
    ):
        assert words in caplog.text, words
    printed = capsys.readouterr().out
    assert "its type is 'language'" in printed
    assert printed.count("depth is not read") == 2


@pytest.mark.parametrize("version", WRITERS)
def test_names_without_prefix_observe_images_and_state_only(tmp_path, version):
    source = WRITERS[version](tmp_path / "s", video=False)
    file = source / "meta" / "info.json"
    text = file.read_text().replace('"observation.state"', '"state"')
    file.write_text(text.replace('"action"', '"actions"'))
    for table in (source / "data").rglob("*.parquet"):
        rows = pq.read_table(table)
        names = {"observation.state": "state", "action": "actions"}
        pq.write_table(rows.rename_columns([names.get(x, x) for x in rows.column_names]), table)
    assert "--mapping actions=action" in refusal(tmp_path, "lerobot", source)
    out = convert_to(tmp_path, "lerobot", source, "--mapping", "actions=action")
    features = json.loads((out / "1.0.0" / "features.json").read_text())
    observed = str(features).split("'observation'")[1]
    assert not any(name in observed for name in ("timestamp", "_index", "reward", "actions"))
    episodes = foreign_sets.converted(out, ("state", "action"))
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("state", "action"))


def test_rows_out_of_order_are_refused_and_missing_steps_said(tmp_path, caplog):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s")
    file = source / "data" / "chunk-000" / "episode_000001.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index("frame_index")
    jump = np.arange(12) + 3 * (np.arange(12) > 4)
    pq.write_table(table.set_column(place, "frame_index", pa.array(jump)), file)
    convert_to(tmp_path, "lerobot", source)
    assert "3 steps are missing, such as those between frame_index 4 and 8" in caplog.text
    pq.write_table(table.take([0, 2, 1, *range(3, 12)]), file)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="expected rows in order, got frame_index 2 and then 1"):
        convert_to(tmp_path / "other", "lerobot", source)


def test_many_lines_of_one_kind_are_counted(tmp_path, caplog):
    source = foreign_sets.write_lerobot_v2(tmp_path / "s", foreign_sets.make_episodes((3,) * 6))
    for file in (source / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        place = table.schema.get_field_index("timestamp")
        late = pa.array(np.float32(0.4) + np.arange(3, dtype=np.float32) / foreign_sets.FPS)
        pq.write_table(table.set_column(place, "timestamp", late), file)
    convert_to(tmp_path, "lerobot", source)
    assert caplog.text.count("paired by index") == 3
    assert "clocks disagree: 6 times in all, 3 shown" in caplog.text


def test_wrong_starts_in_a_shared_film_are_mended_and_said(tmp_path, caplog):
    source = foreign_sets.write_lerobot_v3(tmp_path / "s")
    file = source / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["videos/observation.images.top/from_timestamp"] += 0.1  # one step late
    pq.write_table(pa.Table.from_pylist(rows), file)
    out = convert_to(tmp_path, "lerobot", source)
    for episode, film in zip(foreign_sets.converted(out, ("top",)), foreign_sets.make_frames()):
        assert np.abs(episode["top"].astype(int) - film).max() <= 5
    assert "episode 1: from_timestamp is 0.6000 s where its frames begin at 0.5000 s" in caplog.text
