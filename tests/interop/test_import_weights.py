"""Imported policies compute the same numbers, in the same units, with every leaf the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checkpoints

from dpjax import import_weights
from dpjax.config import build, cameras
from dpjax.core import normalizer as normalizer_lib
from dpjax.core import spec as spec_lib
from dpjax.core.errors import UserError
from dpjax.diffusion import sampling
from dpjax.export import lerobot as export_lerobot
from dpjax.interop import normalization
from dpjax.interop.imported import ImportedPolicy
from dpjax.nets import augment
from dpjax.runs import imported_run
from dpjax.runs import run as run_lib
from dpjax.training import checkpoint

UNETS = ("global_scale", "global_bias", "inpainting", "local")
TRANSFORMERS = ("cond_mlp", "cond_encoder", "bert")
NETWORKS = [f"dp_unet1d_{n}" for n in UNETS] + [f"dp_transformer_{n}" for n in TRANSFORMERS]
CAMERAS = ("lerobot_image_one_camera", "lerobot_image_two_cameras")


def imported(source, out, *options):
    """The run that the command makes."""
    assert import_weights.main([str(source), "--run", str(out), *options]) == 0
    return run_lib.load(out)


def denoised(run, arrays):
    """The run's network of a golden file's inputs."""
    x, t = jnp.asarray(arrays["in/sample"]), jnp.asarray(arrays["in/timestep"])
    cond = arrays.get("in/cond", arrays.get("in/local_cond"))
    if cond is None:
        flat = arrays.get("in/global_cond", np.zeros((len(x), 0), np.float32))
        cond = flat.reshape(len(x), run.config.horizon.obs if flat.size else 1, -1)
    network = build.denoiser(run.config, run.spec)
    return jax.jit(network.apply)({"params": run.params["denoiser"]}, x, t, jnp.asarray(cond))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_a_checkpoint_of_chi_et_al_gives_their_numbers(name, tmp_path):
    state, cfg, _, arrays = checkpoints.lowdim(name)
    source = checkpoints.save(tmp_path / "epoch=1.ckpt", state, cfg)
    run = imported(source, tmp_path / "run")
    np.testing.assert_allclose(denoised(run, arrays), arrays["out"], rtol=1e-5, atol=1e-5)
    obs = np.random.default_rng(1).normal(size=(3, 2, run.spec.numbers["state"]))
    part = lambda key: state[f"normalizer.params_dict.{key}"]
    got = run.params["normalizer"].normalize({"state": obs})["state"]
    np.testing.assert_allclose(got, obs * part("obs.scale") + part("obs.offset"), atol=1e-5)
    action = run.params["normalizer"].restore("action", jnp.ones(run.spec.action))
    want = (1 - part("action.offset")) / part("action.scale")
    np.testing.assert_allclose(action, want, rtol=1e-5, atol=1e-5)


def test_averaged_weights_are_taken_where_the_config_says_so(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")
    for use, zero in ((True, False), (False, True)):
        cfg["training"]["use_ema"] = use
        source = checkpoints.save(tmp_path / f"{use}.ckpt", state, cfg)
        if zero:  # the raw weights are zeros here, and so are their units
            with pytest.raises(UserError, match=r"scale\[0\]: expected a number from 1e-08 to 1e"):
                imported(source, tmp_path / "raw")
        else:
            imported(source, tmp_path / "ema")


@pytest.mark.parametrize("name, old", list(zip(CAMERAS, (True, False))))
@pytest.mark.slow
def test_lerobots_policy_gives_lerobots_numbers(name, old, tmp_path, monkeypatch):
    folder, meta, arrays = checkpoints.lerobot(tmp_path / "policy", name, old=old)
    run = imported(folder, tmp_path / "run")
    images = np.moveaxis(arrays["images"].astype(np.float32), 3, -1)
    obs = {key: images[:, :, i] for i, key in enumerate(meta["cameras"])}
    obs = jax.tree.map(jnp.asarray, {"state": arrays["state"], **obs})
    noise = jnp.asarray(arrays["noise"])

    def both(params):
        seen = augment.view_observation(cameras.views(run.config.cameras, run.config.augment), obs)
        cond = cameras.encoder(run.config.encoder, run.config.compute, run.spec).apply(
            {"params": params["encoder"]}, seen
        )
        inputs = noise, jnp.asarray(arrays["timestep"]), cond
        network = build.denoiser(run.config, run.spec)
        return cond, network.apply({"params": params["denoiser"]}, *inputs)

    cond, eps = jax.jit(both)(run.params)
    np.testing.assert_allclose(cond.reshape(len(cond), -1), arrays["cond"], atol=1e-4)
    np.testing.assert_allclose(eps, arrays["eps"], atol=1e-4)
    monkeypatch.setattr(sampling, "draw_noise", lambda keys, shape: noise)
    got = jax.jit(run.policy.sample)(run.params, jax.random.key(0), obs)
    np.testing.assert_allclose(got, arrays["sample"], atol=1e-3)


def leaves(run):
    """The params in a run's checkpoint."""
    return checkpoint.load_params(run)[0]


def same(a, b):
    """Whether two trees have the same leaves, bit for bit."""
    equal = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.tobytes() == y.tobytes(), a, b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(equal))


def test_both_of_lerobots_layouts_are_the_same_policy(tmp_path):
    for old in (False, True):
        folder, _, _ = checkpoints.lerobot(tmp_path / f"p{old}", CAMERAS[1], old=old)
        import_weights.main([str(folder), "--run", str(tmp_path / f"r{old}")])
    assert same(leaves(tmp_path / "rTrue"), leaves(tmp_path / "rFalse"))


@pytest.mark.parametrize("name", CAMERAS)
def test_a_round_trip_through_lerobots_layout_loses_no_bit(name, tmp_path):
    folder, _, _ = checkpoints.lerobot(tmp_path / "policy", name)
    import_weights.main([str(folder), "--run", str(tmp_path / "a")])
    export_lerobot.main(["--run", str(tmp_path / "a"), "--out", str(tmp_path / "again")])
    import_weights.main([str(tmp_path / "again"), "--run", str(tmp_path / "b")])
    assert same(leaves(tmp_path / "a"), leaves(tmp_path / "b"))
    old, new = (json.loads((tmp_path / run / "config.json").read_text()) for run in "ab")
    assert old["config"] == new["config"]
    there = json.loads((folder / "config.json").read_text())
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    modes = {**there.pop("normalization_mapping"), "ENV": "MIN_MAX"}
    assert again["normalization_mapping"] == modes
    assert {key: again[key] for key in there} == there


def random_run(folder, settings, observations, seed=0):
    """A run folder of ours with random weights and units, in the place of a trained one."""
    policy = ImportedPolicy("-", settings, observations, 3, {}, None, None, {})
    config = imported_run.config_for(policy, "custom", {})
    spec = spec_lib.Spec(observations, 3, "random")
    rng = np.random.default_rng(seed)
    sizes = {key: 3 if isinstance(n, tuple) else n for key, n in observations.items()}
    draw = lambda low, high: {
        key: rng.uniform(low, high, size).astype(np.float32)
        for key, size in {**sizes, "action": 3}.items()
    }
    normalizer = normalizer_lib.Normalizer(draw(-2, 2), draw(0.5, 3))
    shapes = imported_run.param_shapes(config, spec, normalizer)
    draw_leaf = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
    params = jax.tree.map(draw_leaf, {key: shapes[key] for key in ("encoder", "denoiser")})
    imported_run.write(folder, config, spec, {**params, "normalizer": normalizer}, {})
    return folder


SMALL = {
    "name": "unet1d",
    "widths": (16, 32),
    "kernel_size": 3,
    "groups": 8,
    "time_features": 16,
    "film_scale": True,
}


def camera(*size):
    return {"size": size, "resize": (), "crop": (32, 32)}


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_our_own_run_comes_back_from_lerobots_layout(norm, tmp_path):
    settings = {
        "denoiser": SMALL,
        "encoder": {"keypoints": 4, "features": 8, "norm": norm},
        "cameras": {key: camera(40, 48) for key in ("left", "wrist")},
    }
    observations = {"pose": 2, "left": (40, 48, 3), "gripper": 1, "wrist": (40, 48, 3)}
    run = random_run(tmp_path / "a", settings, observations)
    export_lerobot.main(["--run", str(run), "--out", str(tmp_path / "there")])
    names = ["--observations", "pose=2,gripper=1"]
    import_weights.main([str(tmp_path / "there"), "--run", str(tmp_path / "b"), *names])
    there, here = leaves(run), leaves(tmp_path / "b")
    both = there.pop("normalizer"), here.pop("normalizer")
    assert same(there, here)
    for part in ("offset", "scale"):
        one, other = (getattr(normalizer, part) for normalizer in both)
        for key in one:
            np.testing.assert_allclose(other[key], one[key], rtol=3e-7, atol=1e-6)


def test_units_come_back_bit_for_bit_wherever_float32_limits_can_say_them():
    # Drawn as data draw them, from a minimum and a maximum in float32: such limits exist.
    rng = np.random.default_rng(0)
    low = rng.normal(0, 100, 5000).astype(np.float32)
    high = low + rng.uniform(0.01, 500, 5000).astype(np.float32)
    stats = {"min": low, "max": high}
    offset, scale, _ = normalization.from_lerobot("here", "x", "MIN_MAX", stats, 5000)
    first, second, off = normalization.limits(offset, scale)
    assert not off
    again = normalization.from_lerobot("here", "x", "MIN_MAX", {"min": first, "max": second}, 5000)
    np.testing.assert_array_equal(again[0], offset)
    np.testing.assert_array_equal(again[1], scale)
