"""The files of a LeRobot data set: their paths, which are missing, and which no episode names."""

from collections.abc import Collection, Iterable, Mapping, Sequence
import os
from pathlib import Path, PurePosixPath
import re
from typing import Any

from dpjax.convert.lerobot_meta import Info
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer
from dpjax.core.unread import warn_unread

# Fields that a path's template may contain, as in "data/chunk-{chunk_index:03d}/…".
FIELDS = ("episode_chunk", "episode_index", "video_key", "chunk_index", "file_index")
# What the folders hold that is read here, that says the same as data/, or that is for people.
META = frozenset(
    ("info.json", "stats.json", "tasks.jsonl", "tasks.parquet", "episodes.jsonl", "episodes")
) | {"episodes_stats.jsonl"}
ROOT = frozenset(("meta", "data", "videos", "README.md", "LICENSE"))


def path_of(info: Info, name: str, fields: Mapping[str, Any]) -> PurePosixPath:
    """The path of an episode's parquet file or video, inside the data set.

    name: the template in info.json, "data_path" or "video_path". fields: values for it.
    Raises a UserError if the path is outside of the data set.
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
    return path


def find_file(info: Info, path: PurePosixPath) -> Path:
    """The file at a path of the data set; raises a UserError if it is missing, or not pulled."""
    file = info.root / path
    if not file.is_file():
        raise UserError(f"{file}: missing. Copy it again, or pull it (git lfs pull).")
    refuse_pointer(file)
    return file


def listing(root: Path) -> set[PurePosixPath]:
    """The paths of all files in data/ and videos/, inside the data set."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}.") from error

    # `os.walk` follows no links, and without `onerror` it passes over folders that it can't read.
    return {
        PurePosixPath(os.path.relpath(folder, root)) / name
        for part in ("data", "videos")
        if (root / part).exists()  # a set without cameras has no videos/
        for folder, _, names in os.walk(root / part, onerror=refuse)
        for name in names
        if not name.startswith(".")
    }


def warn_leftovers(
    info: Info, listed: Iterable[PurePosixPath], used: Collection[PurePosixPath], cameras: Sequence
) -> None:
    """Logs what the data set has beside its episodes' files.

    listed: see `listing`. used: paths that episodes name. cameras: those that are read.
    """
    # Films of a camera that is not converted are reported with their camera.
    others = {key for key, dtype in info.dtypes.items() if dtype == "video" and key not in cameras}
    extra = [path for path in listed if path not in used and not others.intersection(path.parts)]
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in sorted(extra):
        folders.setdefault(path.parent, []).append(path)
    names = [
        str(paths[0]) if len(paths) == 1 else f"{folder}/ ({len(paths)} files)"
        for folder, paths in folders.items()
    ]
    warn_unread(str(info.root), names, "no episode in meta/ names these files")
    beside = [name for name in _names(info.root) if name not in ROOT]
    beside += [f"meta/{name}" for name in _names(info.root / "meta") if name not in META]
    warn_unread(str(info.root), beside, "not a part of LeRobot's format that is read")


def _names(folder: Path) -> list[str]:
    """What is in a folder, without hidden files."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))
