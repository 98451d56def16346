"""Image columns: the same in memory and on disk, selected, mirrored, decoded, refused."""

import io
import os

import numpy as np
from PIL import Image
import pytest
from support.rlds_sets import refusal, rewrite
import tensorflow_datasets as tfds

from dpjax.core.errors import UserError
from dpjax.data import episodes, frames, images, rlds

LENGTHS = (5, 1, 7)
FEATURES = {"camera": "observation/camera", "action": "action"}


def random_episodes(lengths=LENGTHS, size=(6, 8), seed=0):
    rng = np.random.default_rng(seed)
    for length in lengths:
        yield {
            "camera": rng.integers(0, 256, (length, *size, 3)).astype(np.uint8),
            "action": rng.normal(size=(length, 2)).astype(np.float32),
        }


@pytest.fixture
def data(tmp_path):
    rlds.write(tmp_path / "set", random_episodes(), observations=["camera"], description="noise")
    return tmp_path / "set"


WANT = np.concatenate([episode["camera"] for episode in random_episodes()])


@pytest.mark.parametrize("memory", [2**30, 6 * 8 * 3 * 7, 0])
def test_frames_are_the_same_in_memory_and_on_disk(data, tmp_path, memory):
    read = rlds.read(data, features=FEATURES, memory=memory, folder=tmp_path)
    camera = read.columns["camera"]
    assert isinstance(camera.pixels, np.memmap) == (memory < WANT.nbytes)
    np.testing.assert_array_equal(camera.read(np.arange(13)), WANT)
    np.testing.assert_array_equal(camera.read(np.array([[12, 0]])), WANT[[[12, 0]]])
    assert os.listdir(tmp_path) == ["set"], "the file on disk has no name"
    in_memory = rlds.read(data, features=FEATURES)
    assert episodes.fingerprint(read) == episodes.fingerprint(in_memory)


def test_selecting_joining_and_mirroring_move_no_pixel(data):
    read = rlds.read(data, features=FEATURES)
    chosen = episodes.select(read, [2, 0])
    assert chosen.columns["camera"].pixels is read.columns["camera"].pixels
    want = np.concatenate([WANT[6:], WANT[:5]])
    np.testing.assert_array_equal(chosen.columns["camera"].read(np.arange(12)), want)
    both = episodes.join(chosen, chosen)
    assert both.columns["camera"].shape == (24, 6, 8, 3)
    np.testing.assert_array_equal(both.columns["camera"].read(np.arange(12, 24)), want)


def test_the_mirror_turns_the_antidiagonal_into_itself():
    square = WANT[:, :, :6]
    turned = frames.antidiagonal(square)
    np.testing.assert_array_equal(turned[:, 5 - 4, 5 - 1], square[:, 1, 4])
    np.testing.assert_array_equal(frames.antidiagonal(turned), square)
    column = frames.Frames(square, np.arange(13), np.zeros(13, bool), "")
    both = frames.join(column, frames.antidiagonal(column))
    got = both.read(np.arange(26).reshape(2, 13))
    np.testing.assert_array_equal(got, np.stack([square, turned]))


def test_a_fingerprint_sees_one_pixel_and_the_mirror(data, tmp_path):
    changed = list(random_episodes())
    changed[1]["camera"][0, 3, 3, 1] ^= 1
    rlds.write(tmp_path / "other", changed, observations=["camera"], description="noise")
    a, b = (rlds.read(path, features=FEATURES) for path in (data, tmp_path / "other"))
    camera = a.columns["camera"]
    flipped = a._replace(columns={**a.columns, "camera": frames.antidiagonal(camera)})
    assert len({episodes.fingerprint(x) for x in (a, b, flipped)}) == 3


def other(encoding):
    """A set that dpjax did not write: images of a size that is not promised, or raw."""
    if encoding == "raw":
        return tfds.features.Tensor(shape=(6, 8, 3), dtype=np.uint8)
    return tfds.features.Image(encoding_format=encoding)


@pytest.mark.parametrize("encoding", ["png", "jpeg", "raw"])
def test_other_peoples_images_are_read(tmp_path, encoding):
    smooth = np.broadcast_to(np.arange(0, 240, 30, dtype=np.uint8)[None, :, None], (4, 6, 8, 3))

    class Arms(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            step = {"observation": {"camera": other(encoding)}, "is_first": np.bool_}
            step["action"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
            features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            def coded(x):
                out = io.BytesIO()
                Image.fromarray(x).save(out, encoding, quality=95)
                return out.getvalue()

            camera = smooth if encoding == "raw" else [coded(x) for x in smooth]
            steps = {"observation": {"camera": camera}, "is_first": np.arange(4) == 0}
            yield 0, {"steps": {**steps, "action": np.zeros((4, 2), np.float32)}}

    Arms(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    got = rlds.read(tmp_path / "arms", features=FEATURES).columns["camera"].read(np.arange(4))
    np.testing.assert_allclose(got, smooth, atol=0 if encoding != "jpeg" else 6)


def frame(example, step):
    return example.features.feature["steps/observation/camera"].bytes_list.value[step]


def put(example, step, payload):
    example.features.feature["steps/observation/camera"].bytes_list.value[step] = payload


def png_of(height, width):
    return images.encode(np.zeros((height, width, 3), np.uint8))


SPOILED = {
    "cut": (lambda e: put(e[2], 3, frame(e[2], 3)[:40]), "step 3: not an image"),
    "bits": (lambda e: put(e[2], 3, b"no image at all"), "step 3: not an image"),
    "size": (lambda e: put(e[2], 3, png_of(8, 6)), "step 3: expected 6 x 8 px, got 8 x 6"),
    "bomb": (lambda e: put(e[2], 3, png_of(3000, 3000)), "expected 6 x 8 px, got 3000 x 3000"),
    "fewer": (
        lambda e: e[2].features.feature["steps/observation/camera"].bytes_list.value.pop(),
        "expected one number of steps for all keys",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_frame_is_named_and_its_episode_can_be_left_out(data, name, caplog):
    change, fault = SPOILED[name]
    rewrite(data, change)
    line = refusal(data, features=FEATURES)
    assert "episode 2, " in line and fault in line
    read = rlds.read(data, features=FEATURES, on_bad="skip")
    np.testing.assert_array_equal(read.columns["camera"].read(np.arange(6)), WANT[:6])
    assert "skipped 1 bad of 3 episodes" in caplog.text


@pytest.mark.parametrize("camera, fault", [
    (np.zeros((4, 3, 8, 8), np.uint8), "got uint8 [3, 8, 8]: channels come last"),
    (np.zeros((4, 8, 8, 4), np.uint8), "expected uint8 [H, W, 3], got uint8 [8, 8, 4]"),
    (np.zeros((4, 8), np.uint8), "expected uint8 [H, W, 3], got uint8 [8]"),
])  # fmt: skip
def test_what_is_not_an_image_is_not_written(tmp_path, camera, fault):
    episode = {"camera": camera, "action": np.zeros((4, 2), np.float32)}
    with pytest.raises(UserError) as caught:
        rlds.write(tmp_path / "x", [episode], observations=["camera"], description="")
    assert fault in str(caught.value) and "episode 0, camera: " in str(caught.value)


@pytest.mark.parametrize("values, good", [
    ([0, 7, 255], True), ([0.5], False), ([256], False), ([-1], False), ([np.nan], False),
])  # fmt: skip
def test_pixels_are_whole_numbers_from_0_to_255(values, good):
    got = images.as_pixels(np.array(values, np.float32))
    assert (got is not None) == good
    if good:
        assert got.dtype == np.uint8 and got.tolist() == values
