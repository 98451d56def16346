"""Broken and hostile LeRobot data sets."""

import json

from bad_inputs.case import HUGE, POINTER, Case, png_header
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support import foreign_sets


def _v2(folder, *words, info=None, video=True):
    """A LeRobot data set v2.1 whose info.json is changed by `info`."""
    root = foreign_sets.write_lerobot_v2(folder / "set", video=video)
    file = root / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (info or {})))
    return Case(("lerobot", root), words)


def _parquet(root, episode=1):
    return root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"


def _video(root, episode=1):
    folder = root / "videos" / "chunk-000" / "observation.images.top"
    return folder / f"episode_{episode:06d}.mp4"


def _column(root, name, column, episode=1):
    """Replaces a column of an episode's table; None: takes it out."""
    file = _parquet(root, episode)
    table = pq.read_table(file)
    place = table.schema.get_field_index(name)
    table = table.remove_column(place)
    pq.write_table(table if column is None else table.append_column(name, column), file)


def lerobot_no_json(folder):
    case = _v2(folder, "meta/info.json: not JSON")
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


def lerobot_the_same_episode_twice(folder):
    case = _v2(folder, "total_episodes: expected episodes 0 to 2 in meta/, got episode 2 twice")
    file = case.arguments[1] / "meta" / "episodes.jsonl"
    file.write_text(file.read_text().replace('"episode_index": 1', '"episode_index": 2'))
    return case


def lerobot_parquet_missing(folder):
    case = _v2(folder, "episode_000000.parquet: missing")
    for i in range(3):
        _parquet(case.arguments[1], i).unlink()
    return case


def lerobot_parquet_cut(folder):
    case = _v2(folder, "episode_000001.parquet: not a Parquet file, or truncated")
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
    case = _v2(folder, "episode_000000.mp4: missing")
    for i in range(3):
        _video(case.arguments[1], i).unlink()
    return case


def lerobot_video_shorter_than_the_data(folder):
    case = _v2(folder, "episode_000001.mp4: 9 frames for 12 rows: the film is shorter")
    foreign_sets.write_video(_video(case.arguments[1]), foreign_sets.make_frames()[1][:9])
    return case


def lerobot_video_of_another_size(folder):
    case = _v2(folder, "episode_000001.mp4: expected 24 x 32 px by info.json, got 48 x 64")
    foreign_sets.write_video(_video(case.arguments[1]), np.zeros((12, 48, 64, 3), np.uint8))
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
    """A set with images in its tables, of which step 4 of episode 1 is `payload`."""
    case = _v2(folder, *words, video=False)
    file = case.arguments[1] / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [6, 4, 3], "names": None}
    file.write_text(json.dumps(info))
    from dpjax.data import images

    good = {"bytes": images.encode(np.zeros((6, 4, 3), np.uint8)), "path": ""}
    for i, n in enumerate(foreign_sets.LENGTHS):
        table = pq.read_table(_parquet(case.arguments[1], i))
        column = [good] * n
        if i == 1:
            column[4] = {"bytes": payload, "path": ""}
        pq.write_table(table.append_column("observation.image", pa.array(column)),
                       _parquet(case.arguments[1], i))  # fmt: skip
    return case


def lerobot_image_of_9000_px(folder):
    words = "episode 1: observation.image: step 4: expected 6 x 4 px, got 9000 x 9000"
    return _with_images(folder, png_header(9_000, 9_000), words)


def lerobot_image_of_30000_px(folder):
    words = "episode 1: observation.image: step 4: not an image (DecompressionBombError"
    return _with_images(folder, png_header(30_000, 30_000), words)


def lerobot_image_that_is_none(folder):
    words = "episode 1: observation.image: step 4: not an image"
    return _with_images(folder, b"\x89PNG and then nothing", words)


def lerobot_image_that_is_null(folder):
    words = "episode 1: observation.image: row 4: expected an image's bytes, got null"
    return _with_images(folder, None, words)


def lerobot_v3_episodes_with_a_wrong_schema(folder):
    root = foreign_sets.write_lerobot_v3(folder / "set")
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["data/file_index"]), file)
    return Case(("lerobot", root), ("file-000.parquet: expected a column 'data/file_index'",))


def lerobot_v3_length_that_differs(folder):
    root = foreign_sets.write_lerobot_v3(folder / "set")
    file = root / "data" / "chunk-000" / "file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 16), file)
    words = ("file-000.parquet: expected 12 rows of episode 1 by meta/, got 11",)
    return Case(("lerobot", root), words)
