"""Reads meta/ of a LeRobot data set: its features, its episodes, and the paths of their files.

Nothing in meta/ is trusted: numbers are checked, and paths must stay inside the data set.
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

# Largest JSON file of meta/ in bytes. At about 100 bytes per episode, that is 600,000 episodes.
META_LIMIT = 2**26
# v2.1 differs from v2.0 only in its statistics, which are not read here.
VERSIONS = ("v2.0", "v2.1", "v3.0")
# Fields that a path's template may contain, as in "data/chunk-{chunk_index:03d}/…".
FIELDS = ("episode_chunk", "episode_index", "video_key", "chunk_index", "file_index")


class Info(NamedTuple):
    """The content of meta/info.json.

    root: directory of the data set.
    features: {key: shape and type of what is read}. dtypes: {key: its "dtype" in the file}.
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

    number: episode_index. length: number of steps. tasks: instructions in words.
    fields: values for the template of the path of its parquet file.
    videos: {camera: (values for the video's template, start of the episode in it in s)}.
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
    # Any key may be missing or of another type. Python's own error says which one.
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
    # fps and chunks_size are divided by later. Without an episode there is nothing to convert.
    if not 0 < info.fps < np.inf or info.chunk_size < 1 or info.episodes < 1:
        raise UserError(
            f"{file}: expected fps, chunks_size and total_episodes above 0, got {info.fps:g}, "
            f"{info.chunk_size} and {info.episodes}."
        )
    return info


def read_episodes(info: Info) -> list[Episode]:
    """The episodes by number; raises a UserError if their count or length contradicts info.json."""
    # Only features of the type "video" have files of their own; an "image" is in the table.
    cameras = [key for key, dtype in info.dtypes.items() if dtype == "video"]
    read = _episodes_v3 if info.version == "v3.0" else _episodes_v2
    episodes = sorted(read(info, cameras), key=lambda episode: episode.number)
    # A gap or a number that occurs twice means that a part of the set was lost or edited.
    numbers = [episode.number for episode in episodes]
    # Compared with a list as long as what was read: info.episodes may be hostile, and huge.
    if len(numbers) != info.episodes or numbers != list(range(len(numbers))):
        raise UserError(
            f"{info.file}: total_episodes: expected episodes 0 to {info.episodes - 1} in meta/, "
            f"got {len(numbers)} ({str(numbers)[:60]})."
        )
    # The same for the steps, which v2 and v3 both call frames.
    frames = sum(episode.length for episode in episodes)
    if frames != info.frames:
        raise UserError(f"{info.file}: total_frames: expected {frames}, got {info.frames}.")
    return episodes


def find_file(info: Info, name: str, fields: Mapping[str, Any]) -> Path:
    """The path of an episode's parquet file or video.

    name: the template in info.json, "data_path" or "video_path". fields: values for it.
    Raises a UserError if the path is outside of the data set, or if the file is missing.
    """
    template = getattr(info, name)
    where = f"{info.file}: {name}"
    # str.format would also look up attributes ("{episode_index.__class__}") and pad to any width
    # ("{episode_index:01073741824d}"). So only known fields padded to one digit's width are
    # allowed: once they are removed, no brace may be left.
    rest = re.sub(r"\{(%s)(:0\dd)?\}" % "|".join(FIELDS), "", template)
    if "{" in rest or "}" in rest or not template:
        raise UserError(f"{where}: expected a path with {', '.join(FIELDS)}, got {template!r:.80}.")
    try:
        path = PurePosixPath(template.format(**fields))
    except KeyError as error:  # a known field that this version of LeRobot does not have
        raise UserError(f"{where}: {template!r:.80}: {error} is not known here.") from error
    # An absolute path, or one with "..", would read files outside of the data set.
    if path.is_absolute() or ".." in path.parts or "\\" in template:
        raise UserError(f"{where}: expected a path inside the data set, got {str(path)!r:.80}.")
    file = info.root / path
    if not file.is_file():
        raise UserError(f"{file}: missing. Copy it again, or pull it (git lfs pull).")
    refuse_pointer(file)
    return file


def _json(file: Path, lines: bool = False) -> Any:
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
        try:
            return Feature(shape, np.dtype(dtype))
        except TypeError:  # "string" or "language": `selection` leaves objects out
            return Feature(shape, np.dtype(object))
    # Some writers put the channels first: [3, H, W] -> [H, W, 3].
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        shape = (*shape[1:], shape[0])
    # The flag is "video.is_depth_map" or "is_depth_map", depending on the writer. dpjax has no
    # images of uint16, so declaring that type leaves depth out, and the command prints why.
    details = dict(feature.get("info") or {})
    depth = any("depth" in str(name) and value is True for name, value in details.items())
    return Feature(shape, np.dtype(np.uint16 if depth else np.uint8))


def _episodes_v2(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes.jsonl; none shares its parquet file or videos."""
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
        # Both templates have these fields. A video belongs to one episode, so it starts at 0 s.
        fields = {"episode_chunk": index // info.chunk_size, "episode_index": index}
        videos = {key: (fields, 0.0) for key in cameras}
        episodes.append(Episode(index, length, tasks, fields, videos))
    return episodes


def _episodes_v3(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes/; several share a parquet file and a video per camera."""
    folder = info.root / "meta" / "episodes"
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{folder}: expected chunk-*/file-*.parquet in it, got none.")
    # Columns "data/chunk_index", "videos/<camera>/file_index", "videos/<camera>/from_timestamp", …
    prefixes = {"data": "data"} | {key: f"videos/{key}" for key in cameras}
    # A file is found by two numbers, its folder's ("chunk") and its own ("file").
    columns = [f"{prefix}/{n}_index" for prefix in prefixes.values() for n in ("chunk", "file")]
    columns += [f"videos/{key}/from_timestamp" for key in cameras]
    # Each row is an episode; from_timestamp is its start in the shared video, in s.
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
