"""What the folder meta/ of a LeRobot data set says: features, episodes, and where their files lie.

Nothing in it is trusted: numbers are checked, and paths must stay inside the data set.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path, PurePosixPath
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.convert import parquet
from dpjax.convert.source import Feature, as_user_error
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

# Bytes of a JSON file of meta/. A line per episode is about 100 bytes: this is far beyond any set.
META_LIMIT = 2**26
# 2.1 differs from 2.0 in its statistics only, which are not read.
VERSIONS = ("v2.0", "v2.1", "v3.0")
# What a template of a path may contain, as in "data/chunk-{chunk_index:03d}/…".
FIELDS = ("episode_chunk", "episode_index", "video_key", "chunk_index", "file_index")


class Info(NamedTuple):
    """What meta/info.json says.

    features: {key: Feature as it is read}. dtypes: {key: its "dtype" in the file}.
    data_path, video_path: templates of the paths of parquet files and videos.
    chunk_size: episodes per folder (v2). episodes, frames: how many the data set has.
    """

    root: Path
    version: str
    fps: float
    features: dict[str, Feature]
    dtypes: dict[str, str]
    data_path: str
    video_path: str
    chunk_size: int
    episodes: int
    frames: int

    @property
    def file(self) -> Path:
        """The path of info.json, for messages."""
        return self.root / "meta" / "info.json"


class Episode(NamedTuple):
    """One episode of the data set.

    number: its episode_index. length: its steps. tasks: in words.
    fields: what the template of its parquet file's path is filled with.
    videos: {camera: (fields of the video's path, second at which the episode starts in it)}.
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    fields: dict[str, int]
    videos: dict[str, tuple[dict[str, int], float]]


def read_info(root: Path) -> Info:
    """Reads and checks meta/info.json."""
    file = root / "meta" / "info.json"
    content = _json(file)
    # Whatever is missing or of another type ends in one line, which shows Python's own words.
    try:
        features = {str(key): dict(feature) for key, feature in content["features"].items()}
        info = Info(
            root=root,
            version=str(content["codebase_version"]),
            fps=float(content["fps"]),
            features={key: _feature(key, feature) for key, feature in features.items()},
            dtypes={key: str(feature["dtype"]) for key, feature in features.items()},
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
    # A rate of 0 would put all frames at one time, and a chunk of 0 divides by 0 below.
    if not 0 < info.fps < np.inf or info.chunk_size < 1 or info.episodes < 1:
        raise UserError(
            f"{file}: expected fps, chunks_size and total_episodes above 0, got {info.fps:g}, "
            f"{info.chunk_size} and {info.episodes}."
        )
    return info


def read_episodes(info: Info) -> list[Episode]:
    """The episodes in the order of their number; raises a UserError if meta/ is not consistent."""
    # A feature "image" lies in the table itself; only "video" has files of its own.
    cameras = [key for key, dtype in info.dtypes.items() if dtype == "video"]
    read = _episodes_v3 if info.version == "v3.0" else _episodes_v2
    episodes = sorted(read(info, cameras), key=lambda episode: episode.number)
    # A gap, or a second episode of one number, is a set of which a part was lost or edited.
    numbers = [episode.number for episode in episodes]
    # info.episodes may be hostile: only what was read is listed.
    if len(numbers) != info.episodes or numbers != list(range(len(numbers))):
        raise UserError(
            f"{info.file}: total_episodes: expected episodes 0 to {info.episodes - 1} in meta/, "
            f"got {len(numbers)} ({str(numbers)[:60]})."
        )
    frames = sum(episode.length for episode in episodes)
    if frames != info.frames:
        raise UserError(f"{info.file}: total_frames: expected {frames}, got {info.frames}.")
    return episodes


def find_file(info: Info, name: str, fields: Mapping[str, Any]) -> Path:
    """The file of an episode, by the template `name` ("data_path" or "video_path") of info.json.

    Raises a UserError if the template leads out of the data set, or the file isn't there.
    """
    template = getattr(info, name)
    where = f"{info.file}: {name}"
    # Only known fields with a short format: str.format would also look up attributes
    # ("{episode_index.__class__}") and pad to any width ("{episode_index:01073741824d}").
    rest = re.sub(r"\{(%s)(:0\dd)?\}" % "|".join(FIELDS), "", template)
    if "{" in rest or "}" in rest or not template:
        raise UserError(f"{where}: expected a path with {', '.join(FIELDS)}, got {template!r:.80}.")
    try:
        path = PurePosixPath(template.format(**fields))
    except KeyError as error:
        raise UserError(f"{where}: {template!r:.80}: {error} is not known here.") from error
    # An absolute path, or one with "..", would read files that are not part of the data set.
    if path.is_absolute() or ".." in path.parts or "\\" in template:
        raise UserError(f"{where}: expected a path inside the data set, got {str(path)!r:.80}.")
    file = info.root / path
    if not file.is_file():
        raise UserError(f"{file}: missing. Copy it again, or pull it (git lfs pull).")
    refuse_pointer(file)
    return file


def _json(file: Path, lines: bool = False) -> Any:
    """The content of a JSON file; lines: one item per line, as a list."""
    if not file.is_file():
        raise UserError(f"{file}: missing; expected a LeRobot data set (v2 or v3) there.")
    # Data sets of the Hub are cloned with Git LFS, which leaves a pointer for what it didn't pull.
    refuse_pointer(file)
    if file.stat().st_size > META_LIMIT:
        raise UserError(f"{file}: more than {META_LIMIT >> 20} MiB: not a file of LeRobot's.")
    with as_user_error(f"{file}: not JSON"):
        text = file.read_text(encoding="utf-8")
        if lines:
            return [json.loads(line) for line in text.splitlines() if line]
        return json.loads(text)


def _feature(key: str, feature: Mapping) -> Feature:
    """Shape and type of a feature as it is read: images are [H, W, 3], whatever info.json says."""
    shape = tuple(int(n) for n in feature["shape"])
    dtype = str(feature["dtype"])
    if min(shape, default=1) < 0:
        raise ValueError(f"{key}: shape {shape}")
    if dtype not in ("image", "video"):
        try:
            return Feature(shape, np.dtype(dtype))
        except TypeError:  # "string" or "language": not numbers, and left out later
            return Feature(shape, np.dtype(object))
    # Some writers put the channels first.
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        shape = (*shape[1:], shape[0])
    # "video.is_depth_map" or "is_depth_map", depending on the writer. uint16 is not an image for
    # dpjax, so depth is left out, and the reason is printed.
    details = dict(feature.get("info") or {})
    depth = any("depth" in str(name) and value is True for name, value in details.items())
    return Feature(shape, np.dtype(np.uint16 if depth else np.uint8))


def _episodes_v2(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes.jsonl: each has a parquet file and its videos to itself."""
    file = info.root / "meta" / "episodes.jsonl"
    episodes = []
    for number, item in enumerate(_json(file, lines=True)):
        try:
            index = int(item["episode_index"])
            length = int(item["length"])
            tasks = tuple(str(task) for task in item.get("tasks", ()))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}: line {number + 1}: expected episode_index, length and tasks, got "
                f"{str(item)[:80]}."
            ) from error
        # Both templates have these fields; each video starts with its episode.
        fields = {"episode_chunk": index // info.chunk_size, "episode_index": index}
        videos = {key: (fields, 0.0) for key in cameras}
        episodes.append(Episode(index, length, tasks, fields, videos))
    return episodes


def _episodes_v3(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes/: many of them share a parquet file and a video."""
    folder = info.root / "meta" / "episodes"
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{folder}: expected chunk-*/file-*.parquet in it, got none.")
    # Columns "data/chunk_index", "videos/<camera>/file_index", "videos/<camera>/from_timestamp", …
    prefixes = {"data": "data"} | {key: f"videos/{key}" for key in cameras}
    columns = [f"{prefix}/{n}_index" for prefix in prefixes.values() for n in ("chunk", "file")]
    columns += [f"videos/{key}/from_timestamp" for key in cameras]
    # from_timestamp is where the episode starts in the shared video, in seconds.
    episodes = []
    for file in files:
        for row in parquet.read_rows(file, ["episode_index", "length", "tasks", *columns]):
            with as_user_error(f"{file}: a row can't be read"):
                fields = {
                    part: {f"{n}_index": int(row[f"{prefix}/{n}_index"]) for n in ("chunk", "file")}
                    for part, prefix in prefixes.items()
                }
                starts = {key: float(row[f"videos/{key}/from_timestamp"]) for key in cameras}
                episode = Episode(
                    number=int(row["episode_index"]),
                    length=int(row["length"]),
                    tasks=tuple(str(task) for task in row["tasks"]),
                    fields=fields["data"],
                    videos={key: (fields[key], starts[key]) for key in cameras},
                )
            episodes.append(episode)
    return episodes
