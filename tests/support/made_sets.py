"""Small data sets in other people's formats, to convert and to spoil."""

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


def episodes(lengths=LENGTHS, seed=0):
    """{state [T, 4], action [T, 7], camera [T, 6, 4, 3] uint8, count [T] int64} an episode."""
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
    """The episodes {column: [T, ...]} of a converted set, in which count is a float."""
    features = {key: "action" if key == "action" else f"observation/{key}" for key in names}
    return list(rlds.stream(out, features=features))


def as_written(episode):
    """An episode as it must come back."""
    return {**episode, "count": episode["count"].astype(np.float32)[:, None]}


def assert_same(found, made, names):
    """Every episode, key by key, bit for bit."""
    assert len(found) == len(made)
    for there, here in zip(found, made):
        for key in names:
            assert there[key].dtype == here[key].dtype
            np.testing.assert_array_equal(there[key], here[key])


# zarr


def put(path, array, chunks=None, **options):
    """One zarr v2 array, every chunk of it written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = zarr.create_array(
        store=str(path),
        shape=array.shape,
        chunks=chunks or (32, *array.shape[1:]),
        dtype=array.dtype,
        zarr_format=2,
        config={"write_empty_chunks": True},
        **options,
    )
    made[...] = array


def write_zarr(root, made=None, chunks=None, **options):
    """A replay buffer in a directory."""
    made = made or episodes()
    for key in made[0]:
        column = np.concatenate([episode[key] for episode in made])
        put(root / "data" / key, column, chunks and (chunks, *column.shape[1:]), **options)
    put(root / "meta" / "episode_ends", np.cumsum([len(e["action"]) for e in made]))
    return root


def write_zip(path, folder):
    """The same in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


# robomimic

ENV = {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}


def write_robomimic(path, made=None, names=None, obs=("state", "camera", "count")):
    """An HDF5 file with the filter keys "train" and "valid"."""
    made = made or episodes()
    names = names or [f"demo_{i}" for i in range(len(made))]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV)
        data.attrs["total"] = sum(len(episode["action"]) for episode in made)
        for name, episode in zip(names, made):
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


def write_npz(root, made=None, save=np.savez):
    root.mkdir()
    for i, episode in enumerate(made or episodes()):
        save(root / f"episode_{i}.npz", **episode)
    return root


def write_npy(root, made=None):
    for i, episode in enumerate(made or episodes()):
        (root / f"episode_{i}").mkdir(parents=True)
        for key, x in episode.items():
            np.save(root / f"episode_{i}" / f"{key}.npy", x)
    return root


# LeRobot


def frames(lengths=LENGTHS):
    """[T, 24, 32, 3] an episode; every frame of one colour, which no other frame has."""
    levels = iter(range(5, 255, 10))
    shade = lambda: np.full((*SIZE, 3), (next(levels), 60, 120), np.uint8)
    return [np.stack([shade() for _ in range(n)]) for n in lengths]


def write_video(path, images, fps=FPS, codec="libx264", times=None):
    """An mp4 of frames [T, H, W, 3]."""
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


def _info(root, version, made, paths, video):
    lengths = [len(episode["action"]) for episode in made]
    info = {
        "codebase_version": version,
        "fps": FPS,
        "total_episodes": len(made),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "features": _features(video),
        **paths,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return np.cumsum([0, *lengths])


def write_lerobot_v2(root, made=None, video=True, codec="libx264"):
    """A file an episode, v2.1."""
    made = made or episodes()
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    starts = _info(root, "v2.1", made, paths, video)
    (root / "data" / "chunk-000").mkdir(parents=True)
    lines = []
    films = frames([len(episode["action"]) for episode in made]) if video else []
    for i, episode in enumerate(made):
        name = f"chunk-000/episode_{i:06d}.parquet"
        pq.write_table(_table(i, int(starts[i]), episode), root / "data" / name)
        lines.append({"episode_index": i, "tasks": [f"task {i}"], "length": len(episode["action"])})
        if video:
            folder = root / "videos" / "chunk-000" / "observation.images.top"
            write_video(folder / f"episode_{i:06d}.mp4", films[i], codec=codec)
    text = "\n".join(json.dumps(line) for line in lines)
    (root / "meta" / "episodes.jsonl").write_text(text + "\n")
    return root


def write_lerobot_v3(root, made=None, video=True, codec="libx264", row_group_size=None):
    """Two files of data and of video, v3.0: two episodes in the first, the rest in the second."""
    made = made or episodes()
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    starts = _info(root, "v3.0", made, paths, video)
    films = frames([len(episode["action"]) for episode in made]) if video else []
    rows = []
    for number, ids in enumerate([range(2), range(2, len(made))]):
        tables = [_table(i, int(starts[i]), made[i]) for i in ids]
        file = root / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), file, row_group_size=row_group_size)
        if video:
            folder = root / "videos" / "observation.images.top" / "chunk-000"
            joined = np.concatenate([films[i] for i in ids])
            write_video(folder / f"file-{number:03d}.mp4", joined, codec=codec)
        for i in ids:
            begin = int(starts[i] - starts[ids[0]])
            row = {"episode_index": i, "tasks": [f"task {i}"], "length": len(made[i]["action"])}
            row |= {"data/chunk_index": 0, "data/file_index": number}
            if video:
                at = "videos/observation.images.top"
                row |= {f"{at}/chunk_index": 0, f"{at}/file_index": number}
                row |= {f"{at}/from_timestamp": begin / FPS}
            rows.append(row)
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return root
