"""Writes episodes in the formats that dpjax.convert reads: what the experiment converts."""

from collections.abc import Iterable, Mapping, Sequence
import json
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

FPS = 10  # of Push-T's demonstrations
CAMERA = "observation.images.top"
Episode = Mapping[str, np.ndarray]  # {"state", "action", maybe "image": [T, ...]}


def robomimic(path: Path, episodes: Iterable[Episode]) -> Path:
    """An HDF5 file, not compressed, as robomimic writes it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        env = {"env_name": "PushT", "env_kwargs": {"control_freq": FPS}}
        data.attrs["env_args"] = json.dumps(env)
        for i, episode in enumerate(tqdm(episodes, desc="writing robomimic")):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(episode["action"])
            demo["actions"] = episode["action"]
            for key in episode.keys() - {"action"}:
                demo[f"obs/{key}"] = episode[key]
    return path


def arrays(path: Path, episodes: Iterable[Episode]) -> Path:
    """A .npz an episode, not compressed."""
    path.mkdir()
    for i, episode in enumerate(tqdm(episodes, desc="writing arrays")):
        np.savez(path / f"episode_{i}.npz", **episode)
    return path


def lerobot(path: Path, episodes: Iterable[Episode]) -> Path:
    """A LeRobot v3.0 data set: one Parquet file, one H.264 video of all episodes."""
    tables, rows, first, film = [], [], 0, None
    for i, episode in enumerate(tqdm(episodes, desc="writing lerobot")):
        length = len(episode["action"])
        tables.append(_table(i, episode))
        row = {"episode_index": i, "tasks": ["push the T onto its target"], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        if "image" in episode:
            film = film or _Film(path / "videos" / CAMERA / "chunk-000" / "file-000.mp4")
            film.append(episode["image"])
            at = f"videos/{CAMERA}"
            row |= {f"{at}/chunk_index": 0, f"{at}/file_index": 0}
            row |= {f"{at}/from_timestamp": first / FPS}
        rows.append(row)
        first += length
        size = {key: x.shape[1:] for key, x in episode.items()}
    if film:
        film.close()
    _parquet(path / "data" / "chunk-000" / "file-000.parquet", pa.concat_tables(tables))
    meta = path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    _parquet(meta, pa.Table.from_pylist(rows))
    info = _info(size, len(rows), first)
    (path / "meta" / "info.json").write_text(json.dumps(info))
    return path


def _table(i: int, episode: Episode) -> pa.Table:
    vectors = lambda x: pa.array(list(x), pa.list_(pa.float32()))
    length = len(episode["action"])
    return pa.table(
        {
            "observation.state": vectors(episode["state"]),
            "action": vectors(episode["action"]),
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / FPS),
            "episode_index": pa.array(np.full(length, i)),
        }
    )


def _info(sizes: Mapping[str, Sequence[int]], episodes: int, frames: int) -> dict:
    feature = lambda dtype, shape: {"dtype": dtype, "shape": list(shape), "names": None}
    features = {
        "observation.state": feature("float32", sizes["state"]),
        "action": feature("float32", sizes["action"]),
        "timestamp": feature("float32", [1]),
        "episode_index": feature("int64", [1]),
    }
    if "image" in sizes:
        features[CAMERA] = feature("video", sizes["image"])
    return {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": episodes,
        "total_frames": frames,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def _parquet(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True)
    pq.write_table(table, file)


class _Film:
    """An mp4 that grows: LeRobot keeps many episodes in one."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True)
        self._container, self._stream, self._count = av.open(str(path), "w"), None, 0

    def append(self, images: np.ndarray) -> None:
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=FPS)
            self._stream.height, self._stream.width = images.shape[1:3]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"g": "2", "crf": "30"}  # as LeRobot records
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = self._count
            self._container.mux(self._stream.encode(frame))
            self._count += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
