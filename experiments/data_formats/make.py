"""Writes episodes in the formats that dpjax.convert reads: the sources of the experiment."""

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
    """Writes an HDF5 file, uncompressed, as robomimic does."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        environment = {"env_name": "PushT", "env_kwargs": {"control_freq": FPS}}
        data.attrs["env_args"] = json.dumps(environment)
        for i, episode in enumerate(tqdm(episodes, desc="writing robomimic")):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(episode["action"])
            demo["actions"] = episode["action"]
            for key in episode.keys() - {"action"}:
                demo[f"obs/{key}"] = episode[key]
    return path


def arrays(path: Path, episodes: Iterable[Episode]) -> Path:
    """Writes one .npz file per episode, uncompressed."""
    path.mkdir()
    for i, episode in enumerate(tqdm(episodes, desc="writing arrays")):
        np.savez(path / f"episode_{i}.npz", **episode)
    return path


def lerobot(path: Path, episodes: Iterable[Episode]) -> Path:
    """Writes a LeRobot v3.0 data set: one Parquet file and one H.264 video for all episodes."""
    tables = []
    rows = []
    first = 0  # index of the episode's first step in the data set
    video = None
    for i, episode in enumerate(tqdm(episodes, desc="writing lerobot")):
        length = len(episode["action"])
        tables.append(_table(i, episode))
        row = {"episode_index": i, "tasks": ["push the T onto its target"], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        if "image" in episode:
            video = video or _Video(path / "videos" / CAMERA / "chunk-000" / "file-000.mp4")
            video.append(episode["image"])
            prefix = f"videos/{CAMERA}"
            row |= {f"{prefix}/chunk_index": 0, f"{prefix}/file_index": 0}
            row |= {f"{prefix}/from_timestamp": first / FPS}
        rows.append(row)
        first += length
        sizes = {key: x.shape[1:] for key, x in episode.items()}
    if video:
        video.close()
    _write_parquet(path / "data" / "chunk-000" / "file-000.parquet", pa.concat_tables(tables))
    meta = path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    _write_parquet(meta, pa.Table.from_pylist(rows))
    info = _info(sizes, len(rows), first)
    (path / "meta" / "info.json").write_text(json.dumps(info))
    return path


def _table(i: int, episode: Episode) -> pa.Table:
    """The rows of episode i."""
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
    """The content of info.json. sizes: {key: shape of a step}."""
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


def _write_parquet(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True)
    pq.write_table(table, file)


class _Video:
    """An mp4 that is written image by image: LeRobot v3 has many episodes in one."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True)
        self._container = av.open(str(path), "w")
        self._stream = None
        self._count = 0  # frames written so far

    def append(self, images: np.ndarray) -> None:
        """Adds images [T, H, W, 3]; the first ones decide the video's size."""
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
        """Writes what the encoder still holds."""
        self._container.mux(self._stream.encode())
        self._container.close()
