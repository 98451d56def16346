"""Reads meta/info.json of a LeRobot data set: its features, and which of them can be read.

Nothing in meta/ is trusted: numbers are checked, and paths must stay inside the data set
(`lerobot_files`).
"""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpjax.convert.source import COUNTERS, Feature, as_user_error
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

# Largest JSON file of meta/ in bytes. At about 100 bytes per episode, that is 600,000 episodes.
META_LIMIT = 2**26
# v2.1 differs from v2.0 only in its statistics, which are not read here.
VERSIONS = ("v2.0", "v2.1", "v3.0")
# Removed from a key to name it in the data set; the longer one is tried first.
PREFIXES = ("observation.images.", "observation.")
# In sets without these prefixes, such as openpi's, observations are images and the robot's state.
STATES = ("state", "_state", "proprio")  # the name, its end, its beginning


class Info(NamedTuple):
    """The content of meta/info.json.

    root: directory of the data set.
    features: {key: shape and type of what is read}. dtypes: {key: its "dtype" in the file}.
    problems: {key: why it can't be converted}, of text, depth and unknown types.
    data_path, video_path: templates of the paths of parquet files and videos.
    chunk_size: episodes per folder (v2). episodes, frames: how many the data set has.
    """

    root: Path
    version: str
    fps: float
    features: dict[str, Feature]
    dtypes: dict[str, str]
    problems: dict[str, str]
    data_path: str
    video_path: str
    chunk_size: int
    episodes: int
    frames: int

    @property
    def file(self) -> Path:
        """The path of info.json, for messages."""
        return self.root / "meta" / "info.json"


def read_info(root: Path) -> Info:
    """Reads and checks meta/info.json."""
    file = root / "meta" / "info.json"
    content = read_json(file)
    # Any key may be missing or of another type. Python's own error says which one.
    try:
        features = {str(key): dict(feature) for key, feature in content["features"].items()}
        info = Info(
            root=root,
            version=str(content["codebase_version"]),
            fps=float(content["fps"]),
            features={key: _feature(key, feature) for key, feature in features.items()},
            dtypes={key: str(feature["dtype"]) for key, feature in features.items()},
            problems={
                key: problem for key, feature in features.items() if (problem := _problem(feature))
            },
            data_path=str(content["data_path"]),
            video_path=str(content.get("video_path") or ""),
            chunk_size=int(content["chunks_size"]),
            episodes=int(content["total_episodes"]),
            frames=int(content["total_frames"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: expected LeRobot's keys, got {error!r:.100}.") from error
    if info.version not in VERSIONS:
        raise UserError(
            f"{file}: codebase_version {info.version!r} isn't read; choose one of "
            f"{', '.join(VERSIONS)}."
        )
    # fps and chunks_size are divided by later. Without an episode there is nothing to convert.
    if not 0 < info.fps < np.inf or info.chunk_size < 1 or info.episodes < 1:
        raise UserError(
            f"{file}: expected fps, chunks_size and total_episodes above 0, got {info.fps:g}, "
            f"{info.chunk_size} and {info.episodes}."
        )
    return info


def read_json(file: Path, lines: bool = False) -> Any:
    """The content of a JSON file. lines: the file has one item per line; returns their list."""
    if not file.is_file():
        raise UserError(f"{file}: missing; expected a LeRobot data set (v2 or v3) there.")
    # A clone from the Hugging Face Hub has a small Git LFS pointer for each file not yet pulled.
    refuse_pointer(file)
    if file.stat().st_size > META_LIMIT:
        raise UserError(f"{file}: more than {META_LIMIT >> 20} MiB: not a file of LeRobot's.")
    with as_user_error(f"{file}: not JSON"):
        text = file.read_text(encoding="utf-8")
        if lines:
            return [json.loads(line) for line in text.splitlines() if line]
        return json.loads(text)


def _feature(key: str, feature: Mapping) -> Feature:
    """Shape and type of a feature as it is read.

    Images are decoded to [H, W, 3], whichever order of the axes info.json has.
    """
    shape = tuple(int(n) for n in feature["shape"])
    dtype = str(feature["dtype"])
    if min(shape, default=1) < 0:  # `read_info` turns it into a UserError
        raise ValueError(f"{key}: shape {shape}")
    if dtype not in ("image", "video"):
        # What has no type of numpy's is among the problems.
        return Feature(shape, np.dtype(object) if _problem(feature) else np.dtype(dtype))
    # Some writers put the channels first: [3, H, W] -> [H, W, 3].
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        shape = (*shape[1:], shape[0])
    return Feature(shape, np.dtype(np.uint8))


def _problem(feature: Mapping) -> str:
    """Why a feature can't be converted; "" if it can."""
    dtype = str(feature["dtype"])
    if dtype not in ("image", "video"):
        try:
            numbers = np.dtype(dtype).kind in "fiub"
        except TypeError:  # "string", "language", or a type that is not invented yet
            numbers = False
        return "" if numbers else f"its type is {dtype!r}, and only numbers and images are read"
    # Writers have "info", "video_info" or neither, and call the flag "is_depth_map",
    # "video.is_depth_map", "depth", …; an 8-bit film never has such a pixel format.
    details = {**dict(feature.get("video_info") or {}), **dict(feature.get("info") or {})}
    formats = [str(value) for name, value in details.items() if str(name).endswith("pix_fmt")]
    flags = [name for name, value in details.items() if "depth" in str(name).lower() and value]
    flags = [name for name in flags if "bit" not in str(name)]  # "bit_depth": 8 tells a format
    if flags or any(text.startswith("gray1") for text in formats):
        return f"depth is not read ({', '.join(map(str, [*flags, *formats]))})"
    channels = [shape for shape in feature["shape"] if int(shape) == 1]
    if (
        len(feature["shape"]) == 3
        and channels
        and 3 not in (feature["shape"][0], feature["shape"][-1])
    ):
        return "images of one channel, such as depth, are not read"
    return ""


def default_observations(info: Info) -> list[str]:
    """The keys that are observed unless the user names keys.

    A set's own numbers of rows and its times never are, nor rewards, nor what comes next.
    """
    keys = [
        key
        for key in info.features
        if key.rpartition(".")[2] not in COUNTERS
        and not key.startswith(("next.", "action"))
        # A picture of depth in colours: its camera is asked for with keys=.
        and "depth" not in key.lower()
    ]
    # Every set of LeRobot's own tools has the prefix.
    if any(key.startswith("observation.") for key in info.features):
        return [key for key in keys if key.startswith("observation.")]
    name, end, beginning = STATES
    return [
        key
        for key in keys
        if info.dtypes[key] in ("image", "video")
        or key == name
        or key.endswith(end)
        or key.startswith(beginning)
    ]


def our_name(key: str) -> str:
    """A feature's name in the data set, without its prefix and without dots.

    On the command line a dot separates the levels of a config, so a column's name has none.
    """
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")
