"""Sets as Open X-Embodiment has them: dicts of actions, scalars, integers, text, JPEGs."""

import io
import json
import logging

from array_record.python.array_record_module import ArrayRecordReader
import numpy as np
from PIL import Image
import pytest
from support.rlds_sets import refusal
import tensorflow_datasets as tfds

from dpjax.config import dataset, recipes, sources
from dpjax.data import rlds
from dpjax.data.rlds import reader, records

LENGTHS = (4, 9, 6)


def jpeg(rng):
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).save(out, "jpeg", quality=95)
    return out.getvalue()


def steps(e):
    """One episode {path: [T, ...]}, integers and float64 among it."""
    rng, length = np.random.default_rng(e), LENGTHS[e]
    return {
        "observation": {
            "image": [jpeg(rng) for _ in range(length)],
            "depth": [jpeg(rng) for _ in range(length)],
            "arm": {"joints": rng.normal(size=(length, 7)), "moving": rng.random(length) < 0.5},
            "gripper": rng.normal(size=length).astype(np.float32),
            "tool": rng.integers(0, 200, (length, 2)).astype(np.int32),
        },
        "action": {
            "world_vector": rng.normal(size=(length, 3)).astype(np.float32),
            "rotation_delta": rng.normal(size=(length, 3)).astype(np.float32),
            "gripper": rng.integers(-1, 2, (length, 1)),
        },
        "language_instruction": ["put the cup down"] * length,
        "reward": np.zeros(length, np.float32),
        "is_last": np.arange(length) == length - 1,
    }


def features():
    one = tfds.features
    image = one.Image(shape=(8, 12, 3), encoding_format="jpeg")
    return one.FeaturesDict({
        "steps": one.Dataset({
            "observation": {
                "image": image,
                "depth": one.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "arm": {"joints": one.Tensor(shape=(7,), dtype=np.float64), "moving": np.bool_},
                "gripper": one.Scalar(dtype=np.float32),
                "tool": one.Tensor(shape=(2,), dtype=np.int32),
            },
            "action": {
                "world_vector": one.Tensor(shape=(3,), dtype=np.float32),
                "rotation_delta": one.Tensor(shape=(3,), dtype=np.float32),
                "gripper": one.Tensor(shape=(1,), dtype=np.int64),
            },
            "language_instruction": one.Text(),
            "reward": np.float32,
            "is_last": np.bool_,
        }),
        "episode_metadata": {"file_path": one.Text()},
    })  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set as a tfds builder writes it, its file framed as tfrecord afterwards."""

    class Arm(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("0.1.0")
        name = "arm"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for e in range(len(LENGTHS)):
                yield e, {"steps": steps(e), "episode_metadata": {"file_path": str(e)}}

    root = tmp_path_factory.mktemp("oxe")
    Arm(data_dir=str(root), file_format="array_record").download_and_prepare()
    (old,) = (root / "arm" / "0.1.0").glob("*.array_record*")
    raw = ArrayRecordReader(str(old)).read_all()
    new = old.with_name(old.name.replace("array_record", "tfrecord"))
    new.write_bytes(b"".join(map(records.frame, raw)))
    old.unlink()
    info = root / "arm" / "0.1.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return root / "arm"


def read(data, **paths):
    return rlds.read(data, features=paths).columns


def stacked(*keys):
    columns = []
    for e in range(len(LENGTHS)):
        x = steps(e)
        for key in keys:
            x = x[key]
        columns.append(x)
    return np.concatenate(columns)


def test_nested_float64_is_read_as_float32(data, caplog):
    with caplog.at_level(logging.WARNING, "dpjax"):
        columns = read(data, joints="observation/arm/joints")
    want = stacked("observation", "arm", "joints").astype(np.float32)
    np.testing.assert_array_equal(columns["joints"], want)
    assert "observation/arm/joints is float64: cast to float32" in caplog.text


def test_integers_flags_and_scalars_become_vectors_of_float32(data):
    columns = read(
        data,
        tool="observation/tool",
        moving="observation/arm/moving",
        gripper="observation/gripper",
        last="is_last",
    )
    for name, keys in {
        "tool": ("observation", "tool"),
        "moving": ("observation", "arm", "moving"),
        "gripper": ("observation", "gripper"),
        "last": ("is_last",),
    }.items():
        want = stacked(*keys).astype(np.float32)
        want = want[:, None] if want.ndim == 1 else want
        assert columns[name].dtype == np.float32
        np.testing.assert_array_equal(columns[name], want)


def test_images_of_a_promised_size_and_of_none(data):
    columns = read(
        data, image="observation/image", other="observation/depth", state="observation/gripper"
    )
    raw = [x for e in range(len(LENGTHS)) for x in steps(e)["observation"]["image"]]
    want = np.stack([np.asarray(Image.open(io.BytesIO(x))) for x in raw])
    np.testing.assert_array_equal(columns["image"].read(np.arange(19)), want)
    assert columns["other"].shape == (19, 8, 12, 3)


def test_parts_of_a_dict_are_joined_in_the_order_that_is_asked_for(data):
    paths = "action/rotation_delta+action/world_vector+action/gripper"
    columns = read(data, action=paths)
    parts = [stacked("action", key) for key in ("rotation_delta", "world_vector", "gripper")]
    np.testing.assert_array_equal(columns["action"], np.concatenate(parts, 1).astype(np.float32))


def test_what_cannot_be_read_is_named(data):
    line = refusal(data, features={"action": "action"})
    assert "no key 'action'; it is a dict, join what it holds: action/gripper+action/rot" in line
    line = refusal(data, features={"x": "language_instruction"})
    assert "language_instruction: expected numbers of fixed shape or uint8 images" in line
    line = refusal(data, features={"x": "observation/gripper+observation/image"})
    assert "only vectors are joined, and steps/observation/image has shape (8, 12, 3)" in line
    line = refusal(data, features={"x": "observation/gripper+observation/grippr"})
    assert "did you mean 'observation/gripper'" in line


def test_what_a_policy_may_observe_excludes_flags_rewards_and_text(data):
    assert set(reader.usable(data)) == {
        *(f"observation/{key}" for key in ("image", "depth", "gripper", "tool")),
        *("observation/arm/joints", "observation/arm/moving"),
        *(f"action/{key}" for key in ("world_vector", "rotation_delta", "gripper")),
    }


def test_integers_beyond_float32_are_refused(tmp_path):
    def change(e):
        tool = steps(e)["observation"]["tool"].astype(np.int64)
        tool[1, 1] = 2**24 + 1
        return tool

    class Far(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("0.1.0")
        name = "far"

        def _info(self):
            step = {"tool": tfds.features.Tensor(shape=(2,), dtype=np.int64)}
            names = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
            return tfds.core.DatasetInfo(builder=self, features=names, disable_shuffling=True)

        def _split_generators(self, _):
            return {"train": ((e, {"steps": {"tool": change(e)}}) for e in range(2))}

        def _generate_examples(self):
            raise NotImplementedError

    Far(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    line = refusal(tmp_path / "far", features={"tool": "tool"})
    assert "episode 0, steps/tool: expected integers that float32 has, got 16777217" in line


def write_odd(root):
    """A set whose steps hold what no column can be read from, beside a state and keypoints."""
    one = tfds.features
    step = {
        "observation": {
            "state": one.Tensor(shape=(2,), dtype=np.float32),
            "keypoints": one.Tensor(shape=(9, 2), dtype=np.float32),
            "packed": one.Tensor(shape=(3,), dtype=np.float32, encoding="zlib"),
            "depth": one.Tensor(shape=(40, 50), dtype=np.float32),
            "text": one.Text(),
        },
        "action": one.Tensor(shape=(1, 3), dtype=np.float32),
        "reward": np.float32,
    }
    names = one.FeaturesDict(
        {"steps": one.Dataset(step), "episode_metadata": {"operator": one.Text()}, "id": np.int64}
    )

    def episode(e):
        rng = np.random.default_rng(e)
        number = lambda *shape: rng.normal(size=(LENGTHS[e], *shape)).astype(np.float32)
        observation = {"state": number(2), "keypoints": number(9, 2), "packed": number(3)}
        observation |= {"depth": number(40, 50), "text": ["go"] * LENGTHS[e]}
        steps = {"observation": observation, "action": number(1, 3), "reward": number()}
        return {"steps": steps, "episode_metadata": {"operator": "me"}, "id": e}

    class Odd(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("0.1.0")
        name = "odd"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=names, disable_shuffling=True)

        def _split_generators(self, _):
            return {"train": ((e, episode(e)) for e in range(len(LENGTHS)))}

        def _generate_examples(self):
            raise NotImplementedError

    Odd(data_dir=str(root), file_format="array_record").download_and_prepare()
    # Lists of dicts are written with TensorFlow only; here they are declared, and not there.
    step["observation"]["objects"] = one.Sequence({"size": np.float32})
    names = one.FeaturesDict({**names, "steps": one.Dataset(step)})
    names.save_config(str(root / "odd" / "0.1.0"))
    return root / "odd", [episode(e)["steps"] for e in range(len(LENGTHS))]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return write_odd(tmp_path_factory.mktemp("odd"))


def test_what_no_column_is_read_from_is_listed(odd, caplog):
    """Fields of steps and of episodes, in nested dicts, and of types that can't be read."""
    directory, _ = odd
    assert reader.usable(directory) == {
        "observation/state": (2,),
        "observation/keypoints": (9, 2),
        "action": (1, 3),
    }
    read(directory, state="observation/state", action="action")
    lines = [line.message for line in caplog.records if "left out" in line.message]
    (unnamed,) = [line for line in lines if "no column is read" in line]
    assert "observation/depth, observation/keypoints, reward:" in unnamed
    (unreadable,) = [line for line in lines if "neither numbers" in line]
    assert "observation/objects, observation/packed, observation/text:" in unreadable
    (episode,) = [line for line in lines if "of an episode" in line]
    assert "episode_metadata/operator, id:" in episode or "id, episode_metadata/" in episode


def test_compressed_numbers_and_lists_of_dicts_are_refused_where_they_are_wanted(odd):
    directory, _ = odd
    line = refusal(directory, features={"x": "observation/packed"})
    assert "got Tensor of float32 (3,), zlib" in line
    line = refusal(directory, features={"x": "observation/objects"})
    assert "got Sequence of size" in line


def test_matrices_are_flattened_for_training_and_said(odd, caplog):
    directory, steps = odd
    config = recipes.load("custom")
    config.data.dir = str(directory)
    config.data.val_fraction = 0.0
    config = sources.resolved(config)
    assert "keypoints" in config.data.columns and "depth" not in config.data.columns
    columns = dataset.read(config).train.columns
    for key, x in (("keypoints", "observation"), ("action", None)):
        parts = [np.asarray(e[x][key] if x else e[key]) for e in steps]
        want = np.concatenate([part.reshape(len(part), -1) for part in parts])
        np.testing.assert_array_equal(columns[key], want)
    assert "keypoints: [9, 2] per step is flattened" in caplog.text
    assert "action: [1, 3] per step is flattened" in caplog.text
