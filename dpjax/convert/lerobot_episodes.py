"""Reads the episodes in meta/ of a LeRobot data set: their lengths, their tasks, their files.

A set that was edited has gaps: episodes that were deleted, or whose files are not there. The others
are read, and a line counts what is missing.
"""

from collections.abc import Collection, Mapping, Sequence
import logging
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dpjax.convert import lerobot_files, parquet
from dpjax.convert.lerobot_meta import Info, read_json
from dpjax.convert.source import as_user_error
from dpjax.core.errors import UserError
from dpjax.core.unread import listed, warn_unread

# Of each episode in meta/: what is read, and what says the same as data/ (its statistics, and where
# its rows are in the whole set).
KNOWN = frozenset(("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index"))
KNOWN_PREFIXES = ("stats/", "data/", "videos/", "meta/episodes/")

log = logging.getLogger("dpjax")


class Clip(NamedTuple):
    """An episode's part of a film.

    path: of the film, inside the data set. start: s from its beginning. end: None: not stored.
    """

    path: PurePosixPath
    start: float = 0.0
    end: float | None = None


class Episode(NamedTuple):
    """One episode of the data set.

    number: episode_index. length: number of steps. tasks: instructions in words.
    path: of its parquet file, inside the data set. clips: {camera: its part of a film}.
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    path: PurePosixPath
    clips: dict[str, Clip]


def read_episodes(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/ by number; those of other cameras are not looked at.

    Raises a UserError if a number occurs twice, or if info.json counts others.
    """
    read = _episodes_v3 if info.version == "v3.0" else _episodes_v2
    episodes = sorted(read(info, cameras), key=lambda episode: episode.number)
    numbers = [episode.number for episode in episodes]
    twice = [one for one, two in zip(numbers, numbers[1:]) if one == two]
    # A few may have been deleted. More than half: meta/ is cut, or info.json is not its own.
    if twice or not numbers or info.episodes > 2 * len(numbers):
        what = f"episode {twice[0]} twice" if twice else f"{len(numbers)} ({str(numbers)[:60]})"
        raise UserError(
            f"{info.file}: total_episodes: expected episodes 0 to {info.episodes - 1} in meta/, "
            f"got {what}."
        )
    missing = numbers[-1] + 1 - len(numbers)
    if missing or len(numbers) != info.episodes:
        log.warning(
            "%s: %d episodes in meta/, %d by total_episodes; %d numbers below %d are missing, such "
            "as %d: the others are read, and counted from 0",
            info.root, len(numbers), info.episodes, missing, numbers[-1] + 1,
            next((i for i, number in enumerate(numbers) if i != number), len(numbers)),
        )  # fmt: skip
        return episodes
    # The same for the steps, which v2 and v3 both call frames.
    frames = sum(episode.length for episode in episodes)
    if frames != info.frames:
        raise UserError(f"{info.file}: total_frames: expected {frames}, got {info.frames}.")
    return episodes


def with_files(
    info: Info, episodes: Sequence[Episode], paths: Collection[PurePosixPath]
) -> list[Episode]:
    """The episodes whose files are there; a line counts the others.

    paths: see `lerobot_files.listing`. Raises a UserError if no episode has its files.
    """
    complete, missing = [], []
    for episode in episodes:
        needed = [episode.path, *(clip.path for clip in episode.clips.values())]
        # The listing follows no links to folders; a file behind one is there all the same.
        absent = [x for x in needed if x not in paths and not (info.root / x).is_file()]
        # One file is enough to leave the episode out, and to name it in the line.
        missing += absent[:1]
        if not absent:
            complete.append(episode)
    if missing and not complete:
        lerobot_files.find_file(info, missing[0])  # raises: it is missing
    if missing:
        log.warning(
            "%s: %d of %d episodes are left out, because a file of theirs is missing: %s; the "
            "others are read, and counted from 0",
            info.root, len(missing), len(episodes), listed([str(path) for path in missing]),
        )  # fmt: skip
    several = sum(len(episode.tasks) > 1 for episode in complete)
    if several:
        reason = f"{several} episodes have several tasks, which are joined to one text per episode"
        warn_unread(str(info.root), ["the task of each step (task_index)"], reason)
    return complete


def _warn_metadata(info: Info, names: Collection[str]) -> None:
    """Logs what meta/ has of each episode and nothing here reads."""
    extra = [x for x in names if x not in KNOWN and not x.startswith(KNOWN_PREFIXES)]
    warn_unread(f"{info.root}/meta", sorted(extra), "metadata of episodes that is not read")


def _episodes_v2(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes.jsonl; none shares its parquet file or videos."""
    file = info.root / "meta" / "episodes.jsonl"
    episodes = []
    names: dict[str, None] = {}
    for number, item in enumerate(read_json(file, lines=True)):
        try:
            index = int(item["episode_index"])
            length = int(item["length"])
            tasks = tuple(str(task) for task in item.get("tasks") or ())
            names.update(dict.fromkeys(map(str, item)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}: line {number + 1}: expected episode_index, length and tasks, got "
                f"{str(item)[:80]}."
            ) from error
        # Both templates have these fields. A video belongs to one episode, so it starts at 0 s.
        fields = {"episode_chunk": index // info.chunk_size, "episode_index": index}
        clips = {
            key: Clip(lerobot_files.path_of(info, "video_path", {**fields, "video_key": key}))
            for key in cameras
        }
        path = lerobot_files.path_of(info, "data_path", fields)
        episodes.append(Episode(index, length, tasks, path, clips))
    _warn_metadata(info, names)
    return episodes


def _episodes_v3(info: Info, cameras: Sequence[str]) -> list[Episode]:
    """The episodes of meta/episodes/; several share a parquet file and a video per camera."""
    folder = info.root / "meta" / "episodes"
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{folder}: expected chunk-*/file-*.parquet in it, got none.")
    # Columns "data/chunk_index", "videos/<camera>/file_index", "videos/<camera>/from_timestamp", …
    prefixes = ["data", *(f"videos/{key}" for key in cameras)]
    # A file is found by two numbers, its folder's ("chunk") and its own ("file").
    columns = [f"{prefix}/{n}_index" for prefix in prefixes for n in ("chunk", "file")]
    columns += [f"videos/{key}/from_timestamp" for key in cameras]
    optional = ["tasks", *(f"videos/{key}/to_timestamp" for key in cameras)]
    # Each row is an episode.
    episodes = []
    names: dict[str, None] = {}
    for file in files:
        there = parquet.column_names(file)
        names.update(dict.fromkeys(there))
        wanted = ["episode_index", "length", *columns, *(x for x in optional if x in there)]
        for row in parquet.read_rows(file, wanted):
            with as_user_error(f"{file}: a row can't be read"):
                episodes.append(_episode_v3(info, row, cameras))
    _warn_metadata(info, names)
    return episodes


def _episode_v3(info: Info, row: Mapping[str, Any], cameras: Sequence[str]) -> Episode:
    """One row of meta/episodes/."""
    numbers = lambda at: {f"{n}_index": int(row[f"{at}/{n}_index"]) for n in ("chunk", "file")}
    clips = {}
    for key in cameras:
        at = f"videos/{key}"
        path = lerobot_files.path_of(info, "video_path", {**numbers(at), "video_key": key})
        end = row.get(f"{at}/to_timestamp")
        start = float(row[f"{at}/from_timestamp"])
        clips[key] = Clip(path, start, None if end is None else float(end))
    return Episode(
        number=int(row["episode_index"]),
        length=int(row["length"]),
        tasks=tuple(str(task) for task in row.get("tasks") or ()),
        path=lerobot_files.path_of(info, "data_path", numbers("data")),
        clips=clips,
    )
