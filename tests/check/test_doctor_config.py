"""What the doctor says of a config, and of columns that cannot be read."""

import numpy as np
import pytest
from support import doctor_cases as cases

from dpjax.check.rules import config
from dpjax.data.rlds.reader import Feature


def test_what_training_would_refuse_is_an_error_with_its_remedy():
    refusal = "config.train.batch=7 is not divisible by 2 devices: use a multiple of 2."
    finding = cases.only(config.refusal(cases.case(refusal=refusal)))
    assert finding.severity == "error" and finding.reason == refusal.rstrip(".")
    assert not config.refusal(cases.case())


FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)


@pytest.mark.parametrize(
    "feature, words",
    [
        (Feature((3,), FLOAT), None),
        (Feature((96, 96, 3), BYTE), None),
        (Feature((), np.dtype(object), False), "cast it to float32"),
        (Feature((3, 96, 96), BYTE, False), "channels last"),
        (Feature((96, 96, 3), FLOAT, False), "from 0 to 255"),
        (Feature((3, 96, 96), FLOAT, False), "transpose(1, 2, 0)), make the pixels"),
    ],
)
def test_a_column_that_cannot_be_read_is_an_error_that_says_how_to_convert(feature, words):
    features = {"observation/state": feature, "action": Feature((2,), FLOAT)}
    found = config.unreadable_columns(cases.case(features=features))
    if words is None:
        assert not found
        return
    finding = cases.only(found)
    assert finding.severity == "error" and words in finding.remedy
    assert "config.data.columns.state='observation/state'" in finding.reason


def test_a_column_that_is_missing_is_named_with_those_that_are_there():
    features = {"action": Feature((2,), FLOAT), "observation/pose": Feature((3,), FLOAT)}
    finding = cases.only(config.unreadable_columns(cases.case(features=features)))
    assert "is not in the data" in finding.reason and "observation/pose" in finding.remedy
    given = cases.config()
    given.data.columns.state = "observation/pose+observation/grip"
    made = cases.case(given=given, features=features)
    finding = cases.only(config.unreadable_columns(made))
    assert "'observation/grip' of 'observation/pose+" in finding.reason


def test_what_is_not_used_is_noted_and_an_image_that_cannot_be_is_a_warning():
    features = {"action": Feature((2,), FLOAT), "observation/state": Feature((3,), FLOAT)}
    assert not config.unused(cases.case(features=features))
    features["observation/force"] = Feature((6,), FLOAT)
    finding = cases.only(config.unused(cases.case(features=features)))
    assert finding.severity == "note" and "observation/force" in finding.reason
    features["observation/wrist"] = Feature((3, 64, 64), BYTE, False)
    warning, note = config.unused(cases.case(features=features))
    assert "observation/wrist" in warning.reason and warning.severity == "warning"
    assert "wrist" not in note.reason


def with_camera(**camera):
    """The case whose config has such a camera."""
    given = cases.config()
    given.cameras.cam = cases.ConfigDict(dict(size=(480, 640), resize=(), crop=()) | camera)
    return cases.case()._replace(config=given)


def test_a_crop_that_leaves_most_of_the_image_out_is_named():
    finding = cases.only(config.crops(with_camera(crop=(84, 84))))
    assert "2.3%" in finding.reason
    assert "config.cameras.cam.resize=(93, 124)" in finding.remedy
    assert not config.crops(with_camera(crop=(84, 84), resize=(93, 124)))
    assert not config.crops(with_camera())


def test_a_resize_to_another_shape_is_noted():
    assert "1.33" in cases.only(config.squeezed(with_camera(resize=(96, 96)))).reason
    assert not config.squeezed(with_camera(resize=(96, 128)))


def test_imagenets_weights_want_imagenets_units():
    made = with_camera()
    made.config.encoder.weights = "resnet18.safetensors"
    assert cases.only(config.pretrained(made)).remedy == "config.normalize.image=imagenet"
    made.config.normalize.image = "imagenet"
    assert not config.pretrained(made)


@pytest.mark.parametrize(
    "rule, key, bad, good",
    [
        (config.batch, "train__batch", 1024, 888),
        (config.warmup, "optim__warmup", 300, 100),
        (config.epochs, "train__steps", 100, 600),
    ],
)
def test_numbers_that_do_not_fit_the_data_are_named(rule, key, bad, good):
    finding = cases.only(rule(cases.case(given=cases.config(**{key: bad}))))
    assert finding.severity == "warning" and "config." in finding.remedy
    assert not rule(cases.case(given=cases.config(**{key: good})))


def test_meanflow_with_the_time_of_other_methods_is_named():
    given = cases.config(method="meanflow", schedule__num_levels=100)
    assert "num_levels=1" in cases.only(config.levels(cases.case(given=given))).remedy
    given = cases.config(method="meanflow", schedule__num_levels=1)
    assert not config.levels(cases.case(given=given))
    assert not config.levels(cases.case(given=cases.config(schedule__num_levels=100)))
