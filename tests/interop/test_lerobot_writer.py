"""What LeRobot's policy cannot express is refused by its name."""

import numpy as np
import pytest

from dpjax.config import defaults
from dpjax.core.errors import UserError
from dpjax.diffusion import schedules
from dpjax.interop import resnets
from dpjax.interop.lerobot import writer
from dpjax.runs.imported_run import settings_from_config

TWO = {"state": 3, "top": (96, 96, 3), "hand": (96, 96, 3)}
LEADING = np.arange(100)[::-1]


def settings(changes=()):
    """Settings that can be exported, with changes {"group.name": value}."""
    tree = settings_from_config(defaults.get_config())
    tree["cameras"] = {name: {"resize": [], "crop": []} for name in ("top", "hand")}
    for key, value in dict(changes).items():
        *sections, name = key.split(".")
        section = tree
        for section_name in sections:
            section = section[section_name]
        section[name] = value
    return tree


def test_what_can_be_exported_passes():
    writer.check(settings(), TWO, LEADING)
    writer.check(settings(), {"keypoints": 18, "agent_pos": 2}, LEADING)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"denoiser.name": "transformer"}, "^denoiser.name='transformer'"),
        ({"policy.condition": "inpaint"}, "^policy.condition='inpaint'"),
        ({"policy.method": "meanflow"}, "^policy.method='meanflow'"),
        ({"schedule.name": "flow"}, "^schedule.name='flow'"),
        ({"policy.prediction_type": "v"}, "^policy.prediction_type='v'"),
        ({"sampler.name": "dpm_solver"}, "^sampler.name='dpm_solver'"),
        ({"sampler.diffusers": "0.11"}, "^sampler.diffusers='0.11'"),
        ({"sampler.warm_start": 0.5}, "^sampler.warm_start=0.5"),
        ({"representation.relative": "pose"}, "^representation.relative='pose'"),
        ({"representation.layouts.pose": "3 quaternion"}, "^representation.layouts.pose"),
        ({"encoder.pool": "average"}, "^encoder.pool='average'"),
        ({"encoder.width": 16}, "^encoder.width=16"),
        ({"encoder.features": 63}, "^encoder.features=63"),
        ({"cameras.top.resize": [72, 72]}, r"^cameras.top.resize=\(72, 72\)"),
        ({"cameras.top.crop": [84, 84]}, "^cameras=.*cameras of one size and one crop"),
    ],
)
def test_what_it_cannot_express_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        writer.check(settings(changes), TWO, LEADING)


def test_other_steps_than_leading_ones_are_refused():
    trailing = np.asarray(schedules.cosine(100).path(16, "trailing").now.t)
    with pytest.raises(UserError, match="sampler.spacing='auto'.*expected 'leading'"):
        writer.check(settings(), TWO, trailing)


def test_one_observation_is_too_few():
    for observations in ({"state": 3}, {"top": (96, 96, 3)}):
        with pytest.raises(UserError, match="expected two observations, one of numbers"):
            writer.check(settings(), observations, LEADING)


def test_the_variance_that_is_written_divides_out_as_one():
    one = np.sqrt(writer.UNIT_VARIANCE + np.float32(resnets.EPSILON))
    assert one == 1 and one.dtype == np.float32


def test_the_grid_is_that_of_lerobots_golden_pool():
    want = [[-1, -1], [1, -1], [-1, 1], [1, 1]]  # 40 x 40 px: maps of 2 x 2, x fastest
    np.testing.assert_array_equal(writer.pixel_grid((40, 40)), want)
