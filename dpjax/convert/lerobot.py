"""LeRobot data sets in a local directory, versions 2.0, 2.1 and 3.0.

    meta/info.json                     version, fps, features, where the files lie
    meta/episodes.jsonl                v2: an episode a line: index, length, tasks
    meta/episodes/chunk-*/file-*.parquet   v3: the same, and which files and times are its
    data/...parquet                    rows of numbers: one file an episode (v2), or many (v3)
    videos/...mp4                      a video a camera and episode (v2), or of many (v3)

`observation.state` becomes `state`, `observation.images.top` becomes `top`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
import json
from pathlib import Path, PurePosixPath
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.convert import parquet, video
from dpjax.convert.source import Columns, Kind, Source, reading
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer
from dpjax.data import images

META_LIMIT = 2**26  # bytes of a JSON file of meta/
VERSIONS = ("v2.0", "v2.1", "v3.0")
FIELDS = ("episode_chunk", "episode_index", "video_key", "chunk_index", "file_index")
PREFIXES = ("observation.images.", "observation.")


class Episode(NamedTuple):
    """index: in the data. fields: what the paths of its parquet are made with.

    videos: {camera: (fields of its path, second at which the episode starts)}.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    fields: dict[str, int]
    videos: dict[str, tuple[dict[str, int], float]]


class Info(NamedTuple):
    """What meta/info.json says. kinds: {feature: Kind}. stored: {feature: its "dtype"}."""

    root: Path
    version: str
    fps: float
    kinds: dict[str, Kind]
    stored: dict[str, str]
    data_path: str
    video_path: str
    chunk: int
    episodes: int
    frames: int


def open_source(path: Path, stack: ExitStack) -> Source:
    """The episodes of a LeRobot data set, in the order of their index."""
    del stack  # files are opened when their episodes are read
    info = _info(path)
    cameras = [key for key, stored in info.stored.items() if stored == "video"]
    episodes = (_v3 if info.version == "v3.0" else _v2)(info, cameras)
    where = path / "meta" / "info.json"
    numbers = [episode.index for episode in episodes]
    if len(numbers) != info.episodes or numbers != list(range(len(numbers))):
        raise UserError(
            f"{where}: total_episodes: expected episodes 0 to {info.episodes - 1} in meta/, got "
            f"{len(numbers)} ({str(numbers)[:60]})."
        )
    lengths = [episode.length for episode in episodes]
    if sum(lengths) != info.frames:
        raise UserError(f"{where}: total_frames: expected {sum(lengths)}, got {info.frames}.")
    read = lambda e, keys: _read(info, episodes[e], keys)
    about = lambda e: {"task": "; ".join(episodes[e].tasks)}
    names = {key: _name(key) for key in info.kinds}
    defaults = [key for key in info.kinds if key == "action" or key.startswith("observation.")]
    said = [f"{path.name}: LeRobot {info.version}, {info.fps:g} frames a second"]
    return Source(path, info.kinds, lengths, read, names, info.fps, about, defaults, said)


def _name(key: str) -> str:
    """A feature's name without dots, which a config's columns would have to escape."""
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")


def _json(file: Path, lines: bool = False) -> Any:
    """The content of a JSON file, or the items of its lines."""
    if not file.is_file():
        raise UserError(f"{file}: missing; expected a LeRobot data set (v2 or v3) there.")
    refuse_pointer(file)
    if file.stat().st_size > META_LIMIT:
        raise UserError(f"{file}: more than {META_LIMIT >> 20} MiB: no such file of LeRobot's.")
    with reading(f"{file}: no JSON"):
        text = file.read_text(encoding="utf-8")
        if lines:
            return [json.loads(line) for line in text.splitlines() if line]
        return json.loads(text)


def _info(path: Path) -> Info:
    file = path / "meta" / "info.json"
    found = _json(file)
    try:
        version = str(found["codebase_version"])
        features = {str(key): dict(feature) for key, feature in found["features"].items()}
        info = Info(
            root=path,
            version=version,
            fps=float(found["fps"]),
            kinds={key: _kind(key, feature) for key, feature in features.items()},
            stored={key: str(feature["dtype"]) for key, feature in features.items()},
            data_path=str(found["data_path"]),
            video_path=str(found.get("video_path") or ""),
            chunk=int(found["chunks_size"]),
            episodes=int(found["total_episodes"]),
            frames=int(found["total_frames"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: expected LeRobot's keys, got {error!r:.100}.") from error
    if version not in VERSIONS:
        raise UserError(
            f"{file}: codebase_version {version!r} isn't read; choose one of {', '.join(VERSIONS)}."
        )
    if not 0 < info.fps < np.inf or info.chunk < 1 or info.episodes < 1:
        raise UserError(
            f"{file}: expected fps, chunks_size and total_episodes above 0, got {info.fps:g}, "
            f"{info.chunk} and {info.episodes}."
        )
    return info


def _kind(key: str, feature: Mapping) -> Kind:
    """Shape and type of a feature as it is read: images are [H, W, 3], whatever info says."""
    shape, stored = tuple(int(n) for n in feature["shape"]), str(feature["dtype"])
    if min(shape, default=1) < 0:
        raise ValueError(f"{key}: shape {shape}")
    if stored not in ("image", "video"):
        try:
            return Kind(shape, np.dtype(stored))
        except TypeError:  # string, language: no numbers
            return Kind(shape, np.dtype(object))
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        shape = (*shape[1:], shape[0])
    details = dict(feature.get("info") or {})
    depth = any("depth" in str(name) and value is True for name, value in details.items())
    return Kind(shape, np.dtype(np.uint16 if depth else np.uint8))


def _file(info: Info, template: str, name: str, fields: Mapping[str, Any]) -> Path:
    """A path that info.json gives as a template; refuses one that leads out of the set."""
    where = f"{info.root / 'meta' / 'info.json'}: {name}"
    known = re.sub(r"\{(%s)(:0\dd)?\}" % "|".join(FIELDS), "", template)
    if "{" in known or "}" in known or not template:
        raise UserError(f"{where}: expected a path with {', '.join(FIELDS)}, got {template!r:.80}.")
    try:
        path = PurePosixPath(template.format(**fields))
    except KeyError as error:
        raise UserError(f"{where}: {template!r:.80}: {error} is not known here.") from error
    if path.is_absolute() or ".." in path.parts or "\\" in template:
        raise UserError(f"{where}: expected a path inside the data set, got {str(path)!r:.80}.")
    file = info.root / path
    if not file.is_file():
        raise UserError(f"{file}: missing. Copy it again, or pull it (git lfs pull).")
    refuse_pointer(file)
    return file


def _v2(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes.jsonl."""
    file = info.root / "meta" / "episodes.jsonl"
    episodes = []
    for number, item in enumerate(_json(file, lines=True)):
        try:
            index, length = int(item["episode_index"]), int(item["length"])
            tasks = tuple(str(task) for task in item.get("tasks", ()))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}: line {number + 1}: expected episode_index, length and tasks, got "
                f"{str(item)[:80]}."
            ) from error
        fields = {"episode_chunk": index // info.chunk, "episode_index": index}
        videos = {key: (fields, 0.0) for key in cameras}
        episodes.append(Episode(index, length, tasks, fields, videos))
    return sorted(episodes, key=lambda episode: episode.index)


def _v3(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes/."""
    folder = info.root / "meta" / "episodes"
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{folder}: expected chunk-*/file-*.parquet in it, got none.")
    parts = {"data": "data"} | {key: f"videos/{key}" for key in cameras}
    names = [f"{part}/{n}_index" for part in parts.values() for n in ("chunk", "file")]
    names += [f"videos/{key}/from_timestamp" for key in cameras]
    episodes = []
    for file in files:
        for row in parquet.rows(file, ["episode_index", "length", "tasks", *names]):
            place = {
                part: {f"{n}_index": int(row[f"{at}/{n}_index"]) for n in ("chunk", "file")}
                for part, at in parts.items()
            }
            starts = {key: float(row[f"videos/{key}/from_timestamp"]) for key in cameras}
            videos = {key: (place[key], starts[key]) for key in cameras}
            tasks = tuple(str(task) for task in row["tasks"])
            index, length = int(row["episode_index"]), int(row["length"])
            episodes.append(Episode(index, length, tasks, place["data"], videos))
    return sorted(episodes, key=lambda episode: episode.index)


def _read(info: Info, episode: Episode, keys: Sequence[str]) -> Columns:
    """{feature: [T, ...]} of one episode."""
    file = _file(info, info.data_path, "data_path", episode.fields)
    cameras = [key for key in keys if info.stored[key] == "video"]
    tables = [key for key in keys if key not in cameras]
    index = episode.index if info.version == "v3.0" else None
    wanted = [*tables, "timestamp"] if cameras else tables
    table = parquet.episode(file, wanted, index, episode.length)
    found = {}
    for key in tables:
        where = f"{file}: episode {episode.index}: {key}"
        if info.stored[key] == "image":
            found[key] = _decoded(parquet.payloads(table[key], where), info.kinds[key], where)
        else:
            found[key] = parquet.numbers(table[key], info.kinds[key], where)
    for key in cameras:
        fields, start = episode.videos[key]
        path = _file(info, info.video_path, "video_path", {**fields, "video_key": key})
        times = start + parquet.numbers(table["timestamp"], None, f"{file}: timestamp")
        found[key] = video.frames(path, times, info.fps, info.kinds[key].shape[:2])
    return found


def _decoded(payloads: Sequence[bytes], kind: Kind, where: str) -> np.ndarray:
    pixels, problem = images.decode(payloads, kind.shape[:2])
    if problem:
        raise UserError(f"{where}: {problem}.")
    return pixels
