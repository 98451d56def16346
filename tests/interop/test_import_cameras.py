"""Image policies of Chi et al.'s code: encoders under other names, features in other orders."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checkpoints

from dpjax import import_weights
from dpjax.config import cameras
from dpjax.core.errors import UserError
from dpjax.nets import resnet
from dpjax.runs import run as run_lib
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

pytestmark = pytest.mark.slow

TWO = "lerobot_image_two_cameras"


def meta_of(name):
    with np.load(checkpoints.GOLDEN / f"{name}.npz") as arrays:
        return json.loads(str(arrays["meta"]))


def imported(source, out, *options):
    """(config and spec, params) of the run that the command makes."""
    import_weights.main([str(source), "--run", str(out), *options])
    return read_config(out), checkpoint.load_params(out)[0]


@pytest.mark.parametrize("name", ["lerobot_image_one_camera", TWO])
def test_the_hybrid_policy_is_lerobots_with_its_features_in_another_order(name, tmp_path):
    meta = meta_of(name)
    folder, _, _ = checkpoints.lerobot(tmp_path / "policy", name)
    _, want = imported(folder, tmp_path / "a")
    state, cfg = checkpoints.hybrid(checkpoints.weights(meta), meta)
    source = checkpoints.save(tmp_path / "hybrid.ckpt", state, cfg)
    (config, spec), got = imported(source, tmp_path / "b")
    assert list(spec.numbers) == ["state"] and list(spec.cameras) == meta["cameras"]
    jax.tree.map(np.testing.assert_array_equal, got["denoiser"], want["denoiser"])
    for one, other in zip(got["encoder"].values(), want["encoder"].values()):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert config.cameras[meta["cameras"][0]].crop == tuple(meta["crop"])
    np.testing.assert_array_equal(got["normalizer"].offset[meta["cameras"][0]], 127.5)
    np.testing.assert_array_equal(got["normalizer"].scale[meta["cameras"][0]], 127.5)


def test_average_pooling_goes_through_a_last_layer_that_changes_nothing(tmp_path):
    meta = meta_of(TWO)
    state, cfg = checkpoints.multi(checkpoints.weights(meta), meta)
    source = checkpoints.save(tmp_path / "multi.ckpt", state, cfg)
    (config, spec), params = imported(source, tmp_path / "run")
    assert list(spec.cameras) == ["left", "wrist"] or list(spec.cameras) == ["wrist", "left"]
    rng = np.random.default_rng(0)
    obs = {key: rng.normal(size=(1, 2, 40, 40, 3)).astype(np.float32) for key in spec.cameras}
    obs["state"] = rng.normal(size=(1, 2, meta["state_dim"])).astype(np.float32)
    network = cameras.encoder(config.encoder, config.compute, spec)

    @jax.jit
    def both(params):
        first = next(iter(spec.cameras))
        backbone = {"params": params["encoders_0"]["backbone"]}
        pooled = resnet.ResNet().apply(backbone, obs[first][0]).mean((1, 2))
        return network.apply({"params": params}, obs)[0], pooled

    features, pooled = both(params["encoder"])
    size = meta["state_dim"]
    np.testing.assert_array_equal(features[:, :size], obs["state"][0])
    np.testing.assert_allclose(features[:, size : size + 512], pooled, rtol=1e-6, atol=1e-6)


def test_columns_follow_the_sorted_names_of_the_cameras(tmp_path):
    meta = meta_of(TWO)
    state, cfg = checkpoints.multi(checkpoints.weights(meta), meta)
    source = checkpoints.save(tmp_path / "multi.ckpt", state, cfg)
    (_, spec), params = imported(source, tmp_path / "run")
    theirs = {"left": 512, "wrist": 512, "state": meta["state_dim"]}
    move = checkpoints.columns(theirs, ["state", *spec.cameras], steps=2)
    weight = state["model.down_modules.0.0.cond_encoder.1.weight"][:, 128:]
    np.testing.assert_array_equal(params["denoiser"]["film"]["obs"][:, :32], weight[:, move].T)


def test_batch_norms_become_what_they_do_in_evaluation(tmp_path):
    meta = meta_of(TWO)
    options = dict(shared=True, statistics=True, random_crop=False, imagenet_norm=True)
    state, cfg = checkpoints.multi(checkpoints.weights(meta), meta, **options)
    source = checkpoints.save(tmp_path / "multi.ckpt", state, cfg)
    (config, _), params = imported(source, tmp_path / "run")
    assert (config.encoder.norm, config.encoder.shared) == ("frozen", True)
    assert config.cameras.left.crop == ()  # with random_crop=False the original crops nothing
    part = lambda name: state[f"obs_encoder.key_model_map.rgb.layer2.0.bn1.{name}"]
    x = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32)
    z = (x - part("running_mean")) / np.sqrt(part("running_var") + 1e-5)
    norm = params["encoder"]["encoders_0"]["backbone"]["stage1_0"]["norm0"]
    got = x * norm["frozen_scale"] + norm["frozen_bias"]
    np.testing.assert_allclose(got, z * part("weight") + part("bias"), rtol=1e-4, atol=1e-5)
    # ImageNet's units of what is in [-1, 1] already: pixels p -> ((2 p/255 - 1) - mean) / std.
    pixels, mean, std = np.array([0.0, 100.0, 255.0]), 0.485, 0.229
    got = params["normalizer"].normalize({"left": jnp.asarray(pixels)[:, None].repeat(3, 1)})
    np.testing.assert_allclose(got["left"][:, 0], (2 * pixels / 255 - 1 - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"eval_fixed_crop": False}, "cfg.policy.eval_fixed_crop: expected True"),
        ({"obs_as_global_cond": False}, "cfg.policy.obs_as_global_cond: expected True"),
        ({"_target_": "x.DiffusionUnetVideoPolicy"}, "cfg.policy._target_: expected 'Diffusion"),
    ],
)
def test_what_dpjax_does_not_have_is_refused_by_name(changes, message, tmp_path):
    meta = meta_of("lerobot_image_one_camera")
    state, cfg = checkpoints.hybrid(checkpoints.weights(meta), meta)
    cfg["policy"].update(changes)
    source = checkpoints.save(tmp_path / "hybrid.ckpt", state, cfg)
    with pytest.raises(UserError, match=message):
        import_weights.main([str(source), "--run", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_an_imported_run_samples_actions_from_images(tmp_path):
    meta = meta_of("lerobot_image_one_camera")
    state, cfg = checkpoints.hybrid(checkpoints.weights(meta), meta)
    source = checkpoints.save(tmp_path / "hybrid.ckpt", state, cfg)
    imported(source, tmp_path / "run", "--set", "sampler.num_steps=10", "--set", "predict=sample")
    run = run_lib.load(tmp_path / "run")
    assert run.config.sampler.diffusers == "0.11"  # fewer steps than levels
    shapes = cameras.observation_shapes(run.spec, 2)
    obs = {key: np.zeros((1, *leaf.shape), leaf.dtype) for key, leaf in shapes.items()}
    assert run.sample_actions(jax.random.key(0), obs).shape == (1, 16, meta["action_dim"])
