"""LeRobot data sets in a local directory, versions 2.0, 2.1 and 3.0.

    meta/info.json                         version, fps, features, templates of the files' paths
    meta/episodes.jsonl                    v2: one line per episode: index, length, tasks
    meta/episodes/chunk-*/file-*.parquet   v3: the same, and each episode's files and start times
    data/...parquet                        numbers; one episode per file (v2) or several (v3)
    videos/...mp4                          one camera; one episode per file (v2) or several (v3)

`observation.state` is converted to `state`, and `observation.images.top` to `top`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
import logging
from pathlib import Path

import numpy as np

from dpjax.convert import lerobot_meta, parquet, video
from dpjax.convert.lerobot_meta import Episode, Info
from dpjax.convert.source import Columns, Feature, Source
from dpjax.core.errors import UserError
from dpjax.data import images

# Removed from a key to name it in the data set; the longer one is tried first.
PREFIXES = ("observation.images.", "observation.")

log = logging.getLogger("dpjax")


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a LeRobot data set, in the order of their numbers."""
    del stack  # nothing stays open: a file is opened when one of its episodes is read
    # All of meta/ is read and checked now; numbers and videos are read one episode at a time.
    info = lerobot_meta.read_info(path)
    episodes = lerobot_meta.read_episodes(info)
    log.info("%s: LeRobot %s, %g frames per second", path.name, info.version, info.fps)
    # Other features, such as "next.reward", "timestamp" and the indices, are converted only if the
    # user names them.
    observations = [key for key in info.features if key.startswith("observation.")]
    return Source(
        path=path,
        features=info.features,
        lengths=[episode.length for episode in episodes],
        read=lambda e, keys: _read(info, episodes[e], keys),
        names={key: _name(key) for key in info.features},
        fps=info.fps,
        metadata=lambda e: {"task": "; ".join(episodes[e].tasks)},
        defaults=[*observations, "action"],
    )


def _name(key: str) -> str:
    """A feature's name in the data set, without its prefix and without dots.

    On the command line a dot separates the levels of a config, so a column's name has none.
    """
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")


def _read(info: Info, episode: Episode, keys: Sequence[str]) -> Columns:
    """{feature: [T, ...]} of one episode."""
    file = lerobot_meta.find_file(info, "data_path", episode.fields)
    cameras = [key for key in keys if info.dtypes[key] == "video"]
    others = [key for key in keys if key not in cameras]

    # Numbers and single images are in the parquet file. In v3 several episodes share a file, and
    # the rows of this one are chosen by its number; in v2 all rows of the file are this episode.
    number = episode.number if info.version == "v3.0" else None
    wanted = [*others, "timestamp"] if cameras else others  # times are needed to find frames
    table = parquet.read_episode(file, wanted, number, episode.length)
    columns = {}
    for key in others:
        where = f"{file}: episode {episode.number}: {key}"
        # "image": one encoded image per row. Everything else is numbers.
        if info.dtypes[key] == "image":
            payloads = parquet.image_bytes(table[key], where)
            columns[key] = _decode(payloads, info.features[key], where)
        else:
            columns[key] = parquet.to_array(table[key], info.features[key], where)

    # Frames are found by their times in the video. In v3 the episode starts at `start` seconds,
    # and the table's timestamps [T] count from there.
    for key in cameras:
        fields, start = episode.videos[key]
        path = lerobot_meta.find_file(info, "video_path", {**fields, "video_key": key})
        times = start + parquet.to_array(table["timestamp"], None, f"{file}: timestamp")
        columns[key] = video.read_frames(path, times, info.fps, _size(info.features[key]))
    return columns


def _size(feature: Feature) -> tuple[int, int]:
    """Height and width of a camera's images."""
    height, width = feature.shape[:2]
    return height, width


def _decode(payloads: Sequence[bytes], feature: Feature, where: str) -> np.ndarray:
    """Decodes images to uint8 [T, H, W, 3]; raises a UserError if one is damaged."""
    # `decode` compares the size in each image's header first: a hostile one may claim any size.
    pixels, problem = images.decode(payloads, _size(feature))
    if problem:
        raise UserError(f"{where}: {problem}.")
    return pixels
