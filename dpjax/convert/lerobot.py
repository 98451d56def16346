"""LeRobot data sets in a local directory, versions 2.0, 2.1 and 3.0.

    meta/info.json                         version, fps, features, templates of the files' paths
    meta/episodes.jsonl                    v2: one line per episode: index, length, tasks
    meta/episodes/chunk-*/file-*.parquet   v3: the same, and each episode's files and times
    data/...parquet                        numbers; one episode per file (v2) or several (v3)
    videos/...mp4                          one camera; one episode per file (v2) or several (v3)

`observation.state` is converted to `state`, and `observation.images.top` to `top`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
import logging
from pathlib import Path, PurePosixPath

import numpy as np

from dpjax.convert import lerobot_episodes, lerobot_files, lerobot_meta, pairing, parquet, video
from dpjax.convert.lerobot_episodes import Episode
from dpjax.convert.lerobot_meta import Info, our_name
from dpjax.convert.pairing import Part, Spans
from dpjax.convert.source import Columns, Feature, Source
from dpjax.core.errors import UserError
from dpjax.core.unread import listed
from dpjax.data import images

# Lines of one kind about films that are logged; the others are counted.
LINES = 3
# The times of a table's rows, and their numbers in the episode.
TIMES = "timestamp"
STEPS = "frame_index"

log = logging.getLogger("dpjax")
# (kind, where, line) -> None: logs a line, see `_notes`.
Note = Callable[[str, str, str], None]


def open_source(
    path: Path,
    stack: ExitStack,
    *,
    keys: Sequence[str] | None = None,
    mapping: Mapping[str, str] = {},
) -> Source:
    """The episodes of a LeRobot data set, in the order of their numbers.

    stack: when it is closed, lines that were not logged one by one are counted.
    keys, mapping: as in `selection.select`: films of cameras that nobody asks for are not opened.
    """
    # All of meta/ is read and checked now; numbers and videos are read one episode at a time.
    info = lerobot_meta.read_info(path)
    log.info("%s: LeRobot %s, %g frames per second", path.name, info.version, info.fps)
    observations = lerobot_meta.default_observations(info)
    cameras = _cameras(info, observations, keys, mapping)
    in_meta = lerobot_episodes.read_episodes(info, cameras)
    paths = lerobot_files.listing(path)
    episodes = lerobot_episodes.with_files(info, in_meta, paths)
    used = {path for e in in_meta for path in (e.path, *(clip.path for clip in e.clips.values()))}
    lerobot_files.warn_leftovers(info, paths, used, cameras)

    # Every episode of a film counts when its frames are told apart, also one without its table.
    films: dict[tuple[PurePosixPath, str], list[Part]] = {}
    for episode in in_meta:
        for key, clip in episode.clips.items():
            part = Part(episode.number, episode.length, clip.start, clip.end)
            films.setdefault((clip.path, key), []).append(part)
    note = _notes(stack)
    return Source(
        path=path,
        features=info.features,
        lengths=[episode.length for episode in episodes],
        read=lambda e, keys: _read(info, episodes[e], keys, films, note),
        names={key: our_name(key) for key in info.features},
        fps=info.fps,
        metadata=lambda e: {"task": "; ".join(episodes[e].tasks)},
        defaults=[*observations, "action"],
        problems=info.problems,
    )


def _cameras(
    info: Info,
    observations: Sequence[str],
    keys: Sequence[str] | None,
    mapping: Mapping[str, str],
) -> list[str]:
    """The cameras with films that will be read."""
    wanted = set(observations if keys is None else keys)
    names = lambda key: {key, our_name(key), mapping.get(key), mapping.get(our_name(key))}
    return [
        key
        for key, dtype in info.dtypes.items()
        if dtype == "video" and key not in info.problems and wanted & names(key)
    ]


def _notes(stack: ExitStack) -> Note:
    """A function that logs the first lines of a kind, and counts the others at the end."""
    said: dict[str, set[tuple[str, str]]] = {}

    def note(kind: str, where: str, line: str) -> None:
        lines = said.setdefault(kind, set())
        if (where, line) not in lines:  # an episode may be read twice
            lines.add((where, line))
            if len(lines) <= LINES:
                log.warning("%s: %s", where, line)

    def count() -> None:
        for kind, lines in said.items():
            if len(lines) > LINES:
                log.warning("%s: %d times in all, %d shown", kind, len(lines), LINES)

    stack.callback(count)
    return note


def _read(
    info: Info,
    episode: Episode,
    keys: Sequence[str],
    films: Mapping[tuple[PurePosixPath, str], Sequence[Part]],
    note: Note,
) -> Columns:
    """{feature: [T, ...]} of one episode."""
    file = lerobot_files.find_file(info, episode.path)
    cameras = [key for key in keys if info.dtypes[key] == "video"]
    others = [key for key in keys if key not in cameras]

    # Numbers and single images are in the parquet file. In v3 several episodes share a file, and
    # the rows of this one are chosen by its number; in v2 all rows of the file are this episode.
    number = episode.number if info.version == "v3.0" else None
    there = parquet.column_names(file)
    extra = [name for name in there if name not in info.features]
    if extra:
        note("columns without a feature", str(info.root), _unlisted(extra))
    # Times are needed to find frames, and the numbers of steps to see that none is missing.
    counts = [name for name in (TIMES, STEPS) if name in there]
    table = parquet.read_episode(file, [*others, *counts], number, episode.length)
    where = f"{file}: episode {episode.number}"
    if STEPS in counts:
        _check_steps(parquet.to_array(table[STEPS], None, f"{where}: {STEPS}"), where, note)
    columns = {}
    for key in others:
        # "image": one encoded image per row. Everything else is numbers.
        if info.dtypes[key] == "image":
            payloads = parquet.image_bytes(table[key], f"{where}: {key}")
            columns[key] = _decode(payloads, info.features[key], f"{where}: {key}")
        else:
            columns[key] = parquet.to_array(table[key], info.features[key], f"{where}: {key}")
    times = None
    if cameras and TIMES in counts:
        times = parquet.to_array(table[TIMES], None, f"{file}: {TIMES}")
    for key in cameras:
        parts = films[episode.clips[key].path, key]
        columns[key] = _read_film(info, episode, key, parts, times, note)
    return columns


def _unlisted(names: Sequence[str]) -> str:
    """A line about columns of a table that info.json does not list."""
    return f"left out: {listed(list(names))}: columns of data/ that info.json has no feature for"


def _check_steps(steps: np.ndarray, where: str, note: Note) -> None:
    """Raises a UserError if the rows [T] are not in order; notes steps that are missing."""
    jumps = np.diff(steps)
    if (jumps < 1).any():
        t = int(np.argmax(jumps < 1))
        raise UserError(
            f"{where}: expected rows in order, got {STEPS} {steps[t]:g} and then {steps[t + 1]:g}."
        )
    if (jumps > 1).any():
        t = int(np.argmax(jumps > 1))
        line = (
            f"{int(jumps.sum()) - len(jumps)} steps are missing, such as those between {STEPS} "
            f"{steps[t]:g} and {steps[t + 1]:g}"
        )
        note("missing steps", where, line)


def _read_film(
    info: Info,
    episode: Episode,
    key: str,
    parts: Sequence[Part],
    times: np.ndarray | None,
    note: Note,
) -> np.ndarray:
    """The frames uint8 [T, H, W, 3] of one camera.

    parts: all episodes in the film. times: [T] of the rows, in s from the episode's start.
    """
    file = lerobot_files.find_file(info, episode.clips[key].path)
    where = f"{file}: episode {episode.number}" if info.version == "v3.0" else str(file)
    film = video.open_film(file)
    try:
        if info.version == "v3.0":
            spans = pairing.find_spans(parts, film.times, info.fps)
            first, stop = _span(spans, episode.number)
            for kind, line in spans.notes.items():
                note(kind, str(file), line)
            # In v3 the table's times count from the start of the episode, and equal counts need
            # the same zero. Where the counts differ, the stored start is compared by `find_spans`.
            frame_times = film.times[first:stop] - film.times[first]
        else:
            first, frame_times = 0, film.times
        pairs = pairing.pair(times, frame_times, info.fps)
        if len(pairs.indices) != episode.length:
            raise UserError(f"{len(pairs.indices)} frames for {episode.length} rows, and no times.")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    for kind, line in pairs.notes.items():
        note(kind, where, line)
    return video.read_frames(file, first + pairs.indices, _size(info.features[key]))


def _span(spans: Spans, number: int) -> pairing.Span:
    """The frames of an episode; raises a UserError if they can't be told."""
    if number in spans.problems:
        raise UserError(f"{spans.problems[number]}: its frames can't be told.")
    return spans.spans[number]


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
