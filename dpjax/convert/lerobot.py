"""LeRobot data sets in a local directory, versions 2.0, 2.1 and 3.0.

    meta/info.json                         version, fps, features, where the files lie
    meta/episodes.jsonl                    v2: a line per episode: index, length, tasks
    meta/episodes/chunk-*/file-*.parquet   v3: the same, and the files and times of each episode
    data/...parquet                        the numbers: a file per episode (v2), or for many (v3)
    videos/...mp4                          the same for each camera

`observation.state` becomes `state`, `observation.images.top` becomes `top`.
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

PREFIXES = ("observation.images.", "observation.")  # not part of a key's name in the data set

log = logging.getLogger("dpjax")


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a LeRobot data set, in the order of their number."""
    del stack  # nothing stays open: files are opened when their episodes are read
    info = lerobot_meta.read_info(path)
    episodes = lerobot_meta.read_episodes(info)
    log.info("%s: LeRobot %s, %g frames per second", path.name, info.version, info.fps)
    # "next.reward", "timestamp" and the indices are converted only if the user names them.
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
    """A feature's name without dots, which a config's columns would have to escape."""
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")


def _read(info: Info, episode: Episode, keys: Sequence[str]) -> Columns:
    """{feature: [T, ...]} of one episode."""
    file = lerobot_meta.find_file(info, "data_path", episode.fields)
    cameras = [key for key in keys if info.dtypes[key] == "video"]
    others = [key for key in keys if key not in cameras]

    # Numbers and single images are in the parquet file, which v3 shares between episodes.
    # v2 has a file per episode, so all of its rows are wanted.
    number = episode.number if info.version == "v3.0" else None
    wanted = [*others, "timestamp"] if cameras else others
    table = parquet.read_episode(file, wanted, number, episode.length)
    columns = {}
    for key in others:
        where = f"{file}: episode {episode.number}: {key}"
        if info.dtypes[key] == "image":
            payloads = parquet.image_bytes(table[key], where)
            columns[key] = _decode(payloads, info.features[key], where)
        else:
            columns[key] = parquet.to_array(table[key], info.features[key], where)

    # A video's frames are found by their times, which count from the start of its file.
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
    """Encoded images as uint8 [T, H, W, 3]."""
    # The size is checked in each image's header, before its pixels take memory.
    pixels, problem = images.decode(payloads, _size(feature))
    if problem:
        raise UserError(f"{where}: {problem}.")
    return pixels
