"""What LeRobot's layout can't hold is refused by its name in our config."""

import numpy as np
import pytest

from dpjax.config import defaults
from dpjax.config.checks import flatten
from dpjax.core.errors import UserError
from dpjax.diffusion import schedules
from dpjax.interop import networks
from dpjax.interop.lerobot import writer

TWO = {"state": 3, "top": (96, 96, 3), "hand": (96, 96, 3)}
LEADING = np.arange(100)[::-1]


def settings(**changes):
    """A config that can be exported, with changes."""
    found = flatten(defaults.get_config().to_dict())
    for name in ("top", "hand"):
        found.update({f"cameras.{name}.{key}": [] for key in ("resize", "crop")})
    return {**found, **{key.replace("__", "."): x for key, x in changes.items()}}


def test_what_can_be_exported_passes():
    writer.check(settings(), TWO, LEADING)
    writer.check(settings(), {"keypoints": 18, "agent_pos": 2}, LEADING)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"denoiser__name": "transformer"}, "config.denoiser.name='transformer'"),
        ({"condition": "inpaint"}, "config.condition='inpaint'"),
        ({"method": "meanflow"}, "config.method='meanflow'"),
        ({"schedule__name": "flow"}, "config.schedule.name='flow'"),
        ({"predict": "v"}, "config.predict='v'"),
        ({"sampler__name": "dpm_solver"}, "config.sampler.name='dpm_solver'"),
        ({"sampler__diffusers": "0.11"}, "config.sampler.diffusers='0.11'"),
        ({"sampler__warm_start": 0.5}, "config.sampler.warm_start=0.5"),
        ({"spaces__relative": "pose"}, "config.spaces.relative='pose'"),
        ({"spaces__layouts.pose": "3 quaternion"}, "config.spaces.layouts.pose"),
        ({"encoder__pool": "average"}, "config.encoder.pool='average'"),
        ({"encoder__width": 16}, "config.encoder.width=16"),
        ({"encoder__features": 63}, "config.encoder.features=63"),
        ({"cameras__top.resize": [72, 72]}, r"config.cameras.top.resize=\(72, 72\)"),
        ({"cameras__top.crop": [84, 84]}, "config.cameras=.*cameras of one size and one crop"),
    ],
)
def test_what_it_cannot_express_is_refused_by_name(changes, said):
    with pytest.raises(UserError, match=said):
        writer.check(settings(**changes), TWO, LEADING)


def test_other_steps_than_leading_ones_are_refused():
    trailing = np.asarray(schedules.cosine(100).path(16, "trailing").now.t)
    with pytest.raises(UserError, match="config.sampler.spacing='auto'.*expected 'leading'"):
        writer.check(settings(), TWO, trailing)


def test_one_observation_is_too_few():
    for observations in ({"state": 3}, {"top": (96, 96, 3)}):
        with pytest.raises(UserError, match="expected two observations, one of numbers"):
            writer.check(settings(), observations, LEADING)


def test_the_variance_that_is_written_divides_out_as_one():
    one = np.sqrt(writer.ONE + np.float32(networks.EPSILON))
    assert one == 1 and one.dtype == np.float32


def test_the_grid_is_that_of_lerobots_golden_pool():
    want = [[-1, -1], [1, -1], [-1, 1], [1, 1]]  # 40 x 40 px: maps of 2 x 2, x fastest
    np.testing.assert_array_equal(writer.grid((40, 40)), want)
