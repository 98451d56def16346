"""What the check finds about the config, and about columns that cannot be read."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import config
from dpjax.data.rlds.reader import Feature

FLOAT = np.dtype(np.float32)
BYTE = np.dtype(np.uint8)


def test_a_refusal_of_training_is_an_error_with_its_remedy():
    refusal = "config.train.batch=7 is not divisible by 2 devices: use a multiple of 2."
    finding = cases.only(config.refused_config(cases.context(refusal=refusal)))
    assert finding.severity == "error" and finding.reason == refusal.rstrip(".")
    assert not config.refused_config(cases.context())


@pytest.mark.parametrize(
    "feature, words",
    [
        (Feature((3,), FLOAT), None),
        (Feature((96, 96, 3), BYTE), None),
        (Feature((), np.dtype(object), False), "cast it to float32"),
        (Feature((3, 96, 96), BYTE, False), "channels last"),
        (Feature((96, 96, 3), FLOAT, False), "from 0 to 255"),
        (Feature((3, 96, 96), FLOAT, False), "transpose(1, 2, 0)), store pixels"),
    ],
)
def test_a_column_that_cannot_be_read_is_an_error_that_says_how_to_convert(feature, words):
    features = {"observation/state": feature, "action": Feature((2,), FLOAT)}
    findings = config.unreadable_columns(cases.context(features=features))
    if words is None:
        assert not findings
        return
    finding = cases.only(findings)
    assert finding.severity == "error" and words in finding.remedy
    assert "config.data.columns.state='observation/state'" in finding.reason


def test_a_missing_column_is_named_with_those_that_exist():
    features = {"action": Feature((2,), FLOAT), "observation/pose": Feature((3,), FLOAT)}
    finding = cases.only(config.unreadable_columns(cases.context(features=features)))
    assert "is not in the data" in finding.reason and "observation/pose" in finding.remedy
    changed = cases.make_config()
    changed.data.columns.state = "observation/pose+observation/grip"
    context = cases.context(config=changed, features=features)
    finding = cases.only(config.unreadable_columns(context))
    assert "'observation/grip' of 'observation/pose+" in finding.reason


def test_an_unused_column_is_noted_and_an_unreadable_image_is_a_warning():
    features = {"action": Feature((2,), FLOAT), "observation/state": Feature((3,), FLOAT)}
    assert not config.unused_columns(cases.context(features=features))
    features["observation/force"] = Feature((6,), FLOAT)
    finding = cases.only(config.unused_columns(cases.context(features=features)))
    assert finding.severity == "note" and "observation/force" in finding.reason
    features["observation/wrist"] = Feature((3, 64, 64), BYTE, False)
    warning, note = config.unused_columns(cases.context(features=features))
    assert "observation/wrist" in warning.reason and warning.severity == "warning"
    assert "wrist" not in note.reason


def with_camera(**camera):
    """A context whose config has such a camera of 480 x 640 px."""
    changed = cases.make_config()
    changed.cameras.cam = cases.ConfigDict(dict(size=(480, 640), resize=(), crop=()) | camera)
    return cases.context()._replace(config=changed)


def test_a_crop_that_leaves_out_most_of_the_image_is_named():
    finding = cases.only(config.small_crops(with_camera(crop=(84, 84))))
    assert "2.3%" in finding.reason
    assert "config.cameras.cam.resize=(93, 124)" in finding.remedy
    assert not config.small_crops(with_camera(crop=(84, 84), resize=(93, 124)))
    assert not config.small_crops(with_camera())


def test_a_resize_to_another_shape_is_noted():
    finding = cases.only(config.changed_aspect_ratio(with_camera(resize=(96, 96))))
    assert "1.33" in finding.reason
    assert not config.changed_aspect_ratio(with_camera(resize=(96, 128)))


def test_imagenets_weights_need_imagenets_units():
    context = with_camera()
    context.config.encoder.weights = "resnet18.safetensors"
    finding = cases.only(config.pretrained_units(context))
    assert finding.remedy == "set config.normalize.image=imagenet"
    context.config.normalize.image = "imagenet"
    assert not config.pretrained_units(context)


@pytest.mark.parametrize(
    "rule, key, bad, good",
    [
        (config.batch_size, "train__batch", 1024, 888),
        (config.warmup, "optim__warmup", 300, 100),
        (config.few_passes, "train__steps", 100, 600),
    ],
)
def test_numbers_that_do_not_fit_the_data_are_named(rule, key, bad, good):
    finding = cases.only(rule(cases.context(config=cases.make_config(**{key: bad}))))
    assert finding.severity == "warning" and "config." in finding.remedy
    assert not rule(cases.context(config=cases.make_config(**{key: good})))


def test_meanflow_with_the_time_scale_of_other_methods_is_named():
    steep = cases.make_config(method="meanflow", schedule__num_levels=100)
    finding = cases.only(config.meanflow_time_scale(cases.context(config=steep)))
    assert "num_levels=1" in finding.remedy
    for good in (
        cases.make_config(method="meanflow", schedule__num_levels=1),
        cases.make_config(schedule__num_levels=100),
    ):
        assert not config.meanflow_time_scale(cases.context(config=good))
