"""What a message must hold: names, shapes, dtypes, images, and one line for what does not fit."""

import io

import numpy as np
from PIL import Image
import pytest
from support import serving

from dpjax.core.errors import UserError
from dpjax.serving import contract as contracts

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
GOOD = {"state": serving.STATE, "image": PIXELS}


def read(shapes=serving.IMAGES, names=None, **values):
    contract = serving.contract(shapes, names=names or {})
    return contracts.read(contract, contracts.flatten(values))


def encoded(kind, pixels=PIXELS):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("name", ["state", "observation/state", "robot/joints"])
def test_a_column_has_its_name_its_path_and_other_names(name):
    obs, ignored = read(
        serving.SHAPES, {"robot/joints": "state"}, **{name: [1, 2, 3], "prompt": "x"}
    )
    np.testing.assert_array_equal(obs["state"], [[1, 2, 3]])
    assert obs["state"].dtype == np.float32 and ignored == ["prompt"]


def test_maps_in_maps_are_paths():
    obs, _ = read(serving.SHAPES, observation={"state": serving.STATE})
    np.testing.assert_array_equal(obs["state"], [serving.STATE])


def test_a_first_axis_of_to_steps_is_the_history():
    history = np.arange(6.0).reshape(2, 3)
    obs, _ = read(serving.SHAPES, state=history)
    np.testing.assert_array_equal(obs["state"], history)


@pytest.mark.parametrize("kind", ["array", "png"])
def test_images_come_as_pixels_or_files(kind):
    image = PIXELS if kind == "array" else encoded(kind)
    obs, _ = read(state=serving.STATE, image=image)
    np.testing.assert_array_equal(obs["image"], PIXELS[None])


def test_a_jpeg_is_close():
    flat = np.full((8, 6, 3), 100, np.uint8)
    obs, _ = read(state=serving.STATE, image=encoded("jpeg", flat))
    assert np.abs(obs["image"].astype(int) - 100).max() <= 2


NAN = np.array([1, np.nan, 3], np.float32)
WRONG = {
    "missing": ({"image": PIXELS, "stat": NAN}, "'state' is missing.*stat.*did you mean"),
    "twice": ({**GOOD, "observation/state": NAN}, "given twice"),
    "size": ({**GOOD, "state": [1.0, 2.0]}, "has 2 numbers.*trained on 3"),
    "dims": ({**GOOD, "state": np.zeros((1, 2, 3))}, r"float64 \[1, 2, 3\]"),
    "text": ({**GOOD, "state": "up"}, "type str"),
    "ragged": ({**GOOD, "state": [[1], [1, 2]]}, "type list"),
    "complex": ({**GOOD, "state": np.zeros(3, complex)}, "complex128"),
    "nan": ({**GOOD, "state": NAN}, r"'state'\[1\] is nan"),
    "infinite": ({**GOOD, "state": [1.0, 2.0, np.inf]}, r"'state'\[2\] is inf"),
    "too large for float32": ({**GOOD, "state": [1e300, 2.0, 3.0]}, "is inf"),
    "steps": ({**GOOD, "state": np.zeros((3, 3))}, "last To = 2 steps"),
    "history of one": ({**GOOD, "state": np.zeros((2, 3))}, "steps {'state': 2, 'image': 1}"),
    "floats": ({**GOOD, "image": PIXELS / 255}, r"uint8 \[8, 6, 3\].*float64.*uint8 values"),
    "colours first": ({**GOOD, "image": PIXELS.transpose(2, 0, 1)}, "colours to the end"),
    "image too large": (
        {**GOOD, "image": np.zeros((16, 12, 3), np.uint8)},
        r"\[16, 12, 3\].*resize",
    ),
    "file too large": (
        {**GOOD, "image": encoded("png", np.zeros((9, 6, 3), np.uint8))},
        "8 x 6.*9 x 6",
    ),
    "file cut off": ({**GOOD, "image": encoded("png")[:60]}, "not an image"),
    "bytes": ({**GOOD, "image": b"GIF89a"}, "type bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line(case):
    values, message = WRONG[case]
    with np.errstate(over="ignore"), pytest.raises(UserError, match=message) as error:
        read(**values)
    assert "\n" not in str(error.value)


def test_the_size_of_messages_follows_from_the_images():
    small = serving.contract(serving.SHAPES)
    assert small.max_bytes == 1 << 20
    shape = {"image": np.zeros((2, 480, 640, 3), np.uint8)}
    assert serving.contract(shape).max_bytes > 2 * 480 * 640 * 3


def test_the_metadata_names_sizes():
    described = contracts.describe(serving.contract(serving.IMAGES))
    assert described == {
        "state": {"shape": [3], "dtype": "float32"},
        "image": {"shape": [8, 6, 3], "dtype": "uint8"},
    }
