"""The ONNX graph of a policy gives dpjax's actions, by ONNX Runtime and by OpenVINO."""

import jax
import numpy as np
import pytest
from support import networks

from dpjax.core.normalizer import Normalizer
from dpjax.export import onnx_graph, onnx_runtimes
from dpjax.export.onnx_plan import reference

# Units of every kind: offset, scale, and a constant among observations and among actions.
UNITS = Normalizer(
    {"keypoints": np.linspace(-3, 9, 18), "agent_pos": np.ones(2), "action": np.array([3.0, 5.0])},
    {
        "keypoints": np.r_[0.0, np.linspace(1, 40, 17)],
        "agent_pos": np.full(2, 7.0),
        "action": np.array([20.0, 0.0]),
    },
)
UNITS = jax.tree.map(np.float32, UNITS)
# {what is tested: changes of the config}; tiny_config has S = 4 of K = 20 levels.
CASES = {
    "ddpm": {"sampler.name": "ddpm"},
    "ddim": {"sampler.name": "ddim", "sampler.spacing": "trailing", "predict": "v"},
    "ddim, eta": {"sampler.name": "ddim", "sampler.eta": 0.7, "predict": "sample"},
    "dpm_solver": {"sampler.name": "dpm_solver"},
    "heun": {"sampler.name": "heun", "predict": "sample"},
    "euler": {"sampler.name": "euler", "schedule.name": "flow", "predict": "velocity"},
    "meanflow": {
        "method": "meanflow",
        "schedule.name": "flow",
        "sampler.name": "euler",
        "predict": "velocity",
        "sampler.num_steps": 2,
    },
    "diffusers 0.11, ddpm": {
        "sampler.name": "ddpm",
        "sampler.diffusers": "0.11",
        "sampler.num_steps": 6,
    },
    "diffusers 0.11, ddim": {
        "sampler.name": "ddim",
        "sampler.diffusers": "0.11",
        "predict": "sample",
    },
    "local": {"condition": "local", "sampler.name": "ddim"},
    "inpaint": {"condition": "inpaint", "sampler.name": "ddpm"},
    "bias only": {"denoiser.film_scale": False, "sampler.name": "ddim"},
}


def policy(name, **changes):
    """(config, spec, params) of a tiny policy with UNITS."""
    config, spec = networks.settings(name, **changes)
    shape = {key: changes[key] for key in changes if key.split(".")[0] in ("method", "condition")}
    shape |= {key: changes[key] for key in changes if key.startswith("denoiser")}
    if "method" in shape:
        shape |= {"schedule.name": "flow", "sampler.name": "euler", "predict": "velocity"}
    return config, spec, {**networks.params_of(name, **shape), "normalizer": UNITS}


def both(runtime, config, spec, params):
    """(actions of the runtime, those of dpjax) for three observations, in network units."""
    model, plan = onnx_graph.build_graph(config, spec, params, {"made": "up"})
    draw = np.random.default_rng(0).normal
    steps, *shape = plan.noise_shape
    noise = draw(size=(steps, 3, *shape)).astype(np.float32)
    obs = {key: draw(5, 9, (3, 2, size)).astype(np.float32) for key, size in spec.numbers.items()}
    got = onnx_runtimes.RUNTIMES[runtime](model.SerializeToString())(noise, obs)
    want = np.asarray(reference(config, spec, params)(noise, obs))
    assert (got[..., 1] == 5).all()  # the constant, exactly
    return got[..., 0] / 20, want[..., 0] / 20


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_gives_dpjax_actions(case):
    got, want = both("onnx", *policy("unet1d", **CASES[case]))
    assert got.shape == want.shape == (3, 8)
    assert want.std() > 0.05  # actions differ, so that agreement says something
    np.testing.assert_allclose(got, want, atol=1e-4)
