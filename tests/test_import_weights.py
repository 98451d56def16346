"""Imported policies are the policies: their numbers, their units, and every leaf of them."""

import json
import os

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_file

from dpjax import build, cameras, export_weights, import_weights
from dpjax.diffusion import samplers
from dpjax.errors import UserError
from dpjax.nets import augment
from dpjax.training import checkpoint

UNETS = ("global_scale", "global_bias", "inpainting", "local")
TRANSFORMERS = ("cond_mlp", "cond_encoder", "bert")
NETWORKS = [f"dp_unet1d_{n}" for n in UNETS] + [f"dp_transformer_{n}" for n in TRANSFORMERS]
CAMERAS = ("lerobot_image_one_camera", "lerobot_image_two_cameras")


def imported(source, out, *options):
    """The run that the command makes."""
    assert import_weights.main([str(source), "--run", str(out), *options]) == 0
    return build.load(out)


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
def test_the_originals_checkpoint_gives_the_originals_numbers(name, tmp_path):
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


@pytest.mark.parametrize("old", [False, True], ids=["processors", "before 0.4"])
@pytest.mark.parametrize("name", CAMERAS)
def test_lerobots_policy_gives_lerobots_numbers(name, old, tmp_path, monkeypatch):
    folder, meta, arrays = checkpoints.lerobot(tmp_path / "policy", name, old=old)
    run = imported(folder, tmp_path / "run")
    images = np.moveaxis(arrays["images"].astype(np.float32), 3, -1)
    obs = {key: images[:, :, i] for i, key in enumerate(meta["cameras"])}
    obs = jax.tree.map(jnp.asarray, {"state": arrays["state"], **obs})
    noise = jnp.asarray(arrays["noise"])

    def both(params):
        seen = augment.see(cameras.views(run.config), obs)
        cond = cameras.encoder(run.config, run.spec).apply({"params": params["encoder"]}, seen)
        inputs = noise, jnp.asarray(arrays["timestep"]), cond
        network = build.denoiser(run.config, run.spec)
        return cond, network.apply({"params": params["denoiser"]}, *inputs)

    cond, eps = jax.jit(both)(run.params)
    np.testing.assert_allclose(cond.reshape(len(cond), -1), arrays["cond"], atol=1e-4)
    np.testing.assert_allclose(eps, arrays["eps"], atol=1e-4)
    monkeypatch.setattr(samplers, "draw_rows", lambda keys, shape: noise)
    got = jax.jit(run.policy.sample)(run.params, jax.random.key(0), obs)
    np.testing.assert_allclose(got, arrays["sample"], atol=1e-3)
