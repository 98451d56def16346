"""Small data sets in the formats that dpjax.convert reads, to convert and to spoil."""

import json
import zipfile

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from dpjax.data import rlds

LENGTHS = (5, 12, 7)
FPS = 10
SIZE = (24, 32)  # of the videos, px


def make_episodes(lengths=LENGTHS, seed=0):
    """{state [T, 4], action [T, 7], camera [T, 6, 4, 3] uint8, count [T] int64} per episode."""
    rng = np.random.default_rng(seed)
    return [
        {
            "state": rng.normal(size=(n, 4)).astype(np.float32),
            "action": rng.uniform(-1, 1, (n, 7)).astype(np.float32),
            "camera": rng.integers(0, 256, (n, 6, 4, 3), np.uint8),
            "count": np.arange(n, dtype=np.int64),
        }
        for n in lengths
    ]


def converted(out, names):
    """The episodes {column: [T, ...]} of a converted data set; its count is a float."""
    features = {key: "action" if key == "action" else f"observation/{key}" for key in names}
    return list(rlds.stream(out, features=features))


def as_written(episode):
    """An episode as it must be in the converted data set."""
    return {**episode, "count": episode["count"].astype(np.float32)[:, None]}


def assert_same(got, expected, names):
    """Checks that two lists of episodes are equal, key by key, bit for bit."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        for key in names:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key])


# zarr


def put(path, array, chunks=None, **options):
    """Writes a zarr v2 array, also those of its chunks that are all zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = zarr.create_array(
        store=str(path),
        shape=array.shape,
        chunks=chunks or (32, *array.shape[1:]),
        dtype=array.dtype,
        zarr_format=2,
        config={"write_empty_chunks": True},
        **options,
    )
    stored[...] = array


def write_zarr(root, episodes=None, chunks=None, **options):
    """Writes a replay buffer in a directory. chunks: steps per chunk."""
    episodes = episodes or make_episodes()
    for key in episodes[0]:
        column = np.concatenate([episode[key] for episode in episodes])
        put(root / "data" / key, column, chunks and (chunks, *column.shape[1:]), **options)
    put(root / "meta" / "episode_ends", np.cumsum([len(episode["action"]) for episode in episodes]))
    return root


def write_zip(path, folder):
    """Writes the files of a folder into a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


# robomimic

ENV = {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}


def write_robomimic(path, episodes=None, names=None, obs=("state", "camera", "count")):
    """Writes an HDF5 file with the filter keys "train" and "valid"."""
    episodes = episodes or make_episodes()
    names = names or [f"demo_{i}" for i in range(len(episodes))]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV)
        data.attrs["total"] = sum(len(episode["action"]) for episode in episodes)
        for name, episode in zip(names, episodes):
            demo = data.create_group(name)
            demo.attrs["num_samples"] = len(episode["action"])
            demo["actions"] = episode["action"]
            demo["rewards"] = np.zeros(len(episode["action"]))
            for key in obs:
                demo[f"obs/{key}"] = episode[key]
                demo[f"next_obs/{key}"] = episode[key]
        file["mask/train"] = np.array([name.encode() for name in names[:-1]])
        file["mask/valid"] = np.array([name.encode() for name in names[-1:]])
    return path


# arrays


def write_npz(root, episodes=None, save=np.savez):
    """Writes one .npz file per episode."""
    root.mkdir()
    for i, episode in enumerate(episodes or make_episodes()):
        save(root / f"episode_{i}.npz", **episode)
    return root


def write_npy(root, episodes=None):
    """Writes one folder of .npy files per episode."""
    for i, episode in enumerate(episodes or make_episodes()):
        (root / f"episode_{i}").mkdir(parents=True)
        for key, x in episode.items():
            np.save(root / f"episode_{i}" / f"{key}.npy", x)
    return root


# LeRobot


def make_frames(lengths=LENGTHS):
    """[T, 24, 32, 3] per episode; each frame has one colour, which no other frame has."""
    levels = iter(range(5, 255, 10))
    shade = lambda: np.full((*SIZE, 3), (next(levels), 60, 120), np.uint8)
    return [np.stack([shade() for _ in range(n)]) for n in lengths]


def write_video(path, images, fps=FPS, codec="libx264", times=None):
    """Writes an mp4 of frames [T, H, W, 3]. times: of the frames, in units of 1/fps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10"}
        for t, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = t if times is None else times[t]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _features(video):
    """The "features" of info.json."""
    number = lambda dtype, n: {"dtype": dtype, "shape": [n], "names": None}
    features = {
        "observation.state": number("float32", 4),
        "action": number("float32", 7),
        "next.reward": number("float32", 1),
        "timestamp": number("float32", 1),
        "frame_index": number("int64", 1),
        "episode_index": number("int64", 1),
        "index": number("int64", 1),
        "task_index": number("int64", 1),
    }
    if video:
        features["observation.images.top"] = {
            "dtype": "video",
            "shape": [*SIZE, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.is_depth_map": False},
        }
    return features


def _table(index, first, episode):
    """The table of one episode. first: index of its first step in the data set."""
    length = len(episode["action"])
    vectors = lambda x: pa.array(list(x), pa.list_(pa.float32()))
    return pa.table(
        {
            "observation.state": vectors(episode["state"]),
            "action": vectors(episode["action"]),
            "next.reward": pa.array(np.zeros(length, np.float32)),
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / FPS),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array(np.full(length, index)),
            "index": pa.array(first + np.arange(length)),
            "task_index": pa.array(np.zeros(length, np.int64)),
        }
    )


def _write_info(root, version, episodes, paths, video):
    """Writes info.json; returns the index of each episode's first step, and of the end."""
    lengths = [len(episode["action"]) for episode in episodes]
    info = {
        "codebase_version": version,
        "fps": FPS,
        "total_episodes": len(episodes),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "features": _features(video),
        **paths,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return np.cumsum([0, *lengths])


def write_lerobot_v2(root, episodes=None, video=True, codec="libx264"):
    """Writes a data set v2.1: one file per episode."""
    episodes = episodes or make_episodes()
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    starts = _write_info(root, "v2.1", episodes, paths, video)
    (root / "data" / "chunk-000").mkdir(parents=True)
    lines = []
    films = make_frames([len(episode["action"]) for episode in episodes]) if video else []
    for i, episode in enumerate(episodes):
        name = f"chunk-000/episode_{i:06d}.parquet"
        pq.write_table(_table(i, int(starts[i]), episode), root / "data" / name)
        lines.append({"episode_index": i, "tasks": [f"task {i}"], "length": len(episode["action"])})
        if video:
            folder = root / "videos" / "chunk-000" / "observation.images.top"
            write_video(folder / f"episode_{i:06d}.mp4", films[i], codec=codec)
    text = "\n".join(json.dumps(line) for line in lines)
    (root / "meta" / "episodes.jsonl").write_text(text + "\n")
    return root


def write_lerobot_v3(root, episodes=None, video=True, codec="libx264", row_group_size=None):
    """Writes a data set v3.0 of two files: two episodes in the first, the rest in the second."""
    episodes = episodes or make_episodes()
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    starts = _write_info(root, "v3.0", episodes, paths, video)
    films = make_frames([len(episode["action"]) for episode in episodes]) if video else []
    rows = []
    for number, ids in enumerate([range(2), range(2, len(episodes))]):
        tables = [_table(i, int(starts[i]), episodes[i]) for i in ids]
        file = root / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), file, row_group_size=row_group_size)
        if video:
            folder = root / "videos" / "observation.images.top" / "chunk-000"
            joined = np.concatenate([films[i] for i in ids])
            write_video(folder / f"file-{number:03d}.mp4", joined, codec=codec)
        for i in ids:
            start = int(starts[i] - starts[ids[0]])  # in steps from the start of its file
            row = {"episode_index": i, "tasks": [f"task {i}"], "length": len(episodes[i]["action"])}
            row |= {"data/chunk_index": 0, "data/file_index": number}
            if video:
                at = "videos/observation.images.top"
                row |= {f"{at}/chunk_index": 0, f"{at}/file_index": number}
                row |= {f"{at}/from_timestamp": start / FPS}
            rows.append(row)
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return root
